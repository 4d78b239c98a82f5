"""What sagas of a simulated run emit: a topic that isn't ours, and whether it has what histories say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from kasaga.engine.model import Emit, Record

TOPIC = "trips.news"
PARTITIONS = 2


def wrong(run_id: UUID, records: Sequence[Record], told: set[str], *, excused: bool) -> Iterator[str]:
    """What isn't as promised. `told`: the ids of all records of the topic, among others.

    `excused`: Postgres has lost commits of this run, so that Kafka may have more than its history.
    """
    events = [each for record in records for each in record.decisions if isinstance(each, Emit)]
    for number, event in enumerate(events, 1):
        if f"{run_id}.event.{number}" not in told:
            yield f"event {number}, {event.type}, was never published"
    if f"{run_id}.event.{len(events) + 1}" in told and not excused:
        yield f"event {len(events) + 1} was published, and is in no history"
