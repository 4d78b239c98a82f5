"""What an operator may ask of a saga: cancel, retry, skip, resolve; and a client: watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasaga_wire.errors import KasagaError

from . import lifecycle, undo
from .model import COMMAND, DONE, Asked, Send, Settle, Tell

if TYPE_CHECKING:
    from .decide import Definitions, Turn
    from .state import State, Step

CANCELLED_CODE = "KSG-257"


def refuses(state: State, event: Asked, defs: Definitions) -> str:
    """Say why an action doesn't fit the saga's state, or return an empty text."""
    match event.action:
        case "watch":
            return ""
        case "cancel":
            return "" if state.phase == lifecycle.RUNNING else f"the saga is {state.state}: it is being undone already"
        case "retry":
            return "" if state.state == lifecycle.STUCK else f"only a STUCK saga can be retried, this one is {state.state}"
        case "skip" | "resolve":
            return _refuses_step(state, event, defs)
        case _:
            return f"there is no action {event.action!r}; there are cancel, retry, skip, resolve"


def _refuses_step(state: State, event: Asked, defs: Definitions) -> str:
    if not event.reason:
        return f"{event.action} needs a reason, which is kept in the history"
    if state.state != lifecycle.STUCK:
        return f"only a STUCK saga can be {event.action}ed, this one is {state.state}"
    if state.parked or not state.stuck_step:
        return f"the saga's own code can't go on ({state.reason}): retry it with mended code, or cancel it"
    if event.step and event.step != state.stuck_step:
        return f"the saga is stuck at step {state.stuck_step}, not at step {event.step}"
    step = state.steps[state.stuck_step]
    if step.outcome:
        return ""
    if event.action == "skip":
        return f"step {step.path} ({step.type}) has no result that the saga could go on with: resolve it, or cancel"
    try:
        _value(step, event, defs)
    except (KasagaError, ValueError) as error:
        return f"the value doesn't fit the result of {step.type}: {error}"
    return ""


def _value(step: Step, event: Asked, defs: Definitions) -> bytes:
    contract = defs.contracts.get(step.participant)
    spec = contract.commands.get(step.type.removeprefix(f"{step.participant}.")) if contract else None
    if spec is None:
        raise ValueError(f"no contract of the App has {step.type}")
    return spec.result.encode(spec.result.from_json(event.value))


def note(turn: Turn, event: Asked) -> None:
    """Carry out an action that `refuses` has let pass."""
    state = turn.state
    if event.action == "watch":
        return
    if event.action == "cancel":
        reason = f"cancelled by {event.by}: {event.reason}" if event.reason else f"cancelled by {event.by}"
        turn.begin_undo(lifecycle.CANCELLING, CANCELLED_CODE, reason, "")
    elif state.parked:
        turn.unpark()
    elif not state.stuck_step:
        turn.unstuck()
    else:
        _note_step(turn, event, state.steps[state.stuck_step])
    if event.reply_to:
        turn.add(Tell(event.reply_to, "applied", event.action_id))


def _note_step(turn: Turn, event: Asked, step: Step) -> None:
    if event.action != "retry":
        if step.outcome:
            undo.clear(turn, step, "skipped" if event.action == "skip" else "resolved")
        else:
            turn.unstuck()
            turn.add(Settle(step.path, DONE, _value(step, event, turn.defs)))
        return
    turn.unstuck()
    if step.undo_open:
        undo.again(turn, step, turn.at)
    elif not step.outcome:
        policy = step.policy
        assert policy is not None
        attempt, due = step.attempt + 1, turn.at + policy.timeout
        turn.add(Send(step.path, COMMAND, attempt, step.type, step.participant, due, 0, step.key))
