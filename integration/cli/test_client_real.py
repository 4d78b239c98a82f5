"""The client and the command line, with a real Kafka, a real Postgres and real processes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator

import pytest

from cli.real_shop import NAMESPACE, Order, Receipt, purchase
from cli.town import PATIENCE, Town, town
from eventually import eventually
from kasaga.client import (
    BlockingClient,
    RejectedStart,
    ResultTimeout,
    SagaCompensated,
    SagaStuck,
    UnknownSaga,
)
from kasaga.dev.servers import KafkaServer
from kasaga.errors import NotApplicable

__all__ = ["town"]


@pytest.fixture
def open_town(town: Town, request: pytest.FixtureRequest) -> Generator[Town]:
    """The town, whose undos work again after a test; its logs are shown where the test fails."""
    yield town
    town.broken.unlink(missing_ok=True)


def test_a_saga_from_start_to_result(open_town: Town) -> None:
    async def scene() -> None:
        async with open_town.client() as client:
            receipt = await client.run(purchase, Order(id="r-1"), id="r-1", timeout=PATIENCE)
            assert receipt == Receipt(order="r-1", shelf="shelf of r-1")
            handle = await client.start(purchase, Order(id="r-2"), id="r-2")
            assert (await handle.result(timeout=PATIENCE)).order == "r-2"
        async with open_town.client("another") as another:
            assert (await another.handle(purchase, "r-1").result(timeout=PATIENCE)).order == "r-1"
            by_name = another.handle("purchase", "r-1")
            assert await by_name.result(timeout=PATIENCE) == {"order": "r-1", "shelf": "shelf of r-1"}
            with pytest.raises(UnknownSaga):
                await another.handle(purchase, "r-99").result(timeout=PATIENCE)

    asyncio.run(scene())


def test_many_at_once(open_town: Town) -> None:
    async def scene() -> None:
        async with open_town.client() as client:
            runs = [
                client.run(purchase, Order(id=f"m-{number}"), id=f"m-{number}", timeout=PATIENCE)
                for number in range(200)
            ]
            receipts = await asyncio.gather(*runs)
            assert [receipt.order for receipt in receipts] == [f"m-{number}" for number in range(200)]

    asyncio.run(scene())


def test_an_id_is_one_saga(open_town: Town) -> None:
    async def scene() -> None:
        async with open_town.client() as client:
            first = await client.start(purchase, Order(id="d-1", wish="wait"), id="d-1")
            for wait in (False, True):
                again = await client.start(purchase, Order(id="d-1", wish="wait"), id="d-1", wait=wait)
                other = await client.start(purchase, Order(id="d-1", wish="other"), id="d-1", wait=wait)
                with pytest.raises(RejectedStart, match="KSG-502"):
                    await other.result(timeout=PATIENCE)
                with pytest.raises(ResultTimeout):
                    await again.result(timeout=2)
                assert again.run_id == first.run_id
            await client.cancel("d-1", reason="enough")
            with pytest.raises(SagaCompensated, match="cancelled by test: enough"):
                await first.result(timeout=PATIENCE)
            # The same start once more, after the end, gives the end; another one is still another one.
            again = await client.start(purchase, Order(id="d-1", wish="wait"), id="d-1")
            with pytest.raises(SagaCompensated):
                await again.result(timeout=PATIENCE)
            other = await client.start(purchase, Order(id="d-1", wish="other"), id="d-1")
            with pytest.raises(RejectedStart):
                await other.result(timeout=PATIENCE)

    asyncio.run(scene())


def test_a_program_without_an_event_loop(open_town: Town) -> None:
    with BlockingClient(NAMESPACE, open_town.kafka, topic_prefix=open_town.prefix) as client:
        assert client.run(purchase, Order(id="b-1"), id="b-1", timeout=PATIENCE).order == "b-1"
        with pytest.raises(SagaCompensated, match="the card is blocked"):
            client.run(purchase, Order(id="b-2", wish="refuse"), id="b-2", timeout=PATIENCE)
        assert client.describe("b-2").state == "COMPENSATED"
        with pytest.raises(NotApplicable):
            client.cancel("b-2")
        with pytest.raises(UnknownSaga):
            client.cancel("b-9")


def test_a_person_starts_and_looks(open_town: Town) -> None:
    start = ("start", "cli.real_shop:app", "purchase", "--wait", "--timeout", str(PATIENCE))
    said = open_town.kasaga(*start, "--id", "p-1", "--input", '{"id": "p-1"}')
    assert (said.status, json.loads(said.out)) == (0, {"order": "p-1", "shelf": "shelf of p-1"})
    said = open_town.kasaga(*start, "--id", "p-2", "--input", '{"id": "p-2", "wish": "refuse"}')
    assert said.status == 3
    assert "KSG-510: saga p-2 was undone" in said.err
    listed = [
        json.loads(line)
        for line in open_town.kasaga("list", "--id-prefix", "p-", "-o", "json").out.splitlines()
    ]
    assert [(row["saga_id"], row["state"]) for row in listed] == [
        ("p-2", "COMPENSATED"),
        ("p-1", "COMPLETED"),
    ]
    described = json.loads(open_town.kasaga("describe", "p-1", "-o", "json").out)
    assert described["result"] == {"order": "p-1", "shelf": "shelf of p-1"}
    told = open_town.kasaga("history", "p-2").out
    assert "goods.pay" in told
    assert "↶ 1  goods.give_back  undone" in told
    assert open_town.kasaga("history", "p-2", "--raw").status == 0


def test_a_stuck_saga_is_explained_and_retried(open_town: Town) -> None:
    async def scene() -> None:
        open_town.broken.touch()
        async with open_town.client() as client:
            handle = await client.start(purchase, Order(id="s-1", wish="refuse"), id="s-1", wait=True)
            with pytest.raises(SagaStuck) as stuck:
                await handle.result(timeout=PATIENCE)
            assert stuck.value.why == "KSG-220"
            told = open_town.kasaga("describe", "s-1").out
            assert "purchase s-1 is STUCK" in told
            assert "the shelf is locked" in told
            assert "kasaga skip s-1 --reason '…'" in told
            open_town.broken.unlink()
            assert open_town.kasaga("retry", "s-1", "--reason", "unlocked").status == 0
            with pytest.raises(SagaCompensated):
                await handle.result(timeout=PATIENCE)
        assert "@    retry            by anna: unlocked" in open_town.kasaga("history", "s-1").out

    asyncio.run(scene())


def test_a_bulk_of_stuck_sagas_is_skipped(open_town: Town) -> None:
    async def scene() -> None:
        open_town.broken.touch()
        async with open_town.client() as client:
            for number in range(5):
                wish = Order(id=f"k-{number}", wish="refuse")
                await client.start(purchase, wish, id=wish.id)
            bulk = ("skip", "--id-prefix", "k-", "--reason", "written off")
            eventually(
                lambda: len(open_town.kasaga(*bulk, "--dry-run", "-o", "json").out.splitlines()) == 5,
                timeout=PATIENCE,
            )
            said = open_town.kasaga(*bulk, "--yes")
            assert (said.status, said.out.splitlines()[-1]) == (0, "5 of 5 sagas skipped")
            for number in range(5):
                with pytest.raises(SagaCompensated):
                    await client.handle(purchase, f"k-{number}").result(timeout=PATIENCE)
        assert "COMPENSATED*" in open_town.kasaga("list", "--id-prefix", "k-").out

    asyncio.run(scene())


def test_a_sleeping_saga_says_so_and_is_cancelled(open_town: Town) -> None:
    started = (
        "start",
        "cli.real_shop:app",
        "purchase",
        "--id",
        "w-1",
        "--input",
        '{"id": "w-1", "wish": "wait"}',
    )
    assert open_town.kasaga(*started).status == 0
    eventually(lambda: "is a sleep" in open_town.kasaga("describe", "w-1").out, timeout=PATIENCE)
    assert open_town.kasaga("cancel", "w-1", "--reason", "changed my mind").out.startswith("w-1: cancelled")
    eventually(lambda: "w-1 is COMPENSATED" in open_town.kasaga("describe", "w-1").out, timeout=PATIENCE)
    said = open_town.kasaga("cancel", "w-1")
    assert said.status == 1
    assert "w-1: not cancelled: KSG-230: the saga is COMPENSATED" in said.out


def test_answers_survive_a_broker_that_goes_away(open_town: Town, kafka: KafkaServer) -> None:
    async def scene() -> None:
        async with open_town.client() as client:
            handle = await client.start(purchase, Order(id="g-1", wish="wait"), id="g-1", wait=True)
            waiting = asyncio.create_task(handle.result(timeout=2 * PATIENCE))
            await asyncio.to_thread(kafka.restart)
            await client.cancel("g-1", timeout=PATIENCE)
            with pytest.raises(SagaCompensated):
                await waiting

    asyncio.run(scene())
