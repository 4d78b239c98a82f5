"""Pausing and resuming: nothing goes out meanwhile, nothing that comes is lost, and then it goes on."""

from __future__ import annotations

from typing import Any

import pytest

from engine.harness import SECOND, Play
from engine.shop import ORDER, Inventory, Mail, Order, Payments, app_of, payment, started
from engine.test_operator import conflicting, failing_undo, refusal
from kasaga import App, SagaContext, StepError, saga
from kasaga.engine.decide import Ignored
from kasaga.engine.model import (
    COMMAND,
    LOCAL,
    Accept,
    Asked,
    CodeArrived,
    Fired,
    Hold,
    Move,
    Record,
    Release,
    RunLocal,
    Send,
    Settle,
    Take,
    Tell,
)
from kasaga.engine.stand import REMEDY

HOUR = 3600 * SECOND


def paused(play: Play, reason: str = "a deployment") -> Play:
    """The same play, paused by anna."""
    assert isinstance(play.ask("pause", reason=reason), Record)
    return play


def nothing_went_out(play: Play) -> bool:
    """Whether the last event led to nothing that others see."""
    return not [each for each in play.decisions if isinstance(each, Send | RunLocal | Tell)]


def test_a_paused_saga_says_so_and_since_when_and_what_to_do() -> None:
    play = started(payment)
    play.now += SECOND
    paused(play)
    state = play.state
    assert (state.state, state.phase, state.code) == ("PAUSED", "RUNNING", "")
    assert state.reason == "paused by anna: a deployment"
    assert state.remedy == REMEDY
    assert state.paused is not None
    assert (state.paused.at, state.paused.by, state.paused.said) == (play.now, "anna", "a deployment")
    assert play.decisions == (Hold(), Tell("", "PAUSED"))
    assert [mark.what for mark in state.marks] == ["pause", "PAUSED"]


def test_a_pause_without_a_reason_and_without_events() -> None:
    play = started(payment)
    play.defs = play.defs._replace(events=frozenset())
    play.ask("pause", reason="")
    assert play.state.reason == "paused by anna"
    assert play.decisions == (Hold(),)


def test_an_answer_is_recorded_and_the_next_step_waits_for_the_resume() -> None:
    play = paused(started(payment))
    play.done(1)
    assert play.decisions == ()
    assert [type(news).__name__ for news in play.state.pending] == ["Replied"]
    assert isinstance(play.done(1), Ignored)  # the same once more
    play.ask("resume")
    assert play.kinds == [Release, Tell, Settle, *play.kinds[3:4], Send]
    assert (play.state.state, play.state.reason, play.state.pending) == ("RUNNING", "", ())
    assert play.state.pauses == [(play.now, play.now)]
    play.done(2)
    play.done(3)
    assert play.state.state == "COMPLETED"


def test_a_refusal_while_paused_undoes_only_after_the_resume() -> None:
    play = started(payment)
    play.done(1)
    paused(play)
    play.refused(2)
    assert nothing_went_out(play)
    play.ask("resume")
    assert play.state.state == "COMPENSATING"
    assert play.undone == ["1"]


def test_an_undoing_saga_stands_still_too() -> None:
    play = started(payment)
    play.done(1)
    play.done(2)
    play.refused(3)
    paused(play)
    play.undo(2)
    assert nothing_went_out(play)
    assert (play.state.state, play.state.phase) == ("PAUSED", "COMPENSATING")
    play.ask("resume")
    assert (play.state.state, play.state.reason) == ("COMPENSATING", play.state.undo_reason)
    assert play.undone == ["2", "1"]
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_a_retry_that_was_planned_is_taken_back_and_goes_out_at_its_time() -> None:
    play = started(payment)
    play.failed(1)
    planned = play.step(1).last_at
    assert planned > play.now
    paused(play)
    assert play.rows == {}
    play.ask("resume")
    (sent,) = play.decided(Send)
    assert (sent.attempt, sent.send_at) == (2, planned)
    play.now = planned
    play.done(1)
    assert play.step(1).outcome == "done"


def test_after_a_long_pause_it_goes_out_at_once_with_the_same_number() -> None:
    play = started(payment)
    play.failed(1)
    paused(play)
    play.now += HOUR
    play.ask("resume")
    (sent,) = play.decided(Send)
    assert (sent.attempt, sent.send_at) == (2, 0)
    assert sent.due_at > play.now


def test_a_retry_of_an_undo_is_taken_back_as_well() -> None:
    play = started(payment)
    play.done(1)
    play.refused(2)
    play.answer(1, "failed", error="down")
    assert play.step(1).undo_at > play.now
    paused(play)
    assert play.rows == {}
    play.now += HOUR
    play.ask("resume")
    (sent,) = play.decided(Send)
    assert (sent.form, sent.attempt, sent.send_at) == ("undo", 2, 0)


