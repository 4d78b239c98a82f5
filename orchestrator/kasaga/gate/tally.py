"""Many verdicts, counted by definition; those that matter are kept, alike ones together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..wording import Paint, counted, listed, sentence, shortened
from .judge import Kind, Verdict

MAX_KEPT = 1_000
"""Verdicts that are kept whole; the others are counted."""

NAMED = 3
"""Sagas that are named where many have the same trouble."""

MAX_MESSAGE = 600

_ORDER = (Kind.BREAKS, Kind.PATCH)

_WORDS = ((Kind.SAME, "same"), (Kind.PATCH, "to patch"), (Kind.BREAKS, "broken"), (Kind.GONE, "gone"))


@dataclass(slots=True)
class Tally:
    """What the new code does with all histories so far."""

    counts: Counter[tuple[str, int, bool, Kind]] = field(default_factory=Counter[tuple[str, int, bool, Kind]])
    """By name, version, whether the saga still runs, and verdict."""
    kept: list[Verdict] = field(default_factory=list[Verdict])
    left_out: int = 0

    def add(self, verdict: Verdict) -> None:
        """Count one."""
        self.counts[verdict.name, verdict.version, verdict.live, verdict.kind] += 1
        if verdict.kind in _ORDER:
            if len(self.kept) < MAX_KEPT:
                self.kept.append(verdict)
            else:
                self.left_out += 1

    @property
    def histories(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    @property
    def same(self) -> bool:
        """Every history that could be tried is as before."""
        return not any(kind in _ORDER for *_, kind in self.counts)

    def document(self) -> dict[str, Any]:
        """For programs."""
        return {
            "ok": self.same,
            "histories": self.histories,
            "definitions": [
                {
                    "name": name,
                    "version": version,
                    "running": self._sum(name, version, live=True),
                    "finished": self._sum(name, version, live=False),
                    **{kind.name.lower(): self._kind(name, version, kind) for kind in Kind},
                }
                for name, version in self._definitions()
            ],
            "differences": [{**asdict(each), "kind": each.kind.name.lower()} for each in self._worst_first()],
            "left_out": self.left_out,
        }

    def lines(self, paint: Paint) -> Iterator[str]:
        """For people."""
        groups: dict[tuple[object, ...], list[Verdict]] = {}
        for each in self._worst_first():
            groups.setdefault(
                (each.kind, each.name, each.version, each.code, each.step, each.line), []
            ).append(each)
        for group in groups.values():
            yield from _group(group, paint)
        if self.left_out:
            yield f"… and {self.left_out} more"
        for name, version in self._definitions():
            running, done = self._sum(name, version, live=True), self._sum(name, version, live=False)
            parts = [f"{count} {word}" for kind, word in _WORDS if (count := self._kind(name, version, kind))]
            yield f"{name}/{version}: {running} running and {done} finished: {listed(parts)}"
        if not self.histories:
            yield "There was no history to try."

    def _definitions(self) -> list[tuple[str, int]]:
        return sorted({(name, version) for name, version, _, _ in self.counts})

    def _sum(self, name: str, version: int, *, live: bool) -> int:
        return sum(self.counts[name, version, live, kind] for kind in Kind)

    def _kind(self, name: str, version: int, kind: Kind) -> int:
        return self.counts[name, version, True, kind] + self.counts[name, version, False, kind]

    def _worst_first(self) -> list[Verdict]:
        return sorted(
            self.kept, key=lambda each: (not each.live, _ORDER.index(each.kind), each.name, each.version)
        )


def _group(group: Sequence[Verdict], paint: Paint) -> Iterator[str]:
    first = group[0]
    step = f" at step {first.step}" if first.step else ""
    line = f", {first.line}" if first.line else ""
    kind = paint("bad" if first.kind is Kind.BREAKS else "warn", first.kind.value)
    yield f"{first.name}/{first.version} {kind}{step}{line}"
    yield f"    {first.code}: {sentence(shortened(first.message, MAX_MESSAGE))}"
    yield f"    {sentence(first.remedy)}"
    named = [f"{each.saga_id} ({each.state})" for each in group[:NAMED]]
    more = f", and {len(group) - NAMED} more" if len(group) > NAMED else ""
    yield f"    {counted(len(group), 'saga')}: {', '.join(named)}{more}"
