"""Schedules on real servers: each due time begins one saga, whoever dies; and what people do with them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from cli.town import Town
from eventually import eventually
from kasaga.dev.process import Process
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.base import SagaFilter, SagaState
from kasaga.store.postgres import PostgresStore

PATIENCE = 60.0


def ended(process: Process) -> bool:
    return process.ended() is not None


class Scheduled(Town):
    """A namespace with schedules."""

    shop = "schedules.scheduled_shop"
    namespace = "scheduled"

    def __init__(self, folder: Path, kafka: KafkaServer, database: str) -> None:
        super().__init__(folder, kafka, database, database)
        self.environment.update({"KASAGA_LEASE_SECONDS": "1.5", "KASAGA_HEARTBEAT_SECONDS": "0.3"})
        self.store = PostgresStore(database)
        said = self.kasaga("migrate", "--namespace", self.namespace, "--shards", "2")
        assert said.status == 0, said.err

    def orchestrator(self, name: str, **environment: str) -> Process:
        arguments = ["-m", "kasaga", "orchestrator", f"{self.shop}:app"]
        process = self.process(name, arguments, {**self.environment, **environment})
        self.running.append(process)
        return process

    def dues(self) -> list[datetime]:
        """Of the sagas that have been completed."""
        where = SagaFilter(saga_id_prefix="beat@", states=[SagaState.COMPLETED])
        ids = [row.saga_id for row in self.store.list_sagas(where, limit=1000)]
        assert len(ids) == len(set(ids))
        return sorted(datetime.fromisoformat(saga_id.partition("@")[2]) for saga_id in ids)

    def completed(self, saga_id: str) -> bool:
        row = self.store.saga(saga_id)
        return row is not None and row.state is SagaState.COMPLETED


@pytest.fixture
def scheduled(tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer) -> Generator[Scheduled]:
    name = f"t{uuid.uuid4().hex[:8]}"
    made = Scheduled(tmp_path, kafka, postgres.create_database(name))
    try:
        yield made
    finally:
        made.end()
        made.store.close()
        postgres.drop_database(name)


def test_each_due_time_begins_one_saga_though_owners_die(scheduled: Scheduled) -> None:
    """Killed after the plan, after the decision, and between Kafka's acknowledgement and the record of it."""
    for number, point in enumerate(("after_plan", "after_decision", "after_produce")):
        doomed = scheduled.orchestrator(f"doomed{number}", KASAGA_CRASH_AT=f"scheduler.{point}")
        eventually(partial(ended, doomed), timeout=PATIENCE)
        scheduled.running.remove(doomed)
    scheduled.orchestrator("heir")
    scheduled.orchestrator("other")
    before = scheduled.dues()
    eventually(lambda: len(scheduled.dues()) >= len(before) + 5, timeout=PATIENCE)

    def whole() -> bool:
        dues = scheduled.dues()
        return all(b - a == timedelta(seconds=1) for a, b in pairwise(dues))

    eventually(whole, timeout=PATIENCE)


def test_the_last_saga_makes_room_for_the_next_one(scheduled: Scheduled) -> None:
    doomed = scheduled.orchestrator("doomed", KASAGA_CRASH_AT="scheduler.after_cancel")
    eventually(partial(ended, doomed), timeout=PATIENCE)
    scheduled.running.remove(doomed)
    scheduled.orchestrator("heir")

    def undone() -> list[str]:
        where = SagaFilter(saga_id_prefix="slow@", states=[SagaState.COMPENSATED])
        return sorted(row.saga_id for row in scheduled.store.list_sagas(where, limit=1000))

    eventually(lambda: len(undone()) >= 3, timeout=PATIENCE)
    history = scheduled.kasaga("history", undone()[0]).out
    assert "schedule:slow" in history
    assert "is due" in history
    where = SagaFilter(saga_id_prefix="slow@", states=[SagaState.RUNNING])
    assert len(scheduled.store.list_sagas(where, limit=1000)) <= 1


def test_what_people_do(scheduled: Scheduled) -> None:
    scheduled.orchestrator("one")
    eventually(lambda: len(scheduled.dues()) >= 1, timeout=PATIENCE)
    listed = {
        each["name"]: each for each in json.loads(scheduled.kasaga("schedule", "list", "-o", "json").out)
    }
    assert listed["yearly"]["next_due"].endswith("-12-31T23:00:00+00:00")
    assert listed["beat"]["overlap"] == "allow"
    assert "paused" in scheduled.kasaga("schedule", "pause", "beat", "--reason", "too loud").out
    said = scheduled.kasaga("schedule", "describe", "beat").out
    assert "paused by anna: too loud" in said
    begun = json.loads(scheduled.kasaga("schedule", "trigger", "beat", "-o", "json").out)["saga_id"]
    eventually(lambda: scheduled.completed(begun), timeout=PATIENCE)
    new_year = ("--from", "2024-12-31T00:00Z", "--to", "2026-01-01T00:00Z")
    assert "2 to begin" in scheduled.kasaga("schedule", "backfill", "yearly", *new_year).out
    for year in (2024, 2025):
        eventually(partial(scheduled.completed, f"yearly@{year}-12-31T23:00:00Z"), timeout=PATIENCE)
    assert "started by schedule:yearly" in scheduled.kasaga("history", "yearly@2025-12-31T23:00:00Z").out
    assert "resumed" in scheduled.kasaga("schedule", "resume", "beat").out
    count = len(scheduled.dues())
    eventually(lambda: len(scheduled.dues()) > count, timeout=PATIENCE)
    wrong = scheduled.kasaga("schedule", "trigger", "monthly")
    assert (wrong.status, "KSG-281" in wrong.err) == (1, True)
    assert "KSG-282" in scheduled.kasaga("schedule", "backfill", "beat", *new_year).err
