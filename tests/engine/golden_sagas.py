"""The sagas whose histories are kept in golden/, and the plays that make them.

Histories outlive releases: today's code must read what is in those files, whoever wrote it. So the
files are made once, by `python tests/engine/make_golden.py NAME...` on purpose, never by a test run.
Change a saga here only in ways in which a running saga's code may be changed.
"""

from __future__ import annotations

from collections.abc import Callable

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from engine.harness import SECOND, Play
from engine.shop import (
    ANSWERS,
    ORDER,
    PARTICIPANTS,
    Inventory,
    Mail,
    Order,
    Payments,
    Receipt,
    Shipping,
    payment,
)
from kasaga import App, SagaContext, SignalTimeout, StepFailed, StepRefused, saga
from kasaga.engine.codec import decode, encode
from kasaga.engine.model import Move, Record, Undeliverable


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


@saga("abreast")
async def abreast(ctx: SagaContext, order: Order) -> str:
    """Steps side by side, of each kind."""
    mail = ctx.spawn(ctx.use(Mail).send(order))

    async def booked() -> str:
        await ctx.use(Inventory).reserve(order)
        return (await ctx.use(Shipping).schedule(order)).number

    number, _ = await ctx.gather(booked(), ctx.use(Payments).charge(order))
    async with ctx.timeout(60):
        await ctx.race(booked(), ctx.use(Payments).charge(order), ctx.sleep(30))
    await mail
    return number


@saga("asks", signals={"approved": str, "hurry": None})
async def asks(ctx: SagaContext, order: Order) -> str:
    notes: list[str] = []
    ctx.update("note", str, notes.append)
    ctx.query("notes", lambda: notes)
    first, who = await ctx.select(approved=ctx.signal("approved", str), hurry=ctx.signal("hurry", timeout=60))
    await ctx.use(Inventory).reserve(order)
    try:
        await ctx.signal("hurry", timeout=5)
    except SignalTimeout:
        notes.append("nobody hurries")
    return " ".join([first, str(who), *notes])


@saga("chooses")
async def chooses(ctx: SagaContext, order: Order) -> str:
    """One way in a scope, another where that is no way."""
    await ctx.use(Payments).charge(order)
    try:
        async with ctx.scope("first way"):
            await ctx.use(Inventory).reserve(order)
            async with ctx.scope():
                await ctx.use(Shipping).schedule(order)
            await ctx.use(Mail).send(order)
    except StepRefused:
        await ctx.use(Inventory).reserve(order)
        return "second way"
    return "first way"


APP = App("shop", sagas=[payment, careful, mixed, abreast, asks, chooses], participants=PARTICIPANTS)


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


def paused() -> Play:
    play = waiting()
    play.ask("pause", reason="a deployment")
    play.answer(4, "failed", error="busy")
    play.ask("cancel", reason="too late")
    return play


def resumed() -> Play:
    play = paused()
    play.now += 60 * SECOND
    play.ask("resume")
    return play


def terminated() -> Play:
    play = waiting()
    play.ask("terminate", reason="the shop is closed")
    return play


def abreast_done() -> Play:
    play = of("abreast")
    for path in ("1.1", "2.2", "2.1.1", "2.1.2", "4.1.1", "4.2"):
        play.now += SECOND
        play.done(path)
    play.undo("4.1.2", "nothing")
    play.undo("4.1.1")
    return play


def abreast_waiting() -> Play:
    play = of("abreast")
    for path in ("2.2", "2.1.1", "2.1.2", "4.1.1"):
        play.done(path)
    play.fire("3")
    return play


def abreast_refused() -> Play:
    play = of("abreast")
    play.refused("2.2", "the card is blocked")
    play.done("1.1")
    return play


def asked() -> Play:
    play = of("asks")
    play.update("note", "first", key="u-1")
    play.update("note", json='"second"', key="u-2")
    play.signal("approved", "anna", key="s-1")
    play.signal("approved", json='"bob"', key="s-2")
    play.done("2")
    play.now += SECOND
    play.fire("3")
    return play


def asks_still() -> Play:
    play = of("asks")
    play.signal("hurry", key="s-1")
    play.signal("approved", "anna", key="s-2")
    play.fault()
    play.signal("hurry", key="s-3")
    return play


def chooses_still() -> Play:
    play = of("chooses")
    for path in (1, 3, 5):
        play.now += SECOND
        play.done(path)
    play.refused(6, "no stamps")
    play.now += SECOND
    play.undo(5)
    return play


def chosen() -> Play:
    play = chooses_still()
    play.now += SECOND
    play.undo(3)
    play.now += SECOND
    play.done(7)
    return play


GOOD: dict[str, Callable[[], Play]] = {
    made.__name__: made
    for made in (
        completed,
        refused,
        caught,
        waiting,
        paused,
        resumed,
        terminated,
        undone,
        expired,
        conflict,
        skipped,
        parked,
        mended,
        abreast_done,
        abreast_waiting,
        abreast_refused,
        asked,
        asks_still,
        chooses_still,
        chosen,
    )
}


def drifted() -> Play:
    """A payment by code that asked the second participant first."""

    @saga("payment")
    async def other(ctx: SagaContext, order: Order) -> Receipt:
        charge = await ctx.use(Payments).charge(order)
        await ctx.use(Inventory).reserve(order)
        return Receipt(order_id=order.id, charge_id=charge.id)

    play = Play(App("shop", sagas=[other], participants=PARTICIPANTS), "payment", ANSWERS)
    play.start(ORDER)
    play.done(1)
    return play


def spoiled(rows: list[bytes], name: str) -> list[bytes]:
    """A completed payment's rows, as they must never be."""
    first, second, *rest = rows
    record = decode(2, second)
    match name:
        case "newer format":
            return [b"\x95\x02" + first[2:], second, *rest]
        case "newer event":
            return [first, b"\x95\x01" + msgpack_body(record, event=[99, "?"]), *rest]
        case "newer decision":
            return [first, b"\x95\x01" + msgpack_body(record, decisions=[[99, "?"]]), *rest]
        case "cut off":
            return [first, second[:-3], *rest]
        case "hole":
            return [first, *rest]
        case "scheduled twice":
            twice = record._replace(decisions=(*record.decisions, *record.decisions[-1:]))
            return [first, encode(twice), *rest]
        case "illegal move":
            moved = record._replace(decisions=(Move("COMPENSATED"), *record.decisions))
            return [first, encode(moved), *rest]
        case _:
            raise AssertionError(name)


def msgpack_body(record: Record, *, event: object = None, decisions: object = None) -> bytes:
    """The fields of a row behind its format, some of them of a release to come."""
    _, at, row, own_event, own_decisions = msgpack.unpackb(encode(record))
    parts = (at, row, event or own_event, decisions or own_decisions)
    return b"".join(msgpack.packb(part) for part in parts)


BAD = {
    "newer format": "row 1 has format 2; this release reads 1",
    "newer event": "row 2 can't be read: KeyError: 99",
    "newer decision": "row 2 can't be read: KeyError: 99",
    "cut off": "row 2 can't be read: ValueError: Unpack failed: incomplete input",
    "hole": "row 2 can't be: KeyError: '2'",
    "scheduled twice": "row 2 can't be: ValueError: a second step 2",
    "illegal move": "row 2 can't be: IllegalMove: a saga can't move from RUNNING to COMPENSATED",
    "drifted": "now asks for inventory.reserve at shop.py:",
}
"""Histories that are refused, and what is said of each."""
