"""The shop of `cli.real_shop` with two sagas more: one that has a child, and one that hears of records.

python -m kasaga orchestrator payloads.sealed_shop:app
python -m payloads.sealed_shop
"""

from __future__ import annotations

import os

from cli.real_shop import NAMESPACE, GoodsContract, Order, asking, purchase, service
from kasaga import App, Event, SagaContext, saga

ORDERS = f"{os.environ.get('KASAGA_TOPIC_PREFIX', '')}orders.placed"


@saga("gift")
async def gift(ctx: SagaContext, order: Order) -> str:
    """A purchase by somebody else, undone when this one fails."""
    bought = await ctx.child(purchase, order, id=f"{order.id}-child")
    await ctx.use(GoodsContract).pay(Order(id=bought.order, wish=order.wish))
    return bought.shelf


@saga("heard", on=Event(ORDERS, Order, id=lambda order: f"heard-{order.wish}"))
async def heard(ctx: SagaContext, order: Order) -> str:
    return (await ctx.use(GoodsContract).take(order)).shelf


app = App(NAMESPACE, sagas=[purchase, asking, gift, heard], participants=[GoodsContract])

if __name__ == "__main__":
    service.run()
