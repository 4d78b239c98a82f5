"""Where replies end: asked without waiting, and of what an answer is true."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import cast

import pytest

from kasaga.orchestrator.clock import Clock
from kasaga.orchestrator.shards import End
from kasaga.orchestrator.source import ASK_AGAIN_SECONDS, ASK_INTERVAL, SINGLY_SECONDS, Asker, Source
from kasaga.store.base import Offsets
from kasaga.testing import network
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import KafkaFailure, KafkaUnavailable
from kasaga_wire.kafka import Consumer
from kasaga_wire.topics import Topics

TOPICS = Topics("source")


class Question(network.Asked):
    """Answered when a test says so."""

    def __init__(self, places: list[network.Place]) -> None:
        super().__init__(None)
        self.places = places
        self.error: KafkaUnavailable | None = None

    def answer(self) -> dict[network.Place, int] | None:
        if self.error is not None:
            raise self.error
        return self._found

    def begins(self, firsts: dict[network.Place, int] | None) -> None:
        self._found = firsts

    def told(self, **ends: int) -> None:
        self._found = {(TOPICS.replies, int(name[1:])): end for name, end in ends.items()}


class Broker:
    """Keeps what it was asked."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.refuses = False

    def ask_offsets(
        self, places: Iterable[network.Place], *, first: bool = False, timeout: float
    ) -> Question:
        if self.refuses:
            raise KafkaFailure("no")
        self.questions.append(Question(list(places)))
        return self.questions[-1]


class Ticks(Clock):
    nanos = 0

    def ticks(self) -> int:
        return self.nanos

    def wait(self, until: threading.Event, seconds: float) -> None:
        self.nanos += round(seconds * 1e9)


class Desk:
    """A source of three shards, on a clock that stands."""

    def __init__(self, broker: Broker | None = None) -> None:
        kafka = network.Kafka()
        for spec in TOPICS.orchestrator_specs(3):
            kafka.create(spec.name, spec.partitions)
        self.broker, self.clock = broker or Broker(), Ticks()
        consumer = network.Consumer(kafka)
        self.source = Source(
            cast("Consumer", consumer), cast("Asker", self.broker), TOPICS, Schemas(), self.clock
        )
        for shard in range(3 if broker is None else 2):
            self.source.assign(shard, Offsets(), known=True)

    def ask(self, now: int, seconds: float = ASK_INTERVAL) -> None:
        self.clock.nanos += round(seconds * 1e9)
        self.source.hear()
        self.source.ask(now)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_one_question_asks_for_all_shards_and_is_true_of_the_time_when_it_was_asked(desk: Desk) -> None:
    assert desk.source.end_of(0, 50) is None
    assert desk.source.end_of(2, 60) is None
    desk.ask(100)
    (asked,) = desk.broker.questions
    assert asked.places == [(TOPICS.replies, 0), (TOPICS.replies, 2)]
    desk.ask(200)
    assert desk.source.end_of(0, 50) is None, "nobody has answered"
    asked.told(s0=7, s2=9)
    desk.source.hear()
    assert desk.source.end_of(0, 50) == End(100, 7)
    assert desk.source.end_of(2, 100) == End(100, 9)
    assert desk.source.end_of(2, 101) is None, "what came due since has to be asked for anew"
    assert len(desk.broker.questions) == 1


def test_one_question_at_a_time_and_not_at_every_turn(desk: Desk) -> None:
    desk.source.end_of(0, 1)
    desk.ask(10)
    desk.source.end_of(1, 1)
    desk.ask(20, ASK_INTERVAL / 2)
    assert len(desk.broker.questions) == 1
    desk.broker.questions[0].told(s0=1)
    desk.ask(30, 0)
    assert len(desk.broker.questions) == 1, "too soon"
    desk.ask(40)
    assert [each.places for each in desk.broker.questions[1:]] == [[(TOPICS.replies, 1)]]
    desk.ask(50)
    assert len(desk.broker.questions) == 2


