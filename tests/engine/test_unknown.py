"""Steps of unknown outcome: none is left behind, whatever the saga's code makes of them."""

from __future__ import annotations

import pytest

from engine.harness import Play
from engine.shop import Inventory, Mail, Order, Payments, Shipping, payment, started
from kasaga import SagaContext, StepFailed, StepTimeout, saga
from kasaga.engine.decide import Ignored
from kasaga.engine.model import Move, Resume, Send, Settle, Tell


def give_up(play: Play, path: str | int) -> None:
    """No attempt of a step is ever answered."""
    while not play.step(path).outcome:
        play.fire(path, "command")


@saga("careful")
async def careful(ctx: SagaContext, order: Order) -> str:
    """Catches that the first carrier doesn't answer, and goes on without."""
    try:
        await ctx.use(Shipping).schedule(order)
    except StepTimeout:
        await ctx.use(Inventory).reserve(order)
        return "picked up"
    return "shipped"


@saga("mailing")
async def mailing(ctx: SagaContext, order: Order) -> str:
    """The same, with a step that nothing undoes."""
    try:
        await ctx.use(Mail).send(order)
    except StepFailed:
        return "not sent"
    return "sent"


def test_an_unknown_step_is_undone_in_the_same_decision() -> None:
    play = started(payment)
    play.done(1)
    give_up(play, 2)
    assert play.kinds == [Settle, Send, Resume, Move]
    (sent,) = play.decided(Send)
    assert (sent.step, sent.form, sent.type) == ("2", "undo", "payments.refund")
    undo = play.app.contracts["payments"].compensations["refund"].payload
    assert undo.decode(sent.payload, play.schemas).result is None
    play.undo(2, "nothing")
    play.undo(1)
    assert play.state.state == "COMPENSATED"
    assert play.undone == ["2", "1"]


def test_an_author_who_goes_on_does_not_complete_before_the_undo_has_answered() -> None:
    play = started(careful)
    give_up(play, 1)
    assert play.step(1).undo_form == "undo"
    assert play.step(2).outcome == ""
    play.done(2)
    assert play.state.returned is not None
    assert play.state.state == "RUNNING"
    play.undo(1, "nothing")
    assert play.state.state == "COMPLETED"
    assert not play.state.with_exceptions


def test_an_undo_that_answers_first_does_not_hold_the_saga_up() -> None:
    play = started(careful)
    give_up(play, 1)
    play.undo(1, "undone")
    assert play.state.state == "RUNNING"
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_without_a_compensation_it_is_voided() -> None:
    play = started(mailing)
    give_up(play, 1)
    (sent,) = play.decided(Send)
    assert (sent.form, sent.type, sent.participant, sent.payload) == ("void", "kasaga.void", "mail", b"")
    assert play.state.state == "RUNNING"
    assert play.state.returned is not None
    play.undo(1, "voided")
    assert play.state.state == "COMPLETED"


@pytest.mark.parametrize("answer", ["voided", "refused", "nothing", "lost"])
def test_a_void_is_cleared_by_whatever_says_that_nothing_is_left(answer: str) -> None:
    play = started(mailing)
    give_up(play, 1)
    play.undo(1, answer)
    assert play.step(1).undo_how == answer
    assert play.state.state == "COMPLETED"


def test_executed_after_all_is_stuck_never_completed() -> None:
    play = started(mailing)
    give_up(play, 1)
    play.undo(1, "executed")
    assert play.state.state == "STUCK"
    assert (play.state.code, play.state.stuck_step) == ("KSG-221", "1")
    assert "mail.send (step 1) was executed" in play.state.reason
    assert play.state.remedy
    assert play.rows == {}
    assert play.told == [Tell("", "STUCK")]


def test_executed_after_all_is_stuck_never_compensated() -> None:
    @saga("notice")
    async def notice(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Mail).send(order)

    play = started(notice)
    play.done(1)
    give_up(play, 2)
    assert play.state.state == "COMPENSATING"
    play.undo(2, "executed")
    assert play.state.state == "STUCK"
    assert play.undone == ["2"]
    play.ask("skip", reason="they know")
    assert play.state.state == "COMPENSATING"
    play.undo(1)
    assert play.state.state == "COMPENSATED"
    assert play.state.with_exceptions


def test_when_nobody_can_know_the_saga_is_stuck_and_goes_on_asking() -> None:
    play = started(mailing)
    give_up(play, 1)
    play.undo(1, "expired")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-221")
    assert "nobody can know" in play.state.reason
    (sent,) = play.decided(Send)
    assert (sent.form, sent.attempt) == ("void", 2)
    play.undo(1, "expired")
    assert play.state.state == "STUCK"
    play.undo(1, "voided")
    assert play.state.state == "COMPLETED"


def test_an_undo_that_is_refused_is_not_taken_for_one_that_was_not_needed() -> None:
    """`refused` says of a void that the command was; of an undo it could only mean the undo."""
    play = started(payment)
    play.done(1)
    play.refused(2)
    play.undo(1, "refused")
    assert play.step(1).undo_how == ""
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-220")
    play.undo(1, "undone")
    assert play.state.state == "COMPENSATED"


def test_answers_to_the_command_are_late_once_it_is_given_up() -> None:
    play = started(careful)
    give_up(play, 1)
    assert play.done(1) == Ignored("late")
    assert play.answer(1, "refused", form="command") == Ignored("late")
    play.undo(1, "undone")
    assert play.done(1) == Ignored("late")


def test_an_answer_to_another_form_of_undo_is_late() -> None:
    play = started(mailing)
    give_up(play, 1)
    assert play.answer(1, "undone", form="undo") == Ignored("late")
    assert play.answer(1, "executed", form="undo") == Ignored("late")
    play.undo(1, "voided")
    assert play.undo(1, "voided") == Ignored("saga has ended")


def test_calling_again_is_a_new_step_with_a_new_id() -> None:
    @saga("again")
    async def again(ctx: SagaContext, order: Order) -> None:
        payments = ctx.use(Payments)
        try:
            await payments.charge(order)
        except StepFailed:
            await payments.charge(order)

    play = started(again)
    play.failed(1, retryable=False)
    assert [each.step for each in play.decided(Send)] == ["1", "2"]
    play.done(2)
    assert play.state.state == "RUNNING"
    play.undo(1)
    assert play.state.state == "COMPLETED"


def test_a_cut_off_step_is_unknown_too() -> None:
    play = started(payment)
    play.done(1)
    play.ask("cancel")
    assert play.step(2).outcome == "unknown"
    (sent,) = play.decided(Send)
    assert (sent.step, sent.form) == ("2", "undo")


def test_no_undo_is_sent_for_what_was_refused() -> None:
    play = started(payment)
    play.refused(1)
    assert play.state.state == "COMPENSATED"
    assert play.undone == []
