"""Chance by name: whether a fault strikes is a matter of the seed and of the name of the place, nothing else.

So a fault has the same name in two runs that are alike up to it, and a run can be had again with some of its
faults left out: that is how a failing run is made small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fault:
    """What struck: `name` is unique in its run."""

    kind: str
    name: str
    at: int
    """Microseconds of the run."""


class Chance:
    """The dice of one run."""

    def __init__(self, seed: int, *, kept: frozenset[str] | None = None) -> None:
        """`kept`: the names of the faults that strike; None: as the odds have it."""
        self._key = str(seed).encode()[:64]
        self._kept = kept
        self._counts: Counter[str] = Counter()
        self.odds: dict[str, float] = {}
        self.struck: list[Fault] = []
        self.asked: list[tuple[str, int]] = []
        """Where faults could have struck, and when; noted where it is said which do."""
        self.armed = True
        """False: nothing goes wrong any more."""
        self.now: Callable[[], int] = lambda: 0

    def number(self, name: str) -> float:
        """From 0 to 1, always the same for a name."""
        digest = blake2b(name.encode(), digest_size=7, key=self._key).digest()
        return int.from_bytes(digest, "big") / (1 << 56)

    def between(self, name: str, low: float, high: float) -> float:
        """A number of a range."""
        return low + (high - low) * self.number(name)

    def whole(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return min(low + int(self.number(name) * (high - low + 1)), high)

    def pick(self, name: str, among: Sequence[T]) -> T:
        """One of several."""
        return among[self.whole(name, 0, len(among) - 1)]

    def next(self, name: str) -> str:
        """A name that hasn't been there: how often this was asked stands behind it."""
        self._counts[name] += 1
        return f"{name}#{self._counts[name]}"

    def strikes(self, kind: str, where: str) -> str:
        """The name of the fault that strikes here now; empty: none does."""
        odds = self.odds.get(kind, 0.0)
        if not odds and self._kept is None:
            return ""
        name = self.next(f"{kind}@{where}")
        if not self.armed:
            return ""
        if self._kept is not None:
            self.asked.append((name, self.now()))
        hit = self.number(name) < odds if self._kept is None else name in self._kept
        if not hit:
            return ""
        self.struck.append(Fault(kind, name, self.now()))
        return name
