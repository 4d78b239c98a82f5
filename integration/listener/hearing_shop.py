"""Sagas that hear of what happens: begun by one topic's records, sent on by another's."""

from __future__ import annotations

import os

from pydantic import BaseModel

from kasaga import App, Event, SagaContext, saga

PREFIX = os.environ.get("KASAGA_TOPIC_PREFIX", "")
ORDERS, PAYMENTS, LATER = f"{PREFIX}shop.orders", f"{PREFIX}payments.settled", f"{PREFIX}made.later"


class Placed(BaseModel):
    order_id: str
    total: int


class Settled(BaseModel):
    order_id: str
    amount: int


placed = Event(
    ORDERS,
    Placed,
    event_type="OrderPlaced",
    when=lambda event: event.total >= 10,
    id=lambda event: event.order_id,
)
settled = Event(PAYMENTS, Settled, id=lambda event: event.order_id)


@saga("fulfil", on=placed, signals={"settled": settled})
async def fulfil(ctx: SagaContext, order: Placed) -> str:
    paid = await ctx.signal("settled", Settled)
    return f"{order.order_id} paid {paid.amount}"


@saga("note", on=Event(LATER, Placed))
async def note(ctx: SagaContext, order: Placed) -> str:
    return order.order_id


app = App("hearing", sagas=[fulfil, note])
