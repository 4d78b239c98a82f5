"""Operators' actions: which fit when, what they do, and that history holds who asked and why."""

from __future__ import annotations

import pytest

from engine.harness import Play
from engine.shop import CHARGED, Inventory, Mail, Order, payment, started
from kasaga import App, SagaContext, saga
from kasaga.engine.decide import Ignored
from kasaga.engine.model import Asked, Clear, Move, Record, Send, Settle, Tell, Unblock
from kasaga.engine.notes import Watcher
from kasaga.engine.operator import MAX_WATCHERS, refuses
from kasaga.errors import NotApplicable


def conflicting() -> Play:
    """A payment whose second step the participant knows as something else."""
    play = started(payment)
    play.done(1)
    play.answer(2, "conflict", error_type="IdClash", error="was a shipping.schedule before")
    return play


def failing_undo() -> Play:
    """A payment whose first step can't be undone for now."""
    play = started(payment)
    play.done(1)
    play.refused(2)
    play.answer(1, "failed", error_type="Refused", error="no")
    return play


def unknown_undo() -> Play:
    """The same, where nobody knows whether the step was done."""
    play = started(payment)
    play.failed(1, retryable=False)
    play.answer(1, "failed", error_type="Refused", error="no")
    return play


def refusal(told: object) -> str:
    assert isinstance(told, NotApplicable), told
    assert told.code == "KSG-230"
    return told.message


def test_a_conflict_waits_for_an_operator() -> None:
    play = conflicting()
    assert (play.state.state, play.state.code, play.state.stuck_step) == ("STUCK", "KSG-222", "2")
    assert play.state.reason == "payments.charge (step 2): was a shipping.schedule before"
    assert play.rows == {}
    assert play.step(2).outcome == ""


def test_resolve_goes_on_with_the_value_that_was_found_out() -> None:
    play = conflicting()
    play.ask("resolve", value='{"id": 7}', reason="looked it up")
    assert [each.outcome for each in play.decided(Settle)] == ["done"]
    assert play.payload_of(2) == CHARGED
    assert play.state.state == "RUNNING"
    assert play.step(3).type == "shipping.schedule"
    play.done(3)
    assert play.state.state == "COMPLETED"
    assert play.state.with_exceptions


@pytest.mark.parametrize("value", ["", "{}", '{"id": "x"}', "[", "null"])
def test_a_value_that_does_not_fit_is_refused(value: str) -> None:
    play = conflicting()
    assert refusal(play.ask("resolve", value=value)).startswith(
        "the value doesn't fit the result of payments.charge"
    )
    assert play.state.state == "STUCK"


def test_retry_sends_a_conflicting_command_once_more() -> None:
    play = conflicting()
    play.ask("retry")
    (sent,) = play.decided(Send)
    assert (sent.step, sent.attempt, sent.send_at) == ("2", 2, 0)
    assert play.decided(Unblock) == [Unblock("2")]
    assert play.state.state == "RUNNING"
    play.done(2)
    assert play.step(2).outcome == "done"


def test_an_answer_can_still_end_a_conflict() -> None:
    play = conflicting()
    play.done(2)
    assert play.state.state == "RUNNING"
    assert play.step(3).type == "shipping.schedule"


def test_skip_has_nothing_to_go_on_with() -> None:
    play = conflicting()
    assert "no result that the saga could go on with" in refusal(play.ask("skip"))


def test_skip_leaves_a_step_as_it_is_and_says_so() -> None:
    play = failing_undo()
    play.ask("skip", reason="written off")
    assert play.decided(Clear) == [Clear("1", "skipped")]
    assert play.state.state == "COMPENSATED"
    assert play.state.with_exceptions
    event = play.records[-1].event
    assert isinstance(event, Asked)
    assert (event.by, event.reason) == ("anna", "written off")


def test_skip_of_an_unknown_step_leaves_a_void_behind() -> None:
    """Otherwise the command could still be executed, with the saga over."""
    play = unknown_undo()
    assert play.state.state == "STUCK"
    play.ask("skip")
    (sent,) = play.decided(Send)
    assert (sent.form, sent.attempt, sent.type) == ("void", 1, "kasaga.void")
    assert play.state.state == "COMPENSATING"
    play.undo(1, "voided")
    assert play.state.state == "COMPENSATED"
    assert not play.state.with_exceptions


def test_skip_accepts_that_the_step_was_executed() -> None:
    play = unknown_undo()
    play.ask("skip")
    play.undo(1, "executed")
    assert play.state.state == "COMPENSATED"
    assert play.step(1).undo_how == "skipped"
    assert play.state.with_exceptions


def test_even_the_void_can_be_skipped() -> None:
    play = unknown_undo()
    play.ask("skip")
    play.answer(1, "conflict")
    assert play.state.state == "STUCK"
    play.ask("skip")
    assert play.state.state == "COMPENSATED"
    assert play.state.with_exceptions


