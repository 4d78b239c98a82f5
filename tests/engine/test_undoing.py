"""Compensations: their order, their retries, and when they make a saga STUCK."""

from __future__ import annotations

import pytest

from engine.harness import SECOND, Play
from engine.shop import (
    ANSWERS,
    ORDER,
    Inventory,
    Mail,
    Order,
    Payments,
    Reservation,
    Shipping,
    app_of,
    payment,
    started,
)
from kasaga import App, RetryPolicy, SagaContext, SagaFailed, saga
from kasaga.engine.decide import Ignored
from kasaga.engine.model import Move, Send, Tell


def undoing() -> Play:
    """A payment whose first step is to be undone."""
    play = started(payment)
    play.done(1)
    play.refused(2)
    return play


def fail_until_stuck(play: Play, path: str | int) -> int:
    times = 0
    while play.state.state != "STUCK":
        play.now = play.step(path).undo_due
        play.answer(path, "failed", error_type="Down", error="no database")
        times += 1
    return times


def test_undos_are_retried_without_end_and_stuck_is_said_after_as_many_as_the_policy_names() -> None:
    play = undoing()
    assert fail_until_stuck(play, 1) == 10
    assert (play.state.code, play.state.stuck_step) == ("KSG-220", "1")
    assert play.state.reason == ("inventory.release (undo of step 1) has failed 10 times: Down: no database")
    assert play.told[-1:] == [Tell("", "STUCK")]
    (sent,) = play.decided(Send)
    assert sent.attempt == 11
    for _ in range(40):
        play.now = play.step(1).undo_due
        play.answer(1, "failed", error_type="Down", error="no database")
    assert play.step(1).undo_attempt == 51
    assert play.told.count(Tell("", "STUCK")) == 1


def test_it_comes_out_of_stuck_by_itself() -> None:
    play = undoing()
    fail_until_stuck(play, 1)
    play.undo(1)
    assert [each.state for each in play.decided(Move)] == ["COMPENSATING", "COMPENSATED"]
    assert play.told[-2:] == [Tell("", "COMPENSATING"), Tell("", "COMPENSATED")]
    assert play.state.reason == "payments.charge refused: no"


def test_the_waits_between_undos_grow_to_their_own_maximum() -> None:
    play = undoing()
    waits: list[float] = []
    for _ in range(12):
        play.answer(1, "failed")
        (sent,) = play.decided(Send)
        waits.append((sent.send_at - play.now) / SECOND)
        play.now = sent.send_at
    assert waits[0] <= 1
    assert 240 <= waits[-1] <= 300


def test_every_attempt_sends_the_same_bytes() -> None:
    play = undoing()
    payload = play.step(1).undo_payload
    assert payload
    play.answer(1, "failed")
    (sent,) = play.decided(Send)
    assert sent.payload == b""
    assert play.step(1).undo_payload == payload


def test_an_undo_without_an_answer_is_sent_again() -> None:
    play = undoing()
    play.fire(1)
    (sent,) = play.decided(Send)
    assert (sent.form, sent.attempt) == ("undo", 2)
    assert play.answer(1, "failed", attempt=1) == Ignored("old attempt")
    play.answer(1, "undone", attempt=1)
    assert play.state.state == "COMPENSATED"


def test_an_undo_that_kafka_refuses_is_tried_again_too() -> None:
    play = undoing()
    play.undeliverable(1)
    assert play.step(1).undo_error == "no such topic"
    assert play.step(1).undo_attempt == 2


@pytest.mark.parametrize(
    ("outcome", "error_type"), [("failed", "Refused"), ("conflict", "IdClash"), ("a word of next year", "")]
)
def test_what_another_attempt_will_not_mend_is_stuck_at_once_and_goes_on_all_the_same(
    outcome: str, error_type: str
) -> None:
    play = undoing()
    play.answer(1, outcome, error_type=error_type, error="I won't")
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-220")
    assert play.step(1).undo_attempt == 2
    play.undo(1)
    assert play.state.state == "COMPENSATED"


@pytest.mark.parametrize("answer", ["undone", "nothing", "lost", "done"])
def test_what_clears_a_step(answer: str) -> None:
    play = undoing()
    play.undo(1, answer)
    assert play.step(1).undo_how == answer
    assert play.state.state == "COMPENSATED"


def test_the_next_undo_waits_for_the_one_before() -> None:
    play = started(payment)
    play.done(1)
    play.done(2)
    play.refused(3)
    fail_until_stuck(play, 2)
    assert play.step(1).undo_form == ""
    play.undo(2)
    assert play.state.state == "COMPENSATING"
    assert play.step(1).undo_form == "undo"


