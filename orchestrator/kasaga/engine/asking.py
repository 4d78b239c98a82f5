"""What the saga's code asks for, as decisions: steps that begin, and steps that it waits for no more.

Called by `Turn`, for each effect of one turn of the driver (scheduling.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasaga_wire.nodes import clean_text

from .awaited import is_awaited
from .branches import Timer
from .driver import TIMED_OUT, Left
from .keylocks import Lock
from .model import (
    COMMAND,
    CUT_OFF,
    DRAINED,
    LEFT,
    LOCAL,
    SCOPED,
    UNKNOWN,
    Alarm,
    Enter,
    Leave,
    Listen,
    RunLocal,
    Send,
    Settle,
    Sleep,
)
from .requests import Call, ChildCall, Expect, LocalCall, LockCall, Pause, Request
from .scopes import Scope
from .state import MAX_REASON
from .step import NO_EFFECT
from .undo import LOST_RACE

if TYPE_CHECKING:
    from .decisions import Decisions
    from .turn import Turn


def left(turn: Turn, effect: Left) -> None:
    """The code waits no more for some steps. Those of a lost branch, or cut off, `advance` undoes."""
    state, why = turn.state, effect.why
    paths = tuple(path for path in effect.steps if path in state.steps)
    if not paths:
        return
    turn.add(Leave(paths, why, clean_text(effect.reason, MAX_REASON), effect.failed))
    if why == SCOPED:
        return
    for path in paths:
        step = state.steps[path]
        if step.outcome:
            continue
        if step.kind in NO_EFFECT:
            turn.add(Settle(path, LEFT))
        elif why == DRAINED:
            if step.last_at > turn.at:  # between two attempts: there is nothing in flight
                turn.give_up(step, step.error_type, step.error)
        elif why == CUT_OFF:
            turn.add(Settle(path, UNKNOWN, b"", TIMED_OUT, "the time of its block is over"))
        else:
            turn.add(Settle(path, UNKNOWN, b"", LOST_RACE, "its branch lost a race"))


def schedule(turn: Decisions, request: Request) -> None:
    """Decide that a step is begun."""
    path = request.path
    if isinstance(request, Call):
        _send_first(turn, path, request)
    elif isinstance(request, Pause):
        turn.add(Sleep(path, request.due_at))
    elif isinstance(request, Timer):
        turn.add(Sleep(path, request.due_at, "timeout"))
    elif isinstance(request, Scope):
        turn.add(Enter(path, request.name))
    elif isinstance(request, Expect):
        turn.add(Listen(path, request.name))
        if request.due_at or is_awaited(request.name):
            turn.add(Alarm(path, request.due_at))
    elif isinstance(request, LockCall):
        turn.add(Lock(path, request.keys, request.wait))
    else:
        assert isinstance(request, LocalCall), f"no such request: {request!r}"
        turn.add(RunLocal(path, LOCAL, 1, request.name, 0, request.undo, request.policy, request.undo_policy))


def _send_first(turn: Decisions, path: str, call: Call) -> None:
    spec, (key, policy, undo_policy) = call.spec, call.options
    most = policy.timeout if not policy.schedule_to_close else min(policy.timeout, policy.schedule_to_close)
    undo_type = spec.compensation.type if spec.compensation is not None else ""
    child, version = "", 0
    if isinstance(call, ChildCall):
        key, undo_type, child, version = call.id.encode(), call.undo, call.child, call.version
    turn.add(
        Send(
            path,
            COMMAND,
            1,
            spec.type,
            spec.participant,
            turn.at + most,
            0,
            key,
            call.payload,
            policy,
            undo_policy,
            undo_type,
            child,
            version,
        )
    )
