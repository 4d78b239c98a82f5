"""Pause, resume and terminate, with a real Kafka, a real Postgres and an orchestrator that is killed."""

from __future__ import annotations

import asyncio
import json
from signal import SIGTERM
from typing import Any

import psycopg
import pytest

from cli.real_shop import Approval, Note, Order, Receipt, asking, purchase
from cli.test_signals_real import kill_orchestrator
from cli.town import PATIENCE, Town, town
from eventually import eventually
from kasaga.client import BlockingClient, NoAnswer, SagaCompensated, SagaWasTerminated
from kasaga.errors import NotApplicable

__all__ = ["town"]


def described(town: Town, saga_id: str) -> Any:
    return json.loads(town.kasaga("describe", saga_id, "-o", "json").out)


def stop_service(town: Town) -> None:
    town.running[1].stop(SIGTERM, 10.0)


def start_service(town: Town) -> None:
    environment = {**town.environment, "KASAGA_DATABASE_URL": town.own}
    town.running[1] = town.process("service", ["-m", town.shop], environment)


def inbox(town: Town) -> dict[str, str]:
    """What the participant has of each command."""
    with psycopg.connect(town.own) as connection:
        return dict(connection.execute("SELECT id, outcome FROM kasaga_inbox.inbox").fetchall())


def test_a_paused_saga_goes_on_where_it_was_after_kills(town: Town) -> None:
    async def scene() -> None:
        async with town.client() as client:
            handle = await client.start(asking, Order(id="z-1"), id="z-1")
            status = await handle.pause(reason="a deployment", by="anna")
            assert (status.state, status.reason) == ("PAUSED", "paused by anna: a deployment")
            await client.signal("z-1", "approved", Approval(by="ben"))
            kill_orchestrator(town)
            assert await client.query("z-1", "notes", list[str], timeout=PATIENCE) == []
            with pytest.raises(NoAnswer):
                await client.update("z-1", "note", Note(text="kept"), int, key="n", timeout=2)
            told = described(town, "z-1")
            assert (told["state"], told["paused"]["by"], told["paused"]["reason"]) == (
                "PAUSED",
                "anna",
                "a deployment",
            )
            assert told["waits_for"][0]["text"].startswith("for `kasaga resume`: anna paused it ")
            assert told["remedies"][0]["command"] == "kasaga resume z-1"
            kill_orchestrator(town)
            assert (await handle.resume(timeout=PATIENCE)).state == "RUNNING"
            assert await handle.result(timeout=PATIENCE) == "ben"
            assert await client.update("z-1", "note", Note(text="kept"), int, key="n") == 1

    asyncio.run(scene())
    history = town.kasaga("history", "z-1").out
    assert "by anna: a deployment" in history
    assert "PAUSED" in history


def test_an_answer_that_comes_meanwhile_leads_to_nothing_until_the_resume(town: Town) -> None:
    with BlockingClient(town.namespace, town.kafka, topic_prefix=town.prefix) as client:
        stop_service(town)
        handle = client.start(purchase, Order(id="z-2"), id="z-2")
        eventually(lambda: described(town, "z-2")["state"] == "RUNNING")
        assert client.pause("z-2").state == "PAUSED"
        with pytest.raises(NotApplicable, match="PAUSED already"):
            client.pause("z-2")
        start_service(town)
        eventually(lambda: described(town, "z-2")["steps"][0]["state"] == "answered")
        assert len(described(town, "z-2")["steps"]) == 1
        client.resume("z-2")
        assert handle.result(timeout=PATIENCE) == Receipt(order="z-2", shelf="shelf of z-2")


def test_a_cancel_waits_for_the_resume(town: Town) -> None:
    async def scene() -> None:
        async with town.client() as client:
            handle = await client.start(purchase, Order(id="z-3", wish="wait"), id="z-3")
            await asyncio.to_thread(
                eventually,
                lambda: described(town, "z-3")["steps"][0]["state"] == "done",
            )
            await handle.pause()
            assert (await handle.cancel(reason="enough")).state == "PAUSED"
            assert "cancelled by test: enough" in described(town, "z-3")["reason"]
            await handle.resume()
            with pytest.raises(SagaCompensated, match="cancelled by test: enough"):
                await handle.result(timeout=PATIENCE)

    asyncio.run(scene())


def test_a_terminated_saga_says_what_it_leaves_and_fences_what_is_open(town: Town) -> None:
    async def scene() -> None:
        async with town.client() as client:
            stop_service(town)
            handle = await client.start(purchase, Order(id="z-4"), id="z-4")
            await asyncio.to_thread(eventually, lambda: described(town, "z-4")["state"] == "RUNNING")
            kill_orchestrator(town)
            status = await handle.terminate(reason="the shop is closed", timeout=PATIENCE)
            assert status.state == "TERMINATED"
            assert status.reason == (
                "terminated by test: the shop is closed; it leaves may have happened: 1 (goods.take)"
            )
            with pytest.raises(SagaWasTerminated, match="the shop is closed") as raised:
                await handle.result(timeout=PATIENCE)
            assert (raised.value.code, raised.value.why) == ("KSG-513", "KSG-261")
            start_service(town)

    asyncio.run(scene())
    told = described(town, "z-4")
    assert told["leaves"] == [
        {"step": "1", "name": "goods.take", "what": "unknown", "compensation": "goods.give_back"}
    ]
    assert "void goods.take" in town.kasaga("history", "z-4").out
    run_id = told["run_id"]
    eventually(lambda: {f"{run_id}.1", f"{run_id}.1~void"} <= inbox(town).keys())


def test_in_bulk_with_a_dry_run(town: Town) -> None:
    async def begin() -> None:
        async with town.client() as client:
            for number in range(30):
                await client.start(asking, Order(id=f"zb-{number}"), id=f"zb-{number}")

    asyncio.run(begin())
    choose = ("--id-prefix", "zb-")
    eventually(lambda: town.kasaga("list", *choose, "--count", "-o", "json").out.count('"RUNNING": 30') == 1)
    dry = town.kasaga("pause", *choose, "--dry-run", "-o", "json")
    lines = [json.loads(line) for line in dry.out.splitlines()]
    assert len(lines) == 30
    assert all(line["fits"] and line["outcome"] == "dry_run" for line in lines)
    assert '"PAUSED": 0' in town.kasaga("list", *choose, "--count", "-o", "json").out
    assert town.kasaga("pause", *choose, "--yes", "--bulk-id", "b1").out.endswith("30 of 30 sagas paused\n")
    again = town.kasaga("pause", *choose, "--state", "PAUSED", "--yes", "--bulk-id", "b1")
    assert (again.status, again.out.splitlines()[-1]) == (0, "30 of 30 sagas paused")
    other = town.kasaga("pause", *choose, "--state", "PAUSED", "--yes")
    assert (other.status, other.out.splitlines()[-1]) == (1, "0 of 30 sagas paused, 30 not")
    assert "PAUSED already" in other.out
    dry = town.kasaga("terminate", *choose, "--state", "PAUSED", "--dry-run", "--reason", "test")
    assert dry.out.count("ends as it is; it leaves nothing") == 30
    ended = town.kasaga(
        "terminate", *choose, "--state", "PAUSED", "--yes", "--reason", "t", "--bulk-id", "b2"
    )
    assert ended.out.endswith("30 of 30 sagas terminated\n")
    again = town.kasaga("terminate", "zb-0", "--reason", "t", "--bulk-id", "b2")
    assert (again.status, "zb-0: terminated, now TERMINATED" in again.out) == (0, True)
