"""Sagas made of nothing but a body, for the tests of branches."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from engine.harness import Play
from engine.shop import Inventory, Order, Shipping, started
from kasaga import SagaContext, saga

Body = Callable[[SagaContext, Order], Coroutine[Any, Any, str]]


def of(body: Body) -> Play:
    """A play of a saga with that body."""
    return started(saga(body.__name__)(body))


def stuck(body: Body) -> str:
    """Why a saga can't even begin."""
    state = of(body).state
    assert state.state == "STUCK"
    return f"{state.code} {state.reason}"


async def book(ctx: SagaContext, order: Order) -> str:
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Shipping).schedule(order)
    return "booked"
