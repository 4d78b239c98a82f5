"""Which events change anything: duplicates, late answers and those of old attempts do not.

Asked by `decide` before anything is recorded, and again by `Turn` when it notes what was recorded
while the saga was held: parked or paused.
"""

from __future__ import annotations

from collections.abc import Mapping

from kasaga_wire.nodes import clean_text

from . import late
from .deferrals import Deferred
from .keylocks import Barred, Granted
from .kinship import Recalled
from .lifecycle import COMPENSATED
from .model import (
    COMMAND,
    DEADLINE,
    DONE,
    REFUSED,
    UNDO,
    UNDO_FORMS,
    VOID,
    Asked,
    CodeArrived,
    Event,
    Faulted,
    Fired,
    Ran,
    Replied,
    Signalled,
    Started,
    Updated,
)
from .state import MAX_REASON, State, StepEvent

CLEARED: Mapping[str, frozenset[str]] = {
    UNDO: frozenset({"undone", "nothing", "lost", "voided", DONE}),
    VOID: frozenset({"voided", "nothing", "lost", REFUSED}),
}
"""By form, the answers after which nothing of the step is left at its participant. `refused` to a
void: the command was refused, so nothing was done; to an undo it would mean that the undo was."""

EXECUTED, CONFLICT = "executed", "conflict"

KNOWLEDGE: Mapping[str, frozenset[str]] = {
    COMMAND: frozenset({DONE, REFUSED, CONFLICT}),
    UNDO: CLEARED[UNDO] | {EXECUTED},
    VOID: CLEARED[VOID] | {EXECUTED},
}
"""By form, the replies that say what is, whichever attempt they answer. All others say only how
one attempt went, and count for the current one alone."""

NOTHING: frozenset[str] = frozenset()


def irrelevant(state: State, event: Event, at: int) -> str:
    """Say why an event changes nothing, or return an empty text."""
    if isinstance(event, Started):
        return "duplicate start" if state.saga_id else ""
    if not state.saga_id:
        return "unknown saga"
    if isinstance(event, _SENT):
        return _known(state, event)
    if isinstance(event, Recalled):
        return "duplicate recall" if state.recalled or state.state == COMPENSATED else ""
    if state.final:
        return "saga has ended"
    if isinstance(event, Faulted):
        shown = state if state.paused is None else state.paused.beneath
        same = state.parked and (shown.code, shown.reason) == (
            event.code,
            clean_text(event.reason, MAX_REASON),
        )
        return "the same fault" if same else ""
    if isinstance(event, CodeArrived):
        if state.await_row:
            return ""  # its owner has looked for whom it has the version
        stuck = state.parked or (state.fingerprint and state.paused is None)
        return "" if stuck and state.fingerprint != event.fingerprint else "not for new code"
    why = stale(state, event, at)
    return "duplicate" if not why and state.held and is_pending(state, event) else why


_SENT = (Asked, Signalled, Updated)


def _known(state: State, event: Asked | Signalled | Updated) -> str:
    """Say whether the same action, signal or update was recorded before."""
    if isinstance(event, Asked):
        return "duplicate action" if event.action_id in state.actions else ""
    mail = state.mail
    if mail is None:
        return ""
    if isinstance(event, Signalled):
        return "duplicate signal" if event.signal_id in mail.ids else ""
    return "duplicate update" if event.update_id in mail.updates else ""


def stale(state: State, event: StepEvent, at: int) -> str:
    """Say why news of a step are old, or return an empty text."""
    if event.form == DEADLINE:
        return "not due" if not state.deadline_row or state.deadline_due > at else ""
    step = state.steps.get(event.step)
    if step is None:
        return "unknown step"
    if event.form in UNDO_FORMS:
        if not (step.undo_open and step.undo_form == event.form):
            return "late"
        attempt, row, due = step.undo_attempt, step.undo_row, step.undo_due
    elif step.outcome:
        return "late"
    elif step.kind != event.form:
        return "another kind of step"
    else:
        attempt, row, due = step.attempt, step.row, step.due_at
    if isinstance(event, Granted | Barred):
        return ""
    if isinstance(event, Fired):
        return "not due" if not row or not due or due > at else ""
    if _is_knowledge(event):
        return ""
    if isinstance(event, Deferred):
        return late.stale(step, event)
    current = event.attempt == attempt or (event.form == COMMAND and late.runs(step, event.attempt))
    if step.child and event.form in UNDO_FORMS:
        current = True  # a child says how its undoing goes, whatever was sent since
    return "" if current else "old attempt"


def _is_knowledge(event: StepEvent) -> bool:
    if isinstance(event, Replied):
        return event.outcome in KNOWLEDGE.get(event.form, NOTHING)
    return isinstance(event, Ran) and event.ok


def is_pending(state: State, event: StepEvent) -> bool:
    """The same news is recorded already: so the list stays short however often a record comes."""
    return any(
        type(event) is type(other)
        and event.step == other.step
        and event.form == other.form
        and _word(event) == _word(other)
        for other in state.pending
    )


def _word(event: StepEvent) -> str | bool:
    if isinstance(event, Replied):
        return event.outcome
    return isinstance(event, Ran) and event.ok
