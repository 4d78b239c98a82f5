"""Which records librdkafka may have at once: of each partition one batch, or a few records.

Station: the producer of `kafka.py` puts every record into its partition's lane and hands lanes over.

Two things are won. Records of a partition that come while a batch is on its way go out together with the next
one: brokers get fewer and larger requests. And librdkafka has no record that it may not send: an idempotent
producer lets no request of a partition go while five records are on their way, and its broker's thread asks
again and again meanwhile, at the cost of a core (seen with librdkafka 2.16 where a broker takes some
milliseconds to answer). Up to five records are safe however they are cut into requests; more of them are a
batch, for a client that gathers all of it into one request.

And one thing isn't lost: the first record of a client in a partition. A broker that knows nothing of a
producer in a partition takes whatever sequence number comes first (KAFKA-15591, mended in brokers of late
2026). Where a partition was just made, a first request may fail and the second one, sent behind it, be
written; then librdkafka takes the first for written as well, and acknowledges what is nowhere. So a client
sends one record into a partition and has it acknowledged, before it may have more on their way there.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .errors import DeliveryError

OnAck = Callable[[DeliveryError | None], None]

IN_FLIGHT = 5
"""Records of a partition that may be on their way while another request goes: librdkafka's own limit."""

KNOWN_SECONDS = 600.0
"""How long a broker surely knows a producer after its last record in a partition: by default it is a day."""


class Waiting(NamedTuple):
    """A record in its lane."""

    value: bytes | None
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]] | None
    on_ack: OnAck


class Lane:
    """One partition's records."""

    __slots__ = ("batch", "flying", "known", "partition", "ready", "topic", "waiting")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.waiting: deque[Waiting] = deque()
        self.flying = 0
        """How many are handed over and not acknowledged."""
        self.batch = False
        """Whether those that are flying are a batch."""
        self.known = [-math.inf, -math.inf]
        """For the client of a few and the one for batches: when its last record here was acknowledged."""
        self.ready = False
        """Whether it stands in the queue of lanes to be handed over."""


class NoRoom(Exception):
    """The client takes no more records for now."""


class Lanes:
    """All partitions of one producer."""

    def __init__(
        self,
        send: Callable[[Lane, Waiting], DeliveryError | None],
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """`send` hands one record over, to the client for batches where `lane.batch` is set.

        It returns why the record can never go, or raises NoRoom. `seconds` tells the time.
        """
        self._send = send
        self._seconds = seconds
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._ready: deque[Lane] = deque()
        self._refused: deque[tuple[OnAck, DeliveryError]] = deque()
        self._flying = 0
        self.waiting = 0
        """Records that are not handed over."""

    def __len__(self) -> int:
        """Records whose `on_ack` is still to be called."""
        return self.waiting + self._flying + len(self._refused)

    def put(self, topic: str, partition: int, waiting: Waiting) -> None:
        """Take a record; `hand_over` sends it, as soon as its partition is free."""
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(topic, partition)
        lane.waiting.append(waiting)
        self.waiting += 1
        self._queue(lane)

    def send(self, lane: Lane, record: Waiting) -> None:
        """Hand a record of a lane over at once, whatever waits in it; raises NoRoom."""
        refusal = self._send(lane, record)
        if refusal is None:
            lane.flying += 1
            self._flying += 1
        else:
            self._refused.append((record.on_ack, refusal))

    def _queue(self, lane: Lane) -> None:
        if not lane.ready and self._is_free(lane):
            lane.ready = True
            self._ready.append(lane)

    def hand_over(self) -> None:
        """Send what waits in free lanes, each lane's records one behind the other, until there is no room."""
        while self._ready:
            lane = self._ready[0]
            if self._is_free(lane):
                lane.batch = len(lane.waiting) > IN_FLIGHT
                try:
                    self._hand_over(lane)
                except NoRoom:
                    if not lane.flying:
                        return
            lane.ready = False
            self._ready.popleft()

    def _hand_over(self, lane: Lane) -> None:
        alone = not self._is_known(lane)
        while lane.waiting:
            self.send(lane, lane.waiting[0])
            lane.waiting.popleft()
            self.waiting -= 1
            if alone and lane.flying:
                return

    def _is_known(self, lane: Lane) -> bool:
        """Whether the partition's broker knows the client that the lane uses now."""
        return self._seconds() - lane.known[lane.batch] < KNOWN_SECONDS

    def _is_free(self, lane: Lane) -> bool:
        """Whether what waits may go: nothing is on its way, or so little that all together are a few."""
        if not lane.flying:
            return True
        few = not lane.batch and lane.flying + len(lane.waiting) <= IN_FLIGHT
        return few and self._is_known(lane)

    def landed(self, lane: Lane, on_ack: OnAck, error: DeliveryError | None) -> None:
        """One record of a lane is acknowledged, or given up."""
        lane.flying -= 1
        self._flying -= 1
        if error is not None:
            lane.known[lane.batch] = -math.inf
        elif not lane.flying:
            lane.known[lane.batch] = self._seconds()
        if lane.waiting:
            self._queue(lane)
        on_ack(error)

    def call_refused(self) -> int:
        """Tell of the records that could never be sent; returns of how many."""
        called = 0
        while self._refused:
            on_ack, error = self._refused.popleft()
            on_ack(error)
            called += 1
        return called

    def give_up(self, error: DeliveryError) -> None:
        """Refuse everything that isn't handed over."""
        for lane in self._lanes.values():
            self._refused.extend((record.on_ack, error) for record in lane.waiting)
            lane.waiting.clear()
            lane.ready = False
        self._ready.clear()
        self.waiting = 0
