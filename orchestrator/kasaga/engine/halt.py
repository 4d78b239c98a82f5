"""Pausing a saga, letting it go on, and ending it as it is.

Called by operator.py, which has looked whether the action fits. stand.py says what a pause is to the state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasaga_wire.nodes import clean_text

from ..errors import SagaCancelled, SagaTerminated
from . import lifecycle, undo
from .kinship import Recall, Recalled
from .leftovers import leftovers, said, told
from .model import (
    COMMAND,
    DONE,
    REFUSED,
    UNKNOWN,
    Asked,
    Clear,
    Fence,
    Fired,
    Hold,
    Move,
    Postpone,
    Release,
    Tell,
)
from .relevance import CLEARED, EXECUTED, stale
from .stand import as_cancel
from .state import MAX_REASON

if TYPE_CHECKING:
    from .stand import Paused
    from .state import StepEvent
    from .turn import Turn

TERMINATED = "kasaga.Terminated"
"""Error type of steps that had no outcome when their saga was terminated."""

MAX_SAID = 1_000
"""Characters of what was said by who terminates a saga, in front of what that leaves."""


def pause(turn: Turn) -> None:
    """Let nothing go out any more. The code stays in memory: queries and updates may come."""
    turn.add(Hold())
    if lifecycle.PAUSED in turn.defs.events:
        turn.add(Tell("", lifecycle.PAUSED))


def resume(turn: Turn) -> None:
    """Go on: decide what came meanwhile, and send what was held back."""
    state = turn.state
    paused, pending, fingerprint = state.paused, state.pending, turn.defs.fingerprint
    assert paused is not None, "only a paused saga is released"
    turn.add(Release())
    turn.add(Tell("", state.state))
    if paused.cancel is not None:
        cancel(turn, paused.cancel, pending)
    elif not state.parked:
        turn.catch_up(pending)
    if state.fingerprint not in ("", fingerprint):
        turn.wake(fingerprint)
    _send_held(turn, paused)


def cancel(turn: Turn, event: Asked, held: tuple[StepEvent, ...] = ()) -> None:
    """Begin to undo the saga."""
    reason = f"cancelled by {event.by}: {event.reason}" if event.reason else f"cancelled by {event.by}"
    turn.begin_undo(lifecycle.CANCELLING, SagaCancelled.code, reason, held=held)


def take_back(turn: Turn, event: Recalled) -> None:
    """Undo the saga because its parent undoes the step that it is; it may have ended well long ago."""
    state = turn.state
    turn.add(Recall(event.form, event.attempt))
    if state.phase in lifecycle.UNDOING or (state.paused is not None and state.paused.cancel is not None):
        return
    if state.paused is None:
        cancel(turn, as_cancel(event))
    else:
        turn.add(Postpone())


def _send_held(turn: Turn, paused: Paused) -> None:
    """Let the attempts go out that were taken back, when they would have, or now."""
    for path, undoing in paused.withdrawn:
        step = turn.state.steps[path]
        if step.blocked is not None and step.blocked.halted:
            continue
        if undoing and step.undo_open and not step.undo_row:
            undo.send_attempt(turn, step, step.undo_attempt, max(turn.at, step.undo_at))
        elif not undoing and not step.outcome and not step.row:
            turn.send_attempt(step, step.attempt, max(turn.at, step.last_at), turn.close_at(step))


def terminate(turn: Turn, event: Asked) -> None:
    """End the saga as it is, and say what that leaves."""
    state = turn.state
    turn.run.evict()
    for news in state.pending:
        if not isinstance(news, Fired) and not stale(state, news, turn.at):
            _learn(turn, news)
    why = clean_text(f"terminated by {event.by}: {event.reason}", MAX_SAID)
    turn.settle_open(TERMINATED, why)
    for step in list(state.blocked.values()):
        if step.undo_form and step.blocked is not None and step.blocked.halted:
            turn.add(Clear(step.path, EXECUTED))  # it was executed, and nothing undoes it
    left = leftovers(state)
    for step in state.order:
        if step.kind == COMMAND and step.outcome == UNKNOWN and not step.undo_form and not step.undo_how:
            policy = step.undo_policy
            assert policy is not None, "a command has one"
            turn.add(Fence(step.path, turn.at + policy.timeout))
    reason = clean_text(f"{why}; {told(left)}", MAX_REASON)
    turn.add(Move(lifecycle.TERMINATED, SagaTerminated.code, reason, SagaTerminated.default_remedy))
    turn.tell(lifecycle.TERMINATED)


def _learn(turn: Turn, news: StepEvent) -> None:
    """Take what an answer that was never decided tells for good; what would be tried again is given up."""
    step = turn.state.steps[news.step]
    outcome = said(news)
    if news.form not in CLEARED:
        if outcome in (DONE, REFUSED):
            turn.settle(step, outcome, news)
    elif outcome == EXECUTED or outcome in CLEARED[news.form]:
        turn.add(Clear(step.path, "undone" if outcome == DONE else outcome))
