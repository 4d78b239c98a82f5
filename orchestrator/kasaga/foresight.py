"""What an action would do to a saga, before anybody asks for it, by its owner's rules on what is stored.

Pure. Called by the dry runs of the command line and of the HTTP API. Between a look and the deed the saga may
have moved; its owner decides then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from .engine import lifecycle
from .engine.codec import HistoryUnreadable, decode
from .engine.deferrals import Deferred
from .engine.leaving import dropped
from .engine.leftovers import Leftover, leftovers, told
from .engine.model import COMMAND, DONE, LOCAL, UNKNOWN, Asked, Fired
from .engine.operator import refuses
from .engine.state import State, Step, fold
from .explain import leaves_json, row_json
from .store.base import FINAL_STATES, HistoryRow, SagaRow, SagaState, Store
from .wording import counted, moment

NAMED = 20
"""Steps that one sentence names."""

AT_ONCE = 100
"""Histories in memory at a time."""


_STUCK = (SagaState.STUCK,)
_LIVE = (SagaState.RUNNING, SagaState.STUCK)
USUAL: Mapping[str, tuple[SagaState, ...]] = {
    "retry": _STUCK,
    "skip": _STUCK,
    "resolve": _STUCK,
    "cancel": (*_LIVE, SagaState.PAUSED),
    "pause": (*_LIVE, SagaState.COMPENSATING, SagaState.CANCELLING),
    "resume": (SagaState.PAUSED,),
    "terminate": _STUCK,
    "move": (*_LIVE, SagaState.PAUSED),
    "reset": _LIVE,
}
"""By action, the states that a filter means which names none."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What somebody is about to ask of many sagas."""

    action: str
    reason: str = ""
    by: str = ""
    step: str = ""
    value: str = ""
    """JSON text; of move the version."""


@dataclass(slots=True)
class Foresight:
    """What would become of one saga."""

    row: SagaRow
    refused: str = ""
    """Why its owner would refuse; empty where it wouldn't."""
    would: str = ""
    """What would happen, as the rest of a sentence that begins with `it`."""
    leaves: list[Leftover] = field(default_factory=list[Leftover])
    """Of terminate: what it would leave behind."""


def foresee_all(store: Store, intent: Intent, rows: Sequence[SagaRow], now: datetime) -> Iterator[Foresight]:
    """Say of each saga what would happen, in the order given; reads histories some at a time."""
    for first in range(0, len(rows), AT_ONCE):
        some = rows[first : first + AT_ONCE]
        live = [(row.shard, row.run_id) for row in some if row.state not in FINAL_STATES]
        histories = store.load(live) if live else {}
        for row in some:
            yield foresee(intent, row, histories.get(row.run_id, ()), now)


def foresee(intent: Intent, row: SagaRow, history: Sequence[HistoryRow], now: datetime) -> Foresight:
    """Say what would happen to one saga."""
    if row.state in FINAL_STATES:
        return Foresight(row, f"the saga has ended: it is {row.state.value}")
    try:
        state = fold(str(row.run_id), [decode(entry.seq, entry.body) for entry in history])
    except HistoryUnreadable as error:
        return Foresight(row, f"its history can't be read: {error.message}")
    asked = Asked("", intent.action, intent.by, intent.reason, intent.step, intent.value, "")
    if refused := refuses(state, asked, None):
        return Foresight(row, refused)
    left = leftovers(state) if intent.action == "terminate" else []
    return Foresight(row, "", _WOULD[intent.action](state, intent, now), left)


def as_json(seen: Foresight, action: str) -> dict[str, Any]:
    """One foresight as JSON-able values; keys are stable."""
    return {
        **row_json(seen.row),
        "action": action,
        "outcome": "dry_run",
        "fits": not seen.refused,
        "refused": seen.refused or None,
        "would": seen.would or None,
        "leaves": leaves_json(seen.leaves),
    }


# --- what would happen


