"""Partitions that are assigned and not read: when they are told, and what is no reason to tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pytest

from kasaga_wire.errors import KafkaUnavailable
from kasaga_wire.kafka_pauses import Pauses
from kasaga_wire.kafka_records import Place
from kasaga_wire.kafka_watch import MOST_AT_ONCE, Stall, Watch, Which

ZERO, ONE = ("t", 0), ("t", 1)


class Broker:
    def __init__(self) -> None:
        self.now = 100.0
        self.logs: dict[Place, tuple[int, int]] = {}
        self.committed: dict[Place, int] = {}
        self.away = False
        self.asked: list[list[Place]] = []
        self.watch = Watch(lambda: self.now, 1.0)

    def offsets(self, places: Sequence[Place], which: Which, timeout: float) -> Mapping[Place, int]:
        if self.away:
            raise KafkaUnavailable("away")
        if which == "group":
            return {place: self.committed[place] for place in places if place in self.committed}
        if which == "end":
            self.asked.append(list(places))
        return {place: self.logs[place][which == "end"] for place in places if place in self.logs}

    def looks(self, seconds: float, held: Iterable[Place] = ()) -> list[Stall]:
        """What was found in so many seconds, looking ten times in each."""
        found: list[Stall] = []
        for _ in range(int(seconds * 10)):
            self.now += 0.1
            found += self.watch.look(self, set(held))
        return found


@pytest.fixture
def broker() -> Broker:
    return Broker()


def test_a_partition_that_nothing_came_of_is_told_within_half_a_minute(broker: Broker) -> None:
    broker.logs, broker.committed = {ZERO: (0, 7)}, {ZERO: 5}
    broker.watch.began({ZERO: None})
    assert broker.looks(21) == []
    assert broker.looks(9) == [Stall(ZERO, 5, 7)]


def test_one_that_stops_is_told_too(broker: Broker) -> None:
    broker.logs = {ZERO: (0, 7)}
    broker.watch.began({ZERO: 0})
    broker.watch.came({ZERO: 7})
    assert broker.looks(60) == []
    broker.logs = {ZERO: (0, 9)}
    assert broker.looks(60) == [Stall(ZERO, 7, 9)]


def test_the_same_end_is_told_once_whoever_reads_there(broker: Broker) -> None:
    broker.logs = {ZERO: (0, 7)}
    broker.watch.began({ZERO: 0})
    assert len(broker.looks(600)) == 1
    broker.watch.ended([ZERO])
    broker.watch.began({ZERO: 0})
    assert broker.looks(600) == []
    broker.logs = {ZERO: (0, 8)}
    assert len(broker.looks(600)) == 1


def test_what_is_read_or_at_its_end_is_not_told(broker: Broker) -> None:
    broker.logs = {ZERO: (0, 7), ONE: (0, 7)}
    broker.watch.began({ZERO: 0, ONE: None})
    for second in range(300):  # zero: slowly; one: its end was told, behind a transaction's control record
        broker.watch.came({ZERO: second, **({ONE: 7} if second == 3 else {})})
        broker.logs[ZERO] = (0, 10_000)
        assert broker.looks(1) == []


def test_anything_that_comes_clears_the_suspicion(broker: Broker) -> None:
    broker.logs = {ZERO: (0, 100)}
    broker.watch.began({ZERO: 0})
    for position in range(20):
        assert broker.looks(21) == []
        broker.watch.came({ZERO: position})


def test_what_is_held_is_not_asked_for_and_begins_from_the_start_afterwards(broker: Broker) -> None:
    broker.logs = {ZERO: (0, 7)}
    broker.watch.began({ZERO: 0})
    assert broker.looks(21) == []
    asked = len(broker.asked)
    assert broker.looks(300, held=[ZERO]) == []
    assert len(broker.asked) == asked
    assert broker.looks(12) == []


def test_a_log_that_was_emptied_is_not_told(broker: Broker) -> None:
    broker.logs, broker.committed = {ZERO: (7, 7)}, {ZERO: 2}
    broker.watch.began({ZERO: None})
    assert broker.looks(300) == []


def test_a_group_without_an_offset_begins_at_the_beginning(broker: Broker) -> None:
    broker.logs = {ZERO: (3, 7)}
    broker.watch.began({ZERO: None})
    assert broker.looks(30) == [Stall(ZERO, 3, 7)]


def test_nothing_is_told_where_nobody_says_where_to_begin_or_where_it_ends(broker: Broker) -> None:
    broker.logs = {ONE: (0, 7)}
    broker.watch.began({ZERO: 0, ("t", 2): None})
    assert broker.looks(300) == []


def test_brokers_that_are_away_are_asked_seldom_and_clear_every_suspicion(broker: Broker) -> None:
    broker.logs = {ZERO: (0, 7)}
    broker.watch.began({ZERO: 0})
    assert broker.looks(21) == []
    broker.away = True
    failures = 0
    for _ in range(1200):
        try:
            broker.looks(0.1)
        except KafkaUnavailable:
            failures += 1
    assert failures == 4  # in two minutes
    broker.away = False
    assert broker.looks(10) == []


def test_the_cost_is_small(broker: Broker) -> None:
    places = [("t", number) for number in range(768)]
    broker.logs = dict.fromkeys(places, (0, 7))
    broker.watch.began(dict.fromkeys(places, 7))
    assert broker.looks(120) == []
    assert max(map(len, broker.asked)) <= MOST_AT_ONCE
    assert len(broker.asked) <= 120
    assert {place for asked in broker.asked for place in asked} == set(places)


# --- pauses


class Paused:
    def __init__(self) -> None:
        self.calls: list[tuple[str, list[Place]]] = []

    def pause(self, places: Iterable[Place]) -> None:
        self.calls.append(("pause", list(places)))

    def resume(self, places: Iterable[Place]) -> None:
        self.calls.append(("resume", list(places)))


def test_only_what_has_shown_that_it_is_read_is_paused_and_only_once() -> None:
    consumer = Paused()
    pauses = Pauses(consumer)
    pauses.began([ZERO, ONE])
    pauses.pause()
    assert consumer.calls == []

    pauses.shown([ONE, ("other", 5)])
    pauses.pause()
    pauses.pause()
    pauses.shown([ZERO])
    pauses.pause([ONE])
    pauses.pause([ZERO])
    assert consumer.calls == [("pause", [ONE]), ("pause", [ZERO])]
    assert pauses.paused == {ZERO, ONE}

    pauses.resume()
    pauses.resume()
    assert consumer.calls[2:] == [("resume", [ZERO, ONE])]


def test_what_goes_is_resumed_and_begins_anew_when_it_comes_back() -> None:
    consumer = Paused()
    pauses = Pauses(consumer)
    pauses.began([ZERO, ONE])
    pauses.shown([ZERO, ONE])
    pauses.pause([ZERO])
    pauses.going([ZERO, ONE])
    assert consumer.calls == [("pause", [ZERO]), ("resume", [ZERO])]
    pauses.pause()
    pauses.began([ZERO])
    pauses.pause()
    pauses.resume()
    assert len(consumer.calls) == 2
