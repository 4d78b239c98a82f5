"""What the tables keep is sealed, and opened where it is read: bodies of histories and sagas' results.

Station: `commit` seals, `postgres` opens. A body that can't be opened stays as it is: whoever decodes it says
so, and the saga is parked like any whose history can't be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from kasaga.store import rows
from kasaga.store.base import HistoryRow, SagaRow
from kasaga_wire.errors import CodecError
from kasaga_wire.sealing import MAX_HISTORY_BYTES, Sealer, is_sealed, place


def seal_body(sealer: Sealer, run_id: UUID, row: HistoryRow) -> bytes:
    """The body of a history's row, bound to its run and number."""
    return sealer.seal(place("history", run_id, row.seq), row.body)


def seal_result(sealer: Sealer, row: SagaRow) -> bytes | None:
    """A saga's result, bound to its run."""
    return row.result if row.result is None else sealer.seal(place("result", row.run_id), row.result)


def open_bodies(sealer: Sealer, run_id: UUID, entries: Iterable[HistoryRow]) -> None:
    """Open what can be opened, in place."""
    for row in entries:
        if is_sealed(row.body):
            row.body = _opened(sealer, place("history", run_id, row.seq), row.body)


def open_histories(sealer: Sealer, found: list[rows.Row]) -> dict[UUID, list[HistoryRow]]:
    """Rows of histories as the tables have them, by run, opened."""
    made = rows.histories(found)
    for run_id, entries in made.items():
        open_bodies(sealer, run_id, entries)
    return made


def open_result(sealer: Sealer, row: SagaRow) -> SagaRow:
    """The same row with its result opened, if it can be."""
    if row.result is not None and is_sealed(row.result):
        row.result = _opened(sealer, place("result", row.run_id), row.result)
    return row


def _opened(sealer: Sealer, where: bytes, data: bytes) -> bytes:
    try:
        return sealer.open(where, data, most=MAX_HISTORY_BYTES)
    except CodecError:
        return data
