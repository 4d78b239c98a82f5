"""What one saga's history claims: each step, how it ended, how it was undone, and the sums of its payloads.

Station: made by `walk.py` from the store's rows, judged by `compare.py`. Payloads are replaced by their
SHA-256 as the rows are read, so that a saga of many large steps takes little memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from kasaga_wire.sealing import is_sealed

from ..engine.codec import decode
from ..engine.model import COMMAND, LOCAL, UNDO_FORMS, Asked, Decision, Event, Replied, Send, Settle, Started
from ..engine.state import RESOLVED, SKIPPED, State, Step, extend
from ..errors import HistoryUnreadable
from ..store.base import SagaRow

Rows = Iterable[tuple[int, bytes]]


@dataclass(frozen=True, slots=True)
class StepFacts:
    """One step of a saga, a command unless `participant` is empty: a child has none. Times: µs since 1970."""

    path: str
    type: str
    participant: str
    compensation: str
    outcome: str
    """done, refused, unknown; empty: it has none yet."""
    undo_form: str
    undo_type: str
    cleared: str
    """How its undo or void ended; empty: there is none, or it is still out."""
    undo_open: bool
    by_person: bool
    """Somebody resolved or skipped it, so that the history says what they decided."""
    first_at: int
    undo_at: int
    """When the first undo or void was sent."""
    input: bytes
    """SHA-256 of the command's payload; so is the next, of a result."""
    result: bytes
    final: bool = False
    """It is of a run that has ended: nothing undoes it, however the saga ends."""


@dataclass(frozen=True, slots=True)
class SagaFacts:
    """One saga as its history tells it, and what its row said when it was chosen."""

    row: SagaRow
    steps: tuple[StepFacts, ...]
    state: str
    """By the history; the row's may be another if one of the two was tampered with."""
    last_seq: int
    fault: str = ""
    """Why the history can't be read."""
    deleted: int = 0
    """Steps up to this number were of runs whose history is deleted."""

    @property
    def final(self) -> bool:
        """The saga has ended all done or all undone. One that was terminated leaves what it says."""
        return self.state in ("COMPLETED", "COMPENSATED")

    @property
    def participants(self) -> frozenset[str]:
        """Those that were sent a command."""
        return frozenset(step.participant for step in self.steps if step.participant)


@dataclass(slots=True)
class _Gathered:
    inputs: dict[str, bytes] = field(default_factory=dict[str, bytes])
    results: dict[str, bytes] = field(default_factory=dict[str, bytes])
    undone_at: dict[str, int] = field(default_factory=dict[str, int])
    undo_types: dict[str, str] = field(default_factory=dict[str, str])
    resolved: set[str] = field(default_factory=set[str])


def gather(row: SagaRow, rows: Rows) -> SagaFacts:
    """Fold a history into facts. A history that can't be read is a fact as well."""
    state, found, last = State(str(row.run_id)), _Gathered(), 0
    past: list[Step] = []
    deleted = 0
    try:
        for seq, body in rows:
            last = seq
            record = decode(seq, body)
            event, at = record.event, record.at
            lean = tuple([_lean(each, event, at, found) for each in record.decisions])
            begins = not state.saga_id and seq > 1
            extend(state, record._replace(event=_lean_event(event), decisions=lean))
            deleted = state.offset if begins else deleted
            past += (state.before or {}).values()
    except HistoryUnreadable as error:
        return SagaFacts(row, (), row.state.value, last, error.message)
    ended = tuple(_facts(step, found, final=True) for step in past if step.kind in (COMMAND, LOCAL))
    steps = tuple(_facts(step, found) for step in state.order if step.kind in (COMMAND, LOCAL))
    return SagaFacts(row, ended + steps, state.state, last, deleted=deleted)


def _lean(decision: Decision, event: Event, at: int, found: _Gathered) -> Decision:
    if isinstance(decision, Send):
        if decision.form == COMMAND and decision.attempt == 1:
            found.inputs[decision.step] = _sum(decision.payload)
        elif decision.form in UNDO_FORMS:
            found.undone_at.setdefault(decision.step, at)
            found.undo_types[decision.step] = decision.type
        return decision._replace(payload=b"") if decision.payload else decision
    if isinstance(decision, Settle):
        if isinstance(event, Asked) and event.action == "resolve":
            found.resolved.add(decision.step)
        if decision.payload:
            found.results[decision.step] = _sum(decision.payload)
        elif isinstance(event, Replied) and event.step == decision.step:
            found.results[decision.step] = _sum(event.payload)
        return decision._replace(payload=b"") if decision.payload else decision
    return decision


def _lean_event(event: Event) -> Event:
    if isinstance(event, Replied) and event.payload:
        return event._replace(payload=b"")
    if isinstance(event, Started):
        return event._replace(input=b"")
    return event


def _facts(step: Step, found: _Gathered, *, final: bool = False) -> StepFacts:
    path = step.path
    return StepFacts(
        path=path,
        type=step.type,
        participant="" if step.child else step.participant,
        compensation=step.compensation,
        outcome=step.outcome,
        undo_form=step.undo_form,
        undo_type=found.undo_types.get(path, ""),
        cleared=step.undo_how,
        undo_open=step.undo_open,
        by_person=path in found.resolved or step.undo_how in (SKIPPED, RESOLVED),
        first_at=step.first_at,
        undo_at=found.undone_at.get(path, step.first_at),
        input=found.inputs.get(path, b""),
        result=found.results.get(path, b""),
        final=final,
    )


def _sum(payload: bytes) -> bytes:
    if not payload or is_sealed(payload):  # of what was never opened nothing can be compared
        return b""
    return hashlib.sha256(payload).digest()
