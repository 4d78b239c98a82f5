"""Patience: what the worker does when the database is away, or refuses, or dies under a handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import psycopg
import pytest
from prometheus_client import CollectorRegistry

from kasaga_participant import Refused, Tx
from kasaga_participant import calls as calls_module
from kasaga_participant import outage as outage_module
from kasaga_participant.calls import Calls
from kasaga_participant.inbox.drive import InboxAway, InboxError
from kasaga_participant.inbox.memory import MemoryInbox
from kasaga_participant.inbox.rows import Answer, Rules
from kasaga_participant.jobs import Job
from kasaga_participant.metrics import Metrics
from kasaga_participant.outage import Outage
from kasaga_participant.progress import Room
from kasaga_participant.settings import MAX_HANDLER_KILLS
from kasaga_participant.store import MemoryStore, Plans
from kasaga_participant.tracing import NoTracing
from kasaga_participant.worker import Worker
from kasaga_wire.contracts import contract_of
from kasaga_wire.schema import Schemas
from participant.services import Inventory, Order, Reservation
from participant.test_dispatch import NOW, Bench

LOST = psycopg.OperationalError("the connection is lost")
ORDER = contract_of(Inventory).commands["reserve"].input.encode(Order(id="o"))

Fault = Callable[[list[Job]], Exception]


class Moody(MemoryStore):
    """Fails as often as it was told, before it works."""

    def __init__(self, faults: Sequence[Exception]) -> None:
        super().__init__(MemoryInbox())
        self.faults = list(faults)
        self.tries = 0

    async def settle(self, plans: Plans, calls: Calls, *, sync: bool) -> list[Answer]:
        self.tries += 1
        if self.faults:
            raise self.faults.pop(0)
        return await super().settle(plans, calls, sync=sync)


class Desk:
    def __init__(self, jobs: int = 1) -> None:
        self.bench = Bench()
        self.jobs = [self.bench.job(f"r{n}.1", value=ORDER) for n in range(jobs)]
        self.answers: list[tuple[str, str]] = []
        self.room = Room(100, 100_000)
        self.metrics = Metrics(CollectorRegistry())

    def run(self, *faults: Exception, stop: bool = False) -> tuple[Moody, list[Job]]:
        async def main() -> tuple[Moody, list[Job]]:
            store = Moody(faults)
            outage = Outage(self.room, self.metrics)
            calls = Calls(Schemas(), self.metrics, NoTracing())
            rules = Rules(86_400, 2 * 86_400)
            worker = Worker(
                store, rules, calls, outage, self._answered, self._no_schemas, clock=NOW.timestamp
            )
            if stop:
                outage.stop()
            given_up = await worker.run(self.jobs, sync=False)
            return store, given_up

        return asyncio.run(main())

    def _answered(self, job: Job, answer: Answer) -> None:
        self.answers.append((job.work.id, answer.outcome))

    async def _no_schemas(self) -> None:
        raise AssertionError("nothing is unknown here")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage_module, "BACKOFF_FIRST_SECONDS", 0.001)


def test_a_database_that_is_away_is_waited_for() -> None:
    desk = Desk(2)
    store, given_up = desk.run(*[InboxAway(LOST)] * 5)

    assert (store.tries, given_up) == (6, [])
    assert desk.answers == [("r0.1", "done"), ("r1.1", "done")]
    assert desk.room.wait(0) > 0  # open again


def test_a_database_in_a_bad_state_is_waited_for() -> None:
    desk = Desk()
    desk.run(InboxError(psycopg.errors.UndefinedTable("no inbox"), content=False))
    assert desk.answers == [("r0.1", "done")]


def test_a_handler_that_loses_its_connection_each_time_fails_in_the_end() -> None:
    desk = Desk()
    store, _ = desk.run(*[InboxAway(LOST, during=desk.jobs[0].work)] * MAX_HANDLER_KILLS)

    assert store.tries == MAX_HANDLER_KILLS
    assert desk.answers == [("r0.1", "failed")]


def test_a_connection_lost_under_one_of_many_makes_each_run_alone() -> None:
    desk = Desk(3)
    store, _ = desk.run(InboxAway(LOST, during=desk.jobs[1].work))

    assert store.tries == 1 + 3
    assert [outcome for _, outcome in desk.answers] == ["done"] * 3


def test_only_the_record_that_the_database_refuses_fails() -> None:
    desk = Desk(3)
    refused = InboxError(psycopg.errors.ProgramLimitExceeded("too much"), content=True)
    store, _ = desk.run(refused, refused)  # all together, then the first one alone

    assert store.tries == 1 + 3
    assert desk.answers == [("r0.1", "failed"), ("r1.1", "done"), ("r2.1", "done")]


async def refuse(order: Order, tx: Tx) -> Reservation:
    raise Refused("sold out")


@pytest.mark.parametrize(("risk", "tries"), [(0.0, 2), (1.0, 1)])
def test_who_raises_spoils_at_most_one_try(risk: float, tries: int) -> None:
    """The second one has savepoints; a handler that is known to raise often has them from the beginning."""
    desk = Desk(3)
    handler = desk.bench.registry.handlers["inventory.reserve"]
    handler.call, handler.behaviour.risk = refuse, risk
    store, _ = desk.run()

    assert store.tries == tries
    assert [outcome for _, outcome in desk.answers] == ["refused"] * 3


def test_who_stops_does_not_wait_for_the_database() -> None:
    desk = Desk(2)
    _, given_up = desk.run(InboxAway(LOST), stop=True)

    assert given_up == desk.jobs
    assert desk.answers == []


def test_who_has_lost_the_partitions_does_not_wait_either() -> None:
    desk = Desk()
    desk.bench.progress.active = False

    async def main() -> list[Job]:
        outage = Outage(desk.room, desk.metrics)
        worker = Worker(
            Moody([InboxAway(LOST)]),
            Rules(1, 2),
            Calls(Schemas(), desk.metrics, NoTracing()),
            outage,
            desk._answered,  # pyright: ignore[reportPrivateUsage]
            desk._no_schemas,  # pyright: ignore[reportPrivateUsage]
        )
        return await worker.run(desk.jobs, sync=False)

    assert asyncio.run(main()) == desk.jobs


def test_a_handler_that_runs_for_long_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(calls_module, "SLOW_HANDLER_SECONDS", 0.0)
    bench = Bench()
    job = bench.job("r.1", value=ORDER)
    calls = Calls(Schemas(), Metrics(CollectorRegistry()), NoTracing())

    async def look(order: Order, tx: Tx) -> Reservation:
        calls.warn_of_slow()
        return Reservation(number=1)

    handler = bench.registry.handlers["inventory.reserve"]
    handler.call = look
    calls.prepare(job)
    asyncio.run(calls.call(job.work, None, None))
    calls.warn_of_slow()

    assert [record.getMessage() for record in caplog.records] == [
        "inventory.reserve has been running for 0 s"
    ]
