"""`ctx.emit`: events go out with the record that the code got there in, and a replay compares them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from pydantic import BaseModel, Field

from engine.bodies import Body, of
from engine.harness import Play
from engine.shop import ORDER, Inventory, Order, Payments, app_of, play_of
from kasaga import App, SagaContext, saga
from kasaga.engine.model import Emit, Move, Resume, Return, Send, Settle, Tell
from kasaga.errors import PayloadTooLarge, SagaCodeError
from kasaga.events import ALL_EVENTS, PROBLEMS
from kasaga_wire.errors import ContractError
from kasaga_wire.schema import Schemas

TOPIC = "shop.orders"


class Reserved(BaseModel):
    order_id: str = Field(serialization_alias="orderId")


@dataclass
class Charged:
    cents: int


async def telling(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    await ctx.emit(TOPIC, Reserved(order_id="o-1"))
    await ctx.emit(TOPIC, {"also": "this"}, event_type="shop.also", key="k")
    await ctx.use(Payments).charge(order)
    await ctx.emit("shop.money", Charged(5))
    return "told"


def test_an_event_goes_out_with_what_the_code_does_then() -> None:
    play = of(telling)
    play.done(1)
    assert play.kinds == [Settle, Resume, Emit, Emit, Send]
    play.done(2)
    assert play.kinds == [Settle, Resume, Emit, Return, Move]
    assert [(each.topic, each.type, json.loads(each.payload), each.key) for each in play.ever(Emit)] == [
        (TOPIC, "Reserved", {"orderId": "o-1"}, b""),
        (TOPIC, "shop.also", {"also": "this"}, b"k"),
        ("shop.money", "Charged", {"cents": 5}, b""),
    ]
    assert play.state.emitted == [
        (1, TOPIC, "Reserved"),
        (1, TOPIC, "shop.also"),
        (2, "shop.money", "Charged"),
    ]
    assert list(play.state.steps) == ["1", "2"]


def test_what_was_published_stays_when_the_saga_is_undone() -> None:
    play = of(telling)
    play.done(1)
    play.refused(2)
    play.undo(1)
    assert (play.state.state, len(play.ever(Emit))) == ("COMPENSATED", 2)


def other(number: int, topic: str = TOPIC) -> Body:
    """The same saga with other events."""

    async def telling(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        for _ in range(number):
            await ctx.emit(topic, Reserved(order_id="another"))
        await ctx.use(Payments).charge(order)
        return ""

    return telling


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (other(1), "where its history has the event shop.also, emitted to shop.orders"),
        (other(2), "emits Reserved to shop.orders before"),
        (other(1, "shop.others"), "emits Reserved to shop.others before"),
    ],
    ids=["too few", "another type", "another topic"],
)
def test_code_that_emits_something_else_is_found_by_a_replay(body: Body, said: str) -> None:
    play = of(telling)
    play.done(1)
    play.load(app_of(saga("telling")(body)))
    play.done(2)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-202")
    assert said in play.state.reason


def test_the_content_of_an_event_may_change_since_nobody_is_sent_it_again() -> None:
    async def reworded(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        await ctx.emit(TOPIC, Reserved(order_id="now with another text"))
        await ctx.emit(TOPIC, {"also": "that"}, event_type="shop.also", key="k")
        await ctx.use(Payments).charge(order)
        return "told"

    play = of(telling)
    play.done(1)
    play.load(app_of(saga("telling")(reworded)))
    play.done(2)
    assert (play.state.state, len(play.ever(Emit))) == ("COMPLETED", 2)


@pytest.mark.parametrize(
    ("topic", "event", "event_type", "key", "error"),
    [
        ("no topic", {}, "t", None, SagaCodeError),
        ("..", {}, "t", None, SagaCodeError),
        ("x" * 250, {}, "t", None, SagaCodeError),
        (TOPIC, {}, "no type", None, SagaCodeError),
        (TOPIC, {}, "", None, SagaCodeError),
        (TOPIC, {}, "t", "", SagaCodeError),
        (TOPIC, {}, "t", "ä" * 300, SagaCodeError),
        (TOPIC, object(), "t", None, SagaCodeError),
        (TOPIC, "x" * 1_000_000, "t", None, PayloadTooLarge),
    ],
)
def test_what_cannot_be_published_is_named_at_once(
    topic: str, event: object, event_type: str, key: str | None, error: type[SagaCodeError]
) -> None:
    async def wrong(ctx: SagaContext, order: Order) -> str:
        await ctx.emit(topic, event, event_type=event_type, key=key)
        return ""

    play = of(wrong)
    assert (play.state.state, play.state.code, play.ever(Emit)) == ("STUCK", error.code, [])


def test_an_event_that_is_not_awaited_is_found() -> None:
    async def forgets(ctx: SagaContext, order: Order) -> str:
        ctx.emit(TOPIC, {})  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
        return ""

    play = of(forgets)
    assert play.state.state == "STUCK"
    assert "ctx.emit of dict" in play.state.reason


def test_an_event_is_no_branch() -> None:
    async def gathers(ctx: SagaContext, order: Order) -> str:
        await ctx.gather(ctx.emit(TOPIC, {}))
        return ""

    play = of(gathers)
    assert "ctx.gather got a ctx.emit of dict" in play.state.reason


def test_too_many_events_at_once_are_refused_before_any_is_written() -> None:
    async def floods(ctx: SagaContext, order: Order) -> str:
        await ctx.use(Inventory).reserve(order)
        for number in range(20):
            await ctx.emit(TOPIC, {"number": number})
        return ""

    play = of(floods)
    play.defs = play.defs._replace(max_together=100)
    play.done(1)
    assert (play.state.code, play.ever(Emit)) == ("KSG-205", [])


# --- changes of state


def lives(play: Play) -> list[str]:
    return [tell.what for tell in play.ever(Tell) if not tell.to]


def with_all(play: Play) -> Play:
    play.defs = play.defs._replace(events=ALL_EVENTS)
    return play


def test_each_change_of_state_is_told_where_the_app_wants_it() -> None:
    play = with_all(play_of(saga("telling")(telling)))
    play.start(ORDER)
    play.done(1)
    play.done(2)
    assert lives(play) == ["RUNNING", "COMPLETED"]


def test_an_undoing_is_told_from_its_beginning() -> None:
    play = with_all(of(telling))
    play.done(1)
    play.refused(2)
    play.undo(1)
    assert lives(play) == ["COMPENSATING", "COMPENSATED"]


def test_the_app_says_which_are_told() -> None:
    @saga("quiet")
    async def quiet(ctx: SagaContext, order: Order) -> str:
        return ""

    def told(**options: Any) -> frozenset[str]:
        return App("shop", sagas=[quiet], **options).definitions(Schemas(), max_payload=100).events

    assert told() == PROBLEMS
    assert told(events=["COMPLETED"]) == {"COMPLETED"}
    with pytest.raises(ContractError, match="DONE"):
        told(events=["DONE"])
