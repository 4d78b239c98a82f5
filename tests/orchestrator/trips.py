"""The sagas that the orchestrator is tried on: small, and each goes wrong in its own way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

import pydantic

from kasaga import (
    App,
    RetryPolicy,
    SagaContext,
    SagaFailed,
    StepRefused,
    StepTimeout,
    UpdateRefused,
    saga,
)
from kasaga.saga import Saga
from kasaga_wire.contracts import command, compensation, participant
from kasaga_wire.crashpoints import crash_point


class Trip(pydantic.BaseModel):
    id: str
    note: str = ""


class Ticket(pydantic.BaseModel):
    ref: str


@participant("hotel")
class Hotel(Protocol):
    @command
    async def book(self, trip: Trip) -> Ticket: ...
    @compensation(book)
    async def cancel(self, trip: Trip, ticket: Ticket | None) -> None: ...


@participant("flight")
class Flight(Protocol):
    @command
    async def reserve(self, trip: Trip) -> Ticket: ...
    @compensation(reserve)
    async def release(self, trip: Trip, ticket: Ticket | None) -> None: ...


@participant("post")
class Post(Protocol):
    @command
    async def send(self, trip: Trip) -> None: ...


QUICK = RetryPolicy(initial_interval=0.1, maximum_interval=0.5, maximum_attempts=3)
PATIENT = RetryPolicy(initial_interval=0.1, maximum_interval=1.0, maximum_attempts=0)
UNDO = RetryPolicy(initial_interval=0.1, maximum_interval=0.5, maximum_attempts=50)


@saga("trip")
async def trip(ctx: SagaContext, trip: Trip) -> Ticket:
    """Three steps, tried until they answer."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    ticket = await ctx.use(Flight, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(trip)
    await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)
    return ticket


@saga("hasty")
async def hasty(ctx: SagaContext, trip: Trip) -> Ticket:
    """Gives up after three attempts, and is undone."""
    await ctx.use(Hotel, timeout=1, retry=QUICK, undo_retry=UNDO).book(trip)
    return await ctx.use(Flight, timeout=1, retry=QUICK, undo_retry=UNDO).reserve(trip)


@saga("stubborn")
async def stubborn(ctx: SagaContext, trip: Trip) -> Ticket:
    """Catches the time-out of a step, and goes on without it."""
    once = RetryPolicy(maximum_attempts=1)
    try:
        return await ctx.use(Flight, timeout=0.5, retry=once, undo_retry=UNDO).reserve(trip)
    except StepTimeout:
        return await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)


@saga("nap", timeout=900)
async def nap(ctx: SagaContext, trip: Trip) -> Ticket:
    """Sleeps between two steps."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    await ctx.sleep(0.5)
    return await ctx.use(Flight, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(trip)


@saga("rest")
async def rest(ctx: SagaContext, trip: Trip) -> None:
    """Sleeps for as many seconds as its note says."""
    await ctx.sleep(float(trip.note))


@saga("failing")
async def failing(ctx: SagaContext, trip: Trip) -> None:
    """Is undone by its author."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    await ctx.use(Flight, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(trip)
    raise SagaFailed("the author has changed his mind")


@saga("empty")
async def empty(ctx: SagaContext, trip: Trip) -> str:
    """Ends with its start."""
    return f"{trip.id} is over"


@saga("tour", timeout=900)
async def tour(ctx: SagaContext, trip: Trip) -> str:
    """Steps side by side: in the background, all of them, and the first of them within a time."""
    hotel = ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO)
    flight = ctx.use(Flight, timeout=2, retry=PATIENT, undo_retry=UNDO)

    async def leg() -> str:
        ticket = await flight.reserve(trip)
        await ctx.sleep(0.2)
        return ticket.ref + (await hotel.book(trip)).ref

    room = ctx.spawn(hotel.book(trip))
    both, _, _ = await ctx.gather(leg(), flight.reserve(trip), hotel.book(trip))
    async with ctx.timeout(600):
        won = await ctx.race(leg(), leg(), hotel.book(trip))
    ticket = await room
    await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)
    return f"{both} {won} {ticket.ref}"


@saga("sold", timeout=900)
async def sold(ctx: SagaContext, trip: Trip) -> str:
    """Only goes forward once the letter is sent; what comes then has few attempts of a short time."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)
    await ctx.pivot()
    await ctx.use(Flight, timeout=0.2, retry=QUICK, undo_retry=UNDO).reserve(trip)
    await ctx.sleep(0.5)
    await ctx.use(Hotel, timeout=0.2, retry=QUICK, undo_retry=UNDO).book(trip)
    return "sold"


@saga("choosy", timeout=900)
async def choosy(ctx: SagaContext, trip: Trip) -> str:
    """Tries one way in a scope, with steps side by side in it, and another where that is refused."""
    hotel = ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO)
    flight = ctx.use(Flight, timeout=2, retry=PATIENT, undo_retry=UNDO)
    await hotel.book(trip)
    try:
        async with ctx.scope("by air"):
            async with ctx.scope("seats"):
                await ctx.gather(flight.reserve(trip), flight.reserve(trip))
            room = ctx.spawn(hotel.book(trip))
            await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)
            await room
    except StepRefused:
        await hotel.book(trip)
        return "by land"
    return "by air"


@saga("stay")
async def stay(ctx: SagaContext, trip: Trip) -> Ticket:
    """Two steps, as part of another saga."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    return await ctx.use(Flight, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(trip)


