"""The process around the application: probes from other threads, and an address that can't be had."""

from __future__ import annotations

import asyncio
import time

import pytest
import uvicorn

from api.desk_api import Desk
from kasaga.api.errors import CannotListen
from kasaga.api.serve import HANG_SECONDS, Server, listen


def server(desk: Desk) -> Server:
    return Server(uvicorn.Config(desk.app(), log_config=None), desk.served)


def test_an_event_loop_that_hangs_is_not_live(monkeypatch: pytest.MonkeyPatch) -> None:
    made = server(Desk())
    assert made.live()[0]
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + HANG_SECONDS + 1)
    well, about = made.live()
    assert not well
    assert about["quiet_seconds"]
    asyncio.run(made.on_tick(1))
    assert made.live()[0]


def test_ready_before_and_after_serving() -> None:
    made = server(Desk())
    assert made.ready() == (False, {"reason": "starting"})
    made.should_exit = True
    assert made.ready() == (False, {"reason": "stopping"})


def test_an_address_in_use() -> None:
    first = listen("127.0.0.1", 0)
    try:
        with pytest.raises(CannotListen, match="KSG-550"):
            listen("127.0.0.1", first.getsockname()[1])
    finally:
        first.close()
    with pytest.raises(CannotListen):
        listen("192.0.2.1", 0)
    with pytest.raises(CannotListen):
        listen("no.such.host.invalid", 0)
