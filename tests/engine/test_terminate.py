"""Terminating: the saga ends as it is, says what it leaves, and sees to it that little more can happen."""

from __future__ import annotations

import pytest

from engine.harness import Play
from engine.shop import Inventory, Mail, Order, Payments, payment, started
from engine.test_operator import conflicting, failing_undo, refusal, unknown_undo
from engine.test_pause import buggy, look, paused
from kasaga import SagaContext, StepError, saga
from kasaga.engine.decide import Ignored
from kasaga.engine.leftovers import NAMED, Leftover, leftovers, told
from kasaga.engine.model import Clear, Fence, Move, Record, Settle, Tell


def ended(play: Play) -> str:
    """Terminate it; what it says that it leaves. Before, it said that it would leave just that."""
    before = told(leftovers(play.state))
    assert isinstance(play.ask("terminate", reason="last resort"), Record)
    state = play.state
    assert (state.state, state.code, play.rows) == ("TERMINATED", "KSG-261", {})
    assert told(leftovers(state)) == before
    head = "terminated by anna: last resort; "
    assert state.reason == head + before
    return before.removeprefix("it leaves ")


def test_what_is_done_stays_and_what_is_open_is_fenced() -> None:
    play = started(payment)
    play.done(1)
    assert ended(play) == "done and not undone: 1 (inventory.reserve); may have happened: 2 (payments.charge)"
    assert play.fenced == ["2"]
    assert play.undone == []
    assert leftovers(play.state) == [
        Leftover("1", "inventory.reserve", "done", "inventory.release"),
        Leftover("2", "payments.charge", "unknown", "payments.refund"),
    ]


def test_everybody_is_told() -> None:
    play = started(payment)
    play.ask("watch", action_id="w", reply_to="answers/3")
    play.ask("terminate", action_id="t", reply_to="answers/4")
    assert list(play.decided(Tell)) == [
        Tell("answers/3", "TERMINATED", "w"),
        Tell("", "TERMINATED"),
        Tell("answers/4", "applied", "t"),
    ]


def test_it_needs_a_reason_and_a_saga_that_lives() -> None:
    play = started(payment)
    assert (
        refusal(play.ask("terminate", reason="")) == "terminate needs a reason, which is kept in the history"
    )
    ended(play)
    assert refusal(play.ask("terminate")) == "the saga has ended: it is TERMINATED"
    assert refusal(play.ask("pause")) == "the saga has ended: it is TERMINATED"
    assert isinstance(play.done(2 if "2" in play.state.steps else 1), Ignored)


def test_a_saga_that_has_done_nothing_leaves_nothing() -> None:
    @saga("nap")
    async def nap(ctx: SagaContext, order: Order) -> None:
        await ctx.sleep(3600)

    play = started(nap)
    assert ended(play) == "nothing"
    assert play.fenced == []


def test_undos_that_are_out_are_named_and_not_fenced() -> None:
    play = started(payment)
    play.done(1)
    play.done(2)
    play.refused(3)
    assert ended(play) == "done and not undone: 1 (inventory.reserve); being undone: 2 (payments.charge)"
    assert play.fenced == []


def test_what_is_undone_is_not_left() -> None:
    play = started(payment)
    play.done(1)
    play.done(2)
    play.refused(3)
    play.undo(2)
    assert ended(play) == "being undone: 1 (inventory.reserve)"


def test_a_step_that_conflicts() -> None:
    assert ended(conflicting()) == (
        "done and not undone: 1 (inventory.reserve); may have happened: 2 (payments.charge)"
    )


def test_an_undo_that_fails() -> None:
    assert ended(failing_undo()) == "being undone: 1 (inventory.reserve)"
    assert ended(unknown_undo()) == "being undone: 1 (inventory.reserve)"


@saga("mailing")
async def mailing(ctx: SagaContext, order: Order) -> None:
    await ctx.use(Inventory).reserve(order)
    try:
        await ctx.use(Mail).send(order)
    except StepError:
        await ctx.use(Payments).charge(order)


