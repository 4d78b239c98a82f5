"""Sagas that begin by themselves: one every second, one that never is due while a test runs."""

from __future__ import annotations

from kasaga import App, Cron, Every, SagaContext, Schedule, saga


@saga("beat")
async def beat(ctx: SagaContext, due: str) -> str:
    return due


@saga("slow")
async def slow(ctx: SagaContext, due: str) -> str:
    await ctx.sleep(3600)
    return due


app = App(
    "scheduled",
    sagas=[beat, slow],
    schedules=[
        Schedule("beat", beat, lambda due: due.isoformat(), when=Every(1), overlap="allow", catch_up=300),
        Schedule("slow", slow, "slowly", when=Every(2), overlap="cancel"),
        Schedule("yearly", beat, "new year", when=Cron("0 0 1 1 *", "Europe/Berlin")),
    ],
)
