"""Steps whose participant has accepted the command and answers later: a part of the state, and its rules.

Called by relevance.py (is the news old?), turn.py (what follows?) and state.py (the fold). While a step is
deferred its row is a timer: nothing is sent again, and what is watched is the participant's silence. The
time for all attempts together (`schedule_to_close`) goes on as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .deferrals import Defer, Deferred
from .model import Event, Replied
from .step import Late, Step

if TYPE_CHECKING:
    from .decisions import Decisions
    from .state import State


def stale(step: Step, event: Deferred) -> str:
    """Say why a deferral or a heartbeat is old, or return an empty text."""
    late = step.late
    if late is not None and late.run == event.run:
        return "" if event.number > late.number else "duplicate"
    ended = max(late.run, late.failed) if late is not None else 0
    return "" if event.attempt == step.attempt or event.run > ended else "old attempt"


def runs(step: Step, attempt: int) -> bool:
    """Whether this attempt is the one that is open at the participant, whatever was sent since."""
    return step.late is not None and step.late.run == attempt


def note(turn: Decisions, step: Step, event: Deferred) -> None:
    """Wait for the next heartbeat instead of the attempt's answer, and never longer than for all attempts."""
    due = _due(turn.at + event.heartbeat if event.heartbeat else 0, turn.close_at(step))
    turn.add(Defer(step.path, due, event.run, event.number, event.heartbeat, event.progress))


def silence(turn: Decisions, step: Step) -> str:
    """Its time has come: why a deferred step is given up, as text.

    Empty if it isn't deferred. Where a pause has given it more time for all attempts, it waits on.
    """
    late, end = step.late, turn.close_at(step)
    if late is None or not late.run:
        return ""
    if late.heartbeat and turn.at >= late.at + late.heartbeat:
        return f"its participant accepted it, and gave no heartbeat for {late.heartbeat / 1e6:g} s"
    if end and turn.at < end:
        due = _due(late.at + late.heartbeat if late.heartbeat else 0, end)
        turn.add(Defer(step.path, due, late.run, late.number, late.heartbeat))
        return WAITS_ON
    return "its participant accepted it, and gave no answer in the time for all attempts"


WAITS_ON = "waits on"
"""What `silence` says where it has decided to wait on."""


def _due(beat: int, end: int) -> int:
    return min(beat, end) if beat and end else beat or end


def defer(state: State, decision: Defer, row: int) -> None:
    """Apply a Defer."""
    step = state.steps[decision.step]
    if step.row:
        state.close_row(step.row)
    step.row, step.due_at = row, decision.due_at
    step.last_at = min(step.last_at, state.at)  # an attempt that was to come later never goes out
    before = step.late or Late()
    progress = decision.progress or before.progress
    step.late = Late(decision.run, decision.number, decision.heartbeat, progress, state.at, before.failed)


def again(step: Step, event: Event | None) -> None:
    """Another attempt goes out: whatever was deferred before is over."""
    late = step.late
    failed = event.attempt if isinstance(event, Replied) and event.step == step.path else 0
    if late is None and not failed:
        return
    late = late or Late()
    step.late = Late(failed=max(failed, late.run, late.failed))
