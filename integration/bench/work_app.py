"""Sagas of the growth curves: as many steps as asked, in turn or side by side, or a long sleep."""

from __future__ import annotations

from typing import Protocol

import pydantic

from kasaga import SagaContext, saga
from kasaga_wire import command, participant


class Piece(pydantic.BaseModel):
    number: int
    filler: str = ""


class Plan(pydantic.BaseModel):
    steps: int = 1
    """One after the other."""
    width: int = 1
    """Commands side by side in each step."""
    filler: str = ""
    """Carried by the start and by each command. Replies are small: theirs have a limit that is no setting."""


class Nap(pydantic.BaseModel):
    seconds: float


@participant("work")
class Work(Protocol):
    @command
    async def do(self, piece: Piece) -> int: ...


@saga("plan")
async def plan(ctx: SagaContext, plan: Plan) -> int:
    work = ctx.use(Work)
    for number in range(plan.steps):
        piece = Piece(number=number, filler=plan.filler)
        if plan.width == 1:
            await work.do(piece)
        else:
            await ctx.gather(*[work.do(piece) for _ in range(plan.width)])
    return plan.steps * plan.width


@saga("nap")
async def nap(ctx: SagaContext, nap: Nap) -> bool:
    await ctx.sleep(nap.seconds)
    return True