def _pause(state: State, intent: Intent, now: datetime) -> str:
    out = [step for step in state.order if not step.outcome and step.row and step.kind in (COMMAND, LOCAL)]
    out += [step for step in state.order if step.undo_open and step.undo_row]
    if not out:
        return "holds what would go out next"
    return f"holds what would go out next; the answers to {_named(out)} are kept"


def _resume(state: State, intent: Intent, now: datetime) -> str:
    paused = state.paused
    assert paused is not None, "only a paused saga can be resumed"
    if paused.cancel is not None:
        return f"is undone, since it was cancelled by {paused.cancel.by}"
    if state.parked:
        return f"is {lifecycle.STUCK} again: {paused.beneath.reason}"
    if state.deadline_row and moment(state.deadline_due) <= now:
        return "is undone, since its own deadline has passed"
    goes = f"goes on as {paused.beneath.state}"
    answers = sum(not isinstance(event, Fired | Deferred) for event in state.pending)
    return f"{goes}, and decides {counted(answers, 'answer')} that came meanwhile" if answers else goes


def _cancel(state: State, intent: Intent, now: datetime) -> str:
    when = "when it is resumed, " if state.paused is not None else ""
    undone = [step for step in reversed(state.order) if _is_undone(step)]
    stays = [
        step
        for step in state.order
        if step.outcome == DONE and not step.compensation and step.kind in (COMMAND, LOCAL)
    ]
    said = f"{when}undoes {_named(undone)}" if undone else f"{when}has nothing to undo"
    return f"{said}; nothing undoes {_named(stays)}" if stays else said


def _is_undone(step: Step) -> bool:
    if step.undo_how or step.kind not in (COMMAND, LOCAL):
        return False
    if step.outcome in ("", UNKNOWN):
        return step.kind == COMMAND or bool(step.compensation)
    return step.outcome == DONE and bool(step.compensation)


def _terminate(state: State, intent: Intent, now: datetime) -> str:
    said = f"ends as it is; {told(leftovers(state))}"
    return f"{said}; what may have happened is fenced, so that it can't happen later" if state.order else said


def _retry(state: State, intent: Intent, now: datetime) -> str:
    if state.parked:
        return "runs its code again, with what runs now"
    return f"tries {_named(_blocked(state, intent))} again"


def _skip(state: State, intent: Intent, now: datetime) -> str:
    return f"leaves {_named(_blocked(state, intent))} as it is, and goes on"


def _resolve(state: State, intent: Intent, now: datetime) -> str:
    (step,) = _blocked(state, intent)
    if step.outcome:
        return f"takes {_named([step])} for undone by you, and goes on"
    return f"takes the value for the result of {_named([step])}, if it fits, and goes on"


def _move(state: State, intent: Intent, now: datetime) -> str:
    return f"goes on in version {intent.value}, if its owner has that and a replay in it agrees"


def _reset(state: State, intent: Intent, now: datetime) -> str:
    after = dropped(state, state.steps[intent.step])
    undone = [step for step in reversed(after) if _is_undone(step)]
    stays = [
        step
        for step in after
        if step.outcome == DONE and not step.compensation and step.kind in (COMMAND, LOCAL)
    ]
    said = f"undoes {_named(undone)}" if undone else "has nothing to undo"
    said += f", and runs its code anew from step {intent.step}, if that does what it did until there"
    return f"{said}; nothing undoes {_named(stays)}" if stays else said


_WOULD = {
    "pause": _pause,
    "resume": _resume,
    "cancel": _cancel,
    "terminate": _terminate,
    "retry": _retry,
    "skip": _skip,
    "resolve": _resolve,
    "move": _move,
    "reset": _reset,
}


def _blocked(state: State, intent: Intent) -> list[Step]:
    return [step for step in state.blocked.values() if intent.step in ("", step.path)]


def _named(steps: Sequence[Step]) -> str:
    names = [f"{step.path} ({step.type})" for step in steps[:NAMED]]
    if len(steps) > NAMED:
        names.append(f"{len(steps) - NAMED} more")
    return ", ".join(names)
