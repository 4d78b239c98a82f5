"""One history on new code: what counts as the same, what needs a patch, what breaks, and where."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import pytest

from engine.harness import Play
from engine.shop import ANSWERS, ORDER, PARTICIPANTS, Inventory, Mail, Order, Payments
from kasaga import App, SagaContext, StepRefused, saga
from kasaga.engine.driver import HangInterrupt
from kasaga.gate import History, Kind, Verdict, judge


def write() -> int:
    return 7


def unwrite(result: int | None) -> None:
    """Takes back what `write` did."""


@saga("trade")
async def trade(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    await ctx.run(write, undo=unwrite)
    await ctx.sleep(5)
    await ctx.use(Payments).charge(order)
    return "done"


def of(*sagas: Any, participants: Any = PARTICIPANTS) -> App:
    return App("shop", sagas=sagas, participants=participants)


def play(steps: int, app: App | None = None, name: str = "trade") -> Play:
    made = Play(app or of(trade), name, ANSWERS, always_replay=False)
    made.start(ORDER)
    for step in range(1, steps + 1):
        if made.step(step).kind == "sleep":
            made.fire(step)
        else:
            made.done(step, *((7,) if step == 2 else ()))
    return made


def judged(made: Play, app: App, state: str = "", **more: Any) -> Verdict:
    defs = app.definitions(made.schemas, max_payload=900_000)
    rows = tuple(enumerate(made.bodies, 1))
    found = made.state
    history = History("s-1", found.run_id, found.name, found.version, state or found.state, rows)
    return judge(defs, history, **more)


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4])
def test_the_same_code_is_the_same(steps: int) -> None:
    verdict = judged(play(steps), of(trade))
    assert (verdict.kind, verdict.live) == (Kind.SAME, steps < 4)


def test_a_difference_is_named_with_its_line() -> None:
    @saga("trade")
    async def changed(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.sleep(5)
        return "done"

    verdict = judged(play(3), of(changed))
    assert (verdict.kind, verdict.code, verdict.step) == (Kind.PATCH, "KSG-202", "2")
    assert verdict.line.startswith("test_judge.py:")
    assert verdict.line.endswith(" in changed")
    assert "now asks for sleep" in verdict.message
    assert "run write as step 2" in verdict.message or "write as step 2" in verdict.message
    assert judged(play(0), of(changed)).kind is Kind.SAME  # it hasn't come to the difference


def test_code_that_returns_too_early() -> None:
    @saga("trade")
    async def short(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        return "done"

    verdict = judged(play(1), of(short))
    assert (verdict.kind, verdict.step, verdict.line) == (Kind.PATCH, "2", "")
    assert "now returns" in verdict.message


def test_code_that_raises() -> None:
    @saga("trade")
    async def broken(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        raise KeyError("no such thing")

    verdict = judged(play(1), of(broken))
    assert (verdict.kind, verdict.code, verdict.step) == (Kind.BREAKS, "KSG-207", "2")
    assert verdict.line.startswith("test_judge.py:")
    assert verdict.remedy


def test_what_is_stuck_by_a_bug_is_no_worse_with_the_bug() -> None:
    """And a mended bug is no difference, either: the saga goes on."""
    mended = [False]

    @saga("trade")
    async def buggy(ctx: SagaContext, order: Order) -> str:
        if not mended[0]:
            raise KeyError("no such thing")
        await ctx.use(Inventory).reserve(order)
        return "done"

    app = of(buggy)
    made = play(0, app)
    assert (made.state.state, made.state.code) == ("STUCK", "KSG-207")
    assert judged(made, app).kind is Kind.SAME
    mended[0] = True
    assert judged(made, app).kind is Kind.SAME


def test_what_a_release_before_has_broken_is_no_worse_with_the_next() -> None:
    @saga("trade")
    async def broken(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        raise KeyError("no such thing")

    @saga("trade")
    async def changed(ctx: SagaContext, order: Order) -> str:
        await ctx.sleep(1)
        return ""

    made = play(2)
    made.new_code(of(broken))
    made.fire(3)
    assert (made.state.state, made.state.code) == ("STUCK", "KSG-207")
    assert judged(made, of(broken)).kind is Kind.SAME
    assert judged(made, of(trade)).kind is Kind.SAME
    assert judged(made, of(changed)).kind is Kind.PATCH
    made = play(2)
    made.new_code(of(changed))
    made.fire(3)
    assert (made.state.state, made.state.code) == ("STUCK", "KSG-202")
    assert judged(made, of(changed)).kind is Kind.PATCH  # until some code fits it again


def test_a_saga_that_is_being_undone_needs_no_code() -> None:
    made = play(2)
    made.ask("cancel")
    assert made.state.state == "CANCELLING"
    other = Play(of(), "trade", ANSWERS).app
    assert judged(made, other).kind is Kind.SAME


def test_but_its_compensations() -> None:
    made = play(2)
    made.ask("cancel")
    without = [each for each in PARTICIPANTS if each.__name__ != "Inventory"]
    verdict = judged(made, of(participants=without))
    assert (verdict.kind, verdict.code, verdict.step) == (Kind.BREAKS, "KSG-204", "1")


def test_a_function_that_undoes_must_stay_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    made = play(2)
    monkeypatch.delattr("replay.test_judge.unwrite", raising=False)
    module = made.step(2).compensation.partition(":")[0]
    monkeypatch.delattr(f"{module}.unwrite", raising=False)
    made.ask("cancel")
    verdict = judged(made, of(trade))
    assert (verdict.kind, verdict.code, verdict.step) == (Kind.BREAKS, "KSG-200", "2")
    assert "unwrite, which undoes it, can't be imported: AttributeError" in verdict.message


def test_what_is_undone_already_needs_no_function(monkeypatch: pytest.MonkeyPatch) -> None:
    made = play(2)
    made.ask("cancel")
    module = made.step(2).compensation.partition(":")[0]
    made.ran(2, form="undo")
    monkeypatch.delattr(f"{module}.unwrite")
    assert made.step(2).undo_how
    assert judged(made, of(trade)).kind is Kind.SAME


@pytest.mark.parametrize(("refused", "kind"), [(True, Kind.SAME), (False, Kind.BREAKS)])
def test_what_was_refused_needs_no_compensation(refused: bool, kind: Kind) -> None:
    from typing import Protocol

    from engine.shop import Reservation
    from kasaga_wire import command, participant

    @participant("inventory")
    class OneWay(Protocol):
        @command
        async def reserve(self, order: Order) -> Reservation: ...

    def tries(contract: Any) -> Any:
        @saga("tries")
        async def tries(ctx: SagaContext, order: Order) -> str:
            with suppress(StepRefused):
                await ctx.use(contract).reserve(order)
            await ctx.sleep(5)
            return ""

        return tries

    made = play(0, of(tries(Inventory)), "tries")
    if refused:
        made.refused(1)
    else:
        made.done(1)
    assert judged(made, of(tries(OneWay), participants=[OneWay])).kind is kind


def test_a_result_that_can_not_be_read() -> None:
    """The contract's model has changed under a step that is done."""
    from typing import Protocol

    from pydantic import BaseModel

    from kasaga_wire import command, participant

    class Receipt(BaseModel):
        number: int

    @participant("mail")
    class OtherMail(Protocol):
        @command
        async def send(self, order: Order) -> Receipt: ...

    @saga("letter")
    async def before(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Mail).send(order)
        await ctx.sleep(5)
        return ""

    @saga("letter")
    async def after(ctx: SagaContext, order: Order) -> str:
        await ctx.use(OtherMail).send(order)
        await ctx.sleep(5)
        return ""

    verdict = judged(play(1, of(before), "letter"), of(after, participants=[OtherMail]))
    assert (verdict.kind, verdict.code) == (Kind.BREAKS, "KSG-208")
    assert "the result of step 1 (mail.send)" in verdict.message


