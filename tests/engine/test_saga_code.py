"""Saga code that is wrong: the saga is STUCK with the line, undoes nothing, and goes on with mended code."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
from pydantic import BaseModel, field_validator

from engine.harness import Play
from engine.shop import ANSWERS, ORDER, Charge, Inventory, Mail, Order, Payments, app_of, play_of, started
from kasaga import App, SagaContext, SagaFailed, saga
from kasaga.engine.model import CodeArrived, Move, Replied, Resume, Tell
from kasaga_wire import command, participant


def line_of(function: Any, offset: int) -> str:
    code = function.function.__code__
    return f"test_saga_code.py:{code.co_firstlineno + offset} in {code.co_name}"


@saga("sum")
async def buggy(ctx: SagaContext, order: Order) -> None:
    await ctx.use(Inventory).reserve(order)
    sums: dict[str, int] = {}
    sums["a"] += 1
    await ctx.use(Payments).charge(order)


@saga("sum")
async def mended(ctx: SagaContext, order: Order) -> None:
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Payments).charge(order)


def test_a_bug_is_stuck_with_its_line_and_undoes_nothing() -> None:
    play = started(buggy)
    play.done(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-207")
    assert play.state.reason == f"KeyError: 'a' (at {line_of(buggy, 4)})"
    assert play.state.parked
    assert play.undone == []
    assert play.decided(Resume) == []
    assert play.told == [Tell("", "STUCK")]


def test_new_code_goes_on_where_the_old_broke() -> None:
    play = started(buggy)
    play.done(1)
    old = play.state.fingerprint
    assert old
    play.new_code(app_of(mended))
    assert [each.state for each in play.decided(Move)] == ["RUNNING"]
    assert play.decided(Resume) == [Resume("1")]
    assert play.told[-1] == Tell("", "RUNNING")
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_the_same_code_is_not_tried_again_by_itself() -> None:
    play = started(buggy)
    play.done(1)
    events = len(play.bodies)
    play.event(CodeArrived(play.state.fingerprint))
    assert len(play.bodies) == events
    play.ask("retry")
    assert play.state.state == "STUCK"
    assert play.told == [Tell("", "STUCK"), Tell("", "RUNNING"), Tell("", "STUCK")]


def test_a_bug_before_the_first_step() -> None:
    @saga("sum")
    async def early(ctx: SagaContext, order: Order) -> None:
        raise ValueError("early")

    play = started(early)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-207")
    assert play.state.begun_at == 0
    play.new_code(app_of(mended))
    assert play.state.state == "RUNNING"
    assert play.step(1).type == "inventory.reserve"


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), MemoryError(), GeneratorExit(), RecursionError()]
)
def test_what_would_end_a_process_is_a_bug_like_any_other(error: BaseException) -> None:
    @saga("deadly")
    async def deadly(ctx: SagaContext, order: Order) -> None:
        raise error

    play = started(deadly)
    assert play.state.code == "KSG-207"
    assert type(error).__name__ in play.state.reason


def test_endless_recursion() -> None:
    def deeper(depth: int) -> int:
        return deeper(depth + 1)

    @saga("deep")
    async def deep(ctx: SagaContext, order: Order) -> None:
        deeper(0)

    play = started(deep)
    assert play.state.code == "KSG-207"
    assert "RecursionError" in play.state.reason


class RudeError(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


class RudeFailed(SagaFailed):
    code = 5  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        """Leave out what SagaFailed sets."""


@pytest.mark.parametrize("fails_on", [[], [RudeError]])
def test_an_exception_that_can_not_be_told(fails_on: list[type[Exception]]) -> None:
    @saga("rude", fails_on=fails_on)
    async def rude(ctx: SagaContext, order: Order) -> None:
        raise RudeError

    play = started(rude)
    assert play.state.state == ("COMPENSATED" if fails_on else "STUCK")
    assert "RudeError: (its text can't be told)" in play.state.reason


def test_an_outcome_of_the_author_s_own_making() -> None:
    @saga("rude")
    async def rude(ctx: SagaContext, order: Order) -> None:
        raise RudeFailed

    play = started(rude)
    assert (play.state.state, play.state.code) == ("COMPENSATED", "KSG-251")


def test_a_model_whose_validator_ends_processes() -> None:
    class Deadly(BaseModel):
        id: str

        @field_validator("id")
        @classmethod
        def kill(cls, value: str) -> str:
            raise SystemExit(3)

    Deadly.__name__ = Deadly.__qualname__ = "Order"

    @saga("sum")
    async def deadly(ctx: SagaContext, order: Deadly) -> None:
        await ctx.sleep(1)

    play = started(mended)
    play.load(App("shop", sagas=[deadly], participants=[Inventory, Payments, Mail]), "other")
    play.done(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-207")
    assert "SystemExit" in play.state.reason


# --- nondeterminism ---


def differing(name: str) -> Any:
    """A saga whose code, in another release, asks for something else at its second step."""

    @saga("drift")
    async def drift(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        match name:
            case "before" | "same":
                await ctx.use(Payments).charge(order)
            case "other command":
                await ctx.use(Inventory).reserve(order)
            case "other input":
                await ctx.use(Payments).charge(Order(id=order.id, total=99))
            case "other key":
                await ctx.use(Payments, key="k").charge(order)
            case "sleep":
                await ctx.sleep(5)
            case "run":
                await ctx.run(helper)
            case "return":
                pass
            case "refuse":
                raise SagaFailed("no more of this")
            case _:
                raise AssertionError(name)
        await ctx.use(Mail).send(order)
        return name

    return drift


def helper() -> None:
    """Does nothing."""


@pytest.mark.parametrize(
    ("kind", "asks"),
    [
        ("other command", "now asks for inventory.reserve at test_saga_code.py:{} in drift"),
        (
            "other input",
            "now asks for payments.charge at test_saga_code.py:{} in drift (with another input: total)",
        ),
        (
            "other key",
            "now asks for payments.charge at test_saga_code.py:{} in drift (with key 'k' instead of 's-1')",
        ),
        ("sleep", "now asks for sleep at test_saga_code.py:{} in drift"),
        ("run", "now asks for run helper at test_saga_code.py:{} in drift"),
        ("return", "now asks for mail.send at test_saga_code.py:{} in drift"),
        ("refuse", "now asks to be undone (no more of this)"),
    ],
)
def test_nondeterminism_names_both_the_version_and_the_line(kind: str, asks: str) -> None:
    play = started(differing("before"))
    play.done(1)
    play.load(app_of(differing(kind)), "other")
    play.done(2)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-202")
    reason = play.state.reason
    line = reason.partition("test_saga_code.py:")[2].partition(" ")[0]
    assert line.isdigit() or kind == "refuse"
    said = asks.format(line)
    assert reason == f"saga drift version 1 {said}, where its history has payments.charge as step 2"
    play.new_code(app_of(differing("same")), "mended")
    assert play.step(2).outcome == "done"
    assert play.state.state == "RUNNING"


def test_code_that_ends_earlier_than_before() -> None:
    @saga("drift")
    async def short(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        return "short"

    play = started(differing("before"))
    play.done(1)
    play.load(app_of(short), "other")
    play.done(2)
    assert play.state.reason.startswith(
        "saga drift version 1 now returns, where its history has payments.charge"
    )


def test_code_that_asks_for_more_where_it_broke_before_is_no_difference() -> None:
    """The broken await was never recorded, so mended code may do anything there."""
    play = started(buggy)
    play.done(1)

    @saga("sum")
    async def longer(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        await ctx.sleep(5)

    play.new_code(app_of(longer))
    assert play.step(2).kind == "sleep"


def test_a_model_that_gains_a_field_is_no_difference() -> None:
    class Fat(BaseModel):
        id: str
        total: int = 10
        note: str = ""

    Fat.__name__ = Fat.__qualname__ = "Order"

    @participant("payments")
    class FatPayments(Protocol):
        @command
        async def charge(self, order: Fat) -> Charge: ...

    @saga("drift")
    async def fatter(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(FatPayments).charge(Fat(id=order.id, note=note))
        await ctx.use(Mail).send(order)
        return "fat"

    note = ""
    play = started(differing("before"))
    play.done(1)
    fat = App("shop", sagas=[fatter], participants=[Inventory, FatPayments, Mail])
    play.load(fat, "fat")
    play.done(2)
    assert play.state.state == "RUNNING"
    assert play.step(3).type == "mail.send"
    note = "a difference"
    play.crash()
    play.done(3)
    assert play.state.reason.partition(" at ")[2].endswith(
        "in fatter (with another input: note), where its history has payments.charge as step 2"
    )


# --- versions and values ---


def test_a_version_that_this_process_lacks() -> None:
    play = Play(app_of(mended), "sum", ANSWERS, version=7)
    play.start(ORDER)
    assert (play.state.state, play.state.code, play.state.held) == ("RUNNING", "KSG-203", True)
    assert play.state.reason == "this process has no saga sum version 7"
    assert [each.state for each in play.ever(Move)] == ["RUNNING", "RUNNING"]


def test_a_saga_that_nobody_has_is_stuck() -> None:
    play = Play(app_of(mended), "summ", ANSWERS, version=0)
    play.start(ORDER)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-203")
    assert play.state.reason == "this process has no saga summ"


def test_a_saga_whose_version_is_gone_goes_on_when_it_comes_back() -> None:
    @saga("sum", version=2)
    async def newer(ctx: SagaContext, order: Order) -> None:
        await ctx.sleep(1)

    play = started(mended)
    play.load(app_of(newer), "only the new one")
    play.done(1)
    assert (play.state.state, play.state.code) == ("RUNNING", "KSG-203")
    play.new_code(app_of(mended, newer))
    assert (play.state.state, play.state.code) == ("RUNNING", "")
    assert play.step(2).type == "payments.charge"


def test_a_start_that_the_saga_s_model_can_not_read() -> None:
    class Strict(BaseModel):
        something: int

    @saga("sum")
    async def other(ctx: SagaContext, order: Strict) -> None:
        await ctx.sleep(1)

    play = play_of(mended)
    play.start(ORDER)
    play.load(App("shop", sagas=[other], participants=[Inventory, Payments, Mail]), "other")
    play.done(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-208")
    assert play.state.reason.startswith("the input of saga sum: ")


def test_a_result_that_today_s_model_can_not_read() -> None:
    play = started(mended)
    play.done(1)
    schema = play.spec("payments.charge").result.schema.prefix
    play.event(Replied("2", "command", 1, "done", schema + b"\xff"))
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-208")
    assert play.state.reason.startswith("the result of step 2 (payments.charge): ")
    assert play.step(2).outcome == "done"
    play.ask("cancel")
    play.undo(2)
    play.undo(1)
    assert play.state.state == "COMPENSATED"


def test_an_answer_without_a_payload_is_not_taken_for_none() -> None:
    play = started(mended)
    play.event(Replied("1", "command", 1, "done", b""))
    assert play.state.code == "KSG-208"


def test_a_value_that_is_too_large() -> None:
    @saga("large")
    async def large(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(Order(id="x" * 100))

    play = play_of(large, max_payload=50)
    play.start(ORDER)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-205")
    assert "the input of inventory.reserve has 10" in play.state.reason
    assert line_of(large, 2) in play.state.reason


def test_a_return_value_that_is_too_large() -> None:
    @saga("large")
    async def large(ctx: SagaContext, order: Order) -> str:
        return "x" * 100

    play = play_of(large, max_payload=50)
    play.start(ORDER)
    assert play.state.code == "KSG-205"


def test_a_return_value_of_another_type() -> None:
    @saga("odd")
    async def odd(ctx: SagaContext, order: Order) -> str:
        return 5  # type: ignore[return-value] # pyright: ignore[reportReturnType]

    play = started(odd)
    assert play.state.code == "KSG-207"
    assert "return value" in play.state.reason


def test_a_participant_that_the_app_does_not_list() -> None:
    play = Play(App("shop", sagas=[mended], participants=[Inventory]), "sum", ANSWERS)
    play.start(ORDER)
    play.done(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-204")
    assert "payments" in play.state.reason
    assert play.state.remedy.startswith("Add the contract to App")


def test_a_compensation_is_not_called_by_hand() -> None:
    @saga("hand")
    async def by_hand(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).release(order, None)

    play = started(by_hand)
    assert "inventory.release is a compensation" in play.state.reason
    assert play.state.remedy.startswith("Raise SagaFailed")


def test_too_many_steps() -> None:
    @saga("endless")
    async def endless(ctx: SagaContext, order: Order) -> None:
        while True:
            await ctx.sleep(1)

    play = play_of(endless)
    play.defs = play.defs._replace(max_steps=3)
    play.start(ORDER)
    for path in (1, 2, 3):
        play.fire(path)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-214")
