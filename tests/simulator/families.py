"""Sagas that have children: which, how, and what becomes of them is drawn, and stands in the order's note.

A note is a list of words. `w+:payment` is a child that is waited for and undone with its parent, `l-:sold`
one that is begun and abandoned; `!` fails there, `^` is the pivot. A family within a family has its own note
in its word, with other marks between the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from kasaga import App, SagaContext, SagaFailed, StepError, TimedOut, saga
from kasaga.saga import Saga
from simulator import trips
from simulator.chance import Chance
from simulator.trips import ONCE, PATIENT, QUICK, UNDO, Bank, Order, Stock

MARKS = (" ", ";", "|")
"""Between the words of a note, by depth."""
CHILDREN = (
    *("payment", "payment", "patient", "hurried", "failing", "sold", "buggy", "local", "sleeper"),
    *("careful", "choosy", "family", "family", "hasty"),
)
HOW = ("w", "w", "w", "l", "l", "g", "t", "s")
"""Waited for, left, in a gather, in a timeout, in a scope that may be left."""


class Word(NamedTuple):
    """One child, as a note has it."""

    how: str
    abandoned: bool
    caught: bool
    """What becomes of it is caught, and the parent goes on."""
    name: str
    id: str
    note: str


def read(word: str) -> Word:
    """Take a word apart."""
    about, _, rest = word.partition(":")
    name, _, note = rest.partition("=")
    name, _, id_ = name.partition("@")
    return Word(about[0], "-" in about, "?" in about, name, id_, note)


def inner(note: str) -> str:
    """The note of a family that stands within another's."""
    for outer, mark in pairwise(MARKS):
        note = note.replace(mark, outer)
    return note


async def _family(ctx: SagaContext, order: Order) -> str:
    stock = ctx.use(Stock, timeout=2, retry=PATIENT, undo_retry=UNDO)
    await stock.reserve(order)
    for number, word in enumerate(order.note.split()):
        if word == "!":
            raise SagaFailed("the author has changed his mind")
        if word == "^":
            await ctx.pivot()
            continue
        each = read(word)
        try:
            await _child(ctx, each, Order(id=f"{order.id}.{number}", note=inner(each.note)))
        except (StepError, TimedOut):
            if not each.caught:
                raise
    await ctx.use(Bank, timeout=2, retry=QUICK, undo_retry=UNDO).charge(order)
    return order.id


async def _child(ctx: SagaContext, word: Word, order: Order) -> None:
    child: Saga[Any, Any] = BY_NAME[word.name]
    bank = ctx.use(Bank, timeout=1, retry=ONCE, undo_retry=UNDO)
    on_undo: Any = "abandon" if word.abandoned else "compensate"
    if word.how == "l":
        await ctx.start_child(child, order, id=word.id or None, on_undo=on_undo)
        return
    waited = ctx.child(child, order, id=word.id or None, on_undo=on_undo)
    if word.how == "g":
        await ctx.gather(waited, bank.charge(order))
    elif word.how == "t":
        async with ctx.timeout(2.5):
            await waited
    elif word.how == "s":
        async with ctx.scope("with a child"):
            await waited
            await bank.charge(order)
    else:
        await waited


@saga("family")
async def family(ctx: SagaContext, order: Order) -> str:
    """Begins others, and is begun by others."""
    return await _family(ctx, order)


@saga("hasty", timeout=6)
async def hasty(ctx: SagaContext, order: Order) -> str:
    """The same with a deadline."""
    return await _family(ctx, order)


SAGAS: list[Saga[Any, Any]] = [family, hasty]
BY_NAME: dict[str, Saga[Any, Any]] = {each.name: each for each in (*trips.SAGAS, *SAGAS)}


def make_app() -> App:
    """All sagas that are simulated."""
    return App("sim", sagas=list(BY_NAME.values()), participants=trips.CONTRACTS)


class Drawn(NamedTuple):
    """A note, and the orders in it that meet a bug."""

    note: str
    buggy: list[str]


def draw(chance: Chance, key: str, ids: Sequence[str], depth: int = 0) -> Drawn:
    """Draw the note of an order; `ids`: those that children may ask for, though they may be taken."""
    words: list[str] = []
    buggy: list[str] = []
    for number in range(chance.whole(f"children/{key}", 1, 3 if depth == 0 else 2)):
        at = f"child/{key}.{number}"
        name = chance.pick(f"{at}/saga", CHILDREN)
        if depth == len(MARKS) - 1 and name in ("family", "hasty"):
            name = "patient"
        note = chance.pick(f"{at}/sleep", trips.SLEEPS) if name == "sleeper" else ""
        if name in ("family", "hasty"):
            drawn = draw(chance, f"{key}.{number}", ids, depth + 1)
            note, buggy = drawn.note, buggy + drawn.buggy
        if name == "buggy":
            buggy.append(f"{key}.{number}")
        undo = "-" if chance.number(f"{at}/abandoned") < 0.25 else "+"
        caught = "?" if chance.number(f"{at}/caught") < 0.4 else ""
        id_ = f"@{chance.pick(f'{at}/id', ids)}" if ids and chance.number(f"{at}/named") < 0.3 else ""
        about = f"{chance.pick(f'{at}/how', HOW)}{undo}{caught}:{name}{id_}"
        words.append(f"{about}={note}" if note else about)
    if chance.number(f"end/{key}") < 0.3:
        words.append(chance.pick(f"how/{key}", ("!", "!", "^")))
    return Drawn(MARKS[depth].join(words), buggy)