def test_a_time_out_that_came_meanwhile_counts_behind_an_answer() -> None:
    play = paused(started(payment))
    play.fire(1)
    assert play.decisions == ()
    assert isinstance(play.fire(1), Ignored)
    play.done(1)
    play.ask("resume")
    assert [each.outcome for each in play.decided(Settle)] == ["done"]


def test_a_time_out_without_an_answer_sends_the_next_attempt() -> None:
    play = paused(started(payment))
    play.fire(1)
    play.ask("resume")
    (sent,) = play.decided(Send)
    assert (sent.step, sent.attempt) == ("1", 2)


def test_the_time_of_a_pause_is_not_taken_from_the_retries() -> None:
    @saga("short")
    async def short(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Mail, schedule_to_close=60).send(order)

    play = started(short)
    play.now += 5 * SECOND
    paused(play)
    play.now += HOUR
    play.ask("resume")
    play.failed(1)
    assert play.step(1).attempt == 2, "a minute of trying isn't over"
    play.now += HOUR
    play.failed(1)
    assert play.step(1).outcome == "unknown"


def test_a_sleep_that_ends_meanwhile_is_over_at_the_resume() -> None:
    @saga("nap")
    async def nap(ctx: SagaContext, order: Order) -> None:
        await ctx.sleep(60)

    play = paused(started(nap))
    play.fire(1)
    assert play.state.state == "PAUSED"
    play.ask("resume")
    assert play.state.state == "COMPLETED"


def test_the_deadline_passes_meanwhile_and_counts_at_the_resume() -> None:
    @saga("hasty", timeout=60)
    async def hasty(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Payments).charge(order)

    play = paused(started(hasty))
    play.fire()
    assert (play.state.state, nothing_went_out(play)) == ("PAUSED", True)
    play.done(1)
    play.ask("resume")
    assert (play.state.state, play.state.code) == ("CANCELLING", "KSG-256")
    assert play.undone == ["1"]


def look() -> None:
    """A function of ctx.run."""


def test_a_function_waits_for_the_resume() -> None:
    @saga("local")
    async def local(ctx: SagaContext, order: Order) -> None:
        await ctx.run(look)

    play = started(local)
    play.ran(1, "OSError", "disk")
    assert play.step(1).last_at > play.now
    paused(play)
    assert play.rows == {}
    play.now += HOUR
    play.ask("resume")
    (run,) = play.decided(RunLocal)
    assert (run.form, run.attempt, run.send_at) == (LOCAL, 2, 0)


# --- what is sent to it ---


@saga("asking")
async def asking(ctx: SagaContext, order: Order) -> None:
    count = 0

    def add(value: int) -> int:
        nonlocal count
        count += value
        return count

    ctx.update("add", int, add)
    ctx.query("count", lambda: count)
    await ctx.signal("go", str)


def test_signals_updates_and_queries_get_in() -> None:
    play = paused(started(asking))
    play.signal("go", "now")
    play.update("add", 3)
    assert [type(each) for each in play.decisions] == [Accept]
    assert play.query("count") == 0
    assert play.state.state == "PAUSED"
    play.ask("resume")
    assert play.decided(Take)
    assert play.state.state == "COMPLETED"


def test_an_update_is_handled_at_the_resume() -> None:
    play = paused(started(asking))
    play.update("add", 3)
    play.ask("resume")
    assert play.query("count") == 3


# --- STUCK beneath ---


def test_a_saga_that_is_stuck_at_a_step_is_so_again() -> None:
    play = paused(conflicting())
    assert play.state.state == "PAUSED"
    assert "resume it first" in refusal(play.ask("retry"))
    assert "resume it first" in refusal(play.ask("resolve", value='{"id": 7}'))
    play.ask("resume")
    assert (play.state.state, play.state.code, play.state.stuck_step) == ("STUCK", "KSG-222", "2")
    assert Tell("", "STUCK") in play.decisions
    play.ask("resolve", value='{"id": 7}')
    assert play.state.state == "RUNNING"


def test_an_undo_that_keeps_failing_isn_t_tried_while_paused() -> None:
    play = paused(failing_undo())
    assert play.rows == {}
    assert isinstance(play.event(CodeArrived("other")), Ignored)
    play.now += HOUR
    play.ask("resume")
    assert play.state.state == "STUCK"
    assert [each.form for each in play.decided(Send)] == ["undo"]
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_an_attempt_that_was_taken_back_and_answered_all_the_same() -> None:
    """It was produced while Postgres was away, so that the pause was decided behind its time."""
    play = started(payment)
    play.failed(1)
    paused(play)
    play.answer(1, "conflict", error="another command")
    play.ask("resume")
    assert not play.decided(Send)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-222")


@pytest.mark.parametrize("outcome", ["failed", "undone"])
def test_the_same_of_an_undo(outcome: str) -> None:
    play = started(payment)
    play.done(1)
    play.refused(2)
    play.answer(1, "failed", error="down")
    paused(play)
    play.answer(1, outcome, error="down")
    play.ask("resume")
    assert [each.attempt for each in play.decided(Send)] == ([3] if outcome == "failed" else [])


