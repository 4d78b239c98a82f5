"""Events that sagas emit, on a real Kafka: each there, with the same id however often, whoever dies."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from eventually import eventually
from kasaga.store.base import SagaState
from kasaga_wire.headers import Headers
from kasaga_wire.kafka import Consumer, Record
from orchestrator.realm import Realm
from raw_kafka import create_topic

PARTITIONS = 3
POINTS = (
    "orchestrator.before_commit:3",
    "orchestrator.after_commit:3",
    "orchestrator.after_produce:3",
    "orchestrator.at_ack:9",
)


class Reader:
    """All that a topic has, by the saga that emitted it."""

    def __init__(self, realm: Realm, topic: str) -> None:
        self._consumer = Consumer(realm.settings, group=f"{topic}.test")
        self._consumer.assign({(topic, partition): 0 for partition in range(PARTITIONS)})
        self.found: dict[str, list[Record]] = defaultdict(list)

    def read(self) -> dict[str, list[Record]]:
        for record in self._consumer.consume(500, 0.1):
            if isinstance(record, Record):
                self.found[header(record, "ce_subject")].append(record)
        return self.found

    def close(self) -> None:
        self._consumer.close()


def header(record: Record, name: str) -> str:
    headers: Headers = [(key, value) for key, value in record.headers if value is not None]
    return dict(headers)[name].decode()


def emitted(realm: Realm, prefix: str, topic: str, sagas: int, point: str = "") -> None:
    """Run sagas that emit to a topic, some while their owner dies."""
    doomed = realm.owner(KASAGA_CRASH_AT=point) if point else None
    for number in range(sagas):
        realm.start("herald", f"{prefix}{number}", note=topic)
    realm.flush()
    if doomed is not None:
        doomed.wait_until_killed()
    realm.wait_until_over(prefix, sagas)


@pytest.mark.parametrize("point", POINTS)
def test_each_event_is_published_though_its_process_dies(peopled: Realm, prefix: str, point: str) -> None:
    topic = f"news.{prefix}"
    create_topic(peopled.kafka.bootstrap, topic, PARTITIONS)
    emitted(peopled, prefix, topic, 24, point)
    rows = {row.saga_id: row for row in peopled.audit(prefix)}
    assert {row.state for row in rows.values()} == {SagaState.COMPLETED}

    reader = Reader(peopled, topic)
    try:
        eventually(lambda: sum(len(told(each)) for each in reader.read().values()) == 24 * 3)
    finally:
        reader.close()
    for saga_id, records in reader.found.items():
        assert told(records) == {
            f"{rows[saga_id].run_id}.event.{number}": what
            for number, what in enumerate(("asked", "booked", "sent"), 1)
        }
        assert {header(each, "content-type") for each in records} == {"application/json"}
        assert {each.key for each in records} == {saga_id.encode(), b"hotels"}
        assert {"sent": True} in [json.loads(each.value or b"") for each in records]


def told(records: list[Record]) -> dict[str, str]:
    """What was told under which id; the same id never tells two things."""
    found: dict[str, str] = {}
    for record in records:
        what = header(record, "ce_type")
        assert found.setdefault(header(record, "ce_id"), what) == what
    return found


def test_an_event_for_a_topic_that_is_not_there_yet_waits_for_it(peopled: Realm, prefix: str) -> None:
    topic = f"news.{prefix}"
    peopled.start("herald", f"{prefix}0", note=topic)
    peopled.flush()
    eventually(lambda: [row.state for row in peopled.sagas(prefix)] == [SagaState.COMPLETED])

    create_topic(peopled.kafka.bootstrap, topic, PARTITIONS)
    peopled.wait_until_over(prefix, 1)
    [row] = peopled.audit(prefix)
    reader = Reader(peopled, topic)
    try:
        eventually(lambda: len(told(reader.read()[row.saga_id])) == 3)
    finally:
        reader.close()
