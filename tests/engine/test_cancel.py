"""Cancelling, by an operator or by the saga's deadline, in every state and against unwilling code."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from engine.harness import BEGIN, SECOND, Play
from engine.shop import ANSWERS, ORDER, Inventory, Mail, Order, Payments, app_of, payment, started
from kasaga import Saga, SagaContext, StepError, saga
from kasaga.engine import driver
from kasaga.engine.decide import Ignored
from kasaga.engine.model import DEADLINE, Deadline, Fired, Move, Send, Settle
from kasaga.errors import CancelInterrupt, Evicted, NotApplicable

SEEN: list[str] = []


@pytest.fixture(autouse=True)
def seen() -> Iterator[None]:
    SEEN.clear()
    graveyard = len(driver.GRAVEYARD)
    yield
    SEEN.append("stop")
    for coroutine in driver.GRAVEYARD[graveyard:]:
        with pytest.raises(StopIteration):
            coroutine.throw(CancelInterrupt("the test is over"))
    del driver.GRAVEYARD[graveyard:]


def test_cancel_undoes_what_was_done_and_what_may_yet_be() -> None:
    play = started(payment)
    play.done(1)
    play.ask("cancel", reason="changed their mind")
    assert play.state.state == "CANCELLING"
    assert (play.state.code, play.state.reason) == ("KSG-257", "cancelled by anna: changed their mind")
    assert play.step(2).error_type == "kasaga.Cancelled"
    play.undo(2, "nothing")
    play.undo(1)
    assert (play.state.state, play.state.reason) == ("COMPENSATED", "cancelled by anna: changed their mind")
    assert play.undone == ["2", "1"]


def test_a_saga_that_has_done_nothing_is_over_at_once() -> None:
    @saga("nap")
    async def nap(ctx: SagaContext, order: Order) -> None:
        await ctx.sleep(3600)

    play = started(nap)
    play.ask("cancel")
    assert play.state.state == "COMPENSATED"
    assert play.step(1).outcome == "unknown"


def test_no_command_goes_out_after_a_cancel() -> None:
    play = started(payment)
    play.failed(1)
    play.ask("cancel")
    assert [each.form for each in play.decided(Send)] == ["undo"]


def test_a_saga_that_has_returned_and_waits_for_a_void_can_be_cancelled() -> None:
    @saga("mailing")
    async def mailing(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        with contextlib.suppress(StepError):
            await ctx.use(Mail).send(order)
        return "tried"

    play = started(mailing)
    play.done(1)
    play.failed(2, retryable=False)
    assert play.state.returned is not None
    play.ask("cancel")
    assert play.state.state == "CANCELLING"
    play.undo(2, "voided")
    play.undo(1)
    assert play.state.state == "COMPENSATED"
    assert play.undone == ["2", "1"]


def test_it_can_not_be_cancelled_twice_nor_while_it_is_undone_nor_at_the_end() -> None:
    play = started(payment)
    play.done(1)
    play.refused(2)
    told = play.ask("cancel")
    assert isinstance(told, NotApplicable)
    assert "being undone already" in told.message
    play.undo(1)
    told = play.ask("cancel")
    assert isinstance(told, NotApplicable)
    assert "it is COMPENSATED" in told.message
    assert len(play.bodies) == 4


def test_a_stuck_saga_can_be_cancelled() -> None:
    play = started(payment)
    play.answer(1, "conflict", error="another input")
    assert play.state.state == "STUCK"
    play.ask("cancel")
    assert play.state.state == "CANCELLING"
    assert play.step(1).undo_form == "undo"


@saga("stubborn")
async def stubborn(ctx: SagaContext, order: Order) -> None:
    """Swallows everything, and wants to go on."""
    while "stop" not in SEEN:
        try:
            await ctx.use(Payments).charge(order)
        except BaseException as error:  # noqa: BLE001
            SEEN.append(type(error).__name__)


@saga("stubborn")
async def very_stubborn(ctx: SagaContext, order: Order) -> None:
    """Doesn't even come to its await any more."""
    while "stop" not in SEEN:
        try:
            SEEN.append(str(ctx.now.year))
            await ctx.sleep(1)
        except BaseException as error:  # noqa: BLE001
            SEEN.append(type(error).__name__)


