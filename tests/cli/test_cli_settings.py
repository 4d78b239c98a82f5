"""Variables that look like settings and are none: said when a process starts, and only then."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from cli.shell import Shell
from kasaga.api import serve
from kasaga.api.settings import ApiSettings, api_variable
from kasaga.settings import OTHERS, Settings, SettingsInvalid, strays, variable_of

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "orchestrator" / "README.md").read_text()
SOURCES = (
    "orchestrator/kasaga",
    "participants/kasaga_participant",
    "schemas/kasaga_wire",
    "helm",
    ".ci",
    "integration",
)
NAME = re.compile(r"\bKASAGA_[A-Z_]*[A-Z]\b(?![…{%_<])")
API = [api_variable(name) for name in ApiSettings.model_fields if name != "kafka"]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("KASAGA_LEASE_SECOND", "KASAGA_LEASE_SECONDS"),
        ("KASAGA_LEASE_SECOND_FILE", "KASAGA_LEASE_SECONDS"),
        ("KASAGA_DATABSE_URL", "KASAGA_DATABASE_URL"),
        ("KASAGA_HTP_PORT", "KASAGA_HTTP_PORT"),
        ("KASAGA_KAFAK_BOOTSTRAP_SERVERS", "KASAGA_KAFKA_BOOTSTRAP_SERVERS"),
        ("KASAGA_LOGLEVEL", "KASAGA_LOG_LEVEL"),
    ],
)
def test_a_mistyped_setting_is_told_with_the_nearest_name(variable: str, meant: str) -> None:
    assert strays({variable: "9090", "PATH": "/bin"}) == [(variable, meant)]


def test_the_api_judges_its_own_variables_and_no_other_process_does() -> None:
    mistyped = {"KASAGA_API_MAX_WAIT_SECS": "5"}
    assert strays(mistyped) == []
    assert strays(mistyped, api=API) == [("KASAGA_API_MAX_WAIT_SECS", "KASAGA_API_MAX_WAIT_SECONDS")]
    assert strays(dict.fromkeys(API, "1") | {"KASAGA_API_TOKEN_FILE": "t"}, api=API) == []


def test_kubernetes_own_variables_are_left_alone() -> None:
    links = {
        "KASAGA_API_SERVICE_HOST": "10.0.0.1",
        "KASAGA_API_SERVICE_PORT": "80",
        "KASAGA_API_SERVICE_PORT_HTTP": "80",
        "KASAGA_API_PORT": "tcp://10.0.0.1:80",
        "KASAGA_API_PORT_80_TCP": "tcp://10.0.0.1:80",
        "KASAGA_API_PORT_80_TCP_PROTO": "tcp",
        "KASAGA_ORCHESTRATOR_PORT": "tcp://10.0.0.2:9090",
        "KASAGA_ORCHESTRATOR_PORT_9090_TCP_ADDR": "10.0.0.2",
    }
    assert strays(links) == []
    assert strays(links, api=API) == []


def test_every_variable_that_the_code_and_the_chart_know_is_left_alone() -> None:
    known: set[str] = set()
    for folder in SOURCES:
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and file.suffix in (".py", ".yaml", ".tpl", ".sh", ""):
                known |= set(NAME.findall(file.read_text(encoding="utf-8", errors="ignore")))
    assert {"KASAGA_NAMESPACES", "KASAGA_CRASH_AT", "KASAGA_DRILL", *OTHERS} <= known
    known.discard("KASAGA_D")  # the beginning of others, in a test
    assert strays(dict.fromkeys(known, "1")) == []


def nothing(*given: object) -> None:
    """In the place of what would serve, or take the logs over."""


@pytest.fixture
def mistyped(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """An environment with a setting that is none."""
    monkeypatch.setenv("KASAGA_LEASE_SECOND", "a-secret")
    monkeypatch.setattr("kasaga.cli.serve.configure_logs", nothing)
    monkeypatch.setattr("kasaga.cli.api.configure_logs", nothing)
    caplog.set_level(logging.WARNING, "kasaga.cli")
    return caplog


@pytest.mark.parametrize("command", [("orchestrator", "no.such:app"), ("api",)])
def test_a_process_says_it_in_one_line_without_the_value(
    shell: Shell,
    mistyped: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
) -> None:
    monkeypatch.setattr(serve, "run", nothing)
    shell(*command)
    said = [record.getMessage() for record in mistyped.records if record.name == "kasaga.cli"]
    assert said == ["KASAGA_LEASE_SECOND is no setting and does nothing; the nearest is KASAGA_LEASE_SECONDS"]
    mistyped.clear()
    shell("list")
    assert mistyped.records == []


def test_the_remedy_names_the_table_that_has_them_all() -> None:
    assert "orchestrator/README.md#settings" in SettingsInvalid("x").remedy
    assert "\n## Settings\n" in GUIDE
    table = GUIDE.partition("\n## Settings\n")[2].partition("\n## ")[0]
    assert all(f"`{variable_of(name)}`" in table for name in Settings.model_fields if name != "kafka")
