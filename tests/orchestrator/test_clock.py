"""The engine's time: the database's, carried on by this machine's; it follows jumps that last."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kasaga.orchestrator.clock import BELIEVED_AFTER, JUMP, Clock, to_datetime, to_micros

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)


class Ticking(Clock):
    def __init__(self) -> None:
        self.nanos = 77
        super().__init__()

    def ticks(self) -> int:
        return self.nanos


def test_the_databases_time_goes_on_with_this_machines() -> None:
    clock = Ticking()
    clock.sync(BEGIN)
    clock.nanos += 1_500_000
    assert clock.now() == to_micros(BEGIN) + 1_500
    assert clock.seconds() == clock.nanos / 1e9


class Database:
    """Its clock, which is asked twice a second, and the one under test."""

    def __init__(self) -> None:
        self.clock = Ticking()
        self.off = 0.0
        self.passed = 0.0
        self.clock.sync(BEGIN)
        self.clock.now()

    def passes(self, seconds: float) -> list[float]:
        """Let time pass; gives what the clock said each half second, in seconds since the beginning."""
        said: list[float] = []
        for _ in range(int(seconds * 2)):
            self.clock.nanos += 500_000_000
            self.passed += 0.5
            self.clock.sync(BEGIN + timedelta(seconds=self.passed + self.off))
            said.append((self.clock.now() - to_micros(BEGIN)) / 1e6)
        return said


@given(st.lists(st.integers(-JUMP // 2, JUMP // 2), max_size=30))
def test_small_differences_are_followed_but_never_back(offs: list[int]) -> None:
    database = Database()
    before = 0.0
    for off in offs:
        database.off = off / 1e6
        [now] = database.passes(0.5)
        assert now >= before
        assert now >= database.passed + database.off - 1e-6
        before = now


@given(st.sampled_from([-86400.0, -3600.0, -3.0, 3.0, 3600.0, 86400.0]))
def test_a_jump_that_does_not_last_changes_nothing(jump: float) -> None:
    database = Database()
    database.passes(5)
    database.off = jump
    said = database.passes(BELIEVED_AFTER - 1)
    database.off = 0.0
    said += database.passes(30)
    assert said == [5.5 + number / 2 for number in range(len(said))]


@given(st.sampled_from([-86400.0, -3600.0, -3.0, 3.0, 3600.0, 86400.0]))
def test_a_jump_that_lasts_is_followed_and_time_goes_on(jump: float) -> None:
    database = Database()
    database.passes(5)
    database.off = jump
    database.passes(BELIEVED_AFTER + 1)
    said = database.passes(3)
    assert said == [database.passed + jump - back / 2 for back in range(5, -1, -1)]


def test_a_jump_and_another_one_are_two_doubts() -> None:
    database = Database()
    for off in (3600.0, 1800.0, 3600.0, 0.0, 3600.0):
        database.off = off
        database.passes(BELIEVED_AFTER - 1)
    assert database.clock.now() == to_micros(BEGIN) + int(database.passed * 1e6)


def test_time_does_not_stand_still_after_an_hour_that_was_wrong_from_the_start() -> None:
    database = Database()
    database.off = -3600.0  # the first answer was an hour ahead
    database.passes(BELIEVED_AFTER + 1)
    assert database.passes(2) == [database.passed - 3600 - back / 2 for back in range(3, -1, -1)]


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_times_are_exact(moment: datetime) -> None:
    assert to_datetime(to_micros(moment)) == moment
