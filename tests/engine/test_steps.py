"""One command: its attempts, its answers, and what is known of it in the end."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.harness import SECOND, Play
from engine.shop import Inventory, Order, Payments, Shipping, payment, started
from kasaga import RetryPolicy, SagaContext, StepRefused, saga
from kasaga.engine.backoff import SPREAD
from kasaga.engine.decide import Ignored
from kasaga.engine.model import COMMAND, LOCAL, SLEEP, Fired, Ran, Replied, Send, Settle
from kasaga_wire.codec import codec_for


def waits(play: Play, attempts: int) -> list[int]:
    """The waits before the next attempts, each failing at once."""
    found: list[int] = []
    for _ in range(attempts):
        play.failed(1)
        (sent,) = play.decided(Send)
        found.append(sent.send_at - play.now)
        play.now = sent.send_at
    return found


def test_a_failed_attempt_is_sent_again_after_a_growing_wait() -> None:
    play = started(payment)
    for wait, most in zip(waits(play, 8), (1, 2, 4, 8, 16, 32, 60, 60), strict=True):
        assert most * SECOND * (1 - SPREAD) <= wait <= most * SECOND
    assert play.step(1).attempt == 9
    play.done(1)
    assert play.step(1).outcome == "done"


def test_an_attempt_without_an_answer_is_sent_again_at_once() -> None:
    play = started(payment)
    play.fire(1)
    (sent,) = play.decided(Send)
    assert (sent.attempt, sent.send_at, sent.due_at) == (2, 0, play.now + 60 * SECOND)


def test_the_time_of_a_delayed_attempt_counts_from_its_sending() -> None:
    play = started(payment)
    play.failed(1)
    (sent,) = play.decided(Send)
    assert sent.due_at == sent.send_at + 60 * SECOND
    assert play.step(1).last_at == sent.send_at


def test_attempts_end() -> None:
    play = started(payment)
    for _ in range(9):
        play.failed(1, "down")
    assert play.step(1).attempt == 10
    play.failed(1, "down for good")
    step = play.step(1)
    assert (step.outcome, step.error_type, step.error) == ("unknown", "Broken", "down for good")
    assert play.state.reason == "inventory.reserve failed: down for good"


def test_all_attempts_together_have_a_time() -> None:
    @saga("quick")
    async def quick(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory, timeout=40, schedule_to_close=timedelta(seconds=100)).reserve(order)

    play = started(quick)
    began = play.now
    dues: list[float] = []
    while play.step(1).outcome == "":
        dues.append((play.step(1).due_at - began) / SECOND)
        play.fire(1)
    assert dues == [40, 80, 100]
    assert play.now == began + 100 * SECOND
    assert play.state.code == "KSG-255"
    assert play.state.reason == "inventory.reserve timed out: no answer to attempt 3 in time"


def test_no_attempt_is_planned_after_the_whole_time_is_over() -> None:
    @saga("quick")
    async def quick(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory, schedule_to_close=0.5).reserve(order)

    play = started(quick)
    assert play.step(1).due_at == play.now + SECOND // 2
    play.failed(1)
    assert play.step(1).outcome == "unknown"


def test_without_limits_attempts_go_on() -> None:
    @saga("patient")
    async def patient(ctx: SagaContext, order: Order) -> None:
        retry = RetryPolicy(maximum_attempts=0, backoff_coefficient=100.0, maximum_interval=5.0)
        await ctx.use(Inventory, schedule_to_close=None, retry=retry).reserve(order)

    play = started(patient)
    for _ in range(200):
        play.failed(1)
    assert play.step(1).attempt == 201
    assert play.state.state == "RUNNING"


def test_an_error_that_is_not_retryable_ends_the_attempts() -> None:
    play = started(payment)
    play.failed(1, "never", retryable=False)
    assert play.step(1).outcome == "unknown"


def test_an_error_type_that_the_policy_names_ends_the_attempts() -> None:
    @saga("picky")
    async def picky(ctx: SagaContext, order: Order) -> None:
        retry = RetryPolicy(non_retryable_error_types=("BadCard",))
        await ctx.use(Payments, retry=retry).charge(order)

    play = started(picky)
    play.failed(1, error_type="Busy")
    assert play.step(1).outcome == ""
    play.failed(1, error_type="BadCard")
    assert play.step(1).outcome == "unknown"


@pytest.mark.parametrize("outcome", ["expired", "undecodable", "failed", "a word of next year"])
def test_what_is_no_knowledge_counts_only_for_its_own_attempt(outcome: str) -> None:
    play = started(payment)
    play.fire(1)
    assert play.step(1).attempt == 2
    assert play.answer(1, outcome, attempt=1) == Ignored("old attempt")
    assert play.answer(1, outcome, attempt=3) == Ignored("old attempt")
    play.answer(1, outcome, attempt=2)
    assert play.step(1).attempt == 3


@pytest.mark.parametrize("attempt", [1, 2, 9])
def test_done_and_refused_count_from_any_attempt(attempt: int) -> None:
    play = started(payment)
    play.fire(1)
    play.done(1, attempt=attempt)
    assert play.step(1).outcome == "done"
    play.fire(2)
    play.answer(2, "refused", attempt=attempt)
    assert play.step(2).outcome == "refused"


def test_an_answer_that_comes_twice_is_late() -> None:
    play = started(payment)
    play.done(1)
    assert play.done(1) == Ignored("late")
    assert play.refused(1) == Ignored("late")
    assert play.failed(1) == Ignored("late")
    assert play.event(Fired("1", COMMAND)) == Ignored("late")


def test_a_timer_that_is_not_due_is_ignored() -> None:
    play = started(payment)
    play.now = play.step(1).due_at - 1
    assert play.event(Fired("1", COMMAND)) == Ignored("not due")
    play.now += 1
    play.event(Fired("1", COMMAND))
    assert play.step(1).attempt == 2
    assert play.event(Fired("1", COMMAND)) == Ignored("not due")


def test_news_of_steps_that_are_not_there_are_ignored() -> None:
    play = started(payment)
    assert play.event(Replied("9", COMMAND, 1, "done", b"")) == Ignored("unknown step")
    assert play.event(Replied("1", "undo", 1, "undone", b"")) == Ignored("late")
    assert play.event(Fired("", "deadline")) == Ignored("not due")


def test_a_reply_from_kafka_settles_no_local_step() -> None:
    @saga("nap")
    async def nap(ctx: SagaContext, order: Order) -> None:
        await ctx.sleep(5)

    play = started(nap)
    assert play.event(Replied("1", COMMAND, 1, "done", b"")) == Ignored("another kind of step")
    assert play.event(Ran("1", LOCAL, 1, True, b"")) == Ignored("another kind of step")
    play.fire(1, SLEEP)
    assert play.state.state == "COMPLETED"


def test_a_command_that_kafka_refuses_fails_like_any_other() -> None:
    play = started(payment)
    play.undeliverable(1)
    assert play.step(1).attempt == 2
    assert play.step(1).outcome == ""
    for _ in range(9):
        play.undeliverable(1)
    assert play.step(1).error == "no such topic"
    assert play.state.state == "COMPENSATING"


def test_an_answer_in_a_schema_that_is_not_published_yet_is_asked_for_again() -> None:
    play = started(payment)
    foreign = codec_for(int, name="foreign").encode(5)
    play.event(Replied("1", COMMAND, 1, "done", foreign))
    assert play.step(1).outcome == ""
    (sent,) = play.decided(Send)
    assert (sent.attempt, bool(sent.send_at)) == (2, True)
    play.done(1, attempt=1)
    assert play.step(1).outcome == "done"


def test_a_refused_step_undoes_those_before_it_in_reverse() -> None:
    play = started(payment)
    play.done(1)
    play.done(2)
    play.refused(3, "no carrier")
    assert play.state.state == "COMPENSATING"
    assert (play.state.code, play.state.reason) == ("KSG-253", "shipping.schedule refused: no carrier")
    assert play.state.undo_step == "3"
    (sent,) = play.decided(Send)
    assert (sent.type, sent.step, sent.form, sent.key) == ("payments.refund", "2", "undo", b"s-1")
    play.undo(2)
    (sent,) = play.decided(Send)
    assert (sent.type, sent.step) == ("inventory.release", "1")
    play.undo(1)
    assert play.state.state == "COMPENSATED"
    assert play.state.code == "KSG-253"
    assert play.undone == ["2", "1"]
    assert not play.state.with_exceptions


def test_an_undo_carries_what_its_handler_needs() -> None:
    play = started(payment)
    play.done(1)
    play.refused(2, "no money")
    contract = play.app.contracts["inventory"]
    undo = contract.compensations["release"].payload.decode(play.step(1).undo_payload, play.schemas)
    assert undo.input == Order(id="o-1")
    assert undo.result is not None
    assert undo.reason == "payments.charge refused: no money"
    assert undo.failed_step == "2"


def test_an_author_may_catch_a_refusal_and_go_on() -> None:
    @saga("either")
    async def either(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.use(Inventory).reserve(order)
        except StepRefused as error:
            await ctx.use(Shipping).schedule(order)
            return f"{error.step} {error.command} {error.type} {error.message}"
        return "reserved"

    play = started(either)
    play.refused(1)
    play.done(2)
    assert play.state.state == "COMPLETED"
    assert play.undone == []
    said = either.result.decode(play.state.returned or b"", play.schemas)
    assert said == "1 inventory.reserve OutOfStock inventory.reserve refused: no"


def test_the_settled_error_is_written_once() -> None:
    play = started(payment)
    play.refused(1, "a long story")
    (settled,) = play.decided(Settle)
    assert settled.error == ""
    assert play.step(1).error == "a long story"


def test_a_key_orders_commands_across_sagas_and_goes_with_the_undo() -> None:
    @saga("keyed")
    async def keyed(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory, key="shelf-7").reserve(order)
        await ctx.use(Payments).charge(order)

    play = started(keyed)
    assert play.step(1).key == b"shelf-7"
    play.done(1)
    play.refused(2)
    (sent,) = play.decided(Send)
    assert sent.key == b"shelf-7"
