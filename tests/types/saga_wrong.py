"""Mistakes in sagas that both type checkers must report.

Each is silenced on its line; test_types.py says why that is a test.
"""

from __future__ import annotations

from typing import Protocol

from pydantic import BaseModel

from kasaga import App, Event, SagaContext, saga
from kasaga_wire import command, compensation, participant


class Order(BaseModel):
    id: str


class Reservation(BaseModel):
    id: str


class Receipt(BaseModel):
    id: str


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...
    @compensation(reserve)
    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


def look(number: int) -> str:
    return str(number)


def unlook(result: int | None) -> None:
    print(result)


def unsure(result: str) -> None:
    print(result)


@saga("payment")
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    inventory = ctx.use(Inventory)
    await inventory.reserve(order)
    return Receipt(id=order.id)


@saga("wrong")
async def wrong(ctx: SagaContext, order: Order) -> Receipt:
    inventory = ctx.use(Inventory)
    await inventory.reserve(Receipt(id="1"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    inventory.reserve(order)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    ctx.lock(order.id)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await ctx.lock(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await inventory.reserve()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await inventory.resreve(order)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    receipt: Receipt = await inventory.reserve(order)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    ctx.use(Inventory, retries=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    ctx.use(Inventory, timeout="5 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ctx.run(look, 7)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    ctx.sleep(5)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await ctx.sleep("5 s")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    number: int = await ctx.run(look, 7)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    await ctx.run(look, 7, timeout="5 s")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.run(look, 7, undo=unlook)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await ctx.run(look, 7, undo=unsure)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    one, two = await ctx.gather(inventory.reserve(order), ctx.run(look, 7))
    receipt, number = two, one  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
    await ctx.gather(inventory.reserve(order), 7)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    ctx.gather(inventory.reserve(order), ctx.sleep(5))  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await ctx.race(inventory.reserve)  # type: ignore[call-overload]  # pyright: ignore[reportArgumentType]
    with ctx.timeout(5):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    with ctx.scope("first"):  # type: ignore[attr-defined]  # pyright: ignore[reportGeneralTypeIssues]
        pass
    ctx.scope(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ctx.now = 5  # type: ignore[misc, assignment]  # pyright: ignore[reportAttributeAccessIssue]
    print(receipt, number)
    return order  # type: ignore[return-value]  # pyright: ignore[reportReturnType]


@saga("sync")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
def sync(ctx: SagaContext, order: Order) -> Receipt:
    return Receipt(id=order.id)


@saga("no argument")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def no_argument(ctx: SagaContext) -> None: ...


@saga()  # type: ignore[call-overload,untyped-decorator]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
async def no_name(ctx: SagaContext, order: Order) -> None: ...


@saga("fails", fails_on=[5])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
async def fails(ctx: SagaContext, order: Order) -> None: ...


@saga("heard", on=Event("orders", Receipt))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
async def heard(ctx: SagaContext, order: Order) -> None: ...


a_number = Event("orders", Order, id=lambda order: 5)  # type: ignore[arg-type,return-value]  # pyright: ignore[reportArgumentType]


async def signals(ctx: SagaContext, order: Order) -> Receipt:
    ctx.signal("forgotten", Receipt)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    ctx.update("set", Receipt, handler)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return await ctx.signal("other", Order)  # type: ignore[arg-type]  # pyright: ignore[reportReturnType]


def handler(order: Order) -> None:
    print(order)


async def children(ctx: SagaContext, order: Order) -> Order:
    ctx.child(payment, order)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]
    await ctx.child(payment, Receipt(id="1"))  # type: ignore[misc]  # pyright: ignore[reportArgumentType]
    await ctx.start_child(payment, order, on_undo="keep")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    return await ctx.child(payment, order)  # type: ignore[arg-type]  # pyright: ignore[reportReturnType]


async def called_by_hand(ctx: SagaContext, order: Order) -> None:
    await payment(ctx, order)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]


def plain(ctx: SagaContext, order: Order) -> None:
    print(ctx, order)


App("orders", sagas=[plain], participants=[Inventory])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
payment.input.encode(Receipt(id="1"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
