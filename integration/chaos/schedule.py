"""What goes wrong, when, and for how long: drawn from one seed, before anything runs.

Called by `__main__.py`. Pure: the same seed, minutes and kinds give the same schedule. What the processes are
doing when a fault strikes is not part of it, so that two runs of one seed meet different moments.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

ORCHESTRATORS = ("orchestrator-1", "orchestrator-2", "orchestrator-3")
SERVICES = ("inventory", "payments", "shipping")
INSTANCES = tuple(f"{service}-{number}" for service in SERVICES for number in (1, 2))
ACTORS = (*ORCHESTRATORS, *INSTANCES)

POSTGRES, KAFKA = "postgres", "kafka"

CALM_SECONDS = 5.0
"""Before the first fault: what is normal has to be seen first."""

GAP_SECONDS = (2.0, 7.0)
"""From a fault's end to the next one."""

DOUBLED = 0.2
"""The part of all faults that is met by a second one before its end."""

STARTS_SECONDS = {POSTGRES: 2.0, KAFKA: 10.0}
"""What it takes a server to come back, about: the next fault waits for that."""


class Kind(StrEnum):
    """What can go wrong."""

    KILL = "kill"
    FREEZE = "freeze"
    RESTART = "restart"
    CUT = "cut sessions"
    KILL_BACKEND = "kill backend"
    PARTITION = "partition"
    DISK_FULL = "disk full"
    DISK_SLOW = "disk slow"
    CLOCK = "clock jump"


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: strikes `at` seconds after the beginning, and is held for `seconds`."""

    number: int
    at: float
    seconds: float
    kind: Kind
    target: str
    """An actor or a server."""
    detail: str = ""
    """Partition: `server how`; full disk: what is written; slow disk: milliseconds; clock: seconds."""

    @property
    def name(self) -> str:
        """For people."""
        match self.kind:
            case Kind.PARTITION:
                server, how = self.detail.split()
                return f"partition: {self.target} | {server} ({how})"
            case Kind.DISK_SLOW:
                return f"disk slow: {self.target}, {self.detail} ms an fsync"
            case Kind.DISK_FULL:
                return f"disk full: {self.target} ({self.detail})"
            case Kind.CLOCK:
                return f"clock jump: {self.target} by {float(self.detail):+,.0f} s"
            case kind:
                return f"{kind}: {self.target}"


@dataclass(frozen=True, slots=True)
class Card:
    """A kind with its targets, and how long it is held."""

    kind: Kind
    targets: tuple[str, ...]
    seconds: tuple[float, float]


DECK = (
    Card(Kind.KILL, ORCHESTRATORS, (0.3, 5.0)),
    Card(Kind.KILL, INSTANCES, (0.3, 5.0)),
    Card(Kind.KILL, (POSTGRES,), (0.3, 4.0)),
    Card(Kind.KILL, (KAFKA,), (0.3, 3.0)),
    Card(Kind.FREEZE, ORCHESTRATORS, (0.5, 8.0)),
    Card(Kind.FREEZE, INSTANCES, (0.5, 10.0)),
    Card(Kind.FREEZE, (POSTGRES,), (0.5, 6.0)),
    Card(Kind.FREEZE, (KAFKA,), (0.5, 8.0)),
    Card(Kind.RESTART, (POSTGRES,), (0.0, 0.0)),
    Card(Kind.RESTART, (KAFKA,), (0.0, 0.0)),
    Card(Kind.CUT, (POSTGRES,), (0.0, 0.0)),
    Card(Kind.KILL_BACKEND, (POSTGRES,), (0.0, 0.0)),
    Card(Kind.PARTITION, ORCHESTRATORS, (1.0, 8.0)),
    Card(Kind.PARTITION, ORCHESTRATORS, (1.0, 8.0)),
    Card(Kind.PARTITION, INSTANCES, (1.0, 8.0)),
    Card(Kind.DISK_FULL, (POSTGRES,), (2.0, 6.0)),
    Card(Kind.DISK_SLOW, (POSTGRES,), (2.0, 6.0)),
    Card(Kind.CLOCK, (*ORCHESTRATORS, *INSTANCES), (2.0, 6.0)),
    Card(Kind.CLOCK, (POSTGRES,), (2.0, 6.0)),
)

HOW = ("refused", "deaf", "mute", "cut")
"""Connections are refused, nothing is answered, only the answers are lost, connections break once."""

FULL_FOR = ("tables", "log")
"""Whether only tables can't grow, or the write-ahead log can't either, of which Postgres panics."""

JUMPS_SECONDS = (2.0, 20.0, 120.0, 3_600.0)


def deck(only: Collection[str] = (), without: Collection[Kind] = ()) -> list[Card]:
    """Gives what is drawn from: everything, or only what is named, as `kill` or `kill: kafka`."""
    cards: list[Card] = []
    for card in DECK:
        targets = [each for each in card.targets if not only or {card.kind, f"{card.kind}: {each}"} & {*only}]
        if targets and card.kind not in without:
            cards.append(replace(card, targets=tuple(targets)))
    return cards


def draw(seed: int, seconds: float, among: Sequence[Card] = DECK) -> list[Fault]:
    """Gives all faults that begin and end within `seconds`, in their order.

    Kinds come as cards from a shuffled deck, which is shuffled again when it is empty: so all come soon.
    """
    rng = random.Random(seed)
    faults: list[Fault] = []
    cards: list[Card] = []
    held: dict[str, float] = {}
    """Until when something is at work on each target, since all was well last."""
    at = CALM_SECONDS
    while True:
        if not cards:
            cards = list(among)
            rng.shuffle(cards)
        fault = _deal(rng, cards.pop(), len(faults) + 1, at)
        if held.get(fault.target, 0.0) > at:
            fault = replace(fault, at=held[fault.target])
        until = fault.at + fault.seconds
        if fault.kind in (Kind.RESTART, Kind.KILL):
            until += STARTS_SECONDS.get(fault.target, 0.0)
        if until > seconds:
            return faults
        faults.append(fault)
        held[fault.target] = until
        if rng.random() < DOUBLED and fault.seconds > 1.0:
            at = round(fault.at + rng.uniform(0.2, fault.seconds - 0.5), 1)
        else:
            at = round(max(held.values()) + rng.uniform(*GAP_SECONDS), 1)
            held.clear()


def _deal(rng: random.Random, card: Card, number: int, at: float) -> Fault:
    target = rng.choice(card.targets)
    seconds = round(rng.uniform(*card.seconds), 1)
    detail = ""
    match card.kind:
        case Kind.PARTITION:
            how = rng.choice(HOW)
            detail = f"{rng.choice((POSTGRES, KAFKA))} {how}"
            if how == "cut":
                seconds = 0.0
        case Kind.DISK_FULL:
            detail = rng.choice(FULL_FOR)
        case Kind.DISK_SLOW:
            detail = str(rng.choice((20, 100, 400)))
        case Kind.CLOCK:
            detail = str(rng.choice((-1, 1)) * rng.choice(JUMPS_SECONDS))
        case _:
            pass
    return Fault(number, at, seconds, card.kind, target, detail)
