"""Steps whose participant answers later: deferrals, heartbeats, silence, and what comes in another order."""

from __future__ import annotations

import pytest

from engine.bodies import of
from engine.harness import SECOND, Play
from engine.shop import Inventory, Mail, Order, Payments
from kasaga import RetryPolicy, SagaContext, StepTimeout
from kasaga.engine.decide import Ignored
from kasaga.engine.deferrals import Defer, Deferred
from kasaga.engine.driver import TIMED_OUT
from kasaga.engine.model import COMMAND, UNKNOWN, Faulted, Fired, Move, Record, Send, Settle
from kasaga.errors import NotApplicable, StepFails

HOUR = 3_600


async def waiting(ctx: SagaContext, order: Order) -> str:
    """For at most an hour, and 60 seconds an attempt."""
    await ctx.use(Inventory).reserve(order)
    return "reserved"


async def patient(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory, schedule_to_close=None).reserve(order)
    return "reserved"


async def forgiving(ctx: SagaContext, order: Order) -> str:
    try:
        await ctx.use(Inventory).reserve(order)
    except StepTimeout:
        return "without"
    return "reserved"


async def mailing(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Mail, retry=RetryPolicy(maximum_attempts=2)).send(order)
    return "sent"


async def committed(ctx: SagaContext, order: Order) -> str:
    await ctx.pivot()
    await ctx.use(Payments).charge(order)
    return "charged"


def later(
    play: Play, number: int = 0, *, run: int = 1, asked: int = 0, heartbeat: int = 30, progress: str = ""
) -> Record | Ignored | NotApplicable:
    """The participant of step 1 says that it answers later, or is still at it."""
    step = play.step(1)
    asked = asked or (run if number else step.attempt)
    return play.event(Deferred("1", COMMAND, asked, run, number, heartbeat * SECOND, progress))


def sent(play: Play) -> list[int]:
    return [each.attempt for each in play.sent if isinstance(each, Send) and each.form == COMMAND]


def test_a_deferred_step_is_sent_no_more_and_times_out_no_more() -> None:
    play = of(waiting)
    later(play)
    assert play.decisions == (Defer("1", play.now + 30 * SECOND, 1, 0, 30 * SECOND),)
    assert [type(row) for row in play.rows.values()] == [Defer]
    for number in range(1, 10):
        play.now += 29 * SECOND
        assert isinstance(play.event(Fired("1", COMMAND)), Ignored)
        later(play, number, progress=f"{number}")
        assert play.step(1).late is not None
    play.now += 29 * SECOND
    play.done(1)
    assert (play.state.state, sent(play), play.rows) == ("COMPLETED", [1], {})


def test_without_a_heartbeat_it_is_undone_whatever_the_policy() -> None:
    play = of(waiting)
    later(play)
    later(play, 1)
    play.fire(1)
    step = play.step(1)
    assert (step.outcome, step.error_type, sent(play)) == (UNKNOWN, TIMED_OUT, [1])
    assert "no heartbeat for 30 s" in step.error
    assert (step.undo_form, play.state.state) == ("undo", "COMPENSATING")
    assert later(play, 2) == Ignored("late")
    assert play.done(1) == Ignored("late")
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_the_code_may_catch_it() -> None:
    play = of(forgiving)
    later(play)
    play.fire(1)
    play.undo(1)
    assert (play.state.state, play.state.with_exceptions) == ("COMPLETED", False)


def test_without_a_compensation_it_is_voided() -> None:
    play = of(mailing)
    later(play)
    play.fire(1)
    assert (play.step(1).undo_form, sent(play)) == ("void", [1])


def test_the_time_for_all_attempts_goes_on() -> None:
    play = of(waiting)
    began = play.now
    later(play, heartbeat=50 * 60)
    play.now += 40 * 60 * SECOND
    later(play, 1, heartbeat=50 * 60)
    assert play.step(1).due_at == began + HOUR * SECOND
    play.fire(1)
    assert "no answer in the time for all attempts" in play.step(1).error


def test_without_heartbeats_only_that_time_counts() -> None:
    play = of(waiting)
    began = play.now
    later(play, heartbeat=0)
    assert play.step(1).due_at == began + HOUR * SECOND


def test_without_either_it_is_waited_for_without_end() -> None:
    play = of(patient)
    later(play, heartbeat=0)
    assert (play.step(1).due_at, len(play.rows)) == (0, 1)
    play.now += 1_000 * HOUR * SECOND
    assert play.event(Fired("1", COMMAND)) == Ignored("not due")
    play.done(1)
    assert play.state.state == "COMPLETED"


