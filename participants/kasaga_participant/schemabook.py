"""The schemas of others, from the compacted topics of the namespaces, and our own on them.

Station: filled before the first command is read, and again when a payload names a schema that nobody knows
yet. Everything here blocks; the runtime calls it in a thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from kasaga_wire.errors import KafkaFailure, KafkaUnavailable, KasagaError
from kasaga_wire.kafka import Consumer, EndOfPartition, Record
from kasaga_wire.schema import Schema, Schemas

from .log import logger
from .sender import Producer

READ_SECONDS = 30.0
"""How long reading a topic to its end may take."""
REFRESH_SECONDS = 1.0
"""An unknown id is looked for at most once in this time: it may be a mistake that comes a thousand times."""


class SchemaBook:
    """All that is known of schemas, and where more can be read."""

    def __init__(
        self, schemas: Schemas, topics: Sequence[str], make_consumer: Callable[[], Consumer]
    ) -> None:
        """`schemas` is added to; `topics` are the namespaces' compacted ones, of one partition each."""
        self._schemas = schemas
        self._make = make_consumer
        self._next = dict.fromkeys(topics, 0)
        self._published: dict[str, set[int]] = {topic: set() for topic in topics}
        self._lock = threading.Lock()
        self._read_at = float("-inf")

    def refresh(self) -> None:
        """Read what is new on the topics, unless that was done just now. Raises KafkaFailure."""
        with self._lock:
            if time.monotonic() - self._read_at < REFRESH_SECONDS:
                return
            self._read()
            self._read_at = time.monotonic()

    def publish(self, producer: Producer, schemas: Iterable[Schema]) -> None:
        """Put on each topic what it lacks of our schemas, and wait until it is there. Raises KafkaFailure."""
        with self._lock:
            self._read()
        failures: list[str] = []
        missing = 0

        def on_ack(error: object) -> None:
            nonlocal missing
            missing -= 1
            if error is not None:
                failures.append(str(error))

        for schema in schemas:
            self._schemas.add(schema)
            for topic, there in self._published.items():
                if schema.id not in there:
                    missing += 1
                    producer.produce(topic, 0, str(schema.id).encode(), schema.json.encode(), None, on_ack)
        deadline = time.monotonic() + READ_SECONDS
        while missing and time.monotonic() < deadline:
            producer.poll(0.1)
        if missing or failures:
            raise KafkaUnavailable(
                f"our schemas are not published: {failures[0] if failures else 'no answer'}",
                remedy="are the brokers up, and may this service write to <namespace>.schemas?",
            )

    def _read(self) -> None:
        consumer = self._make()
        try:
            for topic in self._next:
                self._read_topic(consumer, topic)
        finally:
            consumer.close()

    def _read_topic(self, consumer: Consumer, topic: str) -> None:
        """From where the last reading ended up to the end."""
        low, high = consumer.watermarks(topic, 0)
        position = max(low, self._next[topic]) if self._next[topic] <= high else low
        if position >= high:
            return
        consumer.assign({(topic, 0): position})
        deadline = time.monotonic() + READ_SECONDS
        while time.monotonic() < deadline:
            for found in consumer.consume(500, 0.5):
                if isinstance(found, Record):
                    self._take(topic, found)
                    self._next[topic] = found.offset + 1
                elif isinstance(found, EndOfPartition):
                    self._next[topic] = max(self._next[topic], found.offset)
                    return
                elif found.out_of_range:
                    self._next[topic] = 0
                    raise KafkaFailure(f"{topic} was cut while it was read: {found.message}")
        raise KafkaUnavailable(f"{topic} could not be read to its end in {READ_SECONDS:g} s")

    def _take(self, topic: str, record: Record) -> None:
        if record.value is None:
            return
        try:
            schema = self._schemas.add(record.value.decode())
        except (KasagaError, UnicodeDecodeError) as error:
            logger.warning("%s, offset %d: no schema: %s", topic, record.offset, error)
        else:
            self._published[topic].add(schema.id)
