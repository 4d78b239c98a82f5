"""What may be asked of a saga: pause, resume, cancel, terminate, retry, skip, resolve, move, reset, watch.

Each action is an event like any other: recorded with who asked and why, and known again by its id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasaga_wire.errors import KasagaError

from . import halt, lifecycle, moving, resetting, undo
from .kinship import LEAVE
from .model import DONE, Asked, Clear, Postpone, Settle, Tell
from .state import RESOLVED

if TYPE_CHECKING:
    from .run import Definitions
    from .state import State, Step
    from .turn import Turn

MAX_WATCHERS = 100
"""Clients that one saga tells its end."""

ACTIONS = ("cancel", "pause", "resume", "terminate", "retry", "skip", "resolve", "move", "reset", "watch")


def refuses(state: State, event: Asked, defs: Definitions | None) -> str:
    """Say why an action doesn't fit the saga's state, or return an empty text.

    Without definitions the value of a resolve isn't looked at.
    """
    action = event.action
    if action not in ACTIONS:
        return f"there is no action {action!r}; there are {', '.join(ACTIONS)}"
    if state.final:
        return f"the saga has ended: it is {state.state}"
    if action == "watch":
        return f"{MAX_WATCHERS} watch this saga already" if len(state.watchers) >= MAX_WATCHERS else ""
    if action == "terminate":
        return "" if event.reason else "terminate needs a reason, which is kept in the history"
    if action in ("pause", "resume"):
        return _refuses_pause(state, action)
    if action == "cancel":
        return _refuses_cancel(state)
    if action == "move":
        return moving.refuses_state(state, event)
    if action == "reset":
        return resetting.refuses_state(state, event)
    if state.paused is not None:
        return f"the saga is {state.reason}: resume it first"
    if state.state != lifecycle.STUCK:
        return f"only a STUCK saga can be {_PARTICIPLE[action]}, this one is {state.state}"
    if event.step and event.step not in state.blocked:
        return f"the saga isn't stuck at step {event.step}{_stuck_at(state)}"
    return "" if action == "retry" else _refuses_step(state, event, defs)


def _refuses_pause(state: State, action: str) -> str:
    if action == "resume":
        return (
            ""
            if state.paused is not None
            else f"only a PAUSED saga can be resumed, this one is {state.state}"
        )
    return "" if state.paused is None else f"the saga is PAUSED already: {state.reason}"


def _refuses_cancel(state: State) -> str:
    if state.pivot is not None:
        return "the saga has passed its pivot: it only goes forward"
    if state.paused is not None and state.paused.cancel is not None:
        return "the saga is cancelled already: it is undone when it is resumed"
    return "" if state.phase == lifecycle.RUNNING else "the saga is being undone already"


_PARTICIPLE = {"retry": "retried", "skip": "skipped", "resolve": "resolved"}


def _stuck_at(state: State) -> str:
    return f", but at {', '.join(state.blocked)}" if state.blocked else ""


def _refuses_step(state: State, event: Asked, defs: Definitions | None) -> str:
    if not event.reason:
        return f"{event.action} needs a reason, which is kept in the history"
    if state.parked:
        return f"the saga's own code can't go on ({state.reason}): retry it with mended code, or cancel it"
    if len(state.blocked) > 1 and not event.step:
        return f"the saga is stuck at several steps{_stuck_at(state)}: name one"
    step = _target(state, event)
    if step.outcome:
        return ""
    if event.action == "skip":
        what = f"step {step.path} ({step.type})"
        return f"{what} has no result that the saga could go on with: resolve it, or cancel"
    if defs is None:
        return ""
    try:
        _value(step, event, defs)
    except (KasagaError, ValueError) as error:
        why = error.message if isinstance(error, KasagaError) else error
        return f"the value doesn't fit the result of {step.type}: {why}"
    return ""


def _target(state: State, event: Asked) -> Step:
    """The step that skip and resolve are about: the named one, or the only one."""
    return state.blocked[event.step] if event.step else next(iter(state.blocked.values()))


def _value(step: Step, event: Asked, defs: Definitions) -> bytes:
    if step.child:
        return _childs_value(step, event, defs)
    contract = defs.contracts.get(step.participant)
    spec = contract.commands.get(step.type.removeprefix(f"{step.participant}.")) if contract else None
    if spec is None:
        raise ValueError(f"no contract of the App has {step.type}")
    return spec.result.encode(spec.result.from_json(event.value))


def _childs_value(step: Step, event: Asked, defs: Definitions) -> bytes:
    if step.child == LEAVE:
        return b""
    name = step.type.removeprefix("child.")
    version = step.version or max((each for known, each in defs.sagas if known == name), default=0)
    child = defs.sagas.get((name, version))
    if child is None:
        raise ValueError(f"no saga of the App is {name}")
    return child.result.encode(child.result.from_json(event.value))


def note(turn: Turn, event: Asked) -> None:
    """Carry out an action that `refuses` has let pass."""
    state = turn.state
    if event.action == "watch":
        return
    if event.action == "cancel":
        if state.paused is None:
            halt.cancel(turn, event)
        else:
            turn.add(Postpone())
    elif event.action == "pause":
        halt.pause(turn)
    elif event.action == "resume":
        halt.resume(turn)
    elif event.action in _DO:
        _DO[event.action](turn, event)
    else:
        step = _target(state, event)
        if not step.outcome:
            turn.add(Settle(step.path, DONE, _value(step, event, turn.defs)))
        elif event.action == "skip":
            undo.skip(turn, step)
        else:
            turn.add(Clear(step.path, RESOLVED))
    if event.reply_to:
        turn.add(Tell(event.reply_to, "applied", event.action_id))


def _retry(turn: Turn, event: Asked) -> None:
    """Try again what the saga is STUCK at: its code, or the named step, or all that are blocked."""
    state = turn.state
    if state.parked:
        turn.unpark()
        return
    for step in list(state.blocked.values()):
        if event.step in ("", step.path):
            undo.go_on(turn, step)


_DO = {"terminate": halt.terminate, "retry": _retry, "move": moving.move, "reset": resetting.reset}
