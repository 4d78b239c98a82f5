"""Sagas whose history can't be read: what is known of them all the same.

`Runs.load` finds them, `Decider` parks them: the fault is recorded behind the last row, and behind it what
comes, undecided, until somebody has restored the history, or a release runs that can read it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from kasaga_wire.errors import CannotOpen, EnvelopeError
from kasaga_wire.headers import ReplyTo, is_traceparent
from kasaga_wire.sealing import is_sealed, key_of
from kasaga_wire.topics import Topics

from ..engine import lifecycle
from ..engine.codec import HistoryUnreadable, decode
from ..engine.decide import Run
from ..engine.kinship import Recalled
from ..engine.model import Asked, CodeArrived, Event, Faulted, Move, Record, Replied, Started
from ..engine.notes import Watcher
from ..engine.relevance import irrelevant
from ..engine.renewals import Continue
from ..engine.state import State
from ..store.base import HistoryRow, SagaRow, SagaState
from . import about
from .clock import to_micros
from .intake import Item

if TYPE_CHECKING:
    from .work import Work

log = logging.getLogger("kasaga.orchestrator")


class Unread(NamedTuple):
    """A history as it lies there, and what is wrong with it."""

    history: list[HistoryRow]
    error: HistoryUnreadable


class Glance(NamedTuple):
    """A saga whose history can't be read, as far as it is known. Not to be decided for."""

    run: Run
    error: HistoryUnreadable

    @property
    def fault(self) -> Faulted:
        """What is recorded behind its history."""
        return fault(self.error)


def fault(error: HistoryUnreadable) -> Faulted:
    """Tell of a history that can't be read."""
    return Faulted(error.code, error.message, error.remedy)


def glance(row: SagaRow, unread: Unread, topics: Topics) -> Glance:
    """Take from the saga's row and the rows that can be read what must be known to be STUCK.

    That is who it is, who watches it, the number of its next row, and what has come since it was parked.
    """
    run = Run(str(row.run_id))
    state = run.state
    for entry in unread.history:
        try:
            _note(state, decode(entry.seq, entry.body))
        except (HistoryUnreadable, KeyError, ValueError, TypeError, AttributeError):
            continue
    _check_texts(state, topics)
    state.input = b""
    state.saga_id, state.name, state.version = row.saga_id, row.name, row.version
    state.state, state.phase = row.state.value, lifecycle.RUNNING
    state.code, state.reason, state.remedy = row.code, row.reason, row.remedy
    state.stuck_step = state.undo_step = row.step
    state.parked = row.state is SagaState.STUCK and row.code == HistoryUnreadable.code
    state.fingerprint, state.with_exceptions = row.parked_code, row.with_exceptions
    state.started_at, state.at = to_micros(row.started_at), to_micros(row.updated_at)
    state.base = row.base
    state.next_seq = 1 + max((entry.seq for entry in unread.history), default=0)
    return Glance(run, unread.error)


def _note(state: State, record: Record) -> None:
    """Take what the record's event tells by itself, and whether the saga was parked for its history then."""
    state.begin(record.event, record.at, record.row)
    for decision in record.decisions:
        if isinstance(decision, Move):
            state.parked = decision.parked and decision.code == HistoryUnreadable.code
            state.pending = state.pending if state.parked else ()
        elif isinstance(decision, Continue):
            state.number, state.base, state.start_hash = decision.number, record.seq, decision.start_hash
            state.watchers = tuple(Watcher(*each) for each in decision.watchers)
            state.mail, state.actions = None, dict.fromkeys(decision.actions)


def _check_texts(state: State, topics: Topics) -> None:
    """Leave out what a damaged row may have made of texts that go on: they may be anything."""
    state.traceparent, state.tracestate = _checked(state.traceparent), ""
    watchers = (
        Watcher(str(reply_to), str(about), _checked(traceparent), "")
        for reply_to, about, traceparent, _ in state.watchers
    )
    state.watchers = tuple(each for each in watchers if _may_be_told(each, topics))


def _checked(traceparent: object) -> str:
    return text if is_traceparent((text := str(traceparent)).encode(errors="replace")) else ""


def _may_be_told(watcher: Watcher, topics: Topics) -> bool:
    try:
        return topics.reply_allowed(ReplyTo.parse(watcher.reply_to).topic)
    except EnvelopeError:
        return False


def lock(work: Work, item: Item, run: Run | None, now: int, fingerprint: str) -> None:
    """Have a saga parked whose answer can't be opened here, with the answer: nothing is decided without it.

    An answer that is old changes nothing, whatever is in it. One that waits in the history holds off whoever
    would have it decided: other code, which came with the same keys, and people.
    """
    if run is None:
        return
    why = item.locked
    if why is None:
        why = _still_locked(run.state, item.event) if run.state.pending else None
    elif irrelevant(run.state, item.event, max(now, run.state.at)):
        return
    if why is None:
        return
    key = (item.shard, run.state.run_id)
    work.faults.setdefault(key, Faulted(why.code, why.message, why.remedy, fingerprint))


_DECIDING = ("retry", "cancel", "resume")


def _still_locked(state: State, event: Event) -> CannotOpen | None:
    """Why what waits in the history can't be decided by this event yet; None: it can, or isn't to be."""
    if isinstance(event, Asked):
        if event.action not in _DECIDING:
            return None
    elif not isinstance(event, CodeArrived | Recalled):
        return None
    for news in state.pending:
        if isinstance(news, Replied) and is_sealed(news.payload):
            key = key_of(news.payload) or "-"
            said = f"the answer to step {news.step} is encrypted with key {key}, which doesn't open it here"
            return CannotOpen(said, key=key)
    return None


def left_out(state: State, events: Sequence[Event]) -> bool:
    """Say, and log, that these are of another saga that has this run's id."""
    for event in events:
        if isinstance(event, Started) and state.saga_id not in ("", event.saga_id):
            extra = {**about.saga(state), "left_out": event.saga_id}
            log.error("a start has another saga's run id: it is left out", extra=extra)
            return True
    return False
