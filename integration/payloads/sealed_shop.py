"""The shop of `cli.real_shop` with two sagas more: one that has a child, and one that hears of records.

python -m kasaga orchestrator payloads.sealed_shop:app
python -m payloads.sealed_shop
"""

from __future__ import annotations

import os

from cli.real_shop import NAMESPACE, GoodsContract, Order, asking, purchase, service
from kasaga import App, Event, SagaContext, saga

PREFIX = os.environ.get("KASAGA_TOPIC_PREFIX", "")
ORDERS = f"{PREFIX}orders.placed"
SHIPPED = Event(f"{PREFIX}orders.shipped", Order, key=lambda order: order.wish)


@saga("gift")
async def gift(ctx: SagaContext, order: Order) -> str:
    """A purchase by somebody else, undone when this one fails."""
    bought = await ctx.child(purchase, order, id=f"{order.id}-child")
    await ctx.use(GoodsContract).pay(Order(id=bought.order, wish=order.wish))
    return bought.shelf


@saga("heard", on=Event(ORDERS, Order, id=lambda order: f"heard-{order.wish}"), awaits=[SHIPPED])
async def heard(ctx: SagaContext, order: Order) -> str:
    taken = await ctx.use(GoodsContract).take(order)
    shipped = await ctx.event(SHIPPED, key=order.wish)
    return f"{taken.shelf}, shipped as {shipped.id}"


app = App(NAMESPACE, sagas=[purchase, asking, gift, heard], participants=[GoodsContract])

if __name__ == "__main__":
    service.run()
