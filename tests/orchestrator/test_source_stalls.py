"""Where the loop reads: pauses, and partitions that are assigned and not read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest

from kasaga.orchestrator.clock import Clock
from kasaga.orchestrator.source import Asker, Source
from kasaga.store.base import Offsets
from kasaga.testing import network
from kasaga_wire.codec import Schemas
from kasaga_wire.kafka import Consumer, Record
from kasaga_wire.topics import Topics

TOPICS = Topics("trips")
SAGAS, REPLIES = TOPICS.sagas, TOPICS.replies


class Ticks(Clock):
    def __init__(self) -> None:
        self.at = 5.0
        super().__init__()

    def ticks(self) -> int:
        return int(self.at * 1e9)


class Slow(network.Consumer):
    """A question that no broker answers takes its time."""

    def __init__(self, kafka: network.Kafka, clock: Ticks) -> None:
        super().__init__(kafka)
        self.clock = clock
        self.looks = 0

    def ask_offsets(
        self, places: Iterable[network.Place], *, first: bool = False, timeout: float
    ) -> network.Asked:
        self.looks += 1
        if self._silent:
            self.clock.at += timeout
        return super().ask_offsets(places, first=first, timeout=timeout)


class Bench:
    def __init__(self) -> None:
        self.kafka = network.Kafka()
        for spec in TOPICS.orchestrator_specs(4):
            self.kafka.create(spec.name, spec.partitions)
        self.clock = Ticks()
        self.consumer = Slow(self.kafka, self.clock)
        self.stalls = 0
        self.source = Source(
            cast("Consumer", self.consumer),
            cast("Asker", self.consumer),
            TOPICS,
            Schemas(),
            self.clock,
            stalled=self._stalled,
        )

    def _stalled(self) -> None:
        self.stalls += 1

    def put(self, topic: str, shard: int) -> None:
        self.kafka.append(topic, shard, b"k", b"v", ())

    def take(self, shard: int) -> None:
        self.source.assign(shard, Offsets(), known=True)

    def run(self, seconds: float, limit: int = 100) -> list[tuple[str, int, int]]:
        """What was read in so much time, asking a broker for a sign now and then as the loop does."""
        found: list[Record] = []
        end = self.clock.at + seconds
        while self.clock.at < end:
            found += self.source.read(limit, 0.0)
            self.source.silent_seconds()
            self.clock.at += 0.5
        return [(each.topic, each.partition, each.offset) for each in found]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_shard_that_goes_while_starts_are_paused_is_read_when_it_comes_back(bench: Bench) -> None:
    bench.take(0)
    bench.take(1)
    bench.run(1)
    bench.source.pause_starts(True)
    bench.source.unassign(1)
    bench.source.pause_starts(False)
    bench.put(SAGAS, 1)
    bench.take(1)
    assert bench.run(1) == [(SAGAS, 1, 0)]


def test_a_shard_that_comes_while_starts_are_paused_is_paused_once_it_is_read(bench: Bench) -> None:
    bench.take(0)
    bench.run(1)
    bench.source.pause_starts(True)
    bench.put(SAGAS, 1)
    bench.take(1)  # the fake refuses to be paused now
    assert bench.run(1) == [(SAGAS, 1, 0)]
    bench.put(SAGAS, 0)
    bench.put(SAGAS, 1)
    bench.put(REPLIES, 1)
    assert bench.run(100) == [(REPLIES, 1, 0)]
    assert bench.stalls == 0
    bench.source.pause_starts(False)
    assert sorted(bench.run(1)) == [(SAGAS, 0, 0), (SAGAS, 1, 1)]


def test_a_truncated_shard_is_paused_again_once_it_is_read(bench: Bench) -> None:
    bench.take(0)
    for _ in range(3):
        bench.put(SAGAS, 0)
    bench.kafka.truncate(SAGAS, 0, 2)
    bench.source.pause_starts(True)
    assert bench.run(2) == [(SAGAS, 0, 2)]
    bench.put(SAGAS, 0)
    assert bench.run(100) == []
    assert bench.stalls == 0
    bench.source.pause_starts(False)
    assert bench.run(1) == [(SAGAS, 0, 3)]


def test_a_partition_that_is_not_read_is_assigned_anew(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.take(0)
    bench.take(1)
    bench.put(REPLIES, 1)
    assert bench.run(1) == [(REPLIES, 1, 0)]
    bench.consumer.deaf = {(REPLIES, 1)}
    bench.put(REPLIES, 1)
    bench.put(REPLIES, 0)
    assert bench.run(100) == [(REPLIES, 0, 0), (REPLIES, 1, 1)]
    assert bench.stalls == 1
    [told] = [each for each in caplog.records if "not read" in each.message]
    about = {name: getattr(told, name) for name in ("topic", "partition", "offset", "end")}
    assert about == {"topic": REPLIES, "partition": 1, "offset": 1, "end": 2}


def test_the_schemas_are_watched_too(bench: Bench) -> None:
    bench.consumer.deaf = {(TOPICS.schemas, 0)}
    bench.put(TOPICS.schemas, 0)
    bench.run(60)
    assert bench.stalls == 1
    assert not bench.consumer.behind


def test_brokers_that_are_away_stop_the_loop_seldom_and_accuse_nobody(bench: Bench) -> None:
    bench.take(0)
    bench.consumer.deaf = {(REPLIES, 0)}
    bench.put(REPLIES, 0)
    bench.run(22)
    bench.kafka.down = True
    looks = bench.consumer.looks
    bench.run(120)
    assert bench.consumer.looks - looks <= 1  # each stops the loop for a second
    assert bench.stalls == 0
    bench.kafka.down = False
    bench.run(60)
    assert bench.stalls == 1


def test_what_waits_in_a_long_queue_is_not_stalled(bench: Bench) -> None:
    bench.take(0)
    for _ in range(1000):
        bench.put(SAGAS, 0)
    bench.put(REPLIES, 0)
    bench.consumer.take = lambda most: 1
    bench.consumer.deaf = {(REPLIES, 0)}  # as if it stood behind the others in the client's queue
    bench.run(100, limit=1)
    assert bench.stalls == 0
