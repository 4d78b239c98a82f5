"""A small shop for the engine's tests: four participants, and the plain saga over three of them."""

from __future__ import annotations

from typing import Any, Protocol

from pydantic import BaseModel

from engine.harness import Play
from kasaga import App, Saga, SagaContext, saga
from kasaga_wire import command, compensation, participant


class Order(BaseModel):
    id: str
    total: int = 10


class Reservation(BaseModel):
    shelf: str


class Charge(BaseModel):
    id: int


class Parcel(BaseModel):
    number: str


class Receipt(BaseModel):
    order_id: str
    charge_id: int


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
    async def schedule(self, order: Order) -> Parcel: ...
    @compensation(schedule)
    async def cancel(self, order: Order, scheduled: Parcel | None) -> None: ...


@participant("mail")
class Mail(Protocol):
    """Nothing here can be undone."""

    @command
    async def send(self, order: Order) -> None: ...


PARTICIPANTS = [Inventory, Payments, Shipping, Mail]

ORDER = Order(id="o-1")
RESERVED = Reservation(shelf="A7")
CHARGED = Charge(id=7)
PARCEL = Parcel(number="P1")

ANSWERS: dict[str, BaseModel | None] = {
    "inventory.reserve": RESERVED,
    "payments.charge": CHARGED,
    "shipping.schedule": PARCEL,
    "mail.send": None,
}
"""What each command's participant answers where a test doesn't say."""


@saga("payment")
async def payment(ctx: SagaContext, order: Order) -> Receipt:
    inventory, payments, shipping = ctx.use(Inventory), ctx.use(Payments), ctx.use(Shipping)
    await inventory.reserve(order)
    charge = await payments.charge(order)
    await shipping.schedule(order)
    return Receipt(order_id=order.id, charge_id=charge.id)


def app_of(*sagas: Saga[Order, Receipt] | Saga[Order, None] | Saga[Order, str]) -> App:
    return App("shop", sagas=sagas, participants=PARTICIPANTS)


def play_of(declared: Saga[Order, Receipt] | Saga[Order, None] | Saga[Order, str], **options: Any) -> Play:
    """A play of one saga, not started yet."""
    return Play(app_of(declared), declared.name, ANSWERS, **options)


def started(declared: Saga[Order, Receipt] | Saga[Order, None] | Saga[Order, str], **options: Any) -> Play:
    """A play of one saga that has asked for its first step."""
    play = play_of(declared, **options)
    play.start(ORDER)
    return play
