"""Who may ask, from where, how much, and how many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from api.desk_api import INPUT, Desk, is_problem, settings, soon
from cli.tales import Tale
from kasaga.api import ApiSettings
from kasaga.api.errors import Unguarded
from kasaga.settings import SettingsInvalid

TOKEN = "correct-horse-battery"
BODY = {"saga_id": "o-1", "name": "payment", "input": INPUT}
JSON = {"Content-Type": "application/json"}


def with_token(**more: Any) -> Desk:
    return Desk(settings=settings(token=SecretStr(TOKEN), **more))


def test_a_token_is_asked_for_wherever_there_is_one() -> None:
    desk = with_token()
    desk.keep(Tale(1).reserved())

    async def scene(caller: httpx.AsyncClient) -> None:
        for path in ("/api/v1/sagas", "/api/v1/sagas/o-1", "/api/v1/counts", "/api/v1/definitions"):
            said = await caller.get(path)
            is_problem(said, 401, "KSG-542")
            assert said.headers["www-authenticate"].startswith("Bearer")
        is_problem(await caller.post("/api/v1/sagas", json=BODY), 401, "KSG-542")
        for wrong in (f"Bearer {TOKEN}x", "Bearer", f"Basic {TOKEN}", TOKEN, "Bearer \xff"):
            headers = {b"Authorization": wrong.encode("latin-1")}
            is_problem(await caller.get("/api/v1/sagas/o-1", headers=headers), 401, "KSG-542")
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert (await caller.get("/api/v1/sagas/o-1", headers=right)).status_code == 200
        assert (await caller.post("/api/v1/sagas", json=BODY, headers=right)).status_code == 202

    desk.play(scene)


def test_what_needs_no_token() -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        for path in ("/live", "/ready", "/api/v1/openapi.json"):
            assert (await caller.get(path)).status_code == 200

    with_token().play(scene)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.0.0.1", "api.example.org", "localhost.example.org", ""]
)
def test_an_address_that_others_reach_needs_a_token(host: str) -> None:
    with pytest.raises(Unguarded, match="KSG-541"):
        settings(host=host)
    assert settings(host=host, token=SecretStr(TOKEN)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_a_loopback_address_needs_none(host: str) -> None:
    assert settings(host=host).loopback


@pytest.mark.parametrize("token", ["", "short", "with a space in between", "tabulator\tin between", "é" * 20])
def test_a_token_that_is_none(token: str, tmp_path: Any) -> None:
    given = {"KASAGA_DATABASE_URL": "x", "KASAGA_KAFKA_BOOTSTRAP_SERVERS": "x:1"}
    (tmp_path / "token").write_text(f"{token}\n")
    with pytest.raises(SettingsInvalid, match="KASAGA_API_TOKEN") as refused:
        ApiSettings.from_env({**given, "KASAGA_API_TOKEN_FILE": str(tmp_path / "token")})
    assert not token or token not in str(refused.value)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    made = ApiSettings.from_env({**given, "KASAGA_API_TOKEN_FILE": str(tmp_path / "token")})
    assert made.token == SecretStr(TOKEN)
    assert TOKEN not in repr(made)


def test_settings_from_the_environment() -> None:
    made = ApiSettings.from_env(
        {
            "KASAGA_DATABASE_URL": "postgresql://u:p@h/d",
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": "k:1",
            "KASAGA_API_PORT": "81",
            "KASAGA_API_ALLOWED_HOSTS": "one.example, two.example",
            "KASAGA_HTTP_PORT": "82",
        },
        max_waiters=3,
    )
    assert (made.port, made.http_port, made.max_waiters) == (81, 82, 3)
    assert made.allowed_hosts == ("one.example", "two.example")
    with pytest.raises(SettingsInvalid, match="KASAGA_API_PORT"):
        ApiSettings.from_env(
            {"KASAGA_DATABASE_URL": "x", "KASAGA_KAFKA_BOOTSTRAP_SERVERS": "k:1"}, port=70000
        )
    with pytest.raises(SettingsInvalid, match="KASAGA_DATABASE_URL"):
        ApiSettings.from_env({"KASAGA_KAFKA_BOOTSTRAP_SERVERS": "k:1"})
    with pytest.raises(SettingsInvalid, match="KASAGA_API_TOKEN_FILE"):
        ApiSettings.from_env({"KASAGA_API_TOKEN_FILE": "/nowhere/token"})


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("127.0.0.1:8080", True),
        ("127.0.0.1", True),
        ("localhost:9", True),
        ("LocalHost:9", True),
        ("[::1]:8080", True),
        ("kasaga.test:8080", True),
        ("evil.example", False),
        ("evil.example:8080", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example#localhost", False),
        ("[::1].evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_foreign_name_for_this_machine_is_refused(host: str, allowed: bool) -> None:
    """DNS rebinding: a page of evil.example binds that name to 127.0.0.1 and asks as itself."""

    async def scene(caller: httpx.AsyncClient) -> None:
        said = await caller.get("/api/v1/sagas", headers={"Host": host})
        if allowed:
            assert said.status_code == 200
        else:
            is_problem(said, 421, "KSG-543")

    Desk(settings=settings(allowed_hosts=("kasaga.test",))).play(scene)


def test_behind_a_token_any_name_will_do_unless_some_are_named() -> None:
    right = {"Authorization": f"Bearer {TOKEN}"}

    async def open_to_all(caller: httpx.AsyncClient) -> None:
        said = await caller.get("/api/v1/sagas", headers={**right, "Host": "orders.example"})
        assert said.status_code == 200

    async def open_to_one(caller: httpx.AsyncClient) -> None:
        said = await caller.get("/api/v1/sagas", headers={**right, "Host": "other.example"})
        is_problem(said, 421, "KSG-543")
        said = await caller.get("/api/v1/sagas", headers={**right, "Host": "orders.example:444"})
        assert said.status_code == 200

    with_token(host="0.0.0.0").play(open_to_all)
    desk = with_token(host="0.0.0.0", allowed_hosts=("orders.example",))

    desk.play(open_to_one, "http://orders.example")


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 202, ""),
        ({"Origin": "http://127.0.0.1:8080"}, 202, ""),
        ({"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}, 202, ""),
        ({"Sec-Fetch-Site": "none"}, 202, ""),
        ({"Content-Type": "application/json; charset=utf-8"}, 202, ""),
        ({"Content-Type": "APPLICATION/JSON"}, 202, ""),
        ({"Origin": "http://evil.example"}, 403, "KSG-544"),
        ({"Origin": "http://127.0.0.1:9999"}, 403, "KSG-544"),
        ({"Origin": "null"}, 403, "KSG-544"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "KSG-544"),
        ({"Sec-Fetch-Site": "same-site"}, 403, "KSG-544"),
        ({"Content-Type": "text/plain"}, 415, "KSG-545"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415, "KSG-545"),
        ({"Content-Type": "multipart/form-data"}, 415, "KSG-545"),
        ({"Content-Type": ""}, 415, "KSG-545"),
    ],
)
def test_a_foreign_page_changes_nothing(headers: dict[str, str], status: int, code: str) -> None:
    desk = Desk()

    async def scene(caller: httpx.AsyncClient) -> None:
        said = await caller.post("/api/v1/sagas", json=BODY, headers={**JSON, **headers})
        if code:
            is_problem(said, status, code)
            assert desk.starts == []
        else:
            assert said.status_code == status, said.text
        # Nobody is told that another origin may read the answer.
        assert not [name for name in said.headers if name.startswith("access-control")]

    desk.play(scene)


def test_an_action_without_a_body_and_a_type_is_refused() -> None:
    """What a foreign page can send without being asked has no type at all."""
    desk = Desk()
    desk.keep(Tale(1).reserved())

    async def scene(caller: httpx.AsyncClient) -> None:
        is_problem(await caller.post("/api/v1/sagas/o-1/cancel"), 415, "KSG-545")
        assert desk.owner.asked == []

    desk.play(scene)


def test_a_body_has_a_size() -> None:
    desk = Desk(settings=settings(max_body_bytes=1000))

    async def pieces(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b" " * 100

    async def scene(caller: httpx.AsyncClient) -> None:
        is_problem(await caller.post("/api/v1/sagas", content=b" " * 1001, headers=JSON), 413, "KSG-546")
        is_problem(await caller.post("/api/v1/sagas", content=pieces(11), headers=JSON), 413, "KSG-546")
        is_problem(await caller.post("/api/v1/sagas", content=pieces(10), headers=JSON), 400, "KSG-545")
        liar = {**JSON, "Content-Length": "9" * 30}
        is_problem(await caller.post("/api/v1/sagas", content=b"{}", headers=liar), 413, "KSG-546")

    desk.play(scene)


def test_so_many_requests_at_once() -> None:
    desk = Desk(settings=settings(max_requests=2))

    async def scene(caller: httpx.AsyncClient) -> None:
        waiting = [
            asyncio.create_task(caller.get(f"/api/v1/sagas/o-{n}/result", params={"wait": 0.5}))
            for n in (1, 2)
        ]
        backend = desk.served
        await soon(lambda: backend.ends.taken == 2)
        said = await caller.get("/api/v1/sagas")
        is_problem(said, 503, "KSG-547")
        assert said.headers["retry-after"]
        await asyncio.gather(*waiting)
        assert (await caller.get("/api/v1/sagas")).status_code == 200

    desk.play(scene)


def test_what_every_answer_says() -> None:
    async def scene(caller: httpx.AsyncClient) -> None:
        for path in ("/api/v1/sagas", "/api/v1/sagas/nobody", "/api/v1/nothing"):
            headers = (await caller.get(path)).headers
            assert (headers["x-content-type-options"], headers["cache-control"]) == ("nosniff", "no-store")

    Desk().play(scene)


def test_a_bug_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()

    def broken(point: str) -> None:
        if point == "list_sagas":
            raise ZeroDivisionError("postgresql://u:secret@h/d")

    desk.store._fault = broken  # pyright: ignore[reportPrivateUsage]

    async def scene(caller: httpx.AsyncClient) -> None:
        told = is_problem(await caller.get("/api/v1/sagas"), 500, "KSG-599")
        assert "secret" not in str(told)

    with caplog.at_level(logging.ERROR, "kasaga.api"):
        desk.play(scene)
    assert [record.exc_info is not None for record in caplog.records] == [True]