def test_saga_failed_undoes_everything() -> None:
    @saga("dear")
    async def dear(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Shipping).schedule(order)
        raise SagaFailed("too dear")

    play = started(dear)
    play.done(1)
    play.done(2)
    assert (play.state.state, play.state.code, play.state.reason) == ("COMPENSATING", "KSG-251", "too dear")
    play.undo(2)
    play.undo(1)
    assert play.undone == ["2", "1"]


def test_errors_of_the_authors_that_mean_undo() -> None:
    class TooDearError(Exception):
        pass

    @saga("dear", fails_on=[TooDearError])
    async def dear(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        raise TooDearError("12 euro")

    play = started(dear)
    play.done(1)
    assert play.state.state == "COMPENSATING"
    assert play.state.reason == "TooDearError: 12 euro"


def test_a_reason_can_be_stored_anywhere() -> None:
    @saga("odd")
    async def odd(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        raise SagaFailed("nul \0, half a \ud800, " + "long" * 2000)

    play = started(odd)
    play.done(1)
    assert play.state.reason.startswith("nul \ufffd, half a \ufffd, long")
    assert len(play.state.reason) == 4000


def test_a_step_that_is_done_and_has_no_compensation_stays() -> None:
    @saga("mailing")
    async def mailing(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Mail).send(order)
        await ctx.use(Payments).charge(order)

    play = started(mailing)
    play.done(1)
    play.refused(2)
    assert play.state.state == "COMPENSATED"
    assert play.undone == []


def test_two_blocked_steps_and_none_is_forgotten() -> None:
    @saga("two")
    async def two(ctx: SagaContext, order: Order) -> str:
        for _ in range(2):
            try:
                await ctx.use(Mail).send(order)
            except Exception:  # noqa: BLE001
                continue
        return "tried"

    play = started(two)
    play.failed(1, retryable=False)
    play.undo(1, "executed")
    assert (play.state.state, play.state.stuck_step) == ("STUCK", "1")
    play.failed(2, retryable=False)
    play.undo(2, "executed")
    assert play.state.stuck_step == "2"
    assert list(play.state.blocked) == ["1", "2"]
    assert "several steps" in str(play.ask("skip"))
    play.ask("skip", step="2")
    assert (play.state.state, play.state.stuck_step) == ("STUCK", "1")
    play.ask("resolve")
    assert play.state.state == "COMPLETED"
    assert play.state.with_exceptions


def test_a_saga_stuck_at_a_void_goes_on_with_everything_else() -> None:
    @saga("on")
    async def on(ctx: SagaContext, order: Order) -> None:
        try:
            await ctx.use(Mail).send(order)
        except Exception:  # noqa: BLE001
            await ctx.use(Inventory).reserve(order)
        await ctx.use(Payments).charge(order)

    play = started(on)
    play.failed(1, retryable=False)
    play.undo(1, "executed")
    assert play.state.state == "STUCK"
    play.done(2)
    assert play.state.state == "STUCK"
    play.refused(3)
    assert play.state.phase == "COMPENSATING"
    assert play.state.state == "STUCK"
    assert play.undone == ["1", "2"]
    play.undo(2)
    assert play.state.state == "STUCK"
    play.ask("skip")
    assert play.state.state == "COMPENSATED"


def test_a_compensation_that_no_contract_has_any_more_is_stuck_until_new_code() -> None:
    play = started(payment)
    play.done(1)
    play.load(App("shop", sagas=[payment], participants=[Payments, Shipping]), "other")
    play.ask("cancel")
    assert play.state.state == "CANCELLING"
    play.undo(2)
    assert (play.state.state, play.state.code, play.state.stuck_step) == ("STUCK", "KSG-204", "1")
    assert "inventory.release" in play.state.reason
    assert play.state.fingerprint == "other"
    play.new_code(app_of(payment), "mended")
    assert play.step(1).undo_form == "undo"
    assert play.state.state == "CANCELLING"
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_an_undo_too_large_for_a_record_leaves_the_result_behind() -> None:
    """The participant has the stored one."""
    play = Play(app_of(payment), "payment", ANSWERS, max_payload=60)
    play.start(ORDER)
    play.done(1, Reservation(shelf="A" * 40))
    play.refused(2)
    undo = play.app.contracts["inventory"].compensations["release"].payload
    assert undo.decode(play.step(1).undo_payload, play.schemas).result is None


def test_an_undo_policy_must_say_when_stuck_is_said() -> None:
    @saga("silent")
    async def silent(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory, undo_retry=RetryPolicy(maximum_attempts=0)).reserve(order)

    play = started(silent)
    assert play.state.state == "STUCK"
    assert "undo_retry.maximum_attempts is 0" in play.state.reason
