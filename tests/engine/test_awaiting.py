"""What a saga's code may await, and what happens when it doesn't come back to an await."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import pytest

from engine.harness import Play
from engine.shop import ORDER, Inventory, Order, Payments, play_of, started
from kasaga import SagaContext, saga
from kasaga.orchestrator.watchdog import Watchdog


def test_a_step_that_was_never_awaited() -> None:
    @saga("hasty")
    async def hasty(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        ctx.use(Payments).charge(order)  # type: ignore[unused-coroutine] # pyright: ignore[reportUnusedCoroutine]

    play = started(hasty)
    play.done(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-213")
    assert "payments.charge" in play.state.reason


def test_a_step_is_sent_when_it_is_awaited() -> None:
    @saga("later")
    async def later(ctx: SagaContext, order: Order) -> None:
        charge = ctx.use(Payments).charge(order)
        await ctx.use(Inventory).reserve(order)
        await charge

    play = started(later)
    assert play.step(1).type == "inventory.reserve"
    play.done(1)
    play.done(2)
    assert play.state.state == "COMPLETED"


def test_a_step_is_awaited_once() -> None:
    @saga("twice")
    async def twice(ctx: SagaContext, order: Order) -> None:
        charge = ctx.use(Payments).charge(order)
        await charge
        await charge

    play = started(twice)
    play.done(1)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-201")
    assert "payments.charge was awaited a second time" in play.state.reason
    assert f"(at test_awaiting.py:{twice.function.__code__.co_firstlineno + 4} in twice)" in play.state.reason


class Foreign:
    def __init__(self, thing: object) -> None:
        self.thing = thing

    def __await__(self) -> Generator[Any, None, None]:
        yield self.thing


@pytest.mark.parametrize("thing", [None, 5, "text", object()])
def test_something_foreign_is_awaited(thing: object) -> None:
    @saga("foreign")
    async def foreign(ctx: SagaContext, order: Order) -> None:
        await Foreign(thing)

    play = started(foreign)
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-201")
    assert play.state.reason.startswith("the saga awaits ")
    assert "test_awaiting.py" in play.state.reason


def test_a_step_of_another_saga_is_awaited() -> None:
    stolen: list[Awaitable[Any]] = []

    @saga("giver")
    async def giver(ctx: SagaContext, order: Order) -> None:
        stolen.append(ctx.use(Payments).charge(order))
        await ctx.sleep(1)

    @saga("taker")
    async def taker(ctx: SagaContext, order: Order) -> None:
        await stolen[0]

    started(giver, always_replay=False)
    play = started(taker)
    assert play.state.reason.startswith("the saga awaits a step of another saga (payments.charge) at ")


async def _gathers(ctx: SagaContext, order: Order) -> None:
    await asyncio.gather(ctx.use(Inventory).reserve(order), ctx.use(Payments).charge(order))


async def _sleeps(ctx: SagaContext, order: Order) -> None:
    await asyncio.sleep(1)


async def _yields(ctx: SagaContext, order: Order) -> None:
    await asyncio.sleep(0)


async def _waits(ctx: SagaContext, order: Order) -> None:
    async with asyncio.timeout(1):
        await ctx.use(Inventory).reserve(order)


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("function", [_gathers, _sleeps, _yields, _waits])
def test_asyncio_inside_a_saga(function: Callable[[SagaContext, Order], Any]) -> None:
    """Sagas are stepped in a thread that isn't the main one and never has an event loop."""
    plays: list[Play] = []
    thread = threading.Thread(target=lambda: plays.append(started(saga("loop")(function))))
    thread.start()
    thread.join()
    (play,) = plays
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-201")
    assert "ctx.run" in play.state.remedy


def test_each_saga_has_its_own_context_variables() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")

    @saga("who")
    async def whose(ctx: SagaContext, order: Order) -> str:
        found = who.get()
        who.set(ctx.saga_id)
        await ctx.sleep(1)
        return f"{found}, {who.get()}"

    who.set("the loop")
    play = play_of(whose)
    play.start(ORDER, saga_id="s-7")
    play.fire(1)
    assert whose.result.decode(play.state.returned or b"", play.schemas) == "nobody, s-7"
    assert who.get() == "the loop"


# --- hanging ---


def test_code_that_hangs_is_stuck_with_its_line() -> None:
    """The watchdog raises into the code, at the line that it is in."""

    @saga("hang")
    async def hang(ctx: SagaContext, order: Order) -> None:
        await ctx.use(Inventory).reserve(order)
        while True:
            pass

    watchdog = Watchdog(limit=0.2)
    watchdog.start()
    try:
        play = started(hang, guard=watchdog.guard)
        play.done(1)
    finally:
        watchdog.stop()
    assert (play.state.state, play.state.code) == ("STUCK", "KSG-206")
    assert "no await for too long, at test_awaiting.py:" in play.state.reason
    assert play.undone == []
    assert play.rows == {}
