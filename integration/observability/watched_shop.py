"""A shop whose saga does a bit of everything, to be watched: logs, traces, metrics, probes.

    python -m kasaga orchestrator observability.watched_shop:app
    python -m observability.watched_shop

While the file SHOP_CLOSED names exists, payments wait; while SHOP_BROKEN does, nothing can be given back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import Protocol

from pydantic import BaseModel

from kasaga import App, RetryPolicy, SagaContext, saga
from kasaga_participant import Participant, Refused, Tx
from kasaga_wire import command, compensation, participant

NAMESPACE = "watched"
SOON = RetryPolicy(initial_interval=0.05, maximum_interval=0.05, maximum_attempts=2)

log = logging.getLogger("shop")


class Order(BaseModel):
    id: str
    wish: str = ""
    """retry: the first attempt to take fails. refuse: the payment is refused. hang: the saga's code does."""


class Goods(BaseModel):
    shelf: str


@participant("goods")
class GoodsContract(Protocol):
    @command
    async def take(self, order: Order) -> Goods: ...

    @compensation(take)
    async def give_back(self, order: Order, taken: Goods | None) -> None: ...

    @command
    async def pay(self, order: Order) -> Goods: ...


@saga("purchase", version=3)
async def purchase(ctx: SagaContext, order: Order) -> str:
    goods = ctx.use(GoodsContract, retry=RetryPolicy(initial_interval=0.05), undo_retry=SOON)
    taken = await goods.take(order)
    log.info("the saga has its goods")
    if order.wish == "hang":
        time.sleep(600)  # noqa: ASYNC251 - that is what it is for
    await ctx.run(look_up, taken.shelf)
    await ctx.sleep(0.3)
    await goods.pay(order)
    return taken.shelf


def look_up(shelf: str) -> str:
    log.info("the function looks up a shelf")
    return shelf


app = App(NAMESPACE, sagas=[purchase], participants=[GoodsContract])
service = Participant(namespaces=(NAMESPACE,))


def present(variable: str) -> bool:
    return os.path.exists(os.environ[variable])


@service.handle(GoodsContract.take)
async def take(order: Order, tx: Tx) -> Goods:
    log.info("the handler takes goods")
    if order.wish == "retry" and tx.command.attempt == 1:
        raise RuntimeError("the shelf is jammed")
    await asyncio.sleep(float(os.environ.get("SHOP_SECONDS", "0")))
    return Goods(shelf=f"shelf of {order.id}")


@service.handle(GoodsContract.give_back)
async def give_back(order: Order, taken: Goods | None, tx: Tx) -> None:
    if present("SHOP_BROKEN"):
        raise RuntimeError("the shelf is locked")


@service.handle(GoodsContract.pay)
async def pay(order: Order, tx: Tx) -> Goods:
    await asyncio.sleep(float(os.environ.get("SHOP_SECONDS", "0")))
    while present("SHOP_CLOSED"):  # noqa: ASYNC110 - another process makes and removes it
        await asyncio.sleep(0.02)
    if order.wish == "refuse":
        raise Refused("the card is blocked", code="CARD_BLOCKED")
    return Goods(shelf="till")


if __name__ == "__main__":
    service.run()
