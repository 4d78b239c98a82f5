"""One saga's history against what its participants have of it: a pure function.

Station: called by `walk.py` with facts and rows. Calls nothing, waits for nothing.

Judged is only what can't change any more: steps whose outcome is known, undos that were answered. What is
still out, of a saga that is STUCK, is left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from kasaga_wire.records import NULL_PAYLOAD

from ..engine.model import DONE, REFUSED, UNDO, UNKNOWN
from ..engine.relevance import EXECUTED
from .facts import SagaFacts, StepFacts
from .findings import Finding, Rule
from .inboxes import InboxRow, Memory, Seen

UNDONE = "undone"
TOMBSTONES = frozenset({"void", "unknown"})
NEVER = frozenset({*TOMBSTONES, REFUSED})
"""Outcomes of a row that keep the command from ever being executed."""

NOTHING_THERE = frozenset({"nothing", "voided", "lost", REFUSED})
"""Ways in which an undo or a void ends where the command has had no effect, and now never will."""

_NULL = hashlib.sha256(NULL_PAYLOAD).digest()
_MICROS = 1_000_000

_WORDS = {
    DONE: "done",
    REFUSED: "refused",
    "deferred": "accepted, and not answered yet",
    "void": "fenced: it never ran, and never will",
    "unknown": "fenced, too old to tell whether it ran",
}


@dataclass(slots=True)
class Verdict:
    """What came of one saga."""

    findings: list[Finding] = field(default_factory=list[Finding])
    unknowable: list[str] = field(default_factory=list[str])
    """Steps of which nobody can know any more, in words."""
    unanswered: set[str] = field(default_factory=set[str])
    """Participants that weren't heard."""
    by_person: list[str] = field(default_factory=list[str])
    """Paths of steps that somebody resolved or skipped."""
    steps: int = 0
    """Steps that were compared."""


def compare(facts: SagaFacts, seen: Mapping[str, Seen], now: float) -> Verdict:
    """Judge one saga.

    `seen`: by participant; those that aren't in it didn't answer. `now`: seconds since 1970.
    """
    return _Comparison(facts, seen, now).verdict()


