"""What a person may do about a saga: the actions that its owner would take, and what each does.

Pure. Called by `explain.py`; shown by `kasaga describe` as commands and by the page as buttons.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from .engine import lifecycle
from .engine.leftovers import leftovers, told
from .engine.state import State, Step


@dataclass(slots=True)
class Remedy:
    """What a person may do, as a command of `kasaga`, and what it does."""

    command: str
    effect: str
    action: str = ""
    """retry, resolve, skip, cancel, pause, resume or terminate."""
    step: str = ""
    """The step that has to be named, where the saga is stuck at several; else empty."""
    value: bool = False
    """It takes the result of a step: what to go on with."""


def remedies(saga_id: str, state: State) -> list[Remedy]:
    """Say what may be done about a STUCK or PAUSED saga; nothing where it is neither."""
    if state.paused is not None:
        resume = _remedy(saga_id, "resume", "let it go on where it was")
        undo = _remedy(saga_id, "cancel", "have what was done undone when it is resumed")
        return [resume, undo] if can_cancel(state) else [resume]
    if state.state != lifecycle.STUCK:
        return []
    cancel = [cancelling(saga_id)] if can_cancel(state) else []
    blocked = list(state.blocked.values())
    if state.parked or not blocked:
        return [_remedy(saga_id, "retry", "try again now, with the code that runs now"), *cancel]
    found: list[Remedy] = []
    for step in blocked:
        found += _step_remedies(saga_id, step, step.path if len(blocked) > 1 else "")
    return [*found, *cancel]


def can_cancel(state: State) -> bool:
    """Whether the saga's owner would take a cancel."""
    cancelled = state.paused is not None and state.paused.cancel is not None
    return state.phase == lifecycle.RUNNING and state.pivot is None and not cancelled


def cancelling(saga_id: str) -> Remedy:
    """The remedy that fits every saga that isn't being undone yet."""
    return _remedy(saga_id, "cancel", "undo what was done, and end")


def pausing(saga_id: str) -> Remedy:
    """What fits every saga that lives and isn't paused."""
    return _remedy(saga_id, "pause", "let nothing more go out until it is resumed")


def terminating(saga_id: str, state: State) -> Remedy:
    """The last resort, which fits every saga that lives."""
    return _remedy(saga_id, "terminate", f"last resort: end it as it is; {told(leftovers(state))}")


def rereading(saga_id: str) -> Remedy:
    """The remedy of a saga whose history couldn't be read."""
    return _remedy(saga_id, "retry", "read its history again, when it is restored")


def _remedy(saga_id: str, action: str, effect: str, step: str = "", *, value: bool = False) -> Remedy:
    command = f"kasaga {action} {shlex.quote(saga_id)}"
    if step:
        command += f" --step {step}"
    if action not in ("retry", "resume"):
        command += " --reason '…'"
    if value:
        command += " --value '{…}'"
    return Remedy(command, effect, action, step, value)


def _step_remedies(saga_id: str, step: Step, at: str) -> list[Remedy]:
    """What may be done to one step that the saga is stuck at."""
    if not step.outcome:
        effect = f"go on with a result of {step.type} that you found out"
        return [
            _remedy(saga_id, "retry", f"send {step.type} again", at),
            _remedy(saga_id, "resolve", effect, at, value=True),
        ]
    undo = step.compensation or f"the void of {step.type}"
    again = f"send {undo} again now" if step.undo_open else "try again now"
    return [
        _remedy(saga_id, "retry", again, at),
        _remedy(saga_id, "resolve", f"you undid {step.type} by hand: go on without {undo}", at),
        _remedy(saga_id, "skip", f"leave {step.type} as it is: go on without {undo}", at),
    ]
