"""Another image: the sagas of `trips`, and second versions of two of them."""

from __future__ import annotations

from typing import Any

from kasaga import SagaContext, saga
from kasaga.saga import Saga
from orchestrator import trips
from orchestrator.trips import PATIENT, UNDO, Hotel, Post, Trip


@saga("trip", version=2)
async def second(ctx: SagaContext, trip: Trip) -> str:
    await ctx.sleep(0.5)
    await ctx.use(Hotel).book(trip)
    return "second"


@saga("rest", version=2)
async def longer(ctx: SagaContext, trip: Trip) -> None:
    """A rest that sleeps may be moved here."""
    await ctx.sleep(float(trip.note))
    await ctx.use(Post, timeout=2, retry=PATIENT, undo_retry=UNDO).send(trip)


@saga("lodge")
async def lodge(ctx: SagaContext, trip: Trip) -> str:
    """What it has booked may be given back, and booked anew, while it sleeps."""
    await ctx.sleep(0.1)
    await ctx.use(Hotel, timeout=2, retry=PATIENT, undo_retry=UNDO).book(trip)
    await ctx.sleep(float(trip.note))
    return "stayed"


def sagas() -> list[Saga[Any, Any]]:
    """The sagas of an image that has both versions."""
    return [*trips.SAGAS, second, longer, lodge]
