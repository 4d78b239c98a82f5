"""Signals, updates and queries with a real Kafka, a real Postgres and an orchestrator that is killed."""

from __future__ import annotations

import asyncio

import pytest

from cli.real_shop import Approval, Note, Order, asking
from cli.town import PATIENCE, Town, town
from kasaga.client import UnknownSaga
from kasaga.errors import QueryFailed, SagaOver, SignalRefused, UpdateRefused

__all__ = ["town"]


def kill_orchestrator(town: Town) -> None:
    """It dies where it stands, and another takes its place."""
    process = town.running[0]
    process.kill()
    town.running[0] = town.process(
        "orchestrator", ["-m", "kasaga", "orchestrator", f"{town.shop}:app"], town.environment
    )


def test_a_signal_goes_on_with_a_saga(town: Town) -> None:
    async def scene() -> None:
        async with town.client() as client:
            handle = await client.start(asking, Order(id="s-1"), id="s-1")
            key = await client.signal("s-1", "approved", Approval(by="anna"))
            assert await handle.result(timeout=PATIENCE) == "anna"
            assert await client.signal("s-1", "approved", Approval(by="anna"), key=key) == key
            with pytest.raises(SagaOver):
                await client.signal("s-1", "approved", Approval(by="bob"))
            with pytest.raises(UnknownSaga):
                await client.signal("s-99", "approved", Approval(by="bob"))

    asyncio.run(scene())


def test_signals_updates_and_queries_outlive_a_kill(town: Town) -> None:
    async def scene() -> None:
        async with town.client() as client:
            handle = await client.start(asking, Order(id="s-2"), id="s-2")
            assert await client.update("s-2", "note", Note(text="first"), int, key="n1") == 1
            with pytest.raises(UpdateRefused, match="an empty note"):
                await client.update("s-2", "note", Note(text=""))
            with pytest.raises(SignalRefused, match="declares no signal"):
                await client.signal("s-2", "aproved", Approval(by="anna"))
            kill_orchestrator(town)
            assert await client.query("s-2", "notes", list[str], timeout=PATIENCE) == ["first"]
            assert await client.update("s-2", "note", Note(text="first"), key="n1") == 1
            assert await client.update_json("s-2", "note", '{"text": "second"}') == 2
            with pytest.raises(QueryFailed, match="it answers notes"):
                await client.query("s-2", "nots")
            await client.signal("s-2", "hurry")
            await client.signal_json("s-2", "approved", '{"by": "json"}', key="a")
            kill_orchestrator(town)
            assert await handle.result(timeout=PATIENCE) == "json"
            await client.signal_json("s-2", "approved", '{"by": "json"}', key="a")
            assert await client.query("s-2", "notes") == ["first", "second"]

    asyncio.run(scene())


def test_a_signal_that_comes_before_its_saga_is_kept_over_a_kill(town: Town) -> None:
    async def scene() -> None:
        async with town.client() as client:
            await client.signal("s-3", "approved", Approval(by="early"), keep=True)
            kill_orchestrator(town)
            handle = await client.start(asking, Order(id="s-3"), id="s-3")
            assert await handle.result(timeout=PATIENCE) == "early"

    asyncio.run(scene())


def test_the_command_line(town: Town) -> None:
    async def begin() -> None:
        async with town.client() as client:
            await client.start(asking, Order(id="s-4"), id="s-4")

    asyncio.run(begin())
    assert town.kasaga("update", "s-4", "note", "--value", '{"text": "by hand"}').out.strip() == "1"
    assert "by hand" in town.kasaga("query", "s-4", "notes").out
    assert "for a signal approved" in town.kasaga("describe", "s-4").out
    refused = town.kasaga("signal", "s-4", "approved", "--value", '{"by": 7}')
    assert (refused.status, "KSG-233" in refused.err) == (1, True)
    assert town.kasaga("signal", "s-4", "approved", "--value", '{"by": "cli"}').status == 0
    assert "taken by step 1" in town.kasaga("history", "s-4").out
