"""`ctx.set_attributes` and `@saga(attributes=…)`: recorded, folded, and no part of what a saga does."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from engine.bodies import of
from engine.harness import Play
from engine.shop import ORDER, Inventory, Order, Payments, app_of, play_of
from kasaga import SagaContext, saga
from kasaga.engine.attributes import SetAttributes, changed_by
from kasaga.engine.model import CodeArrived, Move, Resume, Return, Send, Settle, Started

DUE = datetime(2026, 11, 1, tzinfo=UTC)


async def naming(ctx: SagaContext, order: Order) -> str:
    await ctx.set_attributes(customer="c-7", phase="reserving", due=DUE)
    await ctx.use(Inventory).reserve(order)
    await ctx.set_attributes(phase="paying", tags=["b", "a"])
    await ctx.use(Payments).charge(order)
    await ctx.set_attributes(phase=None)
    return "named"


def test_attributes_are_set_with_what_the_code_does_then() -> None:
    play = of(naming)
    assert play.kinds[-2:] == [SetAttributes, Send]
    assert play.state.attributes == {"customer": "c-7", "phase": "reserving", "due": DUE}
    play.done(1)
    assert play.kinds == [Settle, Resume, SetAttributes, Send]
    assert play.state.attributes == {"customer": "c-7", "phase": "paying", "due": DUE, "tags": ("a", "b")}
    assert changed_by(play.records[-1]) == {"phase": "paying", "tags": ("a", "b")}
    play.done(2)
    assert play.kinds == [Settle, Resume, SetAttributes, Return, Move]
    assert play.state.attributes == {"customer": "c-7", "due": DUE, "tags": ("a", "b")}
    assert list(play.state.steps) == ["1", "2"]


def test_they_take_no_row_and_stay_when_the_saga_is_undone() -> None:
    play = of(naming)
    play.done(1)
    play.refused(2)
    play.undo(1)
    assert play.state.state == "COMPENSATED"
    assert play.state.attributes is not None
    assert play.state.attributes["phase"] == "paying"
    assert not [each for _, each in play.state.opens if isinstance(each, SetAttributes)]


async def another(ctx: SagaContext, order: Order) -> str:
    """The same saga, which sets others, elsewhere."""
    await ctx.use(Inventory).reserve(order)
    await ctx.set_attributes(other=1)
    await ctx.set_attributes(more=2)
    await ctx.use(Payments).charge(order)
    await ctx.set_attributes(end=True)
    return "named"


def test_code_that_sets_others_goes_on_with_the_same_history() -> None:
    play = of(naming)
    play.done(1)
    play.load(app_of(saga("naming")(another)))
    play.done(2)
    assert play.state.state == "COMPLETED"
    assert play.state.attributes == {
        "customer": "c-7", "phase": "paying", "due": DUE, "tags": ("a", "b"), "end": True
    }  # fmt: skip


def test_code_that_sets_none_goes_on_as_well() -> None:
    async def silent(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.use(Payments).charge(order)
        return "named"

    play = of(naming)
    play.done(1)
    play.load(app_of(saga("naming")(silent)))
    play.done(2)
    assert (play.state.state, len(play.ever(SetAttributes))) == ("COMPLETED", 2)


def begun(play: Play, attributes: bytes) -> Play:
    declared: Any = play.app.sagas[play.name, play.version]
    data = declared.input.encode(ORDER)
    play.event(Started("s-1", play.name, play.version, data, "", "", "", "/test", attributes=attributes))
    return play


def test_those_of_the_input_are_set_before_the_code_and_those_of_the_start_win() -> None:
    async def plain(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        return ""

    declared = saga("plain", attributes=lambda order: {"order": order.id, "total": order.total})(plain)
    play = play_of(declared)
    play.start(ORDER)
    assert play.state.attributes == {"order": ORDER.id, "total": ORDER.total}
    play.crash()
    play.done(1)
    assert len(play.ever(SetAttributes)) == 1

    play = begun(play_of(declared), b'{"total":1,"channel":"web"}')
    assert play.state.attributes == {"order": ORDER.id, "total": 1, "channel": "web"}
    assert changed_by(play.records[0])["channel"] == "web"


def unkeepable(order: Order) -> dict[str, Any]:
    return {"a": object()}


def unnameable(order: Order) -> dict[str, Any]:
    return {"a b": 1}


def unmade(order: Order) -> dict[str, Any]:
    raise KeyError(order.id)


@pytest.mark.parametrize(
    ("attributes", "code", "said"),
    [
        (unkeepable, "KSG-240", "attribute a: object can't be searched for"),
        (unnameable, "KSG-240", "'a b' can't be the name"),
        (unmade, "KSG-207", "KeyError"),
    ],
)
def test_what_the_input_makes_wrong_parks_the_saga_before_its_first_step(
    attributes: Any, code: str, said: str
) -> None:
    async def plain(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        return ""

    play = play_of(saga("plain", attributes=attributes)(plain))
    play.start(ORDER)
    assert (play.state.state, play.state.code, play.state.order) == ("STUCK", code, [])
    assert said in play.state.reason

    play.load(app_of(saga("plain", attributes=lambda order: {"a": 1})(plain)), "mended")
    play.event(CodeArrived("mended"))
    assert (play.state.state, play.state.attributes) == ("RUNNING", {"a": 1})


@pytest.mark.parametrize(
    ("value", "said"),
    [(b"bytes", "attribute a: bytes"), ("x" * 300, "300 characters"), (float("nan"), "nan is no number")],
)
def test_what_cannot_be_kept_is_named_at_once(value: Any, said: str) -> None:
    async def wrong(ctx: SagaContext, order: Order) -> str:
        await ctx.set_attributes(a=value)
        return ""

    play = of(wrong)
    assert (play.state.state, play.state.code, play.ever(SetAttributes)) == ("STUCK", "KSG-240", [])
    assert said in play.state.reason


def test_a_saga_has_so_many_and_no_more() -> None:
    async def many(ctx: SagaContext, order: Order) -> str:
        for number in range(32):
            await ctx.set_attributes(**{f"a{number}": number})
        await ctx.use(Inventory).reserve(order)
        await ctx.set_attributes(one=1, a0=None)
        await ctx.use(Payments).charge(order)
        await ctx.set_attributes(two=2)
        return ""

    play = of(many)
    play.done(1)
    assert len(play.state.attributes or {}) == 32
    play.done(2)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-240")
    assert "33 attributes, over 32" in play.state.reason


def test_one_that_is_not_awaited_is_found() -> None:
    async def forgets(ctx: SagaContext, order: Order) -> str:
        ctx.set_attributes(a=1)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
        return ""

    assert "ctx.set_attributes" in of(forgets).state.reason
