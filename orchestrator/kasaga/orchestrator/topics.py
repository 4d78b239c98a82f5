"""The namespace's topics: made or checked at start, counted while the relay runs, schemas published."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

from kasaga_wire.codec import Schema
from kasaga_wire.errors import DeliveryError, KafkaUnavailable
from kasaga_wire.kafka import Admin, Producer
from kasaga_wire.topics import Topics

from ..saga import App

log = logging.getLogger("kasaga.orchestrator")

RECOUNT_SECONDS = 30.0
ABSENT_SECONDS = 1.0
ASK_SECONDS = 1.0
"""The loop stands still while it asks."""
ASK_AGAIN_SECONDS = 5.0
"""After a question that no broker answered."""


class Counter:
    """Partition counts of topics, asked of Kafka now and then: participants may add partitions.

    One question for all topics, and none while no broker answers: the last known count serves.
    """

    def __init__(self, admin: Admin, seconds: Callable[[], float] = time.monotonic) -> None:
        self._admin = admin
        self._seconds = seconds
        self._counts: dict[str, int] = {}
        self._until = self._silent = 0.0

    def count(self, topic: str) -> int:
        """Return a topic's partitions; raises DeliveryError, permanent where there is no such topic."""
        now = self._seconds()
        if now >= self._silent and (now >= self._until or topic not in self._counts):
            self._ask(topic)
        count = self._counts.get(topic)
        if count is None:
            raise DeliveryError("_TRANSPORT", "no broker answers", permanent=False)
        if not count:
            raise DeliveryError("UNKNOWN_TOPIC_OR_PART", f"there is no topic {topic}", permanent=True)
        return count

    def _ask(self, topic: str) -> None:
        wanted = {*self._counts, topic}
        try:
            found = self._admin.partitions(wanted, timeout=ASK_SECONDS)
        except KafkaUnavailable:
            self._silent = self._seconds() + ASK_AGAIN_SECONDS
            return
        self._counts = {name: found.get(name, 0) for name in wanted}
        self._until = self._seconds() + (RECOUNT_SECONDS if all(self._counts.values()) else ABSENT_SECONDS)


def ensure(admin: Admin, app: App, topics: Topics, shards: int) -> None:
    """Create the namespace's topics and its participants', or check those that are there.

    Raises TopicRefused, TopicMismatch, KafkaUnavailable.
    """
    specs = topics.orchestrator_specs(shards)
    for name in app.contracts:
        specs += topics.participant_specs(name)
    reports = admin.ensure_topics(specs)
    for report in reports:
        if report.created:
            log.info("topic created", extra={"topic": report.name, "partitions": report.partitions})
    warned = [report for report in reports if report.warnings]
    if warned:
        # One line for all: in development there is one broker, and every topic has the same to say.
        said = {"topics": [report.name for report in warned], "first": warned[0].warnings[0]}
        log.warning("topics that would not survive everything", extra=said)


def publish(producer: Producer, topics: Topics, schemas: Iterable[Schema], timeout: float = 30.0) -> None:
    """Put schemas on the compacted topic and wait until they are there; the same again changes nothing.

    Then the producer is known to be ready: shards that it takes don't wait for it.

    Raises KafkaUnavailable.
    """
    failed: list[DeliveryError] = []

    def on_ack(error: DeliveryError | None) -> None:
        if error is not None:
            failed.append(error)

    for number, schema in enumerate(schemas):
        key, value = str(schema.id).encode(), schema.json.encode()
        if number == 0:
            producer.produce_by_each(topics.schemas, 0, key, value, on_ack)
        else:
            producer.produce(topics.schemas, 0, key, value, None, on_ack)
    if producer.flush(timeout) or failed:
        reason = str(failed[0]) if failed else f"not acknowledged within {timeout:g} s"
        raise KafkaUnavailable(f"schemas can't be published on {topics.schemas}: {reason}")
