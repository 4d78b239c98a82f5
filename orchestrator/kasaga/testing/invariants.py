"""What must hold however a saga's steps go wrong; each check gives the sentences of what doesn't.

Station: applied by `case.py` to each result, then the user's own invariants. They look at two witnesses that
know nothing of each other: the saga's history, and what the participants did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from ..engine import lifecycle
from ..engine.kinship import AWAIT
from ..engine.leftovers import leftovers
from ..engine.model import (
    COMMAND,
    CUT_OFF,
    DONE,
    LOST,
    REFUSED,
    SCOPED,
    UNDONE,
    UNKNOWN,
    Clear,
    Leave,
    Send,
    Settle,
)
from ..engine.relevance import EXECUTED
from ..engine.state import State
from ..engine.step import Step
from ..errors import CannotUndo, PivotPassed, StepFails, UndoFails
from .delivery import OF_CHILD
from .faults import UNDO_FAILS
from .result import Invariant, Result

BY_FAULT = frozenset({UndoFails.code, CannotUndo.code, StepFails.code})
"""A saga that is STUCK for one of these has code that works: the world is in its way."""
CLEARED = {
    DONE: frozenset({"undone"}),
    UNKNOWN: frozenset({"undone", "nothing", "voided", REFUSED}),
}
"""By what was known of a step: how it may have been cleared, for its saga to be COMPENSATED."""


def check(result: Result, own: Iterable[Invariant]) -> list[str]:
    """Everything that is wrong with a result: first the built-in invariants, then the user's."""
    found = [violation for rule in BUILT_IN for violation in rule(result)]
    for invariant in own:
        found += _own(invariant, result)
    return found


def _own(invariant: Invariant, result: Result) -> Iterator[str]:
    name = getattr(invariant, "__name__", type(invariant).__name__)
    try:
        said = invariant(result)
    except AssertionError as error:
        yield f"{name}: {str(error).strip() or 'its assertion fails'}"
    except Exception as error:  # noqa: BLE001 (an invariant that breaks hasn't been held)
        yield f"{name} raises {type(error).__name__}: {error}"
    else:
        if said is False:
            yield f"{name} doesn't hold"


def leaves_no_trace(result: Result) -> None:
    """An invariant to be named: a COMPENSATED saga leaves `data` as it was before.

    Compared with `==`, or attribute by attribute where the class doesn't define that.
    """
    if result.state != lifecycle.COMPENSATED:
        return
    was, left = _parts(result.before), _parts(result.data)
    assert left == was, f"COMPENSATED, and the data isn't what it was: {was} before, {left} after"


def _parts(data: Any) -> object:
    """What can be compared: the object itself where its class says how, else its attributes."""
    if any("__eq__" in vars(cls) for cls in type(data).__mro__[:-1]):
        return data
    return data.__dict__


# --- built in


def _ends(result: Result) -> Iterator[str]:
    if result.state in lifecycle.FINAL:
        if result.moved:
            yield f"what came late has changed its end to {result.state}"
        return
    stuck = [child for child, _ in result.children.values() if child.state == lifecycle.STUCK]
    if result.state != lifecycle.STUCK and stuck:
        for child in (each for each in stuck if each.code not in BY_FAULT):
            yield f"its child {child.saga_id} is STUCK by its own code: {child.code} {child.reason}"
        return
    if result.state != lifecycle.STUCK:
        yield f"it comes to no end: {result.state} after {result.turns} turns"
        return
    if not (result.code and result.reason and result.remedy):
        yield "it is STUCK without a reason and a remedy"
    if result.code == PivotPassed.code and result.struck:
        return  # a step after the pivot was refused: the report shows where
    if result.code not in BY_FAULT:
        yield f"it is STUCK by its own code: {result.code} {result.reason}"
    elif result.code == UndoFails.code and not any(fault.kind == UNDO_FAILS for fault in result.struck):
        yield f"a compensation fails by itself: {result.reason}"


def _finished_steps_rest(result: Result) -> Iterator[str]:
    settled: set[str] = set()
    for record in result.records:
        for decision in record.decisions:
            if isinstance(decision, Settle):
                settled.add(decision.step)
            elif isinstance(decision, Send) and decision.form == COMMAND and decision.step in settled:
                yield f"step {decision.step} was sent again after its outcome was known"


def _runs_once(result: Result) -> Iterator[str]:
    runs = Counter((each.step, each.type) for each in result.handled if each.stands)
    for (step, type_), times in runs.items():
        if times > 1:
            yield f"{type_} (step {step}) took effect {times} times"


def _in_reverse(result: Result) -> Iterator[str]:
    """Steps known to be done are undone last first; one of unknown outcome may be cleared at any time.

    So may those of a branch that lost a race, and those of a scope that was left: `_scopes` looks at these.
    """
    order = result.folded.order
    place = {step.path: index for index, step in enumerate(order)}
    done = {step.path for step in order if step.outcome == DONE and not step.left}
    undone = [
        decision.step
        for record in result.records
        for decision in record.decisions
        if isinstance(decision, Clear) and decision.step in done
    ]
    if undone != sorted(undone, key=lambda path: -place[path]):
        yield f"its steps were undone in the order {', '.join(undone)}"


