"""Which records librdkafka may have at once: of each partition one batch, or a few records.

Station: the producer of `kafka.py` puts every record into its partition's lane and hands lanes over.

Two things are won. Records of a partition that come while a batch is on its way go out together with the next
one: brokers get fewer and larger requests. And librdkafka has no record that it may not send: an idempotent
producer lets no request of a partition go while five records are on their way, and its broker's thread asks
again and again meanwhile, at the cost of a core (seen with librdkafka 2.16 where a broker takes some
milliseconds to answer). Up to five records are safe however they are cut into requests; more of them are a
batch, for a client that gathers all of it into one request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .errors import DeliveryError

OnAck = Callable[[DeliveryError | None], None]

IN_FLIGHT = 5
"""Records of a partition that may be on their way while another request goes: librdkafka's own limit."""


class Waiting(NamedTuple):
    """A record in its lane."""

    value: bytes | None
    key: bytes | None
    headers: Sequence[tuple[str, bytes | None]] | None
    on_ack: OnAck


class Lane:
    """One partition's records."""

    __slots__ = ("batch", "flying", "partition", "ready", "topic", "waiting")

    def __init__(self, topic: str, partition: int) -> None:
        self.topic, self.partition = topic, partition
        self.waiting: deque[Waiting] = deque()
        self.flying = 0
        """How many are handed over and not acknowledged."""
        self.batch = False
        """Whether those that are flying are a batch."""
        self.ready = False
        """Whether it stands in the queue of lanes to be handed over."""


class NoRoom(Exception):
    """The client takes no more records for now."""


class Lanes:
    """All partitions of one producer."""

    def __init__(self, send: Callable[[Lane, Waiting], DeliveryError | None]) -> None:
        """`send` hands one record over, to the client for batches where `lane.batch` is set.

        It returns why the record can never go, or raises NoRoom.
        """
        self._send = send
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
        if not lane.ready and _is_free(lane):
            lane.ready = True
            self._ready.append(lane)

    def hand_over(self) -> None:
        """Send what waits in free lanes, each lane's records one behind the other, until there is no room."""
        while self._ready:
            lane = self._ready[0]
            if _is_free(lane):
                lane.batch = len(lane.waiting) > IN_FLIGHT
                try:
                    self._hand_over(lane)
                except NoRoom:
                    if not lane.flying:
                        return
            lane.ready = False
            self._ready.popleft()

    def _hand_over(self, lane: Lane) -> None:
        while lane.waiting:
            self.send(lane, lane.waiting[0])
            lane.waiting.popleft()
            self.waiting -= 1

    def landed(self, lane: Lane, on_ack: OnAck, error: DeliveryError | None) -> None:
        """One record of a lane is acknowledged, or given up."""
        lane.flying -= 1
        self._flying -= 1
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


def _is_free(lane: Lane) -> bool:
    """Whether all that waits may go: nothing is on its way, or so little that all together are a few."""
    return not lane.flying or (not lane.batch and lane.flying + len(lane.waiting) <= IN_FLIGHT)
