"""Setting a saga back to an earlier step: what came after it is undone, and the code runs anew from there.

What is to be undone is undone as what an ended branch did is (`State.lost`), last first, and until it is the
code is given nothing. Then the outcome of the step is fed to it once more, by code that is brought back from
what is kept of the history. Steps that the code asks for from then on have numbers behind all that there
were: a participant knows a command by its number, and would answer one that it has seen as it did then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasaga_wire.nodes import clean_text

from ..errors import SagaCodeError
from . import lifecycle
from .keylocks import LOCK
from .leaving import dropped, leaves_until
from .model import DONE, DRAINED, SCOPED, SIGNAL, UPDATE, Asked, Fired
from .replay import replay
from .resets import RESET, Reset
from .run import driver_of
from .state import State

if TYPE_CHECKING:
    from .driver import Guard
    from .run import Definitions, Run
    from .step import Step
    from .turn import Turn

SET_BACK = "kasaga.SetBack"
"""Error type of a step that was in flight when its saga was set back."""


# --- whether it may be


def refuses_state(state: State, event: Asked) -> str:
    """Say why a saga can't be set back to the step that is asked for, by its state alone."""
    if state.paused is not None:
        return f"the saga is {state.reason}: resume it first"
    if state.phase != lifecycle.RUNNING:
        return "the saga is being undone already"
    if state.returned is not None:
        return "the saga's code has returned: there is nothing to run anew"
    if _undoes(state):
        return "the saga is still undoing what its code gave up: wait until that is over"
    step = state.steps.get(event.step)
    name = clean_text(event.step, 40) or "nothing"
    if step is None or step.left == RESET:
        return f"the saga has no step {name} to be set back to; `kasaga describe` shows its steps"
    if "." in step.path:
        return f"step {name} is one of a branch: name one of the saga's own, whose number has no dot"
    if step not in state.fed:
        return f"the saga's code hasn't gone on from step {name}: name one whose outcome it was given"
    place = state.fed.index(step)
    return _refuses_before(state, step, place) or _refuses_after(state, step, place)


def _undoes(state: State) -> bool:
    lost = (step for steps in state.lost or () for step in steps)
    return any(not step.outcome or step.undo_open or step.to_undo for step in lost)


def _refuses_before(state: State, step: Step, place: int) -> str:
    """Nothing else may have been under way: the code would wait for it."""
    known = {each.path for each in state.fed[: place + 1]}
    for _, leave in leaves_until(state, place):
        if leave.why not in (DRAINED, SCOPED):
            known.update(leave.steps)
    for other in state.order[: step.asked]:
        if other.path not in known and other.left != RESET:
            what = f"{other.type or other.kind} (step {other.path})"
            return f"{what} was under way when step {step.path} ended: name a step after which nothing was"
    return ""


def _refuses_after(state: State, step: Step, place: int) -> str:
    """What came after it must be such that it can be undone and done again."""
    after = f"after step {step.path}"
    if state.pivot is not None and state.pivot[0] > place:
        return f"the saga has passed its pivot {after}: it only goes forward"
    if state.emitted and state.emitted[-1][0] > place:
        _, topic, kind = state.emitted[-1]
        return f"the saga has published {kind} to {topic} {after}, which can't be taken back"
    given = (*state.fed[place + 1 :], *state.unfed)
    if any(each.kind == UPDATE for each in given):
        return f"the saga has handled an update {after}, which can't be handled again"
    for other in dropped(state, step):
        what = f"step {other.path} ({other.type or other.kind})"
        if other.child:
            return f"{what} comes {after} and is a saga of its own, which can't be begun again"
        if other.kind == SIGNAL and other.outcome == DONE:
            return f"{what} comes {after} and has taken what was sent, which wouldn't be sent again"
        if other.kind == LOCK and other.outcome == DONE:
            return f"{what} comes {after} and holds its keys to the saga's end"
    return ""


def refuses_code(defs: Definitions, run: Run, event: Asked, guard: Guard) -> str:
    """Say why the saga's code can't go on from there: before anything is undone for nothing. Runs it."""
    state = run.state
    kept = _kept(state, state.steps[event.step])
    try:
        driver = driver_of(defs, kept, defs.definition(kept), guard)
        try:
            replay(driver, kept, defs.schemas)
        finally:
            driver.evict()
    except SagaCodeError as error:
        return f"the code doesn't do what the saga's history has up to step {event.step}: {error.message}"
    return ""


def _kept(state: State, step: Step) -> State:
    """The saga as it was before its code was given the outcome of a step, as far as a replay asks."""
    kept, place = State(state.run_id), state.fed.index(step)
    kept.saga_id, kept.name, kept.version, kept.input = state.saga_id, state.name, state.version, state.input
    kept.number, kept.offset, kept.base = state.number, state.offset, state.base
    kept.begun_at, kept.begun_seq, kept.swollen = state.begun_at, state.begun_seq, state.swollen
    kept.patches, kept.pivot, kept.emitted = state.patches, state.pivot, state.emitted
    kept.steps, kept.jumps = state.steps, state.jumps
    kept.fed, kept.order = state.fed[:place], state.order[: step.asked]
    kept.leaves = leaves_until(state, place)
    return kept


# --- doing it


def reset(turn: Turn, event: Asked) -> None:
    """Set the saga back: what it has in flight is given up, as when it is cancelled."""
    state, pending = turn.state, turn.state.pending
    turn.run.evict()
    last = max((int(step.path.partition(".")[0]) for step in state.order), default=0)
    turn.add(Reset(event.step, max(last, state.offset)))
    if state.parked:
        turn.unstuck()
        turn.note_pending(each for each in pending if not isinstance(each, Fired))
    turn.settle_open(SET_BACK, f"the saga was set back to step {event.step}")
