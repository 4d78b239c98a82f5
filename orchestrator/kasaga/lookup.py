"""Reading one saga from the store, for people: its row, its history, where it stands, its payloads.

Station: between `Store` and whatever shows a saga: the command line, the HTTP API, its pages. Reads only.
"""

from __future__ import annotations

from datetime import datetime

from kasaga_wire.codec import Schemas

from .client.errors import UnknownSaga
from .engine.codec import HistoryUnreadable, decode
from .engine.locks import keys_of
from .engine.locks import waiting as locks_wanted
from .engine.model import Asked, Record
from .engine.state import State, fold
from .explain import Explanation, explain
from .explain_locks import key_views, tell_waits
from .remedies import rereading
from .store.base import HistoryRow, SagaRow, SagaState, Store
from .timeline import attempts_sent
from .timeline_data import Decode, decoder

CHILDREN_SHOWN = 20
"""Of a saga that waits for more children, so many are looked at: each is a question to the store."""


def find(store: Store, saga_id: str) -> SagaRow:
    """Return one saga's row; raises UnknownSaga."""
    row = store.saga(saga_id)
    if row is None:
        raise UnknownSaga(
            f"there is no saga {saga_id}",
            remedy="`kasaga list --id-prefix` finds it; a start just sent may not have been read yet",
        )
    return row


def read_records(store: Store, row: SagaRow, *, since: int = 0) -> list[Record]:
    """Return one saga's history, of all its runs, or from row `since` on."""
    return [decode(entry.seq, entry.body) for entry in store.history(row, since=since)]


def first_record(store: Store, row: SagaRow) -> Record | None:
    """Return the record of a saga's start; None where its history was purged, or can't be read."""
    entry = next(iter(store.history(row)), None)
    return None if entry is None else _read(entry)


def asked_before(store: Store, saga_id: str, action_id: str) -> SagaRow | None:
    """Return the saga's row if this very action is in its history, as far as that can be read, else None."""
    row = store.saga(saga_id)
    if row is None:
        return None
    events = (record.event for entry in store.history(row) if (record := _read(entry)) is not None)
    done = any(isinstance(event, Asked) and event.action_id == action_id for event in events)
    return row if done else None


def _read(entry: HistoryRow) -> Record | None:
    try:
        return decode(entry.seq, entry.body)
    except HistoryUnreadable:
        return None


def look(store: Store, saga_id: str, now: datetime) -> tuple[Explanation, list[Record]]:
    """Read and explain one saga; raises UnknownSaga.

    The records are those of its last run. Of one whose history can't be read its row alone is told, and
    no records.
    """
    row = find(store, saga_id)
    lease = next((lease for lease in store.shards() if lease.shard == row.shard), None)
    try:
        records = read_records(store, row, since=row.base)
        state = fold(str(row.run_id), records)
    except HistoryUnreadable as error:
        made = Explanation(row, now, progress=f"Its history can't be read: {error.message}")
        made.remedies = [rereading(saga_id)] if row.state is SagaState.STUCK else []
        made.owner = lease.owner or "" if lease is not None and not lease.expired else ""
        return made, []
    if not records:
        return Explanation(row, now, progress="Its history has been purged"), records
    sent = attempts_sent(records, now)
    made = explain(row, state, store.waits(row), now=now, lease=lease, sent=sent)
    _look_at_children(store, state, made)
    if state.locks is not None:
        made.locks = key_views(store.queues(run_id=row.run_id), row.run_id)
        tell_waits(made.waits, [(step.path, keys_of(step)) for step in locks_wanted(state)], made.locks)
    return made, records


def _look_at_children(store: Store, state: State, made: Explanation) -> None:
    """Say of the children that the saga waits for how they stand."""
    waits = [wait for wait in made.waits if wait.step and state.steps[wait.step].child]
    for wait in waits[:CHILDREN_SHOWN]:
        row = store.saga(state.steps[wait.step].key.decode())
        if row is not None:
            wait.text += f"; it is {row.state.value}" + (f": {row.reason}" if row.reason else "")


def stored_schemas(store: Store) -> Schemas:
    """Return the schemas that the store has kept."""
    schemas = Schemas()
    for text in store.schemas().values():
        schemas.add(text)
    return schemas


def stored_decoder(store: Store) -> Decode:
    """Return a decoder that knows the schemas that the store has kept."""
    return decoder(stored_schemas(store))
