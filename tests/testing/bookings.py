"""A trip of three steps with services that keep books, and the same with one bug each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from pydantic import BaseModel

from kasaga import RetryPolicy, SagaContext, StepRefused, StepTimeout, saga
from kasaga.testing import About, Outside, leaves_no_trace
from kasaga_participant import Participant, Refused, Tx
from kasaga_wire import command, compensation, participant


class Trip(BaseModel):
    id: str
    price: int = 30


class Booking(BaseModel):
    number: int


@participant("hotel")
class Hotel(Protocol):
    @command
    async def book(self, trip: Trip) -> Booking: ...
    @compensation(book)
    async def cancel(self, trip: Trip, booked: Booking | None) -> None: ...


@participant("bank")
class Bank(Protocol):
    @command
    async def charge(self, trip: Trip) -> Booking: ...
    @compensation(charge)
    async def refund(self, trip: Trip, charged: Booking | None) -> None: ...


@participant("airline")
class Airline(Protocol):
    @command
    async def fly(self, trip: Trip) -> Booking: ...
    @compensation(fly)
    async def ground(self, trip: Trip, flown: Booking | None) -> None: ...


@participant("bus")
class Bus(Protocol):
    @command
    async def ride(self, trip: Trip) -> None: ...
    @compensation(ride)
    async def stop(self, trip: Trip, ridden: None) -> None: ...


@participant("post")
class Post(Protocol):
    @command
    async def write(self, trip: Trip) -> None: ...


class Card(Outside):
    """A card network: it isn't in anybody's transaction."""

    def __init__(self) -> None:
        self.taken = 0
        self.done: set[str] = set()


class Books:
    """The databases of all services."""

    def __init__(self) -> None:
        self.rooms: list[str] = []
        self.seats: list[str] = []
        self.money = 100
        self.card = Card()


def books(tx: Any) -> Books:
    found: object = tx.connection
    assert isinstance(found, Books)
    return found


FAST = RetryPolicy(maximum_attempts=3)


@saga("trip")
async def trip(ctx: SagaContext, asked: Trip) -> Booking:
    hotel, bank, airline = ctx.use(Hotel, retry=FAST), ctx.use(Bank, retry=FAST), ctx.use(Airline, retry=FAST)
    await hotel.book(asked)
    await bank.charge(asked)
    return await airline.fly(asked)


class HotelService(Hotel):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def book(self, trip: Trip) -> Booking:
        rooms = books(self.tx).rooms
        rooms.append(trip.id)
        return Booking(number=len(rooms))

    async def cancel(self, trip: Trip, booked: Booking | None) -> None:
        assert booked is not None
        books(self.tx).rooms.remove(trip.id)


def _charge(trip: Trip, tx: Any) -> Booking:
    if books(tx).money < trip.price:
        raise Refused("too poor")
    books(tx).money -= trip.price
    return Booking(number=7)


def _refund(trip: Trip, charged: Booking | None, tx: Any) -> None:
    assert charged == Booking(number=7), "the stored result"
    books(tx).money += trip.price


async def _fly(trip: Trip, tx: Any) -> Booking:
    books(tx).seats.append(trip.id)
    return Booking(number=1)


async def _ground(trip: Trip, flown: Booking | None, tx: Any) -> None:
    books(tx).seats.remove(trip.id)


def bank_app() -> Participant:
    app = Participant("bank")
    app.handle(Bank.charge)(_charge)
    app.handle(Bank.refund)(_refund)
    return app


AIRLINE: dict[Callable[..., Any], Callable[..., Any]] = {Airline.fly: _fly, Airline.ground: _ground}
SERVED: About = {
    "participants": [HotelService, bank_app()],
    "fakes": AIRLINE,
    "data": Books,
    "invariants": [leaves_no_trace],
}


# --- bugs


@saga("bug-goes-on")
async def goes_on(ctx: SagaContext, asked: Trip) -> None:
    """Takes a charge that timed out for none of its business."""
    bank, airline = ctx.use(Bank, retry=FAST), ctx.use(Airline, retry=FAST)
    with suppress(StepTimeout):
        await bank.charge(asked)
    await airline.fly(asked)


_calls = iter(range(1_000_000))


@saga("bug-chance")
async def chance(ctx: SagaContext, asked: Trip) -> None:
    """Asks something else in each replay."""
    bank, hotel = ctx.use(Bank), ctx.use(Hotel)
    if next(_calls) % 2:
        await hotel.book(asked)
    await bank.charge(asked)
    await hotel.book(asked)


@saga("bug-typo")
async def typo(ctx: SagaContext, asked: Trip) -> None:
    """Its way out has never been run."""
    try:
        await ctx.use(Bank).charge(asked)
    except StepRefused as refused:
        raise ValueError(refused.args[5]) from None


@saga("instead")
async def instead(ctx: SagaContext, asked: Trip) -> None:
    """Takes the bus where no airline flies."""
    try:
        await ctx.use(Airline).fly(asked)
    except StepRefused:
        await ctx.use(Bus).ride(asked)
    await ctx.use(Hotel).book(asked)


@saga("writes")
async def writes(ctx: SagaContext, asked: Trip) -> None:
    """Its first step can't be undone."""
    await ctx.use(Post).write(asked)
    await ctx.use(Bank).charge(asked)


def forgetful_refund(trip: Trip, charged: Booking | None) -> None:
    """Undoes nothing."""


def charge_card(trip: Trip, tx: Any) -> Booking:
    card = books(tx).card
    if tx.command.id not in card.done:  # the network knows the idempotency key
        card.done.add(tx.command.id)
        card.taken += trip.price
    return Booking(number=1)


def double_refund(trip: Trip, charged: Booking | None, tx: Any) -> None:
    """Passes no key on, so that the network can't know the second time for what it is."""
    books(tx).card.taken -= trip.price


def safe_refund(trip: Trip, charged: Booking | None, tx: Any) -> None:
    card = books(tx).card
    if tx.command.id not in card.done:
        card.done.add(tx.command.id)
        card.taken -= trip.price
