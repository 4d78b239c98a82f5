"""The namespace's topics: made or checked at start, counted while the relay runs, schemas published."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from kasaga_wire.codec import Schema
from kasaga_wire.errors import DeliveryError, KafkaUnavailable
from kasaga_wire.kafka import Admin, Producer
from kasaga_wire.topics import Topics

from ..saga import App

log = logging.getLogger("kasaga.orchestrator")

RECOUNT_SECONDS = 30.0
ABSENT_SECONDS = 1.0


class Counter:
    """Partition counts of topics, asked of Kafka now and then: participants may add partitions."""

    def __init__(self, admin: Admin) -> None:
        self._admin = admin
        self._known: dict[str, tuple[int, float]] = {}

    def count(self, topic: str) -> int:
        """Return a topic's partitions; raises DeliveryError (permanent) where there is no such topic."""
        count, until = self._known.get(topic, (0, 0.0))
        now = time.monotonic()
        if now >= until:
            try:
                count = self._admin.partitions([topic]).get(topic, 0)
            except KafkaUnavailable:
                if not count:
                    raise DeliveryError("_TRANSPORT", "no broker answers", permanent=False) from None
            self._known[topic] = (count, now + (RECOUNT_SECONDS if count else ABSENT_SECONDS))
        if not count:
            raise DeliveryError("UNKNOWN_TOPIC_OR_PART", f"there is no topic {topic}", permanent=True)
        return count


def ensure(admin: Admin, app: App, topics: Topics, shards: int) -> None:
    """Create the namespace's topics and its participants', or check those that are there.

    Raises TopicRefused, TopicMismatch, KafkaUnavailable.
    """
    specs = topics.orchestrator_specs(shards)
    for name in app.contracts:
        specs += topics.participant_specs(name)
    for report in admin.ensure_topics(specs):
        if report.created:
            log.info("topic created", extra={"topic": report.name, "partitions": report.partitions})
        for warning in report.warnings:
            log.warning(warning, extra={"topic": report.name})


def publish(producer: Producer, topics: Topics, schemas: Iterable[Schema], timeout: float = 30.0) -> None:
    """Put schemas on the compacted topic and wait until they are there; the same again changes nothing.

    Raises KafkaUnavailable.
    """
    failed: list[DeliveryError] = []

    def on_ack(error: DeliveryError | None) -> None:
        if error is not None:
            failed.append(error)

    for schema in schemas:
        producer.produce(topics.schemas, 0, str(schema.id).encode(), schema.json.encode(), None, on_ack)
    if producer.flush(timeout) or failed:
        reason = str(failed[0]) if failed else f"not acknowledged within {timeout:g} s"
        raise KafkaUnavailable(f"schemas can't be published on {topics.schemas}: {reason}")
