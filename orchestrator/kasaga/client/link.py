"""What the client needs of Kafka: two threads, so that no event loop ever waits for librdkafka.

Station: `client.py` sends through a Link and is told what comes back; tests give it another one.
One thread owns the producer; the other, begun when the first answer is wanted, owns the consumer of
one partition of the answers' topic. Callbacks run in these threads and must only pass things on.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from kasaga_wire.errors import KafkaFailure, KafkaUnavailable, KasagaError, QueueFull
from kasaga_wire.kafka import Admin, Consumer, EndOfPartition, KafkaSettings, PartitionError, Producer, Record
from kasaga_wire.topics import Topics

from .errors import NoTopics

log = logging.getLogger("kasaga.client")

HEAR_SECONDS = 0.1
"""How long the hearing thread waits for answers before it looks whether it should end."""

BUSY_SECONDS = 0.002
"""How long acknowledgements are waited for before the next record is looked for."""

LEADER_SECONDS, BETWEEN_SECONDS = 15.0, 0.1
"""How long, and how often, a partition is asked for its end while it has no leader."""

ANSWERS_AT_ONCE = 500
SCHEMAS_SECONDS = 10.0
"""How long reading the whole topic of schemas may take."""

Done = Callable[[KasagaError | None], None]
Heard = Callable[[Record], None]


class Outgoing(NamedTuple):
    """One record to send. `done` is called once, with None when all in-sync replicas have it."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: list[tuple[str, bytes]]
    done: Done


class Link(Protocol):
    """The face of Kafka to the client. All methods but `send` may block."""

    def open(self) -> tuple[int, int]:
        """Return how many partitions the starts' and the answers' topics have; raises NoTopics."""
        ...

    def send(self, outgoing: Outgoing) -> None:
        """Hand one record over; never blocks."""
        ...

    def listen(self, partition: int, heard: Heard) -> None:
        """Pass on every record that comes to a partition of the answers' topic from now on."""
        ...

    def schemas(self) -> list[str]:
        """Return every schema that is published in the namespace."""
        ...

    def close(self) -> None:
        """Wait a moment for what is on its way, then let go of everything."""
        ...


class KafkaLink:
    """A Link over real brokers."""

    def __init__(
        self, settings: KafkaSettings, topics: Topics, client_id: str, *, starts: bool = True
    ) -> None:
        """`starts`: False where nothing is started, and the topic of starts may be missing."""
        self._starts = starts
        self._settings = settings
        self._topics = topics
        self._client_id = client_id
        self._queue: queue.SimpleQueue[Outgoing | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []

    def open(self) -> tuple[int, int]:
        """See `Link.open`."""
        admin = Admin(self._settings)
        try:
            found = admin.partitions([self._topics.sagas, self._topics.answers])
        finally:
            admin.close()
        needed = [self._topics.sagas, self._topics.answers] if self._starts else [self._topics.answers]
        if missing := [name for name in needed if name not in found]:
            raise NoTopics(f"there is no topic {' and no topic '.join(missing)}")
        self._run(self._produce, "kasaga-client-send")
        return found.get(self._topics.sagas, 0), found[self._topics.answers]

    def send(self, outgoing: Outgoing) -> None:
        """See `Link.send`."""
        self._queue.put(outgoing)

    def listen(self, partition: int, heard: Heard) -> None:
        """See `Link.listen`. The place to begin is known before this returns: no answer is missed."""
        consumer = self._consumer()
        try:
            end = self._end(consumer, partition)
            consumer.assign({(self._topics.answers, partition): end})
        except BaseException:
            consumer.close()
            raise
        self._run(lambda: self._consume(consumer, partition, heard), "kasaga-client-hear")

    def _end(self, consumer: Consumer, partition: int) -> int:
        """The end of the answers now; a partition whose leader is being chosen is asked again."""
        until = time.monotonic() + LEADER_SECONDS
        while True:
            try:
                return consumer.watermarks(self._topics.answers, partition)[1]
            except KafkaUnavailable:
                if time.monotonic() > until or self._closing.wait(BETWEEN_SECONDS):
                    raise

    def schemas(self) -> list[str]:
        """See `Link.schemas`."""
        place = (self._topics.schemas, 0)
        consumer = self._consumer()
        found: list[str] = []
        try:
            low, high = consumer.watermarks(*place)
            consumer.assign({place: low})
            while low < high:
                got = consumer.consume(ANSWERS_AT_ONCE, SCHEMAS_SECONDS)
                if not got:
                    raise KafkaUnavailable(f"{place[0]} could not be read within {SCHEMAS_SECONDS:g} s")
                for each in got:
                    if isinstance(each, PartitionError):
                        raise KafkaUnavailable(f"{place[0]}: {each.message}")
                    low = each.offset if isinstance(each, EndOfPartition) else each.offset + 1
                    if isinstance(each, Record) and each.value:
                        found.append(each.value.decode())
        finally:
            consumer.close()
        return found

    def close(self) -> None:
        """See `Link.close`."""
        self._closing.set()
        self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _consumer(self) -> Consumer:
        # Never committed: the group's name is only what librdkafka asks for.
        return Consumer(self._settings, group=f"kasaga-client-{self._client_id}")

    def _run(self, work: Callable[[], None], name: str) -> None:
        thread = threading.Thread(target=work, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    # --- the sending thread

    def _produce(self) -> None:
        producer = Producer(self._settings)
        while not self._closing.is_set() or not self._queue.empty():
            try:
                outgoing = self._queue.get(timeout=None if not len(producer) else 0.0)
            except queue.Empty:
                producer.poll(BUSY_SECONDS)
                continue
            if outgoing is not None:
                producer = self._alive(producer)
                self._send(producer, outgoing)
                producer.poll(0)
        producer.close()

    def _send(self, producer: Producer, outgoing: Outgoing) -> None:
        topic, partition, key, value, headers, done = outgoing
        while True:
            try:
                producer.produce(topic, partition, key, value, [*headers], done)
            except QueueFull:
                producer.poll(BUSY_SECONDS)
            except KafkaFailure as error:
                done(error)
                return
            else:
                return

    def _alive(self, producer: Producer) -> Producer:
        """Replace a producer that has failed for good; what it held is told as failed."""
        if producer.fatal is None:
            return producer
        log.error("the client's producer has failed for good, making a new one: %s", producer.fatal)
        producer.close(0)
        return Producer(self._settings)

    # --- the hearing thread

    def _consume(self, consumer: Consumer, partition: int, heard: Heard) -> None:
        try:
            while not self._closing.is_set():
                for each in self._read(consumer):
                    if isinstance(each, Record):
                        heard(each)
                    elif isinstance(each, PartitionError) and each.out_of_range:
                        self._begin_anew(consumer, partition)
        finally:
            consumer.close()

    def _begin_anew(self, consumer: Consumer, partition: int) -> None:
        """Read on from what is left. Answers are idempotent, and whoever misses one asks again."""
        try:
            low, _ = consumer.watermarks(self._topics.answers, partition)
            consumer.assign({(self._topics.answers, partition): low})
        except KafkaFailure as error:
            log.warning("answers can't be read at the moment: %s", error)

    def _read(self, consumer: Consumer) -> list[Record | EndOfPartition | PartitionError]:
        try:
            return consumer.consume(ANSWERS_AT_ONCE, HEAR_SECONDS)
        except KafkaFailure as error:
            log.warning("answers can't be read at the moment: %s", error)
            self._closing.wait(HEAR_SECONDS)
            return []
