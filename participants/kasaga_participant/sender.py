"""Puts replies and dead letters on Kafka, until each is acknowledged.

Station: the runtime sends through it and polls it; offsets move only by its acknowledgements. Lives in the
event loop: polling from there spares a thread, and an acknowledgement may well wait for some milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import DeliveryError, KafkaFailure, QueueFull

from .log import Throttle, logger
from .outage import delay

PERMANENT_SECONDS = 30.0
"""How long a topic or a right may be missing before a record for it is given up."""
OPTIONS = {"message.timeout.ms": 30_000}
"""librdkafka gives a record back after this long without a broker; it is produced again then."""

Headers = Sequence[tuple[str, bytes | None]]
OnAck = Callable[[DeliveryError | None], None]


class Producer(Protocol):
    """What is needed of `kasaga_wire.kafka.Producer`."""

    @property
    def fatal(self) -> str | None:
        """Why it can't go on."""
        ...

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: OnAck,
    ) -> None:
        """Hand a record over."""
        ...

    def hand_over(self) -> None:
        """Send what was produced; `poll` does it too."""
        ...

    def poll(self, timeout: float = 0.0) -> int:
        """Call what is due of `on_ack`."""
        ...

    def close(self, timeout: float = 5.0) -> None:
        """Wait for what is on its way."""
        ...


@dataclass(slots=True, eq=False)
class Outgoing:
    """A record on its way.

    Attributes:
        done: called when it is acknowledged.
        give_up: called instead when it can't be delivered, ever; None: it is tried for ever.
    """

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    done: Callable[[], None]
    give_up: Callable[[DeliveryError], None] | None = None
    tries: int = 0
    since: float = field(default_factory=time.monotonic)


class Sender:
    """Everything this process produces. Not for several threads."""

    def __init__(self, make_producer: Callable[[], Producer]) -> None:
        """`make_producer` is called again when a producer fails for good."""
        self._make = make_producer
        self._producer = make_producer()
        self._generation = 0
        self._pending: dict[Outgoing, None] = {}
        self._again: list[tuple[float, Outgoing]] = []
        self._throttle = Throttle()

    def __len__(self) -> int:
        """How many are not acknowledged."""
        return len(self._pending)

    def send(self, outgoing: Outgoing) -> None:
        """Send a record with the next `hand_over` or `poll`, until it is acknowledged or given up."""
        self._pending[outgoing] = None
        self._produce(outgoing)

    def hand_over(self) -> None:
        """Let go what was sent since: records of one partition go together."""
        self._producer.hand_over()
        crash_point("participant.after_produce_before_ack")

    def poll(self) -> int:
        """Call what was acknowledged, send again what is due; gives how many acknowledgements came."""
        called = self._producer.poll(0)
        if self._producer.fatal is not None:
            self._replace(self._producer.fatal)
        elif self._again:
            self._retry()
        return called

    def close(self, timeout: float) -> int:
        """Wait for acknowledgements, `timeout` seconds at most; gives how many are missing."""
        deadline = time.monotonic() + timeout
        while self._pending and time.monotonic() < deadline:
            self._producer.poll(0.01)
            self.poll()
        self._generation += 1  # whatever comes now is too late
        self._producer.close(0)
        return len(self._pending)

    def _produce(self, outgoing: Outgoing) -> None:
        generation = self._generation

        def on_ack(error: DeliveryError | None) -> None:
            if generation == self._generation and outgoing in self._pending:
                self._acknowledged(outgoing, error)

        try:
            self._producer.produce(
                outgoing.topic,
                outgoing.partition,
                outgoing.key,
                outgoing.value,
                outgoing.headers,
                on_ack,
            )
        except QueueFull:
            self._again.append((time.monotonic() + delay(0), outgoing))

    def _acknowledged(self, outgoing: Outgoing, error: DeliveryError | None) -> None:
        if error is None:
            del self._pending[outgoing]
            outgoing.done()
            return
        if error.fatal:
            return  # poll() replaces the producer, and sends all again
        if self._throttle.due(f"{outgoing.topic} {error.name}"):
            logger.warning("a record for %s isn't delivered yet: %s", outgoing.topic, error)
        lasting = time.monotonic() - outgoing.since > PERMANENT_SECONDS or error.name in NEVER
        if error.permanent and lasting and outgoing.give_up is not None:
            del self._pending[outgoing]
            outgoing.give_up(error)
            return
        self._again.append((time.monotonic() + delay(outgoing.tries), outgoing))
        outgoing.tries += 1

    def _retry(self) -> None:
        now = time.monotonic()
        due = [outgoing for at, outgoing in self._again if at <= now]
        if due:
            self._again = [(at, outgoing) for at, outgoing in self._again if at > now]
            for outgoing in due:
                self._produce(outgoing)

    def _replace(self, why: str) -> None:
        """After a fatal error of the producer: a new one, and all that is unacknowledged again, in order."""
        logger.error("the producer failed, another takes over %d records: %s", len(self._pending), why)
        self._generation += 1
        self._producer.close(0)
        try:
            self._producer = self._make()
        except KafkaFailure as error:
            logger.error("no new producer: %s", error)
            return
        self._again.clear()
        for outgoing in list(self._pending):
            self._produce(outgoing)


NEVER = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD"})
"""Errors that waiting doesn't heal."""