def test_resolve_says_that_it_was_undone_by_hand() -> None:
    play = failing_undo()
    play.ask("resolve")
    assert play.decided(Clear) == [Clear("1", "resolved")]
    assert play.state.state == "COMPENSATED"
    assert play.state.with_exceptions


def test_retry_sends_an_undo_now() -> None:
    play = failing_undo()
    assert play.step(1).undo_attempt == 2
    play.ask("retry")
    (sent,) = play.decided(Send)
    assert (sent.attempt, sent.send_at, sent.form) == (3, 0, "undo")
    assert play.state.state == "COMPENSATING"
    assert play.told[-1] == Tell("", "COMPENSATING")


def test_retry_of_everything_that_is_stuck() -> None:
    @saga("two")
    async def two(ctx: SagaContext, order: Order) -> str:
        for _ in range(2):
            try:
                await ctx.use(Mail).send(order)
            except Exception:  # noqa: BLE001
                continue
        return "tried"

    play = started(two)
    for path in (1, 2):
        play.failed(path, retryable=False)
        play.undo(path, "executed")
    play.ask("retry", step="2")
    assert list(play.state.blocked) == ["1"]
    play.undo(2, "executed")
    play.ask("retry")
    assert [(each.step, each.attempt) for each in play.decided(Send)] == [("1", 2), ("2", 3)]
    assert play.state.state == "RUNNING"
    play.undo(1, "voided")
    play.undo(2, "voided")
    assert play.state.state == "COMPLETED"


def test_what_fits_only_a_stuck_saga() -> None:
    play = started(payment)
    for action, participle in (("retry", "retried"), ("skip", "skipped"), ("resolve", "resolved")):
        assert refusal(play.ask(action)) == f"only a STUCK saga can be {participle}, this one is RUNNING"
    assert "there is no action 'explode'" in refusal(play.ask("explode"))


def test_what_needs_a_reason() -> None:
    play = failing_undo()
    assert "skip needs a reason" in refusal(play.ask("skip", reason=""))
    assert "resolve needs a reason" in refusal(play.ask("resolve", reason=""))


def test_the_wrong_step_is_refused_by_name() -> None:
    play = failing_undo()
    assert refusal(play.ask("skip", step="2")) == "the saga isn't stuck at step 2, but at 1"
    assert refusal(play.ask("retry", step="99")) == "the saga isn't stuck at step 99, but at 1"


def test_a_saga_parked_by_its_own_code_has_no_step_to_skip() -> None:
    @saga("bug")
    async def bug(ctx: SagaContext, order: Order) -> None:
        raise ValueError("oh")

    play = started(bug)
    assert "the saga's own code can't go on" in refusal(play.ask("skip"))
    assert "retry it with mended code" in refusal(play.ask("resolve"))


def test_an_action_counts_once() -> None:
    play = conflicting()
    play.ask("retry", action_id="a-1")
    assert play.ask("retry", action_id="a-1") == Ignored("duplicate action")
    play.crash()
    assert play.ask("retry", action_id="a-1") == Ignored("duplicate action")


def test_what_did_not_fit_can_be_asked_again() -> None:
    play = started(payment)
    assert refusal(play.ask("retry", action_id="a-1"))
    play.answer(1, "conflict")
    assert isinstance(play.ask("retry", action_id="a-1"), Record)


def test_who_asked_is_answered() -> None:
    play = conflicting()
    play.ask("retry", action_id="a-1", reply_to="shop.answers/2")
    assert Tell("shop.answers/2", "applied", "a-1") in play.told


def test_actions_on_a_saga_that_has_ended() -> None:
    play = started(payment)
    play.refused(1)
    for action in ("cancel", "retry", "skip", "resolve", "watch"):
        assert refusal(play.ask(action)) == "the saga has ended: it is COMPENSATED"


def test_watchers_are_bounded() -> None:
    play = started(payment)
    play.state.watchers = (Watcher("shop.answers/1", "w", "", ""),) * MAX_WATCHERS
    assert refusal(play.ask("watch", reply_to="shop.answers/1")) == f"{MAX_WATCHERS} watch this saga already"


def test_the_history_names_who_and_why() -> None:
    play = started(payment)
    play.ask("cancel", reason="customer called", action_id="a-9")
    event = play.records[-1].event
    assert event == Asked("a-9", "cancel", "anna", "customer called", "", "", "")
    assert [each.reason for each in play.decided(Move)] == ["cancelled by anna: customer called"]


def test_resolve_of_a_step_whose_contract_is_gone() -> None:
    play = conflicting()
    play.load(App("shop", sagas=[payment], participants=[Inventory]), "other")
    assert "no contract of the App has payments.charge" in refusal(play.ask("resolve", value='{"id": 7}'))


def test_a_dry_run_has_no_code_to_hold_a_value_against() -> None:
    play = conflicting()
    asked = Asked("a", "resolve", "anna", "why", "", "", "")
    assert refuses(play.state, asked, None) == ""
    assert refuses(play.state, asked, play.defs).startswith("the value doesn't fit")