class _Comparison:
    """One saga at work."""

    def __init__(self, facts: SagaFacts, seen: Mapping[str, Seen], now: float) -> None:
        self._facts = facts
        self._seen = seen
        self._now = now
        self._run = str(facts.row.run_id)
        self._out = Verdict()

    def verdict(self) -> Verdict:
        facts, out = self._facts, self._out
        if facts.fault:
            self._whole(Rule.UNREADABLE, facts.fault)
            return out
        self._half_done()
        for step in facts.steps:
            if step.by_person:
                out.by_person.append(step.path)
            elif step.participant:
                self._step(step)
        for participant in sorted(facts.participants & self._seen.keys()):
            self._strangers(participant)
        return out

    # --- the history alone

    def _half_done(self) -> None:
        facts, row = self._facts, self._facts.row
        if facts.state != row.state.value:
            self._whole(Rule.HALF_DONE, f"{facts.state or 'nothing'}, though the saga's row says {row.state}")
        if row.state.value == "STUCK" and not row.reason:
            self._whole(Rule.HALF_DONE, "STUCK, and no reason")
        if not facts.final:
            return
        for step in facts.steps:
            if open_ := _left_open(step, undone=facts.state == "COMPENSATED" and not step.final):
                self._find(Rule.HALF_DONE, step, f"{facts.state}, and {open_}", None)

    # --- one step

    def _step(self, step: StepFacts) -> None:
        if not step.outcome or (step.outcome == UNKNOWN and not step.cleared):
            return  # nothing is known of it yet, and nothing is claimed
        seen = self._seen.get(step.participant)
        if seen is None:
            self._out.unanswered.add(step.participant)
            return
        self._out.steps += 1
        if not seen.memory.remembers:
            self._unknowable(step, "keeps no inbox")
            return
        rows = seen.of(self._run)
        command, undo = rows.get(step.path), rows.get(f"{step.path}~undo")
        if command is not None and command.type != step.type:
            self._find(Rule.OTHER_CONTENT, step, f"a {step.type}", f"a {command.type}")
        elif not self._undone_unasked(step, command, undo):
            if step.cleared in (UNDONE, DONE):
                self._undone(step, command, undo, seen.memory)
            elif step.cleared in NOTHING_THERE or step.outcome == REFUSED:
                self._never(step, command, seen.memory)
            elif step.outcome == DONE or step.cleared == EXECUTED:
                self._done(step, command, seen.memory)

    def _undone_unasked(self, step: StepFacts, command: InboxRow | None, undo: InboxRow | None) -> bool:
        """The participant has undone what stands for the saga. An undo that is out is no such thing."""
        if undo is None or undo.outcome != UNDONE or step.undo_open or step.cleared in (UNDONE, DONE):
            return False
        if step.cleared and step.undo_form == UNDO:
            said = f"{step.outcome}, and to its undo: {step.cleared}"
        else:
            said = f"{step.outcome}, and never undone"
        self._find(Rule.UNDONE_UNASKED, step, said, f"{_words(command)}, and undone")
        return True

    def _done(self, step: StepFacts, command: InboxRow | None, memory: Memory) -> None:
        """Done and standing. So is the loser of a race that had happened, and that nothing undoes."""
        said = f"{step.outcome}, and then: {step.cleared}" if step.cleared else step.outcome
        if command is None:
            self._absent(Rule.EFFECT_MISSING, step, said, memory, step.first_at)
        elif command.outcome != DONE:
            self._find(Rule.EFFECT_MISSING, step, said, _words(command))
        else:
            self._content(step, command)

    def _content(self, step: StepFacts, command: InboxRow) -> None:
        if command.input and step.input and command.input != step.input:
            self._find(Rule.OTHER_CONTENT, step, "done", "done, with another input")
        elif step.outcome == DONE and step.result and (command.result or _NULL) != step.result:
            self._find(Rule.OTHER_CONTENT, step, "done", "done, with another result: it was executed twice")

    def _undone(
        self, step: StepFacts, command: InboxRow | None, undo: InboxRow | None, memory: Memory
    ) -> None:
        said = f"{step.outcome}, then undone"
        if undo is None:
            self._absent(
                Rule.NOT_UNDONE, step, said, memory, step.undo_at, f"{_words(command)}; nothing of its undo"
            )
        elif undo.outcome != UNDONE:
            self._find(Rule.NOT_UNDONE, step, said, f"to its undo: {undo.outcome}")
        elif undo.type != step.undo_type:
            self._find(Rule.OTHER_CONTENT, step, f"undone by {step.undo_type}", f"undone by {undo.type}")
        elif command is None:
            self._absent(Rule.FENCE_MISSING, step, said, memory, step.undo_at)
        elif command.outcome == REFUSED:
            self._find(Rule.OTHER_CONTENT, step, said, "refused, and undone all the same")
        elif command.outcome == DONE:
            self._content(step, command)

    def _never(self, step: StepFacts, command: InboxRow | None, memory: Memory) -> None:
        said = f"{step.outcome}, and then: {step.cleared}" if step.cleared else step.outcome
        if command is None:
            sent = step.undo_at if step.cleared else step.first_at
            self._absent(Rule.FENCE_MISSING, step, said, memory, sent)
        elif command.outcome not in NEVER:
            self._find(Rule.EFFECT_LEFT, step, said, _words(command))

    def _strangers(self, participant: str) -> None:
        """Effects of steps that the history doesn't have."""
        known = {step.path for step in self._facts.steps}
        for path, row in sorted(self._seen[participant].of(self._run).items()):
            original = path.partition("~")[0]
            number = original.partition(".")[0]
            if number.isdecimal() and int(number) <= self._facts.deleted:
                continue
            if original not in known and row.outcome in (DONE, UNDONE):
                self._out.findings.append(
                    self._finding(Rule.UNKNOWN_STEP, path, row.type, participant, "no such step", row.outcome)
                )

    # --- words

    def _absent(
        self, rule: Rule, step: StepFacts, said: str, memory: Memory, at: int, words: str = "nothing"
    ) -> None:
        """A row isn't there: a finding where that proves something."""
        if memory.proves(at / _MICROS, self._now):
            self._find(rule, step, said, words)
        elif memory.as_of is not None and at / _MICROS >= memory.as_of:
            self._out.unanswered.add(step.participant)  # the copy that was read isn't as far yet
        else:
            self._unknowable(step, "longer ago than its inbox remembers")

    def _unknowable(self, step: StepFacts, why: str) -> None:
        self._out.unknowable.append(f"step {step.path} ({step.type}): {step.participant} {why}")

    def _find(self, rule: Rule, step: StepFacts, said: str, inbox: str | None) -> None:
        self._out.findings.append(
            self._finding(rule, step.path, step.type, step.participant, said, inbox or "")
        )

    def _whole(self, rule: Rule, said: str) -> None:
        self._out.findings.append(self._finding(rule, "", "", "", said, ""))

    def _finding(self, rule: Rule, path: str, type_: str, participant: str, said: str, inbox: str) -> Finding:
        row = self._facts.row
        saga = f"{row.name}/{row.version}"
        return Finding(
            rule, row.saga_id, self._run, saga, row.state.value, path, type_, participant, said, inbox
        )


def _left_open(step: StepFacts, *, undone: bool) -> str:
    """What may not be left of a step when its saga has ended; empty where nothing is."""
    if step.by_person or step.cleared:
        return ""
    if step.undo_open:
        return "its undo isn't answered"
    if not step.outcome:
        return "it has no outcome"
    if step.outcome == UNKNOWN and step.participant:
        return "nobody knows whether it happened"
    if undone and step.outcome != REFUSED and step.compensation:
        return f"it is {step.outcome}, and {step.compensation} was never sent"
    return ""


def _words(row: InboxRow | None) -> str:
    return "nothing" if row is None else _WORDS.get(row.outcome, row.outcome)
