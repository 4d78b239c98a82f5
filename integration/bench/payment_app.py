"""The payment saga of the benchmark: three steps, no other work, as the peers' benchmarks have it.

`app` has the sagas of `work_app` too: one image, as in a real namespace.
"""

from __future__ import annotations

from typing import Protocol

import pydantic

from bench.work_app import Work, nap, plan
from kasaga import App, SagaContext, saga
from kasaga_wire import command, compensation, participant


class Order(pydantic.BaseModel):
    order_id: str
    amount: int
    sku: str


class Done(pydantic.BaseModel):
    order_id: str
    ref: str


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Done: ...

    @compensation(reserve)
    async def release(self, order: Order, done: Done | None) -> None: ...


@participant("payments")
class Payments(Protocol):
    @command
    async def charge(self, order: Order) -> Done: ...

    @compensation(charge)
    async def refund(self, order: Order, done: Done | None) -> None: ...


@participant("shipping")
class Shipping(Protocol):
    @command
    async def ship(self, order: Order) -> Done: ...

    @compensation(ship)
    async def recall(self, order: Order, done: Done | None) -> None: ...


@saga("payment")
async def payment(ctx: SagaContext, order: Order) -> Done:
    inventory, payments, shipping = ctx.use(Inventory), ctx.use(Payments), ctx.use(Shipping)
    await inventory.reserve(order)
    charge = await payments.charge(order)
    await shipping.ship(order)
    return charge


app = App("bench", sagas=[payment, plan, nap], participants=[Inventory, Payments, Shipping, Work])