def _scopes(result: Result) -> Iterator[str]:
    """When code goes on behind a scope, all that was done in it is undone, last first."""
    steps = result.folded.steps
    place = {step.path: index for index, step in enumerate(result.folded.order)}
    cleared: list[str] = []
    left: dict[str, tuple[int, Leave]] = {}
    for decision in (each for record in result.records for each in record.decisions):
        if isinstance(decision, Clear):
            cleared.append(decision.step)
        elif isinstance(decision, Leave) and decision.why == SCOPED:
            left[decision.steps[0]] = len(cleared), decision
        elif isinstance(decision, Settle) and decision.outcome == UNDONE:
            before, leave = left[decision.step]
            done = [path for path in leave.steps if steps[path].outcome == DONE and steps[path].compensation]
            for path in done:
                if path not in cleared:
                    yield f"{steps[path].type} (step {path}) isn't undone when its scope is left"
            undone = [path for path in cleared[before:] if path in done and steps[path].left == SCOPED]
            if undone != sorted(undone, key=lambda path: -place[path]):
                yield f"the scope of step {decision.step} was undone in the order {', '.join(undone)}"


def _all(result: Result) -> Iterator[tuple[State, str]]:
    """The saga and its children, each with what the numbers of its steps begin with."""
    yield result.folded, ""
    yield from result.children.values()


def _each_is_cleared(result: Result) -> Iterator[str]:
    for saga, prefix in _all(result):
        if saga.state not in lifecycle.FINAL or saga.state == lifecycle.TERMINATED:
            continue
        undone = saga.state == lifecycle.COMPENSATED
        for step in saga.order:
            if step.kind != COMMAND:
                continue
            what = f"{step.type} (step {prefix}{step.path})"
            if step.outcome == UNKNOWN and step.undo_how not in CLEARED[UNKNOWN] and not _no_matter(step):
                yield f"{what} is unknown, and was never cleared"
            elif undone and step.outcome == DONE and step.compensation and step.undo_how not in CLEARED[DONE]:
                yield f"{what} is done, and was never undone"


def _nothing_is_left(result: Result) -> Iterator[str]:
    """What stands at the participants agrees with how the saga, and each of its children, ended."""
    undone = {each.step for each in result.handled if each.kind == "undo" and each.stands}
    stands = {each.step for each in result.handled if each.kind == "command" and each.stands} - undone
    for saga, prefix in _all(result):
        if saga.state in lifecycle.FINAL:
            yield from _agrees(saga, prefix, stands)


def _agrees(saga: State, prefix: str, stands: set[str]) -> Iterator[str]:
    said = {left.step for left in leftovers(saga)}
    for step in saga.order:
        path = prefix + step.path
        if path not in stands:
            done = step.kind == COMMAND and step.outcome == DONE and not step.undo_how and not step.child
            if saga.state == lifecycle.COMPLETED and done:
                yield f"COMPLETED, and {step.type} (step {path}) doesn't stand"
            continue
        if _no_matter(step):
            continue
        if saga.state == lifecycle.TERMINATED and step.path not in said:
            yield f"TERMINATED, and {step.type} (step {path}) stands, which it doesn't say"
        if saga.state == lifecycle.COMPLETED and (step.outcome != DONE or _is_lost(step)):
            yield f"COMPLETED, and {step.type} (step {path}) stands, though it is {step.left or step.outcome}"
        if saga.state == lifecycle.COMPENSATED and (step.compensation or step.outcome != DONE):
            yield f"COMPENSATED, and {step.type} (step {path}) stands"


def _children(result: Result) -> Iterator[str]:
    """A child ends as the step does that it is."""
    states = {"": result.folded, **{prefix: state for state, prefix in result.children.values()}}
    stuck = any(state.state == lifecycle.STUCK for state in states.values())
    for saga, prefix in _all(result):
        for step in saga.order:
            child = states.get(f"{prefix}{step.path}{OF_CHILD}")
            if not step.child or child is None:
                continue
            what = f"the child of step {prefix}{step.path} ({step.type}) is {child.state}"
            if child.state not in lifecycle.FINAL:
                if not stuck:
                    yield f"{what} when nothing moves any more"
            elif step.undo_how == "undone" and child.state != lifecycle.COMPENSATED:
                yield f"{what}, and its parent takes it for undone"
            elif step.undo_how in ("nothing", "voided") and child.order:
                yield f"{what}, and its parent takes it for never begun"
            elif step.child == AWAIT and step.outcome == DONE and not step.undo_form:
                if child.state != lifecycle.COMPLETED:
                    yield f"{what}, and its parent goes on as if it were done"
            elif step.outcome == REFUSED and child.state != lifecycle.COMPENSATED:
                yield f"{what}, and its parent takes it for refused"


def left_behind(result: Result) -> tuple[str, ...]:
    """Steps that stand at the end of a COMPENSATED saga, since their contract has nothing to undo them."""
    if result.state != lifecycle.COMPENSATED:
        return ()
    order = result.folded.order
    return tuple(s.type for s in order if s.kind == COMMAND and s.outcome == DONE and not s.compensation)


def _is_lost(step: Step) -> bool:
    """Whether it was to be undone while the saga went on, and could be."""
    return step.left in (LOST, CUT_OFF, SCOPED) and bool(step.compensation)


def _no_matter(step: Step) -> bool:
    """It happened in a branch that lost a race, and nothing undoes it: as if it were simply done."""
    lost = step.left == LOST or bool(step.child)
    return lost and not step.compensation and step.undo_how in ("", EXECUTED)


BUILT_IN = (
    _ends,
    _finished_steps_rest,
    _runs_once,
    _in_reverse,
    _scopes,
    _each_is_cleared,
    _nothing_is_left,
    _children,
)
