"""How a saga lives long: it goes on as a new run with an empty history, and is told when that is due.

A run that goes on ends as a pivot does: nothing of it is undone any more. It may end so when nothing of it
is open: no step is out, no branch runs, nothing that its code lived on from is still being undone. Then one
decision, `Continue`, holds all that the saga keeps, and the state begins anew from it; so a fold that begins
there and one that begins at the start are the same. Steps go on being numbered, so that a late answer to an
ended run is one to an unknown step, and command ids, ids of children and of events are never used again.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

from kasaga_wire.attributes import as_json, from_text

from ..errors import HistoryTooLong
from . import lifecycle, locks
from .kinship import Parent
from .mail import Mail
from .model import DONE, TAKES_ROW, UPDATE, Record, Signalled
from .notes import Watcher
from .renewals import Continue, Swell
from .step import Step

if TYPE_CHECKING:
    from .decisions import Decisions
    from .state import State

MAX_SEEN = 10_000
"""Idempotency keys of signals that a new run still knows, the last ones."""

MAX_UPDATES = 1_000
"""Updates that a new run still knows, the last ones."""

MAX_ANSWERS_BYTES = 1_000_000
"""Bytes of their answers that it keeps, those of the last ones."""

MAX_ACTIONS = 1_000
"""Actions whose ids a new run still knows, the last ones."""

NOT_KEPT = "the update was handled in an earlier run, and its answer isn't kept any more"


# --- a new run


def go_on(turn: Decisions) -> None:
    """Let the saga go on as a new run, of the newest version that there is."""
    state, run = turn.state, turn.run
    driver, run.driver = run.driver, None
    if driver is not None:
        driver.evict()
    turn.add(_made(state, turn.defs.common(state.name) or state.version))


def _made(state: State, version: int) -> Continue:
    """All that the saga keeps."""
    mail, given = state.mail or Mail(), state.attributes
    text = json.dumps(as_json(given), ensure_ascii=False, separators=(",", ":")).encode() if given else b""
    last = max((int(step.path.partition(".")[0]) for step in state.order), default=0)
    return Continue(
        state.returned or b"",
        version,
        state.number + 1,
        state.saga_id,
        state.name,
        state.started_at,
        state.traceparent,
        state.tracestate,
        state.start_hash or hashlib.sha256(state.input).digest(),
        max(last, state.offset),
        state.emitted_before + len(state.emitted or ()),
        tuple(state.parent or ()),
        text,
        state.with_exceptions,
        tuple((each.reply_to, each.about, each.traceparent, each.tracestate) for each in state.watchers),
        tuple(islice(state.actions, max(0, len(state.actions) - MAX_ACTIONS), None)),
        tuple(tuple(signal) for signals in mail.waiting.values() for signal in signals),
        tuple(islice(mail.ids, max(0, len(mail.ids) - MAX_SEEN), None)),
        mail.dropped,
        tuple(_updates(mail)),
        mail.updated,
        locks.held(state),
    )


def _updates(mail: Mail) -> list[tuple[object, ...]]:
    """The last updates, all of them dealt with: one that was let pass is, before the code goes on."""
    made: list[tuple[object, ...]] = []
    room = MAX_ANSWERS_BYTES
    for update_id, step in islice(reversed(mail.updates.items()), MAX_UPDATES):
        room -= len(step.result)
        answer = (step.result, step.error) if step.error or room >= 0 else (b"", NOT_KEPT)
        made.append((update_id, step.path, step.type, step.fed_at, *answer))
    return made[::-1]


def apply(state: State, decision: Continue, row: int) -> None:
    """Apply a Continue: the state is as of a saga that begins, with what it has kept."""
    if state.deadline_row:
        state.close_row(state.deadline_row)
    before = {**(state.before or {}), **state.steps}
    state.begin_run()
    state.before = before
    state.saga_id, state.name, state.version = decision.saga_id, decision.name, decision.version
    state.state = state.phase = lifecycle.RUNNING
    state.input, state.start_hash = decision.input, decision.start_hash
    state.number, state.base = decision.number, state.next_seq
    state.started_at, state.run_at = decision.started_at, state.at
    state.traceparent, state.tracestate = decision.traceparent, decision.tracestate
    state.offset, state.emitted_before = decision.steps, decision.emitted
    state.with_exceptions = decision.with_exceptions
    state.parent = Parent(*decision.parent) if decision.parent else None
    state.attributes = None
    if decision.attributes:
        found = from_text(decision.attributes)
        state.attributes = {name: value for name, value in found.items() if value is not None}
    state.watchers = tuple(Watcher(*each) for each in decision.watchers)
    state.actions = dict.fromkeys(decision.actions)
    state.mail = _mail(state, decision)
    state.locks = dict.fromkeys(decision.locks) if decision.locks else None


def _mail(state: State, decision: Continue) -> Mail | None:
    if not decision.seen and not decision.updates:
        return None
    mail = Mail()
    mail.ids = dict.fromkeys(decision.seen)
    for fields in decision.waiting:
        signal = Signalled(*fields)
        mail.ids.setdefault(signal.signal_id)
        mail.waiting.setdefault(signal.name, deque()).append(signal)
        mail.count += 1
        mail.size += len(signal.payload)
    mail.dropped, mail.updated = decision.dropped, decision.updated
    for update_id, path, name, fed_at, answer, error in decision.updates:
        step = mail.updates[update_id] = Step(path, UPDATE, fed_at)
        step.type, step.outcome, step.fed_at = name, DONE, fed_at
        step.result, step.error = answer, error
    return mail


def beginning(record: Record) -> Record | None:
    """The part of a record from which a fold may begin: what its last Continue and all behind it decide."""
    places = [place for place, each in enumerate(record.decisions) if isinstance(each, Continue)]
    if not places:
        return None
    before, after = record.decisions[: places[-1]], record.decisions[places[-1] :]
    row = record.row + sum(type(each) in TAKES_ROW for each in before)
    return record._replace(row=row, decisions=after)


# --- long histories


def swells(turn: Decisions) -> HistoryTooLong | None:
    """Before the code is given anything: warn once that the history is long; say that it is too long."""
    state, defs = turn.state, turn.defs
    events, size = state.next_seq - state.base, state.size
    part = max(events / defs.max_events, size / defs.max_bytes)
    if part < min(defs.warn_at, 1):
        return None
    limit = f"{defs.max_events} records or {defs.max_bytes} bytes"
    if state.swollen is None:
        turn.add(Swell(events, size, limit))
        turn.publish(lifecycle.LONG_HISTORY)
    if part < 1:
        return None
    said = f"its history has {events} records and {size} bytes; {limit} are the most"
    return HistoryTooLong(f"saga {state.name} takes no further step: {said}")


def swell(state: State, decision: Swell, row: int) -> None:
    """Apply a Swell."""
    state.swollen = len(state.fed) + bool(state.begun_at), decision


def told(decision: Swell) -> str:
    """Say what a long history is, in words."""
    now = f"{decision.events} records, {decision.size} bytes"
    return f"its history has become long: {now}; {decision.limit} are the most"


REMEDY = (
    "Let its code go on as a new run when ctx.should_continue says so: await ctx.continue_as_new(input); "
    "see longlives.md"
)
"""Of a long history."""


def length(state: State, seq: int) -> int:
    """How many records a run's history has with record `seq`."""
    return seq - state.base + 1


def warned(state: State, place: int) -> bool:
    """Whether the history was known to be long when the code got its outcome number `place`; 0: its start."""
    return state.swollen is not None and state.swollen[0] <= place
