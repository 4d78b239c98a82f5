"""Where the loop reads: the shards' partitions of three topics, and the schemas' topic.

Partitions are assigned by hand at the offsets of the shard's row; those are the truth. What is
committed to Kafka is only for people and autoscalers to see the lag by.
"""

from __future__ import annotations

import logging
import time

from kasaga_wire.codec import Schemas
from kasaga_wire.errors import KasagaError
from kasaga_wire.kafka import Consumer, EndOfPartition, PartitionError, Record
from kasaga_wire.topics import Topics

from ..store.base import Offsets
from .shards import Shard

log = logging.getLogger("kasaga.orchestrator")

PROBE_SECONDS = 2.0
COMMIT_SECONDS = 5.0
WATERMARK_TIMEOUT = 1.0


class Source:
    """Of one process; the loop's thread alone uses it."""

    def __init__(self, consumer: Consumer, topics: Topics, schemas: Schemas) -> None:
        self._consumer = consumer
        self._topics = topics
        self._schemas = schemas
        self._inputs = (topics.sagas, topics.replies, topics.control)
        self._shards: set[int] = set()
        self._ends: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._truncated: dict[int, int] = {}
        self._paused = False
        self._heard = time.monotonic()
        self._probed = time.monotonic()
        self._committed = time.monotonic()
        self._to_commit: dict[tuple[str, int], int] = {}
        consumer.incremental_assign({(topics.schemas, 0): self._low(topics.schemas, 0)})

    def _low(self, topic: str, partition: int) -> int:
        return self._consumer.watermarks(topic, partition, 10.0)[0]

    def assign(self, shard: int, offsets: Offsets, *, known: bool) -> Offsets:
        """Begin to read a shard at its offsets; at the start of the topics where none are `known`."""
        if not known:
            offsets = Offsets(*(self._low(topic, shard) for topic in self._inputs))
        at = (offsets.sagas, offsets.replies, offsets.control)
        self._consumer.incremental_assign(
            {(topic, shard): offset for topic, offset in zip(self._inputs, at, strict=True)}
        )
        self._shards.add(shard)
        self._ends.pop(shard, None)
        if self._paused:
            self._consumer.pause([(self._topics.sagas, shard)])
        return offsets

    def unassign(self, shard: int) -> None:
        """Stop to read a shard."""
        if shard in self._shards:
            self._shards.discard(shard)
            self._consumer.incremental_unassign([(topic, shard) for topic in self._inputs])

    def pause_starts(self, paused: bool) -> None:
        """Read no starts for now, or again."""
        if paused != self._paused and self._shards:
            self._paused = paused
            partitions = [(self._topics.sagas, shard) for shard in self._shards]
            (self._consumer.pause if paused else self._consumer.resume)(partitions)
            log.info("starts paused" if paused else "starts resumed")

    def read(self, limit: int, timeout: float) -> list[Record]:
        """Return records, after at most `timeout` seconds; at once when there are any."""
        records: list[Record] = []
        for message in self._consumer.consume(limit, timeout):
            self._heard = time.monotonic()
            if isinstance(message, Record):
                if message.topic == self._topics.schemas:
                    self._learn(message)
                elif message.partition in self._shards:
                    if message.topic == self._topics.replies:
                        self._positions[message.partition] = message.offset + 1
                    records.append(message)
            elif isinstance(message, EndOfPartition):
                if message.topic == self._topics.replies:
                    self._ends[message.partition] = message.offset
            else:
                self._complain(message)
        self._commit()
        return records

    def note(self, shard: Shard) -> None:
        """Tell a shard how far its replies have been read."""
        shard.position = max(shard.position, self._positions.get(shard.number, 0))
        shard.end = max(shard.end, self._ends.get(shard.number, -1))

    def committed(self, shard: int, offsets: Offsets) -> None:
        """Note what the store holds, to show it to Kafka now and then."""
        at = (offsets.sagas, offsets.replies, offsets.control)
        for topic, offset in zip(self._inputs, at, strict=True):
            self._to_commit[(topic, shard)] = offset

    def watermark(self, shard: int) -> int:
        """Return the offset after the last reply of a shard, as of now; -1 where Kafka can't say."""
        try:
            high = self._consumer.watermarks(self._topics.replies, shard, WATERMARK_TIMEOUT)[1]
        except KasagaError as error:
            log.warning(
                "kafka can't say where the replies end: timers wait",
                extra={"shard": shard, "error": str(error)},
            )
            return -1
        self._heard = time.monotonic()
        return high

    def silent_for(self) -> float:
        """Return for how many seconds no broker has been heard; any thread may ask."""
        return time.monotonic() - self._heard

    def silent_seconds(self) -> float:
        """Return for how long no broker has answered; asks one when it has been quiet."""
        now = time.monotonic()
        if now - self._heard > PROBE_SECONDS and now - self._probed > PROBE_SECONDS:
            self._probed = now
            try:
                self._consumer.watermarks(self._topics.schemas, 0, WATERMARK_TIMEOUT)
                self._heard = time.monotonic()
            except KasagaError:
                pass
        return time.monotonic() - self._heard

    def take_truncated(self) -> dict[int, int]:
        """Return the shards whose log has lost records since the last call, and where their replies go on."""
        truncated, self._truncated = self._truncated, {}
        return truncated

    def _learn(self, record: Record) -> None:
        if record.value is None:
            return
        try:
            self._schemas.add(record.value.decode())
        except (KasagaError, ValueError) as error:
            log.warning(
                "not a schema", extra={"topic": record.topic, "offset": record.offset, "error": str(error)}
            )

    def _complain(self, error: PartitionError) -> None:
        """A partition can't be read where it should be: go to the nearest end that exists."""
        log.error(
            "partition error",
            extra={"topic": error.topic, "partition": error.partition, "error": error.message},
        )
        if not error.out_of_range or error.partition not in self._shards or error.topic not in self._inputs:
            return
        low, high = self._consumer.watermarks(error.topic, error.partition, 10.0)
        at = low if error.offset < low else high
        self._consumer.incremental_unassign([(error.topic, error.partition)])
        self._consumer.incremental_assign({(error.topic, error.partition): at})
        self._positions.pop(error.partition, None)
        self._ends.pop(error.partition, None)
        self._truncated[error.partition] = at if error.topic == self._topics.replies else 0

    def _commit(self) -> None:
        now = time.monotonic()
        if self._to_commit and now - self._committed > COMMIT_SECONDS:
            self._committed = now
            offsets, self._to_commit = self._to_commit, {}
            self._consumer.commit(offsets)

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def move_past(topics: Topics, offsets: Offsets, record: Record) -> None:
    """Move the offsets that a batch writes past one of its records."""
    following = record.offset + 1
    if record.topic == topics.replies:
        offsets.replies = following
    elif record.topic == topics.sagas:
        offsets.sagas = following
    else:
        offsets.control = following
