"""Applies to a state what is decided of single steps: that they are asked for, sent, settled, undone.

Part of `State.apply` (state.py), which runs once for each decision, live and in a fold alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import late, locks, mail
from .keylocks import LOCK, Lock
from .model import (
    COMMAND,
    DRAINED,
    LOCAL,
    SCOPED,
    SIGNAL,
    SLEEP,
    UNDO,
    Asked,
    Clear,
    Deadline,
    Listen,
    Ran,
    Replied,
    Resume,
    RunLocal,
    Send,
    Settle,
    Sleep,
    Undeliverable,
)
from .step import RESOLVED, SKIPPED, Step

if TYPE_CHECKING:
    from .state import State


def resume(state: State, decision: Resume, row: int) -> None:
    """Apply a Resume."""
    if decision.step:
        step = state.steps[decision.step]
        state.unfed.remove(step)
        step.fed_at, step.fed_seq, step.asked = state.at, state.next_seq, len(state.order)
        state.fed.append(step)
        state.resetting = ""
    else:
        state.begun_at, state.begun_seq = state.at, state.next_seq


def send(state: State, decision: Send, row: int) -> None:
    """Apply a Send."""
    if decision.form != COMMAND:
        step = _open_undo(state, decision, row)
        step.undo_due = decision.due_at
        if decision.payload:
            step.undo_payload = decision.payload
        return
    if decision.attempt == 1:
        step = Step(decision.step, COMMAND, state.at)
        step.type, step.participant = decision.type, decision.participant
        step.key, step.payload = decision.key, decision.payload
        step.policy, step.undo_policy = decision.policy, decision.undo_policy
        step.compensation = decision.compensation
        step.child, step.version = decision.child, decision.version
        _add_step(state, step)
    else:
        step = _again(state, decision)
        step.attempt = decision.attempt
        step.last_at = decision.send_at or state.at
    step.due_at, step.row = decision.due_at, row


def _again(state: State, decision: Send | RunLocal) -> Step:
    """The step whose next attempt this is; it keeps what the last answer said until it has an outcome."""
    step = state.steps[decision.step]
    state.end_attempt(step)
    late.again(step, state.event)
    if isinstance(state.event, (Replied, Ran)):
        step.error_type, step.error = state.event.error_type, state.event.error
    elif isinstance(state.event, Undeliverable):
        step.error_type, step.error = "", state.event.error
    return step


def _add_step(state: State, step: Step) -> None:
    if step.path in state.steps:
        raise ValueError(f"a second step {step.path}")
    state.steps[step.path] = step
    state.order.append(step)


def _open_undo(state: State, decision: Send | RunLocal, row: int) -> Step:
    step = state.steps[decision.step]
    state.end_undo(step)
    if decision.attempt > 1 and isinstance(state.event, (Replied, Ran, Undeliverable)):
        step.undo_error = state.event.error
    if not step.undo_form:
        state.undos_open += 1
    step.undo_form, step.undo_attempt, step.undo_row = decision.form, decision.attempt, row
    step.undo_at = decision.send_at or state.at
    return step


def sleep(state: State, decision: Sleep, row: int) -> None:
    """Apply a Sleep."""
    step = Step(decision.step, SLEEP, state.at)
    step.due_at, step.row, step.type = decision.due_at, row, decision.name
    _add_step(state, step)


def deadline(state: State, decision: Deadline, row: int) -> None:
    """Apply a Deadline."""
    state.deadline_row, state.deadline_due = row, decision.due_at


def run_local(state: State, decision: RunLocal, row: int) -> None:
    """Apply a RunLocal."""
    if decision.form == UNDO:
        _open_undo(state, decision, row)
        return
    if decision.attempt == 1:
        step = Step(decision.step, LOCAL, state.at)
        step.type, step.compensation = decision.name, decision.undo
        step.policy, step.undo_policy = decision.policy, decision.undo_policy
        _add_step(state, step)
    else:
        step = _again(state, decision)
    step.attempt, step.last_at, step.row = decision.attempt, decision.send_at or state.at, row


def listen(state: State, decision: Listen, row: int) -> None:
    """Apply a Listen."""
    step = Step(decision.step, SIGNAL, state.at)
    step.type = decision.name
    _add_step(state, step)
    mail.of(state).listen(step)


def lock(state: State, decision: Lock, row: int) -> None:
    """Apply a Lock."""
    step = Step(decision.step, LOCK, state.at)
    step.type, step.key, step.row = ", ".join(decision.keys), locks.packed(decision.keys), row
    _add_step(state, step)
    state.locks = state.locks or {}


def settle(state: State, decision: Settle, row: int) -> None:
    """Apply a Settle."""
    step = state.steps[decision.step]
    if step.kind == SIGNAL:
        mail.of(state).silence(step)
    event = state.event
    step.outcome = decision.outcome
    step.result, step.error_type = decision.payload, decision.error_type
    step.error, step.details = decision.error, decision.details
    if isinstance(event, (Replied, Ran)) and event.step == decision.step and not decision.error_type:
        step.result = step.result or event.payload
        step.error_type, step.error = event.error_type, event.error
        step.details = event.details if isinstance(event, Replied) else ""
    if step.kind == LOCK:
        locks.settled(state, step)
    state.end_attempt(step)
    state.unblock(step)
    if not step.left or step.left in (DRAINED, SCOPED):
        state.unfed.append(step)
    if isinstance(event, Asked) and event.action == "resolve":
        state.with_exceptions = True


def clear(state: State, decision: Clear, row: int) -> None:
    """Apply a Clear."""
    step = state.steps[decision.step]
    if step.undo_open:
        state.undos_open -= 1
    step.undo_how = decision.how
    state.unblock(step)
    state.end_undo(step)
    if decision.how in (SKIPPED, RESOLVED):
        state.with_exceptions = True
