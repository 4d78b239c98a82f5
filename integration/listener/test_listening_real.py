"""Records of anybody's topics on a real Kafka: each begins one saga or is one signal, whoever dies."""

from __future__ import annotations

import json
import uuid
from collections.abc import Generator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from cli.town import Town
from eventually import eventually
from kasaga.dev.process import Process
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.base import SagaFilter, SagaRow, SagaState
from kasaga.store.postgres import PostgresStore
from kasaga_wire.kafka import Consumer, Record
from kasaga_wire.topics import Topics
from raw_kafka import create_topic, flushes, producer

PARTITIONS = 3
PATIENCE = 60.0


class Hearing(Town):
    """A namespace that listens, and who tells it things."""

    shop = "listener.hearing_shop"
    namespace = "hearing"

    def __init__(self, folder: Path, kafka: KafkaServer, database: str) -> None:
        super().__init__(folder, kafka, database, database)
        self.bootstrap = kafka.bootstrap
        self.environment.update({"KASAGA_LEASE_SECONDS": "1.5", "KASAGA_HEARTBEAT_SECONDS": "0.3"})
        self.orders, self.payments = f"{self.prefix}shop.orders", f"{self.prefix}payments.settled"
        self.later = f"{self.prefix}made.later"
        for topic in (self.orders, self.payments):
            create_topic(kafka.bootstrap, topic, PARTITIONS)
        self.sender: Producer = producer(kafka.bootstrap)
        self.store = PostgresStore(database)
        self.topics = Topics(self.namespace, self.prefix)

    def orchestrator(self, name: str, **environment: str) -> Process:
        """One more process."""
        arguments = ["-m", "kasaga", "orchestrator", f"{self.shop}:app"]
        process = self.process(name, arguments, {**self.environment, **environment})
        self.running.append(process)
        return process

    def begin(self) -> None:
        said = self.kasaga("migrate", "--namespace", self.namespace, "--shards", "4")
        assert said.status == 0, said.err
        self.place("o-before")  # anybody listens: nobody ever hears of it
        assert flushes(self.sender)
        self.orchestrator("first")
        eventually(lambda: self.listens("first"), timeout=PATIENCE)

    def listens(self, name: str) -> bool:
        """Whether a process reads, for the first time, all partitions that there are."""
        log = (self.folder / f"{name}.log").read_text(errors="replace")
        assert all(process.ended() is None for process in self.running), log[-5000:]
        return all(
            log.count(f"{topic}/{n} at") == 1 for topic in (self.orders, self.payments) for n in range(3)
        )

    def tell(self, topic: str, event: object, kind: str = "OrderPlaced", **more: bytes) -> None:
        value = event if isinstance(event, bytes) else json.dumps(event).encode()
        headers: list[tuple[str, str | bytes | None]] = [("ce_type", kind), *more.items()]
        self.sender.produce(topic, value, headers=headers)

    def place(self, order_id: str, total: int = 10) -> None:
        self.tell(self.orders, {"order_id": order_id, "total": total})

    def settle(self, order_id: str, amount: int = 10) -> None:
        self.tell(self.payments, {"order_id": order_id, "amount": amount}, "Settled")

    def sagas(self, prefix: str = "") -> list[SagaRow]:
        assert flushes(self.sender)
        return self.store.list_sagas(SagaFilter(saga_id_prefix=prefix), limit=1000)

    def done(self, prefix: str, count: int) -> bool:
        rows = self.sagas(prefix)
        assert len(rows) <= count
        return len(rows) == count and {row.state for row in rows} == {SagaState.COMPLETED}

    def dead_letters(self) -> list[dict[str, str]]:
        """The headers of all of them."""
        consumer = Consumer(self.kafka, group=f"{self.prefix}test")
        try:
            place = (self.topics.orchestrator_dead_letters, 0)
            _, end = consumer.watermarks(*place)
            consumer.assign({place: 0})
            found: list[dict[str, str]] = []
            while len(found) < end:
                for each in consumer.consume(100, 1.0):
                    if isinstance(each, Record):
                        found.append({n: v.decode("utf-8", "replace") for n, v in each.headers if v})
            return found
        finally:
            consumer.close()

    def close(self) -> None:
        self.end()
        self.store.close()


