"""The engine's time: the database's, carried on by this machine's, never going back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from kasaga.orchestrator.clock import Clock, to_datetime, to_micros

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


@given(st.lists(st.tuples(st.integers(-10_000_000, 10_000_000), st.integers(0, 5_000_000_000)), max_size=30))
def test_it_never_goes_back_whatever_the_databases_clock_does(steps: list[tuple[int, int]]) -> None:
    clock = Ticking()
    before = clock.now()
    for jump, nanos in steps:
        clock.sync(BEGIN + timedelta(microseconds=jump))
        clock.nanos += nanos
        now = clock.now()
        assert now >= before
        assert now >= to_micros(BEGIN) + jump + nanos // 1000
        before = now


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_times_are_exact(moment: datetime) -> None:
    assert to_datetime(to_micros(moment)) == moment
