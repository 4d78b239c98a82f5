"""A small shop for the pages' tests: whatever a page can show happens to its orders.

    python -m kasaga orchestrator ui.shop:app
    python -m ui.shop

What an order wishes for happens to it; while the file `BROKEN` names exists, nothing can be given back.
"""

from __future__ import annotations

import os
from typing import Protocol

from pydantic import BaseModel

from kasaga import App, RetryPolicy, SagaContext, saga
from kasaga_participant import Participant, Refused, Tx
from kasaga_wire import command, compensation, participant

NAMESPACE = "orders"

SOON_STUCK = RetryPolicy(
    initial_interval=1.0, backoff_coefficient=100, maximum_interval=600, maximum_attempts=2
)
"""Stuck soon, and then not tried again before a test has looked at it."""


class Order(BaseModel):
    id: str
    customer: str = ""
    wish: str = ""
    """retry, refuse, sleep, bug; see `purchase` and the handlers."""


class Reservation(BaseModel):
    shelf: str
    pieces: int


class Charge(BaseModel):
    receipt: str


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...

    @compensation(reserve)
    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


@participant("payments")
class Payments(Protocol):
    @command
    async def charge(self, order: Order) -> Charge: ...

    @compensation(charge)
    async def refund(self, order: Order, charged: Charge | None) -> None: ...


@participant("shipping")
class Shipping(Protocol):
    @command
    async def schedule(self, order: Order) -> None: ...


@saga("purchase", version=1)
async def purchase(ctx: SagaContext, order: Order) -> Charge:
    retry = RetryPolicy(initial_interval=0.2)
    await ctx.use(Inventory, undo_retry=SOON_STUCK).reserve(order)
    if order.wish == "sleep":
        await ctx.sleep(3600)
    if order.wish == "bug":
        raise TypeError(f"no such customer: {order.customer}")
    charged = await ctx.use(Payments, retry=retry).charge(order)
    await ctx.use(Shipping, retry=retry).schedule(order)
    return charged


app = App(NAMESPACE, sagas=[purchase], participants=[Inventory, Payments, Shipping])
service = Participant(namespaces=(NAMESPACE,))


def is_broken() -> bool:
    return os.path.exists(os.environ["BROKEN"])


@service.handle(Inventory.reserve)
async def reserve(order: Order, tx: Tx) -> Reservation:
    return Reservation(shelf="A7", pieces=2)


@service.handle(Inventory.release)
async def release(order: Order, reserved: Reservation | None, tx: Tx) -> None:
    if is_broken():
        raise RuntimeError("the shelf is locked")


@service.handle(Payments.charge)
async def charge(order: Order, tx: Tx) -> Charge:
    if order.wish == "retry" and tx.command.attempt < 3:
        raise RuntimeError("the bank is busy")
    return Charge(receipt=f"r-{order.id}")


@service.handle(Payments.refund)
async def refund(order: Order, charged: Charge | None, tx: Tx) -> None: ...


@service.handle(Shipping.schedule)
async def schedule(order: Order, tx: Tx) -> None:
    if order.wish == "refuse":
        raise Refused("no truck goes there", code="NO_TRUCK")


if __name__ == "__main__":
    service.run()