def test_code_that_hangs_is_broken_off() -> None:
    def guard(function: Any, argument: Any) -> Any:
        raise HangInterrupt

    verdict = judged(play(1), of(trade), guard=guard)
    assert (verdict.kind, verdict.code) == (Kind.BREAKS, "KSG-206")


def test_functions_of_ctx_run_are_not_called() -> None:
    called: list[float] = []

    def look() -> int:
        called.append(time.monotonic())
        return 7

    @saga("reader")
    async def reader(ctx: SagaContext, order: Order) -> str:
        await ctx.run(look)
        await ctx.sleep(1)
        return ""

    made = Play(of(reader), "reader", ANSWERS, always_replay=False)
    made.start(ORDER)
    made.done(1, 7)
    assert judged(made, of(reader)).kind is Kind.SAME
    assert called == []


@pytest.mark.parametrize(
    ("code", "kind"), [("KSG-211", Kind.SAME), ("KSG-220", Kind.BREAKS), ("", Kind.BREAKS)]
)
def test_what_is_stuck_because_nobody_can_read_it_is_no_worse(code: str, kind: Kind) -> None:
    made = play(2)
    history = History("s-1", "run", "trade", 1, "STUCK", ((1, made.bodies[0]), (2, b"rubbish")), code)
    assert judge(of(trade).definitions(made.schemas, max_payload=900_000), history).kind is kind


def test_a_history_that_retention_took() -> None:
    made = play(4)
    made.bodies.clear()
    assert judged(made, of(trade), "COMPLETED").kind is Kind.GONE
    assert judged(made, of(trade), "RUNNING").kind is Kind.BREAKS
