"""Sagas that are in flight for as long as a measurement takes: they ask, sleep and ask again, or wait."""

from __future__ import annotations

from typing import Protocol

import pydantic

from kasaga import App, SagaContext, saga
from kasaga_wire import command, participant

DAY = 86_400.0


class Watch(pydantic.BaseModel):
    """What one saga does; times in seconds."""

    first: float
    """It sleeps so long before it asks for the first time."""
    period: float
    """… and so long between two questions; 0: it asks the archive, and waits for its answer."""


class Seen(pydantic.BaseModel):
    over: bool


@participant("desk")
class Desk(Protocol):
    """Answers at once."""

    @command
    async def look(self, watch: Watch) -> Seen: ...


@participant("archive")
class Archive(Protocol):
    """Isn't there while something is measured: what is asked of it waits."""

    @command
    async def fetch(self, watch: Watch) -> Seen: ...


@saga("vigil")
async def vigil(ctx: SagaContext, watch: Watch) -> Seen:
    if not watch.period:
        return await ctx.use(Archive, timeout=DAY, schedule_to_close=None).fetch(watch)
    desk = ctx.use(Desk)
    await ctx.sleep(watch.first)
    while True:
        seen = await desk.look(watch)
        if seen.over:
            return seen
        await ctx.sleep(watch.period)


app = App("bench", sagas=[vigil], participants=[Desk, Archive])
