"""A small shop for the tests of the client and the command line: its contract, its saga, its service.

    python -m kasaga orchestrator cli.real_shop:app
    python -m cli.real_shop

What an order wishes for happens to it; while the file `BROKEN` names exists, nothing can be given back.
"""

from __future__ import annotations

import os
from typing import Protocol

from pydantic import BaseModel

from kasaga import App, RetryPolicy, SagaContext, SignalTimeout, UpdateRefused, saga
from kasaga_participant import Participant, Refused, Tx
from kasaga_wire import command, compensation, participant

NAMESPACE = "clishop"

# Stuck soon, and then not tried again before a test has looked at it.
SOON_STUCK = RetryPolicy(
    initial_interval=0.3, backoff_coefficient=100, maximum_interval=600, maximum_attempts=2
)


class Order(BaseModel):
    id: str
    wish: str = ""


class Goods(BaseModel):
    shelf: str


class Receipt(BaseModel):
    order: str
    shelf: str


@participant("goods")
class GoodsContract(Protocol):
    @command
    async def take(self, order: Order) -> Goods: ...

    @compensation(take)
    async def give_back(self, order: Order, taken: Goods | None) -> None: ...

    @command
    async def pay(self, order: Order) -> Goods: ...


@saga("purchase", version=1)
async def purchase(ctx: SagaContext, order: Order) -> Receipt:
    goods = ctx.use(GoodsContract, undo_retry=SOON_STUCK)
    taken = await goods.take(order)
    if order.wish == "wait":
        await ctx.sleep(3600)
    await goods.pay(order)
    return Receipt(order=order.id, shelf=taken.shelf)


class Approval(BaseModel):
    by: str


class Note(BaseModel):
    text: str


@saga("asking", signals={"approved": Approval, "hurry": None})
async def asking(ctx: SagaContext, order: Order) -> str:
    """Takes goods when somebody has approved it, and notes from whoever has one."""
    notes: list[str] = []

    def add(note: Note) -> int:
        notes.append(note.text)
        return len(notes)

    def check(note: Note) -> None:
        if not note.text:
            raise UpdateRefused("an empty note")

    ctx.update("note", Note, add, validate=check)
    ctx.query("notes", lambda: notes)
    try:
        approval = await ctx.signal("approved", Approval, timeout=600)
    except SignalTimeout:
        return "nobody"
    await ctx.use(GoodsContract, undo_retry=SOON_STUCK).take(order)
    return approval.by


app = App(NAMESPACE, sagas=[purchase, asking], participants=[GoodsContract])
service = Participant(namespaces=(NAMESPACE,))


def is_broken() -> bool:
    return os.path.exists(os.environ["BROKEN"])


@service.handle(GoodsContract.take)
async def take(order: Order, tx: Tx) -> Goods:
    return Goods(shelf=f"shelf of {order.id}")


@service.handle(GoodsContract.give_back)
async def give_back(order: Order, taken: Goods | None, tx: Tx) -> None:
    if is_broken():
        raise RuntimeError("the shelf is locked")


@service.handle(GoodsContract.pay)
async def pay(order: Order, tx: Tx) -> Goods:
    if order.wish == "refuse":
        raise Refused("the card is blocked", code="CARD_BLOCKED")
    return Goods(shelf="till")


if __name__ == "__main__":
    service.run()
