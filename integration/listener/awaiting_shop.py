"""Sagas that await other teams' events by a key that isn't their id."""

from __future__ import annotations

import os

from pydantic import BaseModel

from kasaga import App, Event, SagaContext, saga

PREFIX = os.environ.get("KASAGA_TOPIC_PREFIX", "")
ORDERS, PAYMENTS = f"{PREFIX}shop.orders", f"{PREFIX}payments.settled"


class Placed(BaseModel):
    order_id: str
    total: int


class Settled(BaseModel):
    order_id: str
    amount: int


placed = Event(ORDERS, Placed, id=lambda event: f"saga-{event.order_id}")
settled = Event(PAYMENTS, Settled, key=lambda event: event.order_id)


@saga("match", on=placed, awaits=[settled])
async def match(ctx: SagaContext, order: Placed) -> str:
    paid = 0
    while paid < order.total:
        paid += (await ctx.event(settled, key=order.order_id, timeout=3600)).amount
    return f"{order.order_id} paid {paid}"


app = App("hearing", sagas=[match])
