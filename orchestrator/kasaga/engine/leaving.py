"""What a saga's code has left behind, as its history tells it: steps that it gave up, scopes, the pivot.

What is to be undone though the saga goes on stands in `State.lost`, in lists that are undone from their ends,
each by itself (undo.py). The list of a scope begins with the scope: when all above it is undone, it has its
outcome, and the code that waits at its end is fed that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .model import CUT_OFF, DRAINED, LEFT, LOST, SCOPE, SCOPED, Enter, Leave, Pivot
from .resets import RESET, Reset
from .step import Step

if TYPE_CHECKING:
    from .state import State


def leave(state: State, decision: Leave, row: int) -> None:
    """Apply a Leave."""
    steps, why = [state.steps[path] for path in decision.steps], decision.why
    if why == SCOPED:
        _scope_left(state, steps, decision)
    else:
        for step in steps:
            step.left = why or LEFT
            if why != DRAINED and step in state.unfed:
                state.unfed.remove(step)
        if why not in ("", DRAINED):
            _lose(state, steps)
    state.leaves = state.leaves or []
    state.leaves.append((len(state.fed), decision))


def _scope_left(state: State, steps: list[Step], decision: Leave) -> None:
    """Those in flight have their outcome fed to the code all the same: an ended branch waits for it."""
    scope = steps[0]
    if scope.kind != SCOPE:
        raise ValueError(f"{scope.path} is no scope")
    scope.error, scope.details = decision.reason, decision.failed
    for step in steps:
        if step is scope or (step.kind != SCOPE and step.left not in (CUT_OFF, LOST)):
            step.left = SCOPED
    within = set(decision.steps)
    _lose(state, [scope, *(step for step in state.order if step.path in within and step is not scope)])


def _lose(state: State, steps: list[Step]) -> None:
    """Undo these, last first. The list of a scope of which all is in another goes on as part of that."""
    within = {step.path for step in steps}
    others = [
        each
        for each in state.lost or ()
        if each and not (each[0].kind == SCOPE and within.issuperset(step.path for step in each))
    ]
    state.lost = [*others, steps]


def enter(state: State, decision: Enter, row: int) -> None:
    """Apply an Enter: a step that has an outcome when its scope is over."""
    if decision.step in state.steps:
        raise ValueError(f"a second step {decision.step}")
    step = Step(decision.step, SCOPE, state.at)
    step.type = decision.name
    state.steps[step.path] = step
    state.order.append(step)


def pivot(state: State, decision: Pivot, row: int) -> None:
    """Apply a Pivot."""
    state.pivot = len(state.fed), len(state.order), state.at
    if state.deadline_row:  # there is nothing that it could undo any more
        state.close_row(state.deadline_row)
        state.deadline_row = 0


def dropped(state: State, step: Step) -> list[Step]:
    """The steps that were asked for after the code was given this one's outcome."""
    return [each for each in state.order[step.asked :] if each.left != RESET]


def leaves_until(state: State, place: int) -> list[tuple[int, Leave]]:
    """What the code had left behind when it had been given so many outcomes."""
    return [each for each in state.leaves or () if each[0] <= place]


def reset(state: State, decision: Reset, row: int) -> None:
    """Apply a Reset: what came after the step is to be undone, and its outcome to be fed anew."""
    step = state.steps[decision.step]
    place, gone = state.fed.index(step), dropped(state, step)
    for each in gone:
        each.left = RESET
    del state.fed[place:]
    state.unfed = [step]
    state.leaves = leaves_until(state, place)
    state.lost = [gone] if gone else None
    state.jumps = {at: last for at, last in (state.jumps or {}).items() if at < place}
    state.jumps[place] = decision.numbers
    state.resetting = step.path
    if state.swollen is not None and state.swollen[0] > place + 1:
        state.swollen = place + 1, state.swollen[1]
