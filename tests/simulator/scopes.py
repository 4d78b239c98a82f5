"""What must be true of scopes: called by the book for each saga, with what its participants did."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from kasaga.engine.model import (
    COMMAND,
    DONE,
    SCOPED,
    UNDONE,
    Clear,
    Enter,
    Leave,
    Record,
    Send,
    Settle,
    Sleep,
)
from kasaga.engine.state import State

if TYPE_CHECKING:
    from simulator.postgres import Effect

BY_HAND = ("skipped", "resolved")


def undone_in_order(records: Iterable[Record], state: State) -> Iterator[str]:
    """When the code goes on behind a scope, everything in it is cleared, last first.

    In it is whatever was begun since it was: in the simulator's sagas nothing goes on beside a scope.
    """
    place = {step.path: index for index, step in enumerate(state.order)}
    cleared: list[str] = []
    begun: list[str] = []
    left: dict[str, Leave] = {}
    for decision in (each for record in records for each in record.decisions):
        if isinstance(decision, Clear):
            cleared.append(decision.step)
        elif isinstance(decision, Enter | Sleep) or (
            isinstance(decision, Send) and (decision.form, decision.attempt) == (COMMAND, 1)
        ):
            begun.append(decision.step)
        elif isinstance(decision, Leave) and decision.why == SCOPED:
            left[decision.steps[0]] = decision
            inside = set(begun[begun.index(decision.steps[0]) :])
            if inside != set(decision.steps):
                yield f"scope {decision.steps[0]} has {', '.join(inside)} in it: its history says otherwise"
        elif isinstance(decision, Settle) and decision.outcome == UNDONE:
            within = [state.steps[path] for path in left[decision.step].steps]
            done = {step.path for step in within if step.outcome == DONE and step.compensation}
            if not done <= set(cleared):
                yield f"scope {decision.step} was over before {', '.join(done - set(cleared))} was undone"
            mine = [path for path in cleared if path in done and state.steps[path].left == SCOPED]
            if mine != sorted(mine, key=lambda path: -place[path]):
                yield f"scope {decision.step} was undone in the order {', '.join(mine)}"


def none_stands(records: Iterable[Record], state: State, effects: Mapping[str, Effect]) -> Iterator[str]:
    """Nothing of a scope that was left stands, and what the code did next came later. `effects` by name."""
    left: dict[str, Leave] = {}
    over: list[tuple[str, Leave]] = []
    for decision in (each for record in records for each in record.decisions):
        if isinstance(decision, Leave) and decision.why == SCOPED:
            left[decision.steps[0]] = decision
        elif isinstance(decision, Settle) and decision.outcome == UNDONE:
            over.append((decision.step, left[decision.step]))
        elif (
            isinstance(decision, Send)
            and (decision.form, decision.attempt) == (COMMAND, 1)
            and decision.step in effects
        ):
            for scope, leave in over:
                yield from _before(scope, leave, state, effects, decision.step)
    for scope, leave in over:
        for path in leave.steps:
            step = state.steps[path]
            here = path in effects and f"{path}~undo" not in effects
            if here and step.undo_how not in BY_HAND and (step.compensation or step.outcome != DONE):
                yield f"{step.type} (step {path}) stands, though scope {scope} was left"


def _before(
    scope: str, leave: Leave, state: State, effects: Mapping[str, Effect], after: str
) -> Iterator[str]:
    if after in leave.steps:
        return
    for path in leave.steps:
        undo = effects.get(f"{path}~undo")
        if undo is not None and undo.at > effects[after].at and state.steps[path].undo_how not in BY_HAND:
            yield f"step {after} was done before step {path} of scope {scope} was undone"