@pytest.fixture
def hearing(tmp_path: Path, kafka: KafkaServer, postgres: PostgresServer) -> Generator[Hearing]:
    name = f"t{uuid.uuid4().hex[:8]}"
    made = Hearing(tmp_path, kafka, postgres.create_database(name))
    try:
        made.begin()
        yield made
    finally:
        made.close()
        postgres.drop_database(name)


def test_an_event_begins_a_saga_and_another_goes_on_with_it(hearing: Hearing) -> None:
    hearing.place("o-1")
    hearing.place("o-2", total=9)  # too small
    hearing.tell(hearing.orders, {"order_id": "o-3", "total": 10}, "OrderDeclined")
    eventually(lambda: [row.saga_id for row in hearing.sagas("o-")] == ["o-1"], timeout=PATIENCE)
    assert "for a signal settled" in hearing.kasaga("describe", "o-1").out
    hearing.settle("o-1", 70)
    eventually(lambda: hearing.done("o-", 1), timeout=PATIENCE)
    history = hearing.kasaga("history", "o-1").out
    assert f"started by kafka:{hearing.orders}:" in history
    assert f"kafka:{hearing.payments}:" in history
    assert "o-1 paid 70" in history
    assert hearing.dead_letters() == []


@pytest.mark.parametrize("point", ["listener.after_produce", "listener.after_commit"])
def test_each_event_counts_once_though_its_reader_dies(hearing: Hearing, point: str) -> None:
    hearing.running.pop().kill()
    doomed = hearing.orchestrator("doomed", KASAGA_CRASH_AT=point)
    for number in range(20):
        hearing.place(f"o-{number}")
    assert flushes(hearing.sender)
    eventually(lambda: doomed.ended() is not None, timeout=PATIENCE)
    hearing.running.remove(doomed)
    hearing.orchestrator("heir")
    for number in range(20):
        hearing.settle(f"o-{number}", number)
    eventually(lambda: hearing.done("o-", 20), timeout=PATIENCE)
    assert hearing.dead_letters() == []


def test_processes_come_and_go(hearing: Hearing) -> None:
    for number in range(60):
        if number == 20:
            hearing.orchestrator("second")
        if number == 40:
            hearing.running.pop(0).kill()
        hearing.place(f"o-{number}")
        hearing.settle(f"o-{number}")
        assert flushes(hearing.sender)
    eventually(lambda: hearing.done("o-", 60), timeout=PATIENCE)
    assert hearing.dead_letters() == []


def test_what_is_garbage_is_set_aside_and_nothing_waits_for_it(hearing: Hearing) -> None:
    hearing.tell(hearing.orders, b"\xff{")
    hearing.tell(hearing.orders, {"order_id": 7})
    hearing.tell(hearing.orders, {"order_id": "o\n", "total": 10})
    hearing.tell(hearing.payments, b"[" * 10_000)
    hearing.sender.produce(hearing.payments, b"x" * 950_000)
    hearing.place("o-1")
    hearing.place("o-1", total=11)  # the id is taken, with another input
    hearing.settle("o-1")
    eventually(lambda: hearing.done("o-", 1), timeout=PATIENCE)
    eventually(lambda: len(hearing.dead_letters()) == 6, timeout=PATIENCE)
    letters = hearing.dead_letters()
    codes = sorted(letter["kasaga_dlq_code"] for letter in letters)
    assert codes == ["KSG-231"] + ["KSG-270"] * 5
    assert all("kasaga_dlq_offset" in letter for letter in letters)


def test_a_topic_that_is_made_later_is_read_from_its_beginning(hearing: Hearing) -> None:
    create_topic(hearing.bootstrap, hearing.later, PARTITIONS)
    hearing.tell(hearing.later, {"order_id": "first", "total": 1})
    eventually(lambda: hearing.done("note:", 1), timeout=PATIENCE)
    [row] = hearing.sagas("note:")
    assert row.saga_id.startswith(f"note:{hearing.later}:")


def test_a_signal_may_come_before_the_start(hearing: Hearing) -> None:
    hearing.settle("o-1", 5)
    log = hearing.folder / "first.log"
    assert flushes(hearing.sender)
    hearing.running.pop().kill()
    hearing.orchestrator("heir")
    hearing.place("o-1")
    eventually(lambda: hearing.done("o-", 1), timeout=PATIENCE)
    assert "dead letter" not in log.read_text()
