"""The producer: what it promises, over one or two clients of librdkafka.

Station: `kafka.py` makes the clients; the relay, the participants' sender and the client produce through it.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from typing import Protocol

from .errors import DeliveryError, QueueFull
from .kafka_errors import ErrorLog
from .kafka_lanes import Lane, Lanes, NoRoom, OnAck, Waiting

BATCH_LINGER_MS = 1.0
"""Milliseconds that a batch's first record waits for the others: they are handed over at once, in less."""


class Client(Protocol):
    """One producer of librdkafka."""

    def send(self, topic: str, partition: int, record: Waiting, on_ack: OnAck) -> DeliveryError | None:
        """Hand a record over; returns why it can never go, or raises NoRoom."""
        ...

    def poll(self, timeout: float, /) -> int:
        """Call what is due of `on_ack`, and wait up to `timeout` seconds for something; returns how many."""
        ...

    def flush(self, timeout: float, /) -> int:
        """Wait for all acknowledgements."""
        ...

    def purge(self) -> None:
        """Give up what isn't acknowledged."""
        ...

    def __len__(self) -> int: ...


class Clients(Protocol):
    """Makes them."""

    def __call__(self, *, linger_ms: float) -> Client: ...  # noqa: D102


class LanedProducer:
    """Sends records, one batch of a partition at a time.

    Batches go through a second client, which lingers for a moment so that each is one request (why: see
    `kafka_lanes.py`). A partition has records in one client only, so their order holds. Partitions are always
    given: librdkafka's own choice is not Java's. Only one thread may use it.
    """

    def __init__(self, make: Clients, errors: ErrorLog, max_waiting: int) -> None:
        """`max_waiting`: records that may wait to be handed over."""
        self._make = make
        self._errors = errors
        self._max_waiting = max_waiting
        self._lanes = Lanes(self._send)
        self._quick = make(linger_ms=0.0)
        self._batches: Client | None = None
        """Made when the first batch is to be sent."""

    @property
    def fatal(self) -> str | None:
        """Why this producer can't go on.

        Make a new one and produce again what was not acknowledged, in order.
        """
        return self._errors.fatal

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] | None,
        on_ack: OnAck,
    ) -> None:
        """Take a record; the next `hand_over`, `poll` or `flush` sends it.

        `on_ack` is called by a later `poll`, always, with None or the error; else QueueFull.
        """
        if self._lanes.waiting >= self._max_waiting:
            raise QueueFull("the producer's queue is full", remedy="poll, then produce again")
        self._lanes.put(topic, partition, Waiting(value, key, headers, on_ack))

    def warm(self) -> None:
        """Make the client for batches now: in the background it takes up to half a second to be ready."""
        self._for_batches()

    def produce_by_each(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, on_ack: OnAck
    ) -> None:
        """Send a record at once through each client; raises QueueFull. Acknowledged twice, both are ready.

        For records of which one more changes nothing, and for a partition that nothing else is on its way to:
        a client that begins has no producer id yet, and asks for one again only after half a second when the
        broker wasn't there at first; whichever client nobody waited for would keep its first records so long.
        """
        for batch in (False, True):
            lane = Lane(topic, partition)
            lane.batch = batch
            try:
                self._lanes.send(lane, Waiting(value, key, None, on_ack))
            except NoRoom:
                raise QueueFull("the client's queue is full", remedy="poll, then produce again") from None

    def _for_batches(self) -> Client:
        if self._batches is None:
            self._batches = self._make(linger_ms=BATCH_LINGER_MS)
        return self._batches

    def hand_over(self) -> None:
        """Send what was produced, as far as its partitions are free; `poll` does it too."""
        self._lanes.hand_over()

    @property
    def waits(self) -> bool:
        """Whether records wait for those before them: `poll` soon, or they wait longer than need be."""
        return self._lanes.waiting > 0

    def _send(self, lane: Lane, record: Waiting) -> DeliveryError | None:
        client = self._for_batches() if lane.batch else self._quick
        on_ack = functools.partial(self._lanes.landed, lane, record.on_ack)
        return client.send(lane.topic, lane.partition, record, on_ack)

    def poll(self, timeout: float = 0.0) -> int:
        """Hand records over and call what is due of `on_ack`; waits at most `timeout` seconds for something.

        Returns how many it called.
        """
        self._lanes.hand_over()
        called = self._lanes.call_refused()
        called += self._quick.poll(0)
        if self._batches is not None:
            called += self._batches.poll(0)
        if timeout and not called:
            busy = self._batches if self._batches is not None and len(self._batches) else self._quick
            called = busy.poll(timeout)
        self._lanes.hand_over()
        return called

    def flush(self, timeout: float) -> int:
        """Wait for all acknowledgements. Returns how many are still missing."""
        end = time.monotonic() + timeout
        while True:
            self._lanes.hand_over()
            self._lanes.call_refused()
            for client in self._clients:
                client.flush(max(0.0, end - time.monotonic()))
            if not len(self) or time.monotonic() > end:
                return len(self)

    def close(self, timeout: float = 5.0) -> None:
        """Wait for what is on its way, then give the rest up: its `on_ack` is called with `_PURGE_QUEUE`."""
        if self.flush(timeout):
            self._lanes.give_up(DeliveryError("_PURGE_QUEUE", "not sent before the end", permanent=False))
            for client in self._clients:
                client.purge()
                client.flush(1.0)
            self._lanes.call_refused()

    @property
    def _clients(self) -> list[Client]:
        return [client for client in (self._quick, self._batches) if client is not None]

    def __len__(self) -> int:
        """Records that are not acknowledged yet."""
        return len(self._lanes)
