"""How a saga stands as a whole: applies its moves, and what pauses it and lets it go on.

Part of `State.apply`. A paused saga keeps what it was doing beneath: a fault that comes meanwhile is noted
there, and a release brings it back. Who decides that is turn.py, and halt.py where somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from . import lifecycle, locks
from .kinship import Recalled
from .model import Asked, Hold, Move, Postpone, Release
from .versions import Adopt, Await

if TYPE_CHECKING:
    from .state import State

REMEDY = (
    "`kasaga resume` lets it go on; `kasaga cancel` has it undone then; `kasaga terminate` ends it as it is"
)
"""Of a paused saga."""


class Beneath(NamedTuple):
    """What a paused saga shows again when it is released."""

    state: str
    code: str
    reason: str
    remedy: str
    stuck_step: str


class Paused(NamedTuple):
    """Since when a saga is paused, by whom, and what stood still because of it."""

    at: int
    by: str
    said: str
    """The reason that was given, or empty."""
    beneath: Beneath
    withdrawn: tuple[tuple[str, bool], ...]
    """The steps whose next attempt was taken back before its time, and whether it was one of its undo."""
    cancel: Asked | None = None
    """A cancel that came meanwhile."""


def move(state: State, decision: Move, row: int) -> None:
    """Apply a Move; of a paused saga, unless it ends, beneath the pause."""
    target, paused = decision.state, state.paused
    if target == lifecycle.PAUSED:
        raise ValueError("a saga is paused by a Hold")
    ends = target in lifecycle.FINAL
    lifecycle.check_move(state.state if paused is None or ends else paused.beneath.state, target)
    if state.state in lifecycle.FINAL:
        state.watchers = ()  # they were told how it ended
    if state.state and not ends:
        state.mark(target, "", decision.reason, decision.step)
    shown = Beneath(target, decision.code, decision.reason, decision.remedy, decision.step)
    if paused is None or ends:
        state.paused = None
        _show(state, shown)
    else:
        state.paused = paused._replace(beneath=shown)
    state.fingerprint = decision.fingerprint
    _await_no_more(state)
    _hold(state, parked=decision.parked)
    if target == lifecycle.STUCK:
        if decision.step and not decision.parked:
            _block(state, decision)
        if not decision.fingerprint:
            state.fingerprint = next((code for code in _codes(state) if code), "")
        return
    if target in lifecycle.UNDOING and state.phase not in lifecycle.UNDOING:
        state.undo_code, state.undo_reason, state.undo_step = decision.code, decision.reason, decision.step
        state.raised = target == lifecycle.COMPENSATING
    state.phase = target
    if state.deadline_row and target != lifecycle.RUNNING:
        state.close_row(state.deadline_row)
        state.deadline_row = 0
    if ends:
        _end(state, target)


def _end(state: State, target: str) -> None:
    locks.ended(state)
    if target == lifecycle.TERMINATED:
        for step in state.order:
            state.end_attempt(step)
            state.end_undo(step)
            state.unblock(step)


def await_version(state: State, decision: Await, row: int) -> None:
    """Apply an Await; the Move before it says why."""
    state.await_row = row


def adopt(state: State, decision: Adopt, row: int) -> None:
    """Apply an Adopt."""
    state.version = decision.version


def _await_no_more(state: State) -> None:
    if state.await_row:
        state.close_row(state.await_row)
        state.await_row = 0


def hold(state: State, decision: Hold, row: int) -> None:
    """Apply a Hold: attempts that would go out later are taken back."""
    lifecycle.check_move(state.state, lifecycle.PAUSED)
    event = state.event
    if not isinstance(event, Asked):
        raise ValueError("somebody asks for a pause")
    withdrawn: list[tuple[str, bool]] = []
    for step in state.order:
        if step.row and not step.outcome and step.last_at > state.at:
            state.end_attempt(step)
            withdrawn.append((step.path, False))
        if step.undo_row and step.undo_at > state.at:
            state.end_undo(step)
            withdrawn.append((step.path, True))
    beneath = Beneath(state.state, state.code, state.reason, state.remedy, state.stuck_step)
    state.paused = Paused(state.at, event.by, event.reason, beneath, tuple(withdrawn))
    said = f"paused by {event.by}" + (f": {event.reason}" if event.reason else "")
    state.mark(lifecycle.PAUSED, "", said, "")
    _show(state, Beneath(lifecycle.PAUSED, "", said, REMEDY, state.stuck_step))
    _hold(state, parked=state.parked)


def release(state: State, decision: Release, row: int) -> None:
    """Apply a Release: the saga is again what it was."""
    paused = state.paused
    if paused is None:
        raise ValueError("the saga isn't paused")
    lifecycle.check_move(state.state, paused.beneath.state)
    state.paused = None
    state.pauses = [*(state.pauses or ()), (paused.at, state.at)]
    _show(state, paused.beneath)
    state.mark(state.state, "", "", "")
    _hold(state, parked=state.parked)


def postpone(state: State, decision: Postpone, row: int) -> None:
    """Apply a Postpone: the action waits for the release."""
    paused, event = state.paused, state.event
    event = as_cancel(event) if isinstance(event, Recalled) else event
    if paused is None or not isinstance(event, Asked):
        raise ValueError("only an action waits, and only for a release")
    state.paused = paused._replace(cancel=event)
    said = f"{state.reason}; to be undone when it is resumed, since it was cancelled by {event.by}"
    state.reason = said + (f": {event.reason}" if event.reason else "")


def as_cancel(event: Recalled) -> Asked:
    """A parent's undo as what it comes to: a cancel."""
    parent = event.parent
    return Asked("", "cancel", f"its parent {parent.saga_id}", parent.reason, "", "", "")


def paused_since(state: State, since: int) -> int:
    """How long, in microseconds, a saga was paused after `since`: it doesn't count for retries."""
    return sum(until - begun for begun, until in state.pauses or () if begun >= since)


def _show(state: State, shown: Beneath) -> None:
    state.state, state.code, state.reason, state.remedy, state.stuck_step = shown


def _hold(state: State, *, parked: bool) -> None:
    state.parked = parked
    state.held = parked or state.paused is not None
    if not state.held:
        state.pending = ()


def _block(state: State, decision: Move) -> None:
    step = state.steps[decision.step]
    step.blocked = decision
    state.blocked[step.path] = step
    if decision.halted and not step.outcome:
        state.end_attempt(step)
    elif decision.halted:
        state.end_undo(step)


def _codes(state: State) -> Iterator[str]:
    return (step.blocked.fingerprint for step in state.blocked.values() if step.blocked is not None)