@saga("journey", timeout=900)
async def journey(ctx: SagaContext, trip: Trip) -> str:
    """A child that is only begun, two that are awaited side by side, and a last step that may be refused."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    await ctx.start_child(nap, trip)
    ticket, _ = await ctx.gather(ctx.child(stay, trip), ctx.child(empty, trip))
    await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)
    return ticket.ref


@saga("mailbox", signals={"letter": str, "end": None})
async def mailbox(ctx: SagaContext, trip: Trip) -> str:
    """Takes letters until it is told to end; a letter of an update comes first."""
    letters: list[str] = []

    def insert(letter: str) -> int:
        if letter == "bug":
            raise KeyError(letter)
        letters.insert(0, letter)
        return len(letters)

    def check(letter: str) -> None:
        if not letter:
            raise UpdateRefused("an empty letter")

    ctx.update("first", str, insert, validate=check)
    ctx.query("letters", lambda: "".join(letters))
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    if trip.note == "hurry":
        return await ctx.signal("letter", str, timeout=30)
    while True:
        name, letter = await ctx.select(letter=ctx.signal("letter", str), end=ctx.signal("end"))
        if name == "end":
            return "".join(letters)
        letters.append(letter or "")


@saga("crowd")
async def crowd(ctx: SagaContext, trip: Trip) -> int:
    """As many steps at once as its note says, and then one more."""
    hotel = ctx.use(Hotel, timeout=20, retry=PATIENT, undo_retry=UNDO)
    booked = await ctx.gather(*[hotel.book(trip) for _ in range(int(trip.note))])
    await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)
    return len(booked)


def count() -> int:
    """What ctx.run calls in `local`; a test may put another in its place."""
    crash_point("trips.count")
    return HOOK[0]()


def uncount(number: int | None) -> None:
    """Undo of `count`."""
    UNDONE.append(number)


def _seven() -> int:
    return 7


HOOK: list[Callable[[], int]] = [_seven]
UNDONE: list[int | None] = []


@saga("local")
async def local(ctx: SagaContext, trip: Trip) -> int:
    """A function of the author's own between two steps."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    number = await ctx.run(count, undo=uncount)
    await ctx.use(Flight, timeout=2, retry=PATIENT, undo_retry=UNDO).reserve(trip)
    return number


MENDED = [0]
"""1 when `bad` has been mended."""


@saga("bad")
async def bad(ctx: SagaContext, trip: Trip) -> str:
    """A bug of the kind that its note says, behind one step."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    if trip.note == "bug":
        return str(1 // MENDED[0])
    if trip.note == "loop":
        while not MENDED[0]:
            pass
    if trip.note == "block" and not MENDED[0]:
        time.sleep(3600)  # noqa: ASYNC251 - on purpose
    if trip.note == "exit" and not MENDED[0]:
        os._exit(3)
    if trip.note == "kill" and not MENDED[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    if trip.note == "large":
        await ctx.use(Hotel).book(Trip(id=trip.id, note="x" * 2_000_000))
    if trip.note == "text":
        raise SagaFailed("a NUL \x00 and a lone surrogate \ud800 in a reason")
    return trip.note


@saga("herald")
async def herald(ctx: SagaContext, trip: Trip) -> None:
    """Emits to the topic that its note names: before a step, with one, and at its end."""
    await ctx.emit(trip.note, trip, event_type="asked")
    ticket = await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    await ctx.emit(trip.note, ticket, event_type="booked", key="hotels")
    await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)
    await ctx.emit(trip.note, {"sent": True}, event_type="sent")


@saga("named", attributes=lambda trip: {"trip": trip.id, "phase": "begun", "gone": True})
async def named(ctx: SagaContext, trip: Trip) -> None:
    """Says how far it is, and takes one away."""
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    await ctx.set_attributes(phase="booked", gone=None)
    await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)
    await ctx.set_attributes(phase="sent")


SAGAS: list[Saga[Any, Any]] = [
    herald,
    named,
    trip,
    hasty,
    stubborn,
    nap,
    rest,
    failing,
    empty,
    local,
    bad,
    tour,
    crowd,
    mailbox,
    sold,
    choosy,
    stay,
    journey,
]
CONTRACTS: list[type[Any]] = [Hotel, Flight, Post]


def make_app(namespace: str) -> App:
    """The App of a namespace of its own."""
    return App(namespace, sagas=SAGAS, participants=CONTRACTS)


class NewCode(App):
    """The same sagas, as another image would have them."""

    def fingerprint(self) -> str:
        return "new code"