@pytest.mark.parametrize("declared", [stubborn, very_stubborn])
def test_code_that_swallows_the_cancel_is_left_alone(declared: Saga[Order, None]) -> None:
    play = started(declared, always_replay=False)
    buried = len(driver.GRAVEYARD)
    play.ask("cancel")
    assert len(driver.GRAVEYARD) == buried + 1
    assert play.state.phase in ("CANCELLING", "COMPENSATED")
    if declared is stubborn:
        play.undo(1, "nothing")
    assert play.state.state == "COMPENSATED"
    assert len(play.ever(Send)) <= 2
    assert len(SEEN) < 50


def test_except_exception_does_not_swallow_a_cancel() -> None:
    @saga("usual")
    async def usual(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.use(Payments).charge(order)
        except Exception:  # noqa: BLE001
            SEEN.append("swallowed")
        except CancelInterrupt:
            SEEN.append("cancelled")
            raise
        finally:
            SEEN.append("cleaned up")
        return "done"

    play = started(usual, always_replay=False)
    play.ask("cancel")
    assert SEEN == ["cancelled", "cleaned up"]


def test_steps_in_a_finally_are_not_taken_on_a_cancel() -> None:
    @saga("tidy")
    async def tidy(ctx: SagaContext, order: Order) -> None:
        try:
            await ctx.use(Payments).charge(order)
        finally:
            try:
                await ctx.use(Mail).send(order)
            except Evicted:
                SEEN.append("refused")
                raise

    play = started(tidy, always_replay=False)
    play.ask("cancel")
    assert SEEN == ["refused"]
    assert len(play.state.order) == 1


def test_what_code_returns_after_a_cancel_is_ignored() -> None:
    @saga("soft")
    async def soft(ctx: SagaContext, order: Order) -> str:
        try:
            await ctx.use(Payments).charge(order)
        except BaseException:  # noqa: BLE001
            return "as if nothing had been"
        return "charged"

    play = started(soft, always_replay=False)
    play.ask("cancel")
    assert play.state.returned is None
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_a_failure_that_came_while_it_was_parked_is_not_retried_by_a_cancel() -> None:
    play = started(payment)
    play.fault()
    play.failed(1)
    play.ask("cancel")
    assert [(each.step, each.form) for each in play.decided(Send)] == [("1", "undo")]
    assert play.step(1).error == "down"


# --- the deadline ---


@saga("bounded", timeout=90)
async def bounded(ctx: SagaContext, order: Order) -> None:
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Payments, timeout=300).charge(order)


def test_the_deadline_cancels() -> None:
    play = started(bounded)
    (deadline,) = play.decided(Deadline)
    assert deadline.due_at == BEGIN + 90 * SECOND
    play.done(1)
    assert play.event(Fired("", DEADLINE)) == Ignored("not due")
    play.fire()
    assert play.state.state == "CANCELLING"
    assert (play.state.code, play.state.reason) == ("KSG-256", "the saga's deadline has passed")
    assert play.event(Fired("", DEADLINE)) == Ignored("not due")
    play.undo(2)
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_a_saga_that_ends_needs_its_deadline_no_more() -> None:
    play = started(bounded)
    play.done(1)
    play.done(2)
    assert play.state.state == "COMPLETED"
    assert play.rows == {}


def test_a_saga_that_is_undone_needs_its_deadline_no_more() -> None:
    play = started(bounded)
    play.done(1)
    play.refused(2)
    assert play.state.deadline_row == 0
    assert len(play.rows) == 1


def test_the_deadline_counts_from_the_start_also_where_the_code_comes_later() -> None:
    play = Play(app_of(payment), "bounded", ANSWERS)
    play.start(ORDER)
    assert play.state.code == "KSG-203"
    assert play.state.deadline_row == 0
    play.now += 1000 * SECOND
    play.new_code(app_of(bounded))
    assert play.state.code == "KSG-208"  # nobody could encode its input


def test_a_deadline_that_passes_while_the_saga_is_parked_is_decided_after_the_answers() -> None:
    play = started(bounded)
    play.done(1)
    play.fault()
    play.fire()
    play.done(2)
    assert play.state.state == "STUCK"
    play.ask("retry")
    assert [each.state for each in play.decided(Move)] == ["RUNNING", "CANCELLING"]
    assert [each.outcome for each in play.decided(Settle)] == ["done"]
    assert play.step(2).undo_form == "undo"


def test_a_cancel_while_it_is_parked_takes_the_answers_that_came() -> None:
    play = started(payment)
    play.fault()
    play.done(1)
    play.ask("cancel")
    assert play.step(1).outcome == "done"
    undo = play.app.contracts["inventory"].compensations["release"].payload
    assert undo.decode(play.step(1).undo_payload, play.schemas).result is not None
