"""The timeline's bars: where they begin and end, and what they are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.tales import BEGIN, Tale
from kasaga.engine.model import UNDO, Clear, Move, Replied
from kasaga.timeline import timeline
from kasaga.ui.bars import BARS_DRAWN, ROWS_AT_END, ROWS_DRAWN, SCALE, Chart, chart


def drawn(tale: Tale, *, later: float = 0) -> Chart:
    return chart(timeline(tale.records), tale.at + timedelta(seconds=later))


def looks(made: Chart) -> list[list[str]]:
    return [[bar.look for bar in row.bars] for row in made.rows]


def test_a_saga_that_goes_well() -> None:
    made = drawn(Tale().reserved().completed(), later=500)
    assert [(row.kind, row.step, row.name, row.tone) for row in made.rows] == [
        ("saga", "", "payment", "good"),
        ("command", "1", "inventory.reserve", "good"),
        ("command", "2", "payments.charge", "good"),
    ]
    assert looks(made) == [["busy"], ["good"], ["good"]]
    saga, first, second = (row.bars[0] for row in made.rows)
    assert (saga.x, saga.width) == (0, SCALE)
    assert (first.x, first.width) == (0, 375)
    assert (second.x, second.width) == (375, 625)
    assert made.rows[0].text == "COMPLETED after 32 ms"
    assert made.ticks == ["0", "8 ms", "16 ms", "24 ms", "32 ms"]


def test_attempts_waits_and_an_undo() -> None:
    made = drawn(Tale().reserved().charge_failed().charge_refused(2, after=1.003).released())
    assert looks(made) == [["busy", "warn"], ["good"], ["warn", "wait", "bad"], ["undo"]]
    assert [row.kind for row in made.rows][-1] == "undo"
    failed, wait, refused = made.rows[2].bars
    assert failed.x + failed.width == pytest.approx(wait.x, abs=0.02)
    assert wait.x + wait.width == pytest.approx(refused.x, abs=0.02)
    assert failed.title == "attempt 1 failed after 100 ms: DeadlockDetected: try again"
    assert wait.title == "1.0 s until attempt 2"


def test_what_goes_on_reaches_to_now() -> None:
    made = drawn(Tale().reserved().timed_out(), later=20)
    assert looks(made) == [["busy"], ["good"], ["warn", "busy"]]
    last = made.rows[-1].bars[-1]
    assert last.x + last.width == pytest.approx(SCALE, abs=0.02)
    assert made.rows[0].text == "RUNNING, 1 min 20 s so far"


def test_an_attempt_that_is_yet_to_come_is_a_wait() -> None:
    made = drawn(Tale().reserved().charge_failed(), later=0.5)
    assert looks(made)[2] == ["warn", "wait"]
    assert made.rows[2].text == "attempt 2 in 500 ms"


def test_stuck_and_somebody_who_acts() -> None:
    tale = Tale().reserved().charge_refused().release_fails()
    again = Move("COMPENSATING", "KSG-253", "the card is blocked", "", "2")
    tale.asks("skip", "the shelf is gone", Clear("1", "skipped"), again, again._replace(state="COMPENSATED"))
    made = drawn(tale)
    assert looks(made)[0] == ["busy", "warn", "bad", "act"]
    assert made.rows[0].bars[-1].title == "skip by anna: the shelf is gone"
    assert made.rows[0].tone == "warn"


def test_a_sleep() -> None:
    made = drawn(Tale().sleeps(7200), later=3600)
    assert looks(made)[-1] == ["sleep"]


def test_very_many_attempts_share_a_bar() -> None:
    tale = Tale().reserved().charge_refused()
    for number in range(2, 400):
        event = Replied("1", UNDO, number - 1, "failed", b"", "E", "no disk")
        tale.then(1, event, tale.undo("1", "inventory.release", attempt=number, after=0.5))
    bars = drawn(tale).rows[-1].bars
    assert len(bars) <= 2 * BARS_DRAWN + 1
    assert bars[0].title == f"the first {399 - BARS_DRAWN} attempts"


def test_very_many_steps_are_not_all_drawn() -> None:
    tale = Tale()
    for number in range(1, 300):
        event = Replied(f"{number}", "command", 1, "done", b"")
        from kasaga.engine.model import Settle

        tale.then(1, event, Settle(f"{number}", "done"), tale.send(f"{number + 1}", "a.b", ""))
    made = drawn(tale)
    assert len(made.rows) <= ROWS_DRAWN + 1
    assert len(made.rows) + made.left_out == 301
    assert made.rows[-1].step == "300"
    assert len(made.rows) - 1 == ROWS_AT_END


def test_nothing() -> None:
    assert chart([], BEGIN) == Chart([], [], 0)


@given(st.lists(st.sampled_from(["charge_failed", "timed_out"]), max_size=3), st.floats(-100, 1e9))
def test_bars_are_always_on_the_scale(ways: list[str], later: float) -> None:
    tale = Tale().reserved()
    for way in ways[:1]:
        getattr(tale, way)()
    for row in drawn(tale, later=later).rows:
        for bar in row.bars:
            assert 0 <= bar.x <= bar.x + bar.width <= SCALE + 0.02