def mailed() -> Play:
    play = started(mailing)
    play.done(1)
    play.failed(2, retryable=False)
    return play


def test_what_happened_and_nothing_undoes() -> None:
    play = mailed()
    play.undo(2, "executed")
    assert play.state.state == "STUCK"
    assert ended(play) == (
        "done and not undone: 1 (inventory.reserve), 2 (mail.send); may have happened: 3 (payments.charge)"
    )
    assert play.decided(Clear) == [Clear("2", "executed")]


def test_a_step_that_was_skipped_stays() -> None:
    play = started(payment)
    play.done(1)
    play.done(2)
    play.refused(3)
    play.answer(2, "failed", error_type="Refused", error="no")
    play.ask("skip", reason="written off")
    assert ended(play) == "done and not undone: 2 (payments.charge); being undone: 1 (inventory.reserve)"


def test_answers_that_were_not_decided_count() -> None:
    play = started(payment)
    play.done(1)
    paused(play)
    play.done(2)
    assert ended(play) == "done and not undone: 1 (inventory.reserve), 2 (payments.charge)"
    assert [each.outcome for each in play.decided(Settle)] == ["done"]
    assert play.fenced == []


def test_refusals_failures_and_time_outs_that_were_not_decided() -> None:
    play = paused(started(payment))
    play.refused(1)
    assert ended(play) == "nothing"
    play = paused(started(payment))
    play.failed(1)
    play.fire(1)
    assert ended(play) == "may have happened: 1 (inventory.reserve)"


def test_undos_that_were_answered_and_not_decided() -> None:
    play = started(payment)
    play.done(1)
    play.refused(2)
    paused(play)
    play.undo(1)
    assert ended(play) == "nothing"
    assert play.decided(Clear) == [Clear("1", "undone")]
    play = started(payment)
    play.done(1)
    play.refused(2)
    paused(play)
    play.undo(1, "failed")
    assert ended(play) == "being undone: 1 (inventory.reserve)"
    play = mailed()
    paused(play)
    play.undo(2, "executed")
    assert "2 (mail.send)" in ended(play)


@pytest.mark.parametrize(
    ("error_type", "left"),
    [
        ("", "done and not undone: 1 (look)"),
        ("SagaFailed", "nothing"),
        ("OSError", "may have happened: 1 (look)"),
    ],
)
def test_functions(error_type: str, left: str) -> None:
    @saga("local")
    async def local(ctx: SagaContext, order: Order) -> None:
        await ctx.run(look)

    play = paused(started(local))
    play.ran(1, error_type)
    assert ended(play) == left
    assert play.fenced == []


def test_a_saga_whose_code_is_wrong_or_that_is_past_its_pivot() -> None:
    assert ended(buggy()) == "done and not undone: 1 (inventory.reserve)"

    @saga("forward")
    async def forward(ctx: SagaContext, order: Order) -> None:
        await ctx.pivot()
        await ctx.use(Mail).send(order)

    play = started(forward)
    assert ended(play) == "may have happened: 1 (mail.send)"
    (fence,) = play.decided(Fence)
    assert fence.due_at > play.now


def test_a_long_reason_leaves_room_for_what_is_left() -> None:
    play = started(payment)
    play.done(1)
    play.ask("terminate", reason="x" * 4_000)
    assert play.state.reason.endswith("may have happened: 2 (payments.charge)")


def test_many_steps_are_counted() -> None:
    left = [Leftover(str(number), "a.b", "done", "") for number in range(NAMED + 5)]
    assert told(left).endswith("19 (a.b), 5 more")


def test_a_terminated_saga_moves_no_more() -> None:
    play = started(payment)
    ended(play)
    assert isinstance(play.fault(), Ignored)
    assert isinstance(play.event(play.records[0].event), Ignored)
    assert [each.state for each in play.ever(Move)] == ["RUNNING", "TERMINATED"]
