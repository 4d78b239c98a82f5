"""`kasaga api`: what it refuses before it serves, and what it serves with."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from cli.shell import Shell
from kasaga.api import serve
from kasaga.api.settings import ApiSettings


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[ApiSettings]:
    """The settings that would have been served with."""
    for name in ("HOST", "PORT", "TOKEN", "TOKEN_FILE"):
        monkeypatch.delenv(f"KASAGA_API_{name}", raising=False)
    monkeypatch.delenv("KASAGA_HTTP_PORT", raising=False)
    found: list[ApiSettings] = []
    monkeypatch.setattr(serve, "run", found.append)
    return found


def test_on_loopback_by_default(shell: Shell, served: list[ApiSettings]) -> None:
    assert shell("api").status == 0
    (settings,) = served
    assert (settings.host, settings.port, settings.token, settings.loopback) == (
        "127.0.0.1",
        8080,
        None,
        True,
    )
    assert settings.database_url.get_secret_value() == "memory"
    assert settings.kafka.bootstrap == "nowhere:1"


def test_flags_and_variables(
    shell: Shell, served: list[ApiSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KASAGA_API_TOKEN", "0123456789abcdef")
    monkeypatch.setenv("KASAGA_API_PORT", "1")
    said = shell("api", "--host", "0.0.0.0", "--port", "81", "--http-port", "82", "--namespace", "orders")
    assert said.status == 0, said.err
    (settings,) = served
    assert (settings.host, settings.port, settings.http_port) == ("0.0.0.0", 81, 82)
    assert settings.namespace == "orders"
    assert settings.token is not None


def test_no_token_no_address_for_others(shell: Shell, served: list[ApiSettings]) -> None:
    said = shell("api", "--host", "0.0.0.0")
    assert (said.status, served) == (1, [])
    assert said.err.startswith("kasaga: KSG-541")
    assert "KASAGA_API_TOKEN_FILE" in said.err


def test_no_database(shell: Shell, served: list[ApiSettings]) -> None:
    del shell.environment["KASAGA_DATABASE_URL"]
    assert "KSG-522" in shell("api").err


def test_without_the_extra(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "kasaga.api.serve")
    gone: Any = None
    monkeypatch.setitem(sys.modules, "uvicorn", gone)
    said = shell("api")
    assert (said.status, said.err.startswith("kasaga: KSG-528")) == (1, True), said.err
    assert "kasaga[api]" in said.err
