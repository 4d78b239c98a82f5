"""Sagas as the guide shows them: commands, results and the saga itself keep their types."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from typing import Protocol, assert_type

from pydantic import BaseModel

from kasaga import App, RetryPolicy, Saga, SagaContext, SagaFailed, StepError, StepRefused, StepTimeout, saga
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


def declared() -> App:
    assert_type(payment, Saga[Order, Receipt])
    assert_type(tidy, Saga[Order, None])
    assert_type(payment.input.encode(Order(id="1")), bytes)
    return App("orders", sagas=[payment, tidy], participants=[Inventory, Mail])
