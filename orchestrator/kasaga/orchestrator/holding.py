"""Records whose schema hasn't arrived yet: kept back until it has, for a few seconds.

A participant publishes a schema before it answers with it; but that is another topic, which this process may
read a moment later. Called by the loop before the intake. A record that is kept back keeps the shard's
written offset from passing it, and its timers from firing before it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from kasaga_wire.codec import Schemas
from kasaga_wire.kafka import Record
from kasaga_wire.sealing import is_sealed
from kasaga_wire.topics import Topics

from .shards import Shard

HOLD_MICROS = 10_000_000
"""After this long a record is decided as it is: the step is asked again, and answered again."""

MAX_HELD = 1_000
"""Records kept back at a time: whoever sends nonsense gets no more of this process than that."""

MAGIC = 0
"""First byte of a payload; the schema's id follows in four."""


class _Held(NamedTuple):
    record: Record
    until: int


class Holding:
    """Of one process; the loop's thread alone uses it."""

    def __init__(self, topics: Topics, schemas: Schemas) -> None:
        self.peek: Callable[[Record], bytes | None] | None = None
        """Opens a payload that is sealed."""
        self._topics = topics
        self._schemas = schemas
        self._held: list[_Held] = []

    @property
    def held(self) -> int:
        """How many records are kept back."""
        return len(self._held)

    def sift(self, records: Iterable[Record], shards: Mapping[int, Shard], now: int) -> list[Record]:
        """Return what can be decided now, in order; keep back the rest."""
        ready = self._released(shards, now) if self._held else []
        for record in records:
            shard = shards.get(record.partition)
            if shard is None:
                continue
            if len(self._held) < MAX_HELD and self._unknown(record):
                self._held.append(_Held(record, now + HOLD_MICROS))
                shard.held.setdefault(topic_of(self._topics, record), set()).add(record.offset)
            else:
                ready.append(record)
        return ready

    def drop_shard(self, shard: int) -> None:
        """Forget what is kept back of a shard that isn't ours any more: its next owner reads it again."""
        self._held = [held for held in self._held if held.record.partition != shard]

    def _released(self, shards: Mapping[int, Shard], now: int) -> list[Record]:
        ready: list[Record] = []
        waiting: list[_Held] = []
        for held in self._held:
            if now < held.until and self._unknown(held.record):
                waiting.append(held)
                continue
            topic = topic_of(self._topics, held.record)
            shards[held.record.partition].held[topic].discard(held.record.offset)
            ready.append(held.record)
        self._held = waiting
        return ready

    def _unknown(self, record: Record) -> bool:
        value = record.value
        if self.peek is not None and is_sealed(value):
            value = self.peek(record)
        if value is None or len(value) < 5 or value[0] != MAGIC:
            return False
        return self._schemas.get(int.from_bytes(value[1:5], "big")) is None


def topic_of(topics: Topics, record: Record) -> str:
    """Name an input topic as `Offsets` does."""
    if record.topic == topics.replies:
        return "replies"
    return "sagas" if record.topic == topics.sagas else "control"
