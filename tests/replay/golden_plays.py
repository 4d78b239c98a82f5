"""The plays that golden histories are made of: the example's payment saga, as releases have run it.

`write_golden.py` writes them once for a release; from then on every release must read them. Today's
example must stay able to go on with them: change it as a saga may be changed that runs.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgpack  # pyright: ignore[reportMissingTypeStubs]
from pydantic import BaseModel

from engine.harness import Play
from examples.contracts import (
    NAMESPACE,
    Address,
    Charge,
    Inventory,
    Line,
    Order,
    Parcel,
    Payments,
    Receipt,
    Reservation,
    Shipment,
    Shipping,
)
from examples.sagas import app
from kasaga import App, SagaContext, saga
from kasaga.engine.codec import decode, encode
from kasaga.engine.model import Send
from kasaga.gate import History, Kind

ORDER = Order(
    id="order-1",
    placed_at=datetime(2026, 11, 23, 8, 0, tzinfo=UTC),
    customer="anna",
    card="card-1",
    address=Address(name="Anna", street="Main street 1", postcode="10115", city="Berlin", country="DE"),
    lines=[Line(sku="chair", quantity=2, unit_price=Decimal("49.90"))],
    shipping_limit=Decimal("10.00"),
)
ANSWERS: dict[str, Any] = {
    "inventory.reserve": Reservation(id=1, pieces=2, weight_grams=9000),
    "payments.charge": Charge(id=7, amount=Decimal("99.80")),
    "shipping.schedule": Shipment(id=3, carrier="posta", tracking="P-3", price=Decimal("6.50")),
}
RUN_ID = "0199d000-0000-7000-8000-0000000000{:02x}"


def play(of: App = app, version: int = 1) -> Play:
    made = Play(of, "payment", ANSWERS, version=version, run_id=RUN_ID.format(1), always_replay=False)
    made.start(ORDER)
    return made


def completed() -> Play:
    made = play()
    for step in (1, 2, 3):
        made.done(step)
    return made


def waiting() -> Play:
    made = play()
    made.done(1)
    made.failed(2)
    return made


def refused() -> Play:
    made = play()
    made.done(1)
    made.refused(2, "the card is blocked")
    made.undo(1)
    return made


def too_dear() -> Play:
    made = play()
    made.done(1)
    made.done(2)
    made.done(3, Shipment(id=3, carrier="posta", tracking="P-3", price=Decimal("12.00")))
    for step in (3, 2, 1):
        made.undo(step)
    return made


def undoing() -> Play:
    made = play()
    made.done(1)
    made.answer(2, "failed", error_type="Broken", error="down", retryable=False)
    made.undo(2, "nothing")
    made.failed(1, "no disk")
    return made


def cancelled() -> Play:
    made = play()
    made.done(1)
    made.ask("cancel", reason="changed their mind")
    made.undo(2, "nothing")
    made.undo(1)
    return made


def parked() -> Play:
    made = play()
    made.done(1)
    made.fault("KSG-210", "invalid byte sequence")
    made.done(2)
    return made


GOOD: dict[str, Callable[[], Play]] = {
    each.__name__: each for each in (completed, waiting, refused, too_dear, undoing, cancelled, parked)
}

# --- what today's code can't go on with


@saga("payment", version=1)
async def charges_first(ctx: SagaContext, order: Order) -> Receipt:
    """Other steps than the example's."""
    await ctx.use(Payments, key=order.card).charge(order)
    raise AssertionError


@saga("payment", version=1)
async def other_parcel(ctx: SagaContext, order: Order) -> Receipt:
    """The same steps, one with another input."""
    await ctx.use(Inventory).reserve(order)
    await ctx.use(Payments, key=order.card).charge(order)
    await ctx.use(Shipping).schedule(Parcel(order_id=order.id, address=order.address, weight_grams=1))
    raise AssertionError


@saga("payment", version=1)
async def other_key(ctx: SagaContext, order: Order) -> Receipt:
    """The same steps, one with another key."""
    await ctx.use(Inventory, key=order.customer).reserve(order)
    raise AssertionError


@saga("payment", version=9)
async def version_9(ctx: SagaContext, order: Order) -> Receipt:
    """A version that the example doesn't have."""
    reserved = await ctx.use(Inventory).reserve(order)
    return Receipt(order_id=str(reserved.id), charge_id=0, paid=Decimal(0), carrier="", tracking="")


