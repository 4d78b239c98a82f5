"""Sagas as the guide shows them: commands, results and the saga itself keep their types."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Protocol, assert_type

from pydantic import BaseModel

from kasaga import (
    App,
    Event,
    RetryPolicy,
    Saga,
    SagaContext,
    SagaFailed,
    SignalTimeout,
    Spawned,
    StepError,
    StepRefused,
    StepTimeout,
    TimedOut,
    saga,
)
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


@participant("mail")
class Mail(Protocol):
    @command
    async def send(self, order: Order) -> None: ...


class TooDearError(Exception):
    pass


def look(number: int) -> str:
    return str(number)


async def fetch(number: int) -> list[str]:
    return [str(number)]


def write() -> Reservation:
    return Reservation(id="1")


def unwrite(written: Reservation | None) -> None:
    print(written)


@saga("payment", version=2, timeout=timedelta(days=1), fails_on=[TooDearError])
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    inventory = ctx.use(Inventory)
    assert_type(inventory, Inventory)
    assert_type(await inventory.reserve(order), Reservation)
    patient = ctx.use(Mail, timeout=5, schedule_to_close=None, retry=RetryPolicy(maximum_attempts=0), key="k")
    assert_type(patient, Mail)
    try:
        assert_type(await patient.send(order), None)
    except StepTimeout as error:
        assert_type(error.step, str)
    except (StepRefused, StepError) as error:
        raise SagaFailed(error.message) from error
    return Receipt(id=order.id)


@saga("tidy")
async def tidy(ctx: SagaContext, order: Order) -> None:
    assert_type(ctx.now, datetime)
    assert_type(ctx.uuid(), uuid.UUID)
    assert_type(ctx.random.random(), float)
    assert_type(ctx.saga_id, str)
    assert_type(await ctx.sleep(timedelta(hours=1)), None)
    assert_type(await ctx.sleep(0.5), None)
    assert_type(await ctx.run(look, 7), str)
    assert_type(await ctx.run(fetch, 7, timeout=timedelta(minutes=2)), list[str])
    assert_type(await ctx.run(fetch, 7, timeout=None), list[str])
    assert_type(await ctx.run(write, undo=unwrite, undo_retry=RetryPolicy(maximum_attempts=3)), Reservation)


async def both(ctx: SagaContext, order: Order) -> tuple[Reservation, str]:
    reserved, said = await ctx.gather(ctx.use(Inventory).reserve(order), ctx.run(look, 7))
    return reserved, said


@saga("parallel")
async def parallel(ctx: SagaContext, order: Order) -> None:
    inventory, mail = ctx.use(Inventory), ctx.use(Mail)
    assert_type(
        await ctx.gather(inventory.reserve(order), mail.send(order), ctx.sleep(1), both(ctx, order)),
        tuple[Reservation, None, None, tuple[Reservation, str]],
    )
    five = await ctx.gather(
        inventory.reserve(order),
        ctx.run(look, 1),
        ctx.run(fetch, 1),
        mail.send(order),
        inventory.reserve(order),
    )
    assert_type(five, tuple[Reservation, str, list[str], None, Reservation])
    assert_type(await ctx.gather(*[inventory.reserve(order) for _ in range(9)]), tuple[Reservation, ...])
    kept = await ctx.gather(inventory.reserve(order), ctx.run(look, 7), return_exceptions=True)
    assert_type(kept, tuple[Reservation | Exception, str | Exception])
    many = await ctx.gather(*[inventory.reserve(order) for _ in range(9)], return_exceptions=True)
    assert_type(many, tuple[Reservation | Exception, ...])
    assert_type(await ctx.race(inventory.reserve(order), ctx.run(look, 7)), Reservation | str)
    assert_type(await ctx.race(*[inventory.reserve(order)], skip_failures=True), Reservation)
    assert_type(
        await ctx.select(one=inventory.reserve(order), two=inventory.reserve(order)), tuple[str, Reservation]
    )
    branch = ctx.spawn(both(ctx, order))
    assert_type(branch, Spawned[tuple[Reservation, str]])
    try:
        async with ctx.timeout(timedelta(minutes=1)):
            assert_type(await branch, tuple[Reservation, str])
    except TimedOut as error:
        assert_type(error.message, str)
    assert_type(await ctx.gather(branch, ctx.spawn(ctx.run(look, 7))), tuple[tuple[Reservation, str], str])


async def one_way(ctx: SagaContext, order: Order) -> Reservation:
    """A scope lets what is raised in it pass, too."""
    async with ctx.scope("first") as begun:
        reserved = await ctx.use(Inventory).reserve(order)
    assert_type(begun, None)
    return reserved


async def from_outside(ctx: SagaContext, order: Order) -> None:
    assert_type(await ctx.signal("approved", Receipt, timeout=timedelta(days=1)), Receipt)
    assert_type(await ctx.signal("go"), None)
    assert_type(
        await ctx.select(paid=ctx.signal("paid", Receipt), gone=ctx.signal("gone", Receipt)),
        tuple[str, Receipt],
    )
    assert_type(await ctx.gather(ctx.signal("n", int), ctx.sleep(1)), tuple[int, None])
    ctx.query("id", lambda: order.id)
    ctx.update("set", Receipt, lambda to: to.id, validate=lambda to: None)
    try:
        await ctx.signal("late", int, timeout=1)
    except SignalTimeout as error:
        assert_type(error.message, str)


def declared() -> App:
    assert_type(payment, Saga[Order, Receipt])
    assert_type(tidy, Saga[Order, None])
    assert_type(payment.input.encode(Order(id="1")), bytes)
    return App("orders", sagas=[payment, tidy], participants=[Inventory, Mail])


async def in_time(ctx: SagaContext, order: Order) -> Reservation:
    """A block with a time-out lets what is raised in it pass, so what is set in it is set behind it."""
    async with ctx.timeout(5):
        reserved = await ctx.use(Inventory).reserve(order)
    await ctx.sleep(1)
    return reserved


placed = Event(
    "shop.orders", Receipt, when=lambda receipt: receipt.id != "", input=lambda receipt: Order(id=receipt.id)
)
assert_type(placed, Event[Order])
settled = Event("payments.settled", Receipt, id=lambda receipt: receipt.id, keep=timedelta(minutes=5))
assert_type(settled, Event[Receipt])


@saga("heard", on=[placed, Event("old.orders", Order)], signals={"settled": settled, "other": None})
async def heard(ctx: SagaContext, order: Order) -> Receipt:
    return await ctx.signal("settled", Receipt)


assert_type(heard, Saga[Order, Receipt])


@saga("bundle")
async def bundle(ctx: SagaContext, order: Order) -> str:
    assert_type(await ctx.child(payment, order), Receipt)
    assert_type(await ctx.start_child(payment, order, id="p", on_undo="abandon"), str)
    one, other = await ctx.gather(ctx.child(payment, order), ctx.start_child(payment, order))
    assert_type(one, Receipt)
    return other


@saga("account")
async def account(ctx: SagaContext, order: Order) -> Receipt:
    """A saga that goes on as new runs: what comes behind the call is never reached, and checkers know."""
    assert_type(ctx.run_number, int)
    assert_type(ctx.history_length, int)
    assert_type(ctx.should_continue, bool)
    await ctx.sleep(1)
    await ctx.continue_as_new(order)


@saga("locking", locks=lambda order: [f"order:{order.id}"])
async def locking(ctx: SagaContext, order: Order) -> None:
    assert_type(await ctx.lock(order.id, "all", wait=False), None)


assert_type(locking, Saga[Order, None])
