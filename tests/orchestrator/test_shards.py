"""When timers fire: never before an answer that was there when they came due."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasaga.orchestrator.clock import to_datetime
from kasaga.orchestrator.shards import CONVICT_AFTER, SUSPECT_AFTER, End, Shard
from kasaga.store.base import Offsets, OutboxRow, RowKind, ShardRow, Suspect

RUN = UUID(int=1)
T = 1_900_000_000_000_000


def shard(replies: int = 0, deaths: int = 0, suspect: Suspect | None = None) -> Shard:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    row = ShardRow(3, UUID(int=9), 2, Offsets(0, replies, 0), 7, 4, 50, now, deaths, suspect)
    return Shard.taken(row)


def row(seq: int, due: int | None, kind: RowKind = RowKind.COMMAND) -> OutboxRow:
    at = None if due is None else to_datetime(due)
    return OutboxRow(3, seq, kind, RUN, str(seq), "", None, None, [], None, 1, None, at)


def never(shard: int, since: int) -> End | None:
    raise AssertionError("nothing is due: nobody has to be asked")


def nobody(shard: int, since: int) -> End | None:
    """Kafka hasn't answered yet."""
    return None


def at(asked_at: int, offset: int) -> Callable[[int, int], End | None]:
    """What Kafka has answered to a question of that time."""
    end = End(asked_at, offset)
    return lambda shard, since: end if end.asked_at >= since else None


def test_nothing_is_asked_before_something_is_due() -> None:
    here = shard()
    assert not here.ready(T, never)
    here.opened(row(1, T + 1))
    here.opened(row(2, None))
    assert here.next_due == T + 1
    assert not here.ready(T, never)


def test_a_timer_waits_until_the_replies_are_read_to_the_end_that_they_had_when_it_was_due() -> None:
    here = shard(replies=5)
    here.opened(row(1, T))
    assert not here.ready(T, at(T, 8))
    here.position = 7
    assert not here.ready(T + 10, never), "the goal is known already"
    here.position = 8
    assert here.ready(T + 20, never)
    assert [due.row for due in here.pop_due(T + 20, 10)] == [1]
    assert here.next_due is None


def test_a_wait_for_a_signal_ends_when_the_signals_that_had_come_by_then_are_read() -> None:
    here = shard(replies=5)
    here.opened(replace(row(1, T), kind=RowKind.TIMER, step="3~signal"))
    assert here.waits == {1}
    ends = End(T, 5, control=9)
    assert not here.ready(T, lambda shard, since: ends)
    here.control = 9
    here.held["control"] = {8}
    assert not here.ready(T, never)
    here.held["control"].clear()
    assert here.ready(T, never)
    here.closed(1)
    assert not here.waits


def test_the_end_of_the_log_is_as_good_as_a_record_at_its_end() -> None:
    """Behind the last record there may be a transaction's marker, which nobody reads."""
    here = shard(replies=5)
    here.opened(row(1, T))
    assert not here.ready(T, at(T, 9))
    here.end = 9
    assert here.ready(T, never)


def test_what_came_due_after_the_question_waits_for_the_next_one() -> None:
    here = shard(replies=5)
    here.opened(row(1, T))
    here.opened(row(2, T + 5))
    assert here.ready(T, at(T, 5))
    assert [due.row for due in here.pop_due(T + 6, 10)] == [1]
    assert not here.ready(T + 6, at(T, 5)), "that was asked before it came due"
    assert here.ready(T + 7, at(T + 5, 5))
    assert [due.row for due in here.pop_due(T + 7, 10)] == [2]


def test_where_kafka_can_not_say_nothing_fires_and_it_is_asked_again() -> None:
    here = shard()
    here.opened(row(1, T))
    assert not here.ready(T, nobody)
    assert not here.ready(T + 5, nobody)
    assert here.ready(T + 9, at(T, 0))


def test_what_is_kept_back_counts_as_not_read() -> None:
    here = shard(replies=5)
    here.opened(row(1, T))
    here.held["replies"] = {6}
    here.position = 8
    assert not here.ready(T, at(T, 8))
    assert here.hold_back(Offsets(3, 8, 2)) == Offsets(3, 6, 2)
    here.held["replies"].clear()
    assert here.ready(T, never)
    assert here.hold_back(Offsets(3, 8, 2)) == Offsets(3, 8, 2)


def test_a_log_that_was_cut_says_nothing_about_its_end() -> None:
    here = shard(replies=500)
    here.end = 500
    here.opened(row(1, T))
    here.rewound(0)
    assert not here.ready(T, at(T, 3))
    here.position = 3
    assert here.ready(T, never)


def test_what_was_answered_does_not_fire() -> None:
    here = shard()
    for seq in (1, 2, 3):
        here.opened(row(seq, T + seq))
    here.closed(1)
    here.closed(99)
    assert here.next_due == T + 2
    assert here.ready(T + 10, at(T + 10, 0))
    assert [due.row for due in here.pop_due(T + 10, 1)] == [2]
    here.closed(3)
    assert list(here.pop_due(T + 10, 10)) == []


@pytest.mark.parametrize("deaths", [0, 1, SUSPECT_AFTER, SUSPECT_AFTER + 1])
def test_a_shard_whose_owners_die_is_suspect(deaths: int) -> None:
    here = shard(deaths=deaths)
    assert here.suspects == (deaths >= SUSPECT_AFTER)
    assert here.convicted is None


@pytest.mark.parametrize("deaths", [1, CONVICT_AFTER, CONVICT_AFTER + 1])
def test_a_saga_is_convicted_by_two_deaths_with_its_mark_and_not_by_one(deaths: int) -> None:
    suspect = Suspect(RUN, "trips.py:7 in trip", deaths)
    here = shard(deaths=SUSPECT_AFTER + deaths, suspect=suspect)
    assert here.convicted == (suspect if deaths >= CONVICT_AFTER else None)


def _at(now: int, end: int, shard: int, since: int) -> End:
    return End(now, end)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("open"), st.integers(0, 200_000)),
            st.tuples(st.just("written"), st.integers(1, 5)),
            st.tuples(st.just("read"), st.integers(1, 5)),
            st.tuples(st.just("pass"), st.integers(1, 60_000)),
            st.tuples(st.just("fire"), st.integers(1, 3)),
        ),
        max_size=60,
    )
)
def test_no_timer_ever_overtakes_a_reply_that_was_written_before_it_came_due(
    happened: list[tuple[str, int]],
) -> None:
    here, now, end, seq = shard(), T, 0, 0
    ends: list[tuple[int, int]] = [(0, 0)]
    """(time, end of the replies from then on). At the very same microsecond nobody can say."""
    for what, number in happened:
        if what == "open":
            seq += 1
            here.opened(row(seq, now + number))
        elif what == "written":
            end += number
            ends.append((now, end))
        elif what == "read":
            here.position = min(end, here.position + number)
        elif what == "pass":
            now += number
        elif here.ready(now, partial(_at, now, end)):
            for due in here.pop_due(now, number):
                assert due.at <= now
                there = max(end for at, end in ends if at < due.at)
                assert here.position >= there, "an answer that was there is overtaken"
