"""Ways through the engine that no story of a saga takes by itself, each for its own reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgpack
import pytest
from pydantic import BaseModel

from engine.harness import Play
from engine.shop import (
    CHARGED,
    ORDER,
    PARTICIPANTS,
    Charge,
    Inventory,
    Order,
    Payments,
    Receipt,
    app_of,
    payment,
    play_of,
    started,
)
from kasaga import App, SagaContext, SagaFailed, StepFailed, StepTimeout, saga
from kasaga.engine.codec import FORMAT, decode
from kasaga.engine.decide import record_unread
from kasaga.engine.driver import HangInterrupt
from kasaga.engine.model import (
    COMMAND,
    DONE,
    Asked,
    CodeArrived,
    Faulted,
    Fired,
    Hold,
    Move,
    Postpone,
    Record,
    Release,
    Replied,
    Send,
    Settle,
)
from kasaga.engine.state import MAX_MARKS, fold
from kasaga.errors import HistoryUnreadable, Nondeterminism
from kasaga_wire import command, participant

UNREAD = Faulted("KSG-213", "row 3 can't be read", "look for a backup")


# --- what is read back ---


@pytest.mark.parametrize("row", [[FORMAT, "x", 1, [1], []], [FORMAT, 1, None, [1], []]])
def test_a_record_whose_numbers_are_none(row: list[Any]) -> None:
    with pytest.raises(HistoryUnreadable, match="its time and its first row are no numbers"):
        decode(7, msgpack.packb(row))


def unread(play: Play, *events: Any) -> list[Any]:
    return list(record_unread(play.defs, play.run, events, UNREAD, at=play.now, row=play.next_row))


def test_what_comes_for_an_unread_history_is_kept_behind_the_fault() -> None:
    play = started(payment)
    answer = Replied("1", COMMAND, 1, DONE, b"x")
    records = unread(play, answer, CodeArrived("new"), Asked("a-1", "cancel", "anna", "why", "", "", ""))
    assert [record.event for record in records] == [UNREAD, answer]
    assert [record.seq for record in records] == [2, 3]
    assert play.state.parked
    assert play.state.pending == (answer,)


def test_an_unread_history_is_said_to_be_so_once_and_the_same_news_are_kept_once() -> None:
    play = started(payment)
    answer = Replied("1", COMMAND, 1, DONE, b"x")
    unread(play, answer)
    other = Replied("2", COMMAND, 1, DONE, b"y")
    assert [record.event for record in unread(play, answer, other)] == [other]
    assert unread(play) == []


@pytest.mark.parametrize(
    "decisions", [(Move("PAUSED"),), (Release(),), (Postpone(),), (Hold(),), (Hold(), Hold())]
)
def test_a_pause_that_can_not_be(decisions: tuple[Any, ...]) -> None:
    play = started(payment)
    record = Record(2, play.now, play.next_row, CodeArrived("x"), decisions)
    with pytest.raises(HistoryUnreadable, match="row 2 can't be"):
        fold("run", [*play.records, record])


def test_marks_are_bounded() -> None:
    state = started(payment).state
    for number in range(MAX_MARKS + 1):
        state.mark("retried", "anna", str(number), "1")
    assert [mark.reason for mark in state.marks] == [str(number) for number in range(MAX_MARKS)]


# --- who is told ---


def test_ends_that_nobody_publishes() -> None:
    play = play_of(payment)
    play.defs = play.defs._replace(events=frozenset())
    play.start(ORDER)
    play.refused(1)
    assert play.state.state == "COMPENSATED"
    assert play.told == []


# --- the author's code ---


def test_code_that_hangs_while_its_result_is_encoded() -> None:
    def guard(function: Callable[[Any], Any], argument: Any) -> Any:
        if isinstance(argument, Receipt):
            raise HangInterrupt
        return function(argument)

    play = started(payment, guard=guard)
    for path in (1, 2, 3):
        play.done(path)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-206")


def test_an_input_that_todays_model_cannot_read() -> None:
    class Bigger(BaseModel):
        id: str
        size: int

    @saga("payment")
    async def bigger(ctx: SagaContext, order: Bigger) -> None:
        await ctx.use(Inventory).reserve(Order(id=order.id))

    play = started(payment)
    play.load(App("shop", sagas=[bigger], participants=PARTICIPANTS), "new")
    play.done(1)
    assert play.state.state == "STUCK"
    assert "the input of saga payment" in play.state.reason


# --- replay ---


def test_code_that_now_goes_on_where_it_was_undone() -> None:
    @saga("payment")
    async def failing(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        raise SagaFailed("no")

    play = started(failing)
    play.done(1)
    assert play.state.raised
    play.load(app_of(payment), "new")
    with pytest.raises(Nondeterminism, match=r"now asks for payments.charge .* its history has its undoing"):
        play.run.live(play.defs)


def test_code_that_now_goes_on_where_it_returned() -> None:
    @saga("payment")
    async def shorter(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)

    play = started(shorter)
    play.done(1)
    play.load(app_of(payment), "new")
    with pytest.raises(Nondeterminism, match=r"now asks for payments.charge .* its history has its return"):
        play.run.live(play.defs)


def test_an_input_of_a_step_that_todays_model_cannot_read() -> None:
    class Heavy(BaseModel):
        id: str
        weight: int

    @participant("payments")
    class HeavyPayments(Protocol):
        @command
        async def charge(self, order: Heavy) -> Charge: ...

    @saga("payment")
    async def heavier(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(HeavyPayments).charge(Heavy(id=order.id, weight=1))

    play = started(payment)
    play.done(1)
    play.load(App("shop", sagas=[heavier], participants=[Inventory, HeavyPayments]), "new")
    play.event(Replied("2", COMMAND, 1, DONE, play.spec("payments.charge").result.encode(CHARGED)))
    assert play.state.state == "STUCK"
    assert play.state.reason.startswith("the input of step 2 (payments.charge)")


# --- what was noted while the saga was parked ---


def test_a_deadline_that_passed_before_a_cancel_is_noted() -> None:
    """Both came while the saga was parked: it is cancelled once, and by the person."""

    @saga("payment", timeout=60)
    async def bounded(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)

    play = started(bounded)
    play.fault()
    play.fire()
    assert [type(event) for event in play.state.pending] == [Fired]
    play.ask("cancel", reason="changed her mind")
    assert play.state.state == "CANCELLING"
    assert "changed her mind" in play.state.undo_reason


def test_a_function_that_failed_for_good_while_parked() -> None:
    @saga("payment")
    async def local(ctx: SagaContext, order: Order) -> str:
        return await ctx.run(now)

    play = started(local)
    play.fault()
    play.ran(1, "SagaFailed", "never")
    play.ask("retry")
    assert play.decided(Settle) == [Settle("1", "refused", b"", "SagaFailed", "never")]
    assert play.state.state == "COMPENSATED"


def now() -> str:
    return "now"


# --- answers ---


def test_a_late_answer_with_a_schema_that_nobody_knows() -> None:
    """An answer to an attempt that is over says nothing: the current one will be answered, too."""
    play = started(payment)
    play.fire(1)
    play.event(Replied("1", COMMAND, 1, DONE, b"\0\0\0\0\7x"))
    assert play.step(1).attempt == 2
    assert play.decisions == ()
    play.done(1)
    assert play.step(1).outcome == DONE


# --- undos that cannot be sent ---


@participant("payments")
class OnlyCharges(Protocol):
    """Payments, in an image that has lost its compensation."""

    @command
    async def charge(self, order: Order) -> Charge: ...


@saga("payment")
async def patient(ctx: SagaContext, order: Order) -> str:
    try:
        await ctx.use(Payments).charge(order)
    except (StepFailed, StepTimeout):
        await ctx.use(Inventory).reserve(order)
    return "done"


def without_compensation() -> Play:
    """A saga that went on after a time-out, in an image that can't undo what timed out."""
    play = started(patient)
    play.load(App("shop", sagas=[patient], participants=[Inventory, OnlyCharges]), "other")
    while not play.step(1).outcome:
        play.fire(1)
    assert (play.state.phase, play.state.state) == ("RUNNING", "STUCK")
    assert "payments.refund" in play.state.reason
    return play


def test_an_undo_that_cannot_be_sent_is_tried_again_while_the_saga_runs() -> None:
    play = without_compensation()
    play.ask("retry")
    assert play.state.state == "STUCK"
    play.load(app_of(patient))
    play.ask("retry")
    assert [(each.step, each.type) for each in play.decided(Send)] == [("1", "payments.refund")]
    play.undo(1)
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_an_undo_that_was_never_sent_is_resolved() -> None:
    play = without_compensation()
    play.ask("resolve")
    assert play.state.state == "RUNNING"
    play.done(2)
    assert play.state.state == "COMPLETED"
    assert play.state.with_exceptions
