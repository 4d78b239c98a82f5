"""How many partitions a topic has: asked seldom, and hardly at all of a Kafka that doesn't answer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import pytest

from kasaga.orchestrator.topics import ASK_AGAIN_SECONDS, RECOUNT_SECONDS, Counter
from kasaga_wire.errors import DeliveryError, KafkaUnavailable
from kasaga_wire.kafka import Admin


class FakeAdmin:
    def __init__(self) -> None:
        self.topics = {"a": 4, "b": 2}
        self.asked = 0
        self.silent = False

    def partitions(self, names: Iterable[str], *, timeout: float) -> dict[str, int]:
        self.asked += 1
        if self.silent:
            raise KafkaUnavailable("no broker")
        return {name: self.topics[name] for name in names if name in self.topics}


class Bench:
    def __init__(self) -> None:
        self.admin, self.now = FakeAdmin(), 100.0
        self.counter = Counter(cast("Admin", self.admin), lambda: self.now)

    def refusal(self, topic: str) -> DeliveryError:
        with pytest.raises(DeliveryError) as raised:
            self.counter.count(topic)
        return raised.value


def test_a_count_is_kept_for_a_while_and_then_asked_for_with_all_others() -> None:
    bench = Bench()
    assert [bench.counter.count(topic) for topic in "aabb"] == [4, 4, 2, 2]
    assert bench.admin.asked == 2
    bench.admin.topics["a"] = 8
    assert bench.counter.count("a") == 4
    bench.now += RECOUNT_SECONDS
    assert [bench.counter.count(topic) for topic in "ab"] == [8, 2]
    assert bench.admin.asked == 3


def test_a_topic_that_is_not_there_is_refused_for_good_and_looked_for_again() -> None:
    bench = Bench()
    assert bench.refusal("c").permanent
    assert bench.refusal("c").permanent
    assert bench.admin.asked == 1
    bench.admin.topics["c"] = 1
    bench.now += 1.5
    assert bench.counter.count("c") == 1


def test_a_kafka_that_does_not_answer_is_not_asked_for_each_record() -> None:
    bench = Bench()
    assert bench.counter.count("a") == 4
    bench.admin.silent = True
    bench.now += RECOUNT_SECONDS
    for _ in range(100):
        assert bench.counter.count("a") == 4, "the last known count serves"
        assert not bench.refusal("b").permanent
    assert bench.admin.asked == 2
    bench.admin.silent = False
    bench.now += ASK_AGAIN_SECONDS
    assert bench.counter.count("b") == 2
