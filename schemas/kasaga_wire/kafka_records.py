"""What consuming gives: records, ends of partitions, and partitions that can't be read.

Station: `kafka.py` makes them, the orchestrator's loop and the participants take them. Plain data, so that
tests and simulations can make them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Place = tuple[str, int]  # topic, partition
RecordHeaders = list[tuple[str, bytes | None]]


@dataclass(slots=True)
class Record:
    """One record, as it lies in Kafka."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class EndOfPartition:
    """Everything up to `offset` (exclusive) has been read; more may come."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class PartitionError:
    """A partition can't be read. `out_of_range`: the offset is not there any more, or not yet again."""

    topic: str
    partition: int
    offset: int
    name: str
    message: str
    out_of_range: bool
    permanent: bool


def record_of(message: Any) -> Record:
    """One of confluent_kafka's messages as a record."""
    try:
        headers: RecordHeaders = message.headers() or []
    except UnicodeDecodeError:  # a key that isn't text: as good as no envelope
        headers = []
    return Record(
        message.topic(),
        message.partition(),
        message.offset(),
        message.key(),
        message.value(),
        headers,
        message.timestamp()[1],
    )