@pytest.mark.parametrize("outcome", ["failed", "done"])
def test_the_same_of_a_step(outcome: str) -> None:
    play = started(payment)
    play.failed(1)
    paused(play)
    play.done(1) if outcome == "done" else play.failed(1)
    play.ask("resume")
    assert [(each.step, each.attempt) for each in play.decided(Send)] == (
        [("1", 3)] if outcome == "failed" else [("2", 1)]
    )


def buggy() -> Play:
    @saga("payment")
    async def broken(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        raise ValueError("oops")

    play = started(broken)
    play.done(1)
    return play


def mended() -> App:
    @saga("payment")
    async def whole(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)

    return app_of(whole)


def test_a_saga_whose_code_is_wrong_is_so_again() -> None:
    play = paused(buggy())
    play.ask("resume")
    assert (play.state.state, play.state.code, play.state.parked) == ("STUCK", "KSG-207", True)
    play.new_code(mended())
    assert play.state.state == "COMPLETED"


def test_code_that_came_meanwhile_is_tried_at_the_resume() -> None:
    play = paused(buggy())
    play.load(mended(), "new")
    play.ask("resume")
    assert play.state.state == "COMPLETED"


def test_a_fault_is_noted_beneath_the_pause() -> None:
    play = paused(started(payment))
    play.fault()
    assert (play.state.state, play.state.parked) == ("PAUSED", True)
    assert [each.what for each in play.decided(Tell)] == ["STUCK"]
    assert isinstance(play.fault(), Ignored)
    play.done(1)
    play.new_code(play.app)  # nothing goes on yet
    assert play.decided(Move)
    assert (play.state.state, play.state.parked) == ("PAUSED", False)
    play.ask("resume")
    assert play.step(2).type == "payments.charge"


# --- actions on it ---


def test_it_is_paused_once_and_resumed_once() -> None:
    play = paused(started(payment))
    assert refusal(play.ask("pause")) == "the saga is PAUSED already: paused by anna: a deployment"
    play.ask("resume")
    assert refusal(play.ask("resume")) == "only a PAUSED saga can be resumed, this one is RUNNING"
    paused(play, "again")
    play.ask("resume")
    assert len(play.state.pauses or ()) == 2


def test_the_same_action_twice_counts_once() -> None:
    play = started(payment)
    play.ask("pause", action_id="p-1")
    assert isinstance(play.ask("pause", action_id="p-1"), Ignored)
    play.ask("resume", action_id="r-1", reply_to="answers/0")
    assert Tell("answers/0", "applied", "r-1") in play.decisions
    assert isinstance(play.ask("pause", action_id="p-1"), Ignored)
    assert play.state.state == "RUNNING"


def test_a_cancel_waits_for_the_resume() -> None:
    play = started(payment)
    play.done(1)
    paused(play)
    play.done(2)
    play.ask("cancel", reason="too late")
    assert play.state.state == "PAUSED"
    assert play.state.reason == (
        "paused by anna: a deployment; to be undone when it is resumed, since it was cancelled by anna: "
        "too late"
    )
    assert nothing_went_out(play)
    assert "cancelled already" in refusal(play.ask("cancel"))
    play.ask("resume")
    assert (play.state.state, play.state.reason) == ("CANCELLING", "cancelled by anna: too late")
    play.undo(2)
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_a_cancel_without_a_reason_of_a_saga_whose_code_is_wrong() -> None:
    play = paused(buggy())
    play.ask("cancel", reason="")
    assert play.state.reason.endswith("cancelled by anna")
    play.ask("resume")
    assert (play.state.state, play.undone) == ("CANCELLING", ["1"])


def test_a_saga_that_has_returned_ends_at_the_resume() -> None:
    @saga("mailing")
    async def mailing(ctx: SagaContext, order: Order) -> None:
        try:
            await ctx.use(Mail).send(order)
        except StepError:
            return

    play = started(mailing)
    play.failed(1, retryable=False)
    paused(play)
    play.undo(1, "voided")
    assert play.state.state == "PAUSED"
    play.ask("resume")
    assert play.state.state == "COMPLETED"


@pytest.mark.parametrize("at", range(4))
def test_a_crash_at_any_moment_changes_nothing(at: int) -> None:
    play = started(payment)
    acts: list[Any] = [
        lambda: play.ask("pause"),
        lambda: play.done(1),
        lambda: play.ask("resume"),
        lambda: play.done(2),
        lambda: play.done(3),
    ]
    for number, act in enumerate(acts):
        act()
        if number == at:
            play.crash()
    assert play.state.state == "COMPLETED"


def test_an_action_of_a_history_that_was_written_before_its_time() -> None:
    play = paused(started(payment))
    assert isinstance(play.event(Fired("1", COMMAND)), Ignored)  # not due
    assert isinstance(play.event(Asked("w", "watch", "", "", "", "", "answers/1")), Record)
    assert play.start(ORDER)
