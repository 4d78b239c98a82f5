"""What the API says of sagas."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx

from api.desk_api import Desk
from cli.tales import Tale


def ask(desk: Desk, work: Callable[[httpx.AsyncClient], Awaitable[None]]) -> None:
    async def act() -> None:
        async with desk.serving() as caller:
            await work(caller)

    asyncio.run(act())


def test_where_a_saga_stands() -> None:
    desk = Desk()
    desk.keep(Tale(3).reserved().charge_refused().release_fails())

    async def work(caller: httpx.AsyncClient) -> None:
        said = await caller.get("/api/v1/sagas/o-3")
        assert said.status_code == 200, said.text
        told = said.json()
        assert (told["saga_id"], told["state"], told["code"]) == ("o-3", "STUCK", "KSG-220")
        assert told["input"] == {"id": "o-1", "lines": 2}
        assert told["waits_for"][0]["name"] == "inventory.release"
        missing = await caller.get("/api/v1/sagas/nobody")
        assert missing.status_code == 404
        assert missing.headers["content-type"] == "application/problem+json"
        assert missing.json()["code"] == "KSG-504"

    ask(desk, work)


def test_an_id_with_a_slash_in_it() -> None:
    desk = Desk()
    desk.keep(Tale(1, saga_id="2026/11%2F?#é/history").reserved())

    async def work(caller: httpx.AsyncClient) -> None:
        said = await caller.get("/api/v1/sagas/2026%2F11%252F%3F%23%C3%A9%2Fhistory")
        assert said.status_code == 200, said.text
        assert said.json()["saga_id"] == "2026/11%2F?#é/history"

    ask(desk, work)