class Poor(BaseModel):
    """An order as no release has it: today's can't be read from it."""

    id: str


@saga("payment", version=1)
async def poor_input(ctx: SagaContext, order: Poor) -> Receipt:
    """Of another input."""
    await ctx.sleep(5)
    raise AssertionError


PARTICIPANTS = (Inventory, Payments, Shipping)


def of(*sagas: Any) -> App:
    return App(NAMESPACE, sagas=sagas, participants=PARTICIPANTS)


def history(name: str, made: Play, bodies: list[bytes] | None = None) -> History:
    rows = tuple(enumerate(made.bodies if bodies is None else bodies, 1))
    state = made.state
    return History(f"golden-{name}", state.run_id, state.name, state.version, state.state, rows)


def third_step() -> Play:
    made = play(of(other_parcel))
    made.done(1)
    made.done(2)
    return made


def poor() -> Play:
    made = Play(of(poor_input), "payment", ANSWERS, run_id=RUN_ID.format(2), always_replay=False)
    made.start(Poor(id="order-2"))
    return made


def renamed_undo() -> list[bytes]:
    """A step whose compensation no contract has."""
    made = play()
    first = decode(1, made.bodies[0])
    sends = [
        each._replace(compensation="inventory.put_back") if isinstance(each, Send) else each
        for each in first.decisions
    ]
    return [encode(first._replace(decisions=tuple(sends)))]


def unpacked(body: bytes, change: Callable[[list[Any]], None]) -> bytes:
    fields: list[Any] = msgpack.unpackb(body)
    change(fields)
    packed: bytes = msgpack.packb(fields)
    return packed


def newer_format(fields: list[Any]) -> None:
    fields[0] = 2


def newer_decision(fields: list[Any]) -> None:
    fields[4].append([99, "1"])


Spoiled = tuple[History, Kind, str, str, str]
"""A history, and what must be said of it: verdict, code, step and part of the message."""


def bad() -> dict[str, Spoiled]:
    """All of them, by name."""
    return {**damaged(), **changed()}


def damaged() -> dict[str, Spoiled]:
    """What this release can't read, or not make sense of."""
    good, breaks = completed(), Kind.BREAKS
    rows = good.bodies
    return {
        "cut": (history("cut", good, [rows[0], rows[1][:-4]]), breaks, "KSG-211", "", "row 2 can't be read"),
        "hole": (
            History(
                "golden-hole", good.state.run_id, "payment", 1, "COMPLETED", ((1, rows[0]), (3, rows[2]))
            ),
            breaks,
            "KSG-211",
            "",
            "row 3 stands where row 2 should be",
        ),
        "newer_format": (
            history("newer_format", good, [unpacked(rows[0], newer_format), *rows[1:]]),
            breaks,
            "KSG-211",
            "",
            "row 1 has format 2",
        ),
        "newer_decision": (
            history("newer_decision", good, [rows[0], unpacked(rows[1], newer_decision)]),
            breaks,
            "KSG-211",
            "",
            "row 2 can't be read: KeyError: 99",
        ),
        "empty": (history("empty", play(), []), breaks, "KSG-211", "", "has no history"),
    }


def changed() -> dict[str, Spoiled]:
    """What the example's code and models don't go on with."""
    ended = play(of(version_9), version=9)
    ended.done(1)
    breaks, patch = Kind.BREAKS, Kind.PATCH
    return {
        "other_step": (
            history("other_step", play(of(charges_first))),
            patch,
            "KSG-202",
            "1",
            "now asks for inventory.reserve",
        ),
        "other_key": (
            history("other_key", play(of(other_key))),
            patch,
            "KSG-202",
            "1",
            "with key 's-1' instead of",
        ),
        "other_input": (
            history("other_input", third_step()),
            patch,
            "KSG-202",
            "3",
            "another input: weight_grams",
        ),
        "no_version": (
            history("no_version", play(of(version_9), 9)),
            breaks,
            "KSG-203",
            "",
            "payment version 9",
        ),
        "ended_version": (history("ended_version", ended), Kind.GONE, "", "", ""),
        "poor_input": (history("poor_input", poor()), breaks, "KSG-208", "1", "the input of saga payment"),
        "renamed_undo": (
            history("renamed_undo", play(), renamed_undo()),
            breaks,
            "KSG-204",
            "1",
            "inventory.put_back, which no contract of the App has",
        ),
    }
