"""Another image: the sagas of `trips`, and a second version of one of them."""

from __future__ import annotations

from typing import Any

from kasaga import SagaContext, saga
from kasaga.saga import Saga
from orchestrator import trips
from orchestrator.trips import Hotel, Trip


@saga("trip", version=2)
async def second(ctx: SagaContext, trip: Trip) -> str:
    await ctx.sleep(0.5)
    await ctx.use(Hotel).book(trip)
    return "second"


def sagas() -> list[Saga[Any, Any]]:
    """The sagas of an image that has both versions."""
    return [*trips.SAGAS, second]
