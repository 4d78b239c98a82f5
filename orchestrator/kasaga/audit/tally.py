"""All verdicts of an audit, counted; what is wrong is told at once, and kept up to a number.

Station: filled by the command line as verdicts come; makes the report and the exit status.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from kasaga_wire.errors import KasagaError

from ..store.base import SagaState
from ..wording import counted, sentence
from .compare import Verdict
from .facts import SagaFacts
from .findings import Finding

MAX_KEPT = 1_000
"""Findings, and sagas of each other list, that a report has whole; the others are counted."""

BEHIND = "the copy of its database that was read isn't as far yet"

CLEAN, VIOLATED, UNHEARD = 0, 1, 4
"""Exit statuses: all is well; something is wrong; nothing is, but not everybody answered."""


@dataclass(slots=True)
class Tally:
    """What an audit has found so far."""

    sagas: Counter[str] = field(default_factory=Counter[str])
    """By state."""
    steps: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    found: int = 0
    stuck: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    by_person: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    with_exceptions: int = 0
    unknowable: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    unknown_steps: int = 0
    unheard: Counter[str] = field(default_factory=Counter[str])
    """Sagas of which a participant's part couldn't be compared, by participant."""

    def add(self, facts: SagaFacts, verdict: Verdict) -> list[Finding]:
        """Count one saga; gives what is wrong with it."""
        row = facts.row
        about = {"saga_id": row.saga_id, "run_id": str(row.run_id), "saga": f"{row.name}/{row.version}"}
        self.sagas[row.state.value] += 1
        self.steps += verdict.steps
        self.found += len(verdict.findings)
        self.findings += verdict.findings[: MAX_KEPT - len(self.findings)]
        if row.state is SagaState.STUCK:
            _keep(
                self.stuck,
                {**about, "step": row.step, "code": row.code, "reason": row.reason, "remedy": row.remedy},
            )
        if verdict.by_person:
            self.with_exceptions += 1
            _keep(self.by_person, {**about, "steps": ", ".join(verdict.by_person)})
        self.unknown_steps += len(verdict.unknowable)
        for each in verdict.unknowable:
            _keep(self.unknowable, {**about, "why": each})
        for participant in verdict.unanswered:
            self.unheard[participant] += 1
        return verdict.findings

    @property
    def total(self) -> int:
        """How many sagas were looked at."""
        return sum(self.sagas.values())

    @property
    def status(self) -> int:
        """The exit status."""
        return VIOLATED if self.found else UNHEARD if self.unheard else CLEAN

    def document(self, silent: dict[str, KasagaError]) -> dict[str, Any]:
        """For programs. `silent`: why participants weren't heard."""
        return {
            "ok": self.status == CLEAN,
            "sagas": dict(self.sagas),
            "steps": self.steps,
            "violations": self.found,
            "findings": [each.document() for each in self.findings],
            "stuck": self.stuck,
            "by_person": self.by_person,
            "unknowable_steps": self.unknown_steps,
            "unknowable": self.unknowable,
            "unanswered": [
                {"participant": name, "sagas": count, **_why(silent.get(name))}
                for name, count in sorted(self.unheard.items())
            ],
        }

    def lines(self, silent: dict[str, KasagaError]) -> Iterator[str]:
        """For people; what is wrong was told before."""
        for each in self.stuck:
            yield f"{each['code']}  {each['saga']} {each['saga_id']} is STUCK: {sentence(each['reason'])}"
            yield f"    {sentence(each['remedy'])}"
        if (more := self.sagas["STUCK"] - len(self.stuck)) > 0:
            yield f"… and {counted(more, 'saga')} more STUCK"
        if self.with_exceptions:
            named = ", ".join(each["saga_id"] for each in self.by_person[:10])
            yield f"{counted(self.with_exceptions, 'saga')} ended by somebody's decision: {named}"
        for why, count in sorted(Counter(_kind(each["why"]) for each in self.unknowable).items()):
            yield f"can't be known: {counted(count, 'step')}: {why}"
        for name, count in sorted(self.unheard.items()):
            error = silent.get(name)
            yield f"not compared: {counted(count, 'saga')} at {name}: {error or BEHIND}"
        states = ", ".join(f"{count} {state}" for state, count in sorted(self.sagas.items())) or "none"
        yield (
            f"audit: {counted(self.total, 'saga')} ({states}), {counted(self.steps, 'step')} compared: "
            f"{counted(self.found, 'violation')}"
        )


def _keep(kept: list[dict[str, str]], one: dict[str, str]) -> None:
    if len(kept) < MAX_KEPT:
        kept.append(one)


def _kind(why: str) -> str:
    """`inventory longer ago than its inbox remembers`, without the step."""
    return why.partition(": ")[2]


def _why(error: KasagaError | None) -> dict[str, str]:
    if error is None:
        return {"code": "", "reason": BEHIND, "remedy": ""}
    return {"code": error.code, "reason": error.message, "remedy": error.remedy or ""}