def test_an_answer_says_nothing_of_a_shard_that_was_given_up_and_taken_again_since(desk: Desk) -> None:
    """Its topic may have been made anew in between."""
    desk.source.end_of(0, 1)
    desk.source.end_of(1, 1)
    desk.ask(10)
    desk.source.unassign(0)
    desk.source.assign(0, Offsets(), known=True)
    desk.broker.questions[0].told(s0=500, s1=3)
    desk.source.hear()
    assert desk.source.end_of(0, 1) is None
    assert desk.source.end_of(1, 1) == End(10, 3)
    desk.source.unassign(1)
    desk.source.assign(1, Offsets(), known=True)
    assert desk.source.end_of(1, 1) is None


def test_a_shard_that_the_broker_says_nothing_of_is_asked_for_again(desk: Desk) -> None:
    desk.source.end_of(0, 1)
    desk.source.end_of(1, 1)
    desk.ask(10)
    desk.broker.questions[0].told(s1=3)
    desk.source.hear()
    assert desk.source.end_of(1, 1) == End(10, 3)
    assert desk.source.end_of(0, 1) is None
    desk.ask(20)
    assert desk.broker.questions[1].places == [(TOPICS.replies, 0)]


@pytest.mark.parametrize("refused", [True, False])
def test_after_a_question_without_an_answer_nobody_is_asked_for_a_second(desk: Desk, refused: bool) -> None:
    desk.source.end_of(0, 1)
    desk.broker.refuses = refused
    desk.ask(10)
    if not refused:
        desk.broker.questions[0].error = KafkaUnavailable("away")
    desk.broker.refuses = False
    asked = len(desk.broker.questions)
    desk.source.hear()
    assert desk.source.end_of(0, 1) is None
    desk.ask(20, ASK_AGAIN_SECONDS / 2)
    assert len(desk.broker.questions) == asked
    desk.ask(30, ASK_AGAIN_SECONDS)
    assert len(desk.broker.questions) == asked + 1


class New(Broker):
    """Knows its partitions only after a while."""

    def __init__(self, *answers: dict[network.Place, int] | None) -> None:
        super().__init__()
        self.answers = list(answers)

    def ask_offsets(
        self, places: Iterable[network.Place], *, first: bool = False, timeout: float
    ) -> Question:
        assert first
        question = super().ask_offsets(places, first=first, timeout=timeout)
        question.begins(self.answers.pop(0) if len(self.answers) > 1 else self.answers[0])
        return question


ALL = {(TOPICS.sagas, 2): 5, (TOPICS.replies, 2): 6, (TOPICS.control, 2): 7}
SOME = {(TOPICS.sagas, 2): 5}


def test_a_shard_that_nobody_had_begins_where_its_topics_do_as_soon_as_brokers_know() -> None:
    desk = Desk(New(None, SOME, None, ALL))
    assert desk.source.assign(2, Offsets(), known=False) == Offsets(5, 6, 7)
    assert len(desk.broker.questions) == 4


@pytest.mark.parametrize("answer", [None, SOME])
def test_where_brokers_know_nothing_of_a_shard_it_is_not_read(
    answer: dict[network.Place, int] | None,
) -> None:
    desk = Desk(New(answer))
    with pytest.raises(KafkaUnavailable):
        desk.source.assign(2, Offsets(), known=False)
    assert 1.0 < desk.clock.seconds() < 1.5
    assert desk.source.end_of(2, 1) is None


def test_a_partition_without_a_leader_keeps_no_other_shard_waiting(desk: Desk) -> None:
    """It spoils a question about several; then each is asked for by itself."""
    known: dict[int, End] = {}
    for number in range(300):
        for shard in range(3):
            end = desk.source.end_of(shard, number - 5)
            if end is not None:
                known[shard] = end
        desk.ask(1 + number)
        question = desk.broker.questions[-1]
        if (TOPICS.replies, 1) in question.places:
            question.error = KafkaUnavailable("no leader")
        else:
            question.told(**{f"s{shard}": 5 for _, shard in question.places})
    assert known.keys() == {0, 2}
    assert min(end.asked_at for end in known.values()) > 250
    assert len(desk.broker.questions) > 50
    desk.ask(1000, SINGLY_SECONDS + 1)
    desk.broker.questions[-1].told(s0=5, s1=5, s2=5)
    desk.source.hear()
    for shard in range(3):
        desk.source.end_of(shard, 2000)
    desk.ask(2000)
    assert len(desk.broker.questions[-1].places) == 3