def test_what_comes_twice_or_late_counts_once() -> None:
    play = of(waiting)
    later(play, 3)
    for number in (0, 1, 2, 3):
        assert later(play, number) == Ignored("duplicate")
    later(play, 4, progress='"half"')
    later(play, 5)
    late = play.step(1).late
    assert late is not None
    assert (late.number, late.progress) == (5, '"half"')


def test_an_answer_that_overtakes_its_deferral() -> None:
    play = of(waiting)
    play.done(1)
    assert play.event(Deferred("1", COMMAND, 1, 1, 0, SECOND)) == Ignored("saga has ended")


def test_a_deferral_that_comes_after_the_attempts_time_out() -> None:
    play = of(waiting)
    play.fire(1)
    assert sent(play) == [1, 2]
    later(play, run=1, asked=1)
    assert later(play, 0, run=1, asked=2) == Ignored("duplicate")
    assert [type(row) for row in play.rows.values()] == [Defer]
    play.failed(1, attempt=1)
    assert sent(play) == [1, 2, 3]


def test_a_failure_that_comes_later_leads_to_another_attempt() -> None:
    play = of(waiting)
    later(play)
    later(play, 1)
    play.failed(1)
    assert [(type(each), getattr(each, "attempt", 0)) for each in play.decisions] == [(Send, 2)]
    assert later(play, 2, run=1) == Ignored("old attempt")
    assert later(play, 0, run=1, asked=1) == Ignored("old attempt")
    later(play, 0, run=2)
    assert later(play, 3, run=1) == Ignored("old attempt")
    play.done(1)
    assert play.state.state == "COMPLETED"


def test_a_refusal_that_comes_later_is_a_refusal() -> None:
    play = of(waiting)
    later(play)
    play.refused(1)
    assert (play.state.state, play.step(1).undo_form) == ("COMPENSATED", "")


def test_a_cancel_undoes_it() -> None:
    play = of(waiting)
    later(play)
    play.ask("cancel")
    assert (play.step(1).undo_form, [type(row) for row in play.rows.values()]) == ("undo", [Send])


def test_after_the_pivot_it_is_asked_for_again_and_never_given_up() -> None:
    play = of(committed)
    later(play)
    play.fire(1)
    assert (play.state.state, play.state.code, sent(play)) == ("STUCK", StepFails.code, [1, 2])
    later(play, 0, run=1, asked=2)
    play.fire(1)
    assert sent(play) == [1, 2, 3]
    play.done(1)
    assert play.state.state == "COMPLETED"


def test_heartbeats_that_came_while_it_was_parked_win_over_the_time_out() -> None:
    play = of(waiting)
    later(play)
    due = play.step(1).due_at
    play.event(Faulted("KSG-210", "a test", "wait"))
    play.now = due - 1
    later(play, 1)
    assert later(play, 2) == Ignored("duplicate"), "one is enough while nothing is decided"
    play.now = due
    assert isinstance(play.event(Fired("1", COMMAND)), Record)
    play.now = due + SECOND
    play.ask("retry")
    assert (play.state.state, play.step(1).outcome) == ("RUNNING", "")
    assert play.step(1).due_at == play.now + 30 * SECOND


@pytest.mark.parametrize("form", ["undo", "void"])
def test_undos_are_not_deferred(form: str) -> None:
    play = of(waiting)
    assert isinstance(play.event(Deferred("1", form, 1, 1, 0, SECOND)), Ignored)


def test_moves_nothing_else() -> None:
    play = of(waiting)
    later(play)
    assert not [each for each in play.decisions if isinstance(each, Move | Settle)]


def test_a_pause_keeps_heartbeats_and_its_time_doesnt_count() -> None:
    play = of(waiting)
    began = play.now
    later(play)
    play.ask("pause")
    play.now += 20 * SECOND
    later(play, 1)
    play.now += 40 * SECOND
    play.event(Fired("1", COMMAND))
    play.ask("resume")
    assert (play.state.state, play.step(1).outcome) == ("RUNNING", "")
    assert play.step(1).due_at == play.now + 30 * SECOND

    later(play, 2, heartbeat=HOUR)
    assert play.step(1).due_at == began + (HOUR + 60) * SECOND


def test_a_pause_gives_more_time_for_all_attempts() -> None:
    play = of(waiting)
    began = play.now
    later(play, heartbeat=0)
    play.now += 10 * SECOND
    play.ask("pause")
    play.now = began + HOUR * SECOND
    play.event(Fired("1", COMMAND))
    play.ask("resume")
    assert (play.step(1).outcome, sent(play)) == ("", [1])
    assert play.step(1).due_at == play.now + (HOUR - 10) * SECOND
    play.done(1)
    assert play.state.state == "COMPLETED"


def test_a_saga_is_terminated_over_it() -> None:
    play = of(waiting)
    later(play)
    play.ask("terminate")
    assert (play.state.state, play.step(1).outcome) == ("TERMINATED", UNKNOWN)
