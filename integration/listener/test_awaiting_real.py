"""Sagas that await events by a key, on a real Kafka and a real Postgres: each is given each event once."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from pathlib import Path

import pytest

from eventually import eventually
from kasaga.dev.servers import KafkaServer, PostgresServer
from listener.test_listening_real import PATIENCE, Hearing
from raw_kafka import flushes


class Awaiting(Hearing):
    """A namespace whose sagas' ids say nothing of the orders that payments are about."""

    shop = "listener.awaiting_shop"

    def begin(self) -> None:
        said = self.kasaga("migrate", "--namespace", self.namespace, "--shards", "4")
        assert said.status == 0, said.err
        self.orchestrator("first")
        eventually(lambda: self.listens("first"), timeout=PATIENCE)


@pytest.fixture
def awaiting(tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer) -> Generator[Awaiting]:
    name = f"t{uuid.uuid4().hex[:8]}"
    made = Awaiting(tmp_path, kafka, postgres.create_database(name))
    try:
        made.begin()
        yield made
    finally:
        made.close()
        postgres.drop_database(name)


def test_people_see_what_is_awaited(awaiting: Awaiting) -> None:
    awaiting.settle("o-9", 1)  # for nobody yet
    awaiting.place("o-1")
    eventually(lambda: len(awaiting.sagas("saga-")) == 1, timeout=PATIENCE)
    awaited = f"event {awaiting.payments} with key 'o-1'"
    assert f"for a {awaited}" in awaiting.kasaga("describe", "saga-o-1").out
    awaiting.settle("o-1", 4)
    awaiting.settle("o-1", 6)
    eventually(lambda: awaiting.done("saga-", 1), timeout=PATIENCE)
    told = awaiting.kasaga("history", "saga-o-1")
    history = told.out
    assert awaited in history, told.err
    assert f"kafka:{awaiting.payments}:" in history
    assert "o-1 paid 10" in history
    awaiting.place("o-9", 1)  # its payment came long before
    eventually(lambda: awaiting.done("saga-", 2), timeout=PATIENCE)
    assert awaiting.dead_letters() == []


def test_an_event_is_given_once_though_its_keepers_die(awaiting: Awaiting) -> None:
    awaiting.running.pop().kill()
    doomed = [
        awaiting.orchestrator(point, KASAGA_CRASH_AT=point)
        for point in ("listener.before_keep", "listener.after_keep")
    ]
    for number in range(10):
        awaiting.place(f"o-{number}", 10)
        awaiting.settle(f"o-{number}", 10)
        assert flushes(awaiting.sender)
    eventually(lambda: all(each.ended() is not None for each in doomed), timeout=PATIENCE)
    awaiting.running.clear()
    awaiting.orchestrator("heir")
    eventually(lambda: awaiting.done("saga-", 10), timeout=PATIENCE)
    assert awaiting.dead_letters() == []


def test_orchestrators_are_killed_while_records_and_waits_race(awaiting: Awaiting) -> None:
    awaiting.orchestrator("second")
    for number in range(60):
        if number % 15 == 7:
            awaiting.running.pop(0).kill()
            awaiting.orchestrator(f"heir-{number}")
        tells = [awaiting.place, awaiting.settle] if number % 2 else [awaiting.settle, awaiting.place]
        for tell in tells:
            tell(f"o-{number}", 10)
        awaiting.settle(f"o-{number}", 10)  # one more than anybody awaits
        assert flushes(awaiting.sender)
    eventually(lambda: awaiting.done("saga-", 60), timeout=PATIENCE)
    assert awaiting.dead_letters() == []
