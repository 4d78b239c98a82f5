"""The sagas whose histories are kept in golden/, and the plays that make them.

Histories outlive releases: today's code must read what is in those files, whoever wrote it. So the
files are made once, by `python tests/engine/make_golden.py NAME...` on purpose, never by a test run.
Change a saga here only in ways in which a running saga's code may be changed.
"""

from __future__ import annotations

from collections.abc import Callable

from engine.harness import SECOND, Play
from engine.shop import ANSWERS, ORDER, PARTICIPANTS, Inventory, Mail, Order, Payments, payment
from kasaga import App, SagaContext, StepFailed, saga
from kasaga.engine.model import Undeliverable


def look() -> int:
    return 7


def write() -> int:
    return 7


def unwrite(result: int | None) -> None:
    """Takes back what `write` did."""


@saga("careful")
async def careful(ctx: SagaContext, order: Order) -> str:
    """Goes on where the mail doesn't answer."""
    try:
        await ctx.use(Mail, timeout=10, schedule_to_close=15).send(order)
    except StepFailed:
        await ctx.use(Inventory, key="shelf").reserve(order)
        return "collected"
    return "sent"


@saga("mixed", version=3, timeout=3600)
async def mixed(ctx: SagaContext, order: Order) -> str:
    """One step of each kind."""
    number = await ctx.run(look)
    await ctx.run(write, undo=unwrite)
    await ctx.sleep(number)
    await ctx.use(Payments).charge(Order(id=str(ctx.uuid()), total=ctx.now.day))
    return "done"


APP = App("shop", sagas=[payment, careful, mixed], participants=PARTICIPANTS)


def of(name: str, version: int = 1) -> Play:
    play = Play(APP, name, ANSWERS, version=version, run_id="0199d000-0000-7000-8000-000000000001")
    play.defs = play.defs._replace(fingerprint="golden")
    play.start(ORDER, reply_to="shop.answers/3")
    return play


def completed() -> Play:
    play = of("payment")
    for path in (1, 2, 3):
        play.now += SECOND
        play.done(path)
    return play


def refused() -> Play:
    play = of("payment")
    play.done(1)
    play.failed(2)
    play.done(2)
    play.refused(3, "no carrier")
    play.undo(2)
    play.failed(1, "the shelf is locked")
    play.undo(1, "lost")
    return play


def caught() -> Play:
    play = of("careful")
    play.fire(1)
    play.fire(1)
    play.undo(1, "executed")
    play.done(2)
    play.ask("skip", reason="it is only mail")
    return play


def waiting() -> Play:
    play = of("mixed", 3)
    play.done(1, 7)
    play.ran(2, "OSError", "no route")
    play.done(2, 8)
    play.fire(3)
    return play


def undone() -> Play:
    play = waiting()
    play.ask("cancel", reason="changed their mind")
    play.undo(4, "nothing")
    play.ran(2, "OSError", "no route", form="undo")
    return play


def expired() -> Play:
    play = waiting()
    play.event(Undeliverable("4", "command", 1, "no such topic"))
    play.fire()
    return play


def conflict() -> Play:
    play = of("payment")
    play.done(1)
    play.answer(2, "conflict", error_type="IdClash", error="was sent before with another input")
    play.ask("watch", reply_to="shop.answers/1")
    play.ask("resolve", value='{"id": 12}', reason="found in the bank's list")
    return play


def skipped() -> Play:
    play = of("payment")
    play.failed(1, retryable=False)
    play.answer(1, "failed", error_type="Refused", error="never")
    play.ask("skip", reason="written off")
    return play


def parked() -> Play:
    play = of("payment")
    play.done(1)
    play.fault("KSG-210", "invalid byte sequence")
    play.done(2)
    play.fire(2)
    return play


def mended() -> Play:
    play = parked()
    play.new_code(APP, "mended")
    return play


GOOD: dict[str, Callable[[], Play]] = {
    made.__name__: made
    for made in (completed, refused, caught, waiting, undone, expired, conflict, skipped, parked, mended)
}
