"""What a drill has found, by compensation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ..wording import counted, shortened
from .line import FAILS, LEFT_OUT, UNANSWERED, WORKS, Outcome

MAX_WHY = 300
"""Characters of a reason."""

MAX_REASONS = 50
"""Different reasons that are kept of one compensation; messages may hold an id each."""

ALL_WORK, SOME_FAIL, UNHEARD = 0, 1, 4
"""Exit statuses."""


@dataclass(slots=True)
class Reasons:
    """Why one compensation didn't work, in one way: how often, and for which saga first."""

    kind: str
    saga_id: str
    count: int = 0


@dataclass(slots=True)
class Tally:
    """All outcomes."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    """By type of the compensation, and what became of it."""
    reasons: dict[str, dict[str, Reasons]] = field(default_factory=dict[str, dict[str, Reasons]])

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.counts[outcome.undo.type, outcome.kind] += 1
        if outcome.kind == WORKS:
            return
        reasons = self.reasons.setdefault(outcome.undo.type, {})
        why = shortened(outcome.why, MAX_WHY)
        if why not in reasons and len(reasons) >= MAX_REASONS:
            why = "other reasons"
        reasons.setdefault(why, Reasons(outcome.kind, outcome.undo.saga_id)).count += 1

    @property
    def total(self) -> int:
        """How many were tried."""
        return self.counts.total()

    def of(self, kind: str) -> int:
        """How many of a kind there were."""
        return sum(count for (_, each), count in self.counts.items() if each == kind)

    @property
    def status(self) -> int:
        """The exit status."""
        return SOME_FAIL if self.of(FAILS) else UNHEARD if self.of(UNANSWERED) else ALL_WORK

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.status == ALL_WORK,
            "undos": self.total,
            "compensations": [
                {
                    "participant": type_.partition(".")[0],
                    "compensation": type_,
                    **{kind.replace(" ", "_"): self.counts[type_, kind] for kind in KINDS},
                    "reasons": [
                        {"kind": each.kind, "why": why, "count": each.count, "saga_id": each.saga_id}
                        for why, each in self.reasons.get(type_, {}).items()
                    ],
                }
                for type_ in self._types()
            ],
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        for type_ in self._types():
            parts = [f"{count} {_WORDS[kind]}" for kind in KINDS if (count := self.counts[type_, kind])]
            yield f"{type_}: {', '.join(parts)}"
            for why, each in self.reasons.get(type_, {}).items():
                yield f"    {each.kind}, {each.count} ×: {why} (saga {each.saga_id})"
        yield f"drill: {counted(self.total, 'compensation')}, {self.of(WORKS)} would work"

    def _types(self) -> list[str]:
        return sorted({type_ for type_, _ in self.counts})


KINDS = (WORKS, FAILS, LEFT_OUT, UNANSWERED)

_WORDS = {WORKS: "would work", FAILS: "would fail", LEFT_OUT: "left out", UNANSWERED: "unanswered"}
