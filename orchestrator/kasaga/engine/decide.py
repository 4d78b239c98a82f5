"""(saga, event) -> record: the whole logic of a saga, without I/O, clock or chance.

The shell (kasaga/orchestrator) calls `decide` for everything that happens to a saga and commits the
record that it returns. `turn.py` has the logic; here is what is recorded at all, and what a shell
needs beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..errors import NotApplicable, UpdateRefused
from . import kinship, moving, resetting, signals
from .driver import Guard, unguarded
from .model import MESSAGES, Asked, CodeArrived, Event, Faulted, Record, Signalled, Started, Tell, Updated
from .operator import note as note_action
from .operator import refuses
from .relevance import irrelevant, is_pending
from .run import Definitions, Run
from .state import State
from .step import STEP_EVENTS
from .turn import Turn

__all__ = [
    "Definitions",
    "Ignored",
    "Run",
    "Turn",
    "decide",
    "over_limit",
    "query",
    "record_parked",
    "record_unread",
]

query = signals.ask


def over_limit(state: State, event: Event, max_payload: int) -> NotApplicable | None:
    """Say why a saga whose history can't be read isn't given this, signal or update; None: it is kept."""
    if isinstance(event, Updated):
        return UpdateRefused("the saga's history can't be read")
    return signals.no_room(state, event, max_payload) if isinstance(event, Signalled) else None


class Ignored(NamedTuple):
    """The event changes nothing: a duplicate, a late or an unknown one. Not recorded, counted."""

    why: str


def decide(
    defs: Definitions, run: Run, event: Event, *, at: int, row: int, guard: Guard = unguarded
) -> Record | Ignored | NotApplicable:
    """Let one event happen to one saga.

    `at` is the engine's time in microseconds, `row` the first outbox sequence number to take, from
    1; `guard` calls the saga's code and may raise HangInterrupt into it.

    Returns the record to commit (already in `run.state`, with the rows it opens and closes),
    Ignored, or, for an operator's action that doesn't fit, NotApplicable; of the last two nothing
    is recorded. An exception is a bug of the engine: the run must be dropped and reloaded.
    """
    state = run.state
    at = max(at, state.at)
    why = irrelevant(state, event, at)
    if why:
        return Ignored(why)
    if isinstance(event, Asked):
        refused = refuses(state, event, defs)
        if not refused and event.action == "move":
            refused = moving.refuses_code(defs, run, event, guard)
        elif not refused and event.action == "reset":
            refused = resetting.refuses_code(defs, run, event, guard)
        if refused:
            return NotApplicable(refused)
    elif isinstance(event, MESSAGES):
        unfit = signals.refuses(defs, run, event, guard)
        if unfit is not None:
            return unfit
    elif isinstance(event, kinship.Recalled):
        refused = kinship.refuses(state)
        if refused:
            return NotApplicable(refused)
    state.begin(event, at, row)
    turn = Turn(defs, run, at, guard)
    if isinstance(event, Asked):
        note_action(turn, event)
    else:
        turn.note(event)
    turn.advance()
    state.end()
    return Record(state.next_seq - 1, at, row, event, tuple(turn.decisions))


def record_parked(
    defs: Definitions, run: Run, events: Sequence[Event], fault: Faulted, *, at: int, row: int
) -> Iterator[Record]:
    """Record events undecided, and why the saga is parked: for one that can't be stepped at all.

    `run` is as committed before the events; none of the saga's code is run. What happened to steps
    is decided when the saga is unparked. Actions are not carried out: whoever asked is told
    `not_applicable` and can ask again. Yields nothing for a saga that has ended, or hasn't begun
    and whose Started isn't among the events; one by one, since `run.state` has the rows of the last record
    alone: take them before the next.
    """
    state = run.state
    mine = [] if not state.saga_id or state.final else [fault]
    for event in (*mine, *(each for each in events if not isinstance(each, _NOT_KEPT))):
        when = max(at, state.at)
        if irrelevant(state, event, when):
            continue
        state.begin(event, when, row)
        turn = Turn(defs, run, when, unguarded)
        if isinstance(event, Started | Updated):
            turn.note(event)
        if isinstance(event, Started | Faulted):
            turn.fault(fault)
        elif isinstance(event, Asked) and event.action != "watch" and event.reply_to:
            turn.add(Tell(event.reply_to, "not_applicable", event.action_id))
        state.end()
        yield Record(state.next_seq - 1, when, row, event, tuple(turn.decisions))
        row = state.row


_NOT_KEPT = (Faulted, CodeArrived, kinship.Recalled)
"""Events that come again, if they count then."""


def record_unread(
    defs: Definitions, run: Run, events: Sequence[Event], fault: Faulted, *, at: int, row: int
) -> Iterator[Record]:
    """Record that a history can't be read, once, and behind that what has come for its steps, undecided.

    `run` isn't the fold of the history. Known is who the saga is, the number of its next row, who watches
    it, and what has come since it was parked for this. Which events are stale shows when it goes on. Yields
    one by one, as `record_parked` does.
    """
    state = run.state
    mine = [] if state.parked else [fault]
    kept = (*STEP_EVENTS, Signalled)
    for event in (*mine, *(each for each in events if isinstance(each, kept))):
        if isinstance(event, STEP_EVENTS) and is_pending(state, event):
            continue
        if isinstance(event, Signalled) and irrelevant(state, event, at):
            continue
        when = max(at, state.at)
        state.begin(event, when, row)
        turn = Turn(defs, run, when, unguarded)
        if event is fault:
            turn.fault(fault)
        state.end()
        yield Record(state.next_seq - 1, when, row, event, tuple(turn.decisions))
        row = state.row
