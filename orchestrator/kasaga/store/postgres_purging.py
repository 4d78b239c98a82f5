"""Retention in Postgres: `purging.Purging`, over connections that the loop doesn't use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from uuid import UUID

from kasaga.store import rows
from kasaga.store.base import HistoryRow, SagaRow
from kasaga.store.purging import ArchiveState, EarlierRuns, EndedRuns, Finished
from kasaga.store.readers import Readers
from kasaga.store.sealed import open_histories
from kasaga.store.session import Session
from kasaga.store.statements import Call, read_statements
from kasaga_wire.sealing import Sealer

_READ = read_statements("read")
_PURGE = read_statements("purge")
_FIRST = UUID(int=0)
_LAST = 2**31 - 1
_PAGE = 1000


class PostgresPurging:
    """The part of `postgres.PostgresStore` that deletes."""

    _readers: Readers
    _purger: Session
    """Connects at the first call: only the process on duty has it."""
    _sealer: Sealer

    def retain(self, periods: Mapping[str, float | None]) -> None:
        """See `purging.Purging.retain`. Sorted, so that two processes lock the rows in one order."""
        kept = sorted((name, seconds) for name, seconds in periods.items() if seconds is not None)
        gone = sorted(name for name, seconds in periods.items() if seconds is None)
        if kept:
            self._readers.query(_PURGE["retain"].bind(*zip(*kept, strict=True)))
        if gone:
            self._readers.query(_PURGE["retain_no_more"].bind(gone))

    def retained(self) -> dict[str, float]:
        """See `purging.Purging.retained`."""
        return dict(self._readers.query(_PURGE["retained"].bind()))

    def finished(
        self,
        older_than: timedelta,
        names: Sequence[str] = (),
        *,
        others: bool = True,
        after: UUID | None = None,
        limit: int = 1000,
    ) -> Finished:
        """See `purging.Purging.finished`."""
        now = self._purger.query(_PURGE["clock"].bind())[0][0]
        asked = _PURGE["finished"].bind(after or _FIRST, now - older_than, list(names), others, limit)
        seen = self._purger.query(asked)
        runs = [(shard, run_id) for run_id, shard, old in seen if old]
        return Finished(self._rows(runs), seen[-1][0] if len(seen) == limit else None)

    def _rows(self, runs: Sequence[tuple[int, UUID]]) -> list[SagaRow]:
        if not runs:
            return []
        found = self._purger.query(_PURGE["finished_rows"].bind(*zip(*runs, strict=True)))
        return [rows.listed_row(row) for row in found]

    def standing(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, SagaRow]:
        """See `purging.Purging.standing`."""
        if not runs:
            return {}
        found = self._purger.query(_READ["find_runs"].bind(*zip(*runs, strict=True)))
        return {row.run_id: row for row in map(rows.saga_row, found)}

    def beginnings(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, HistoryRow]:
        """See `purging.Purging.beginnings`."""
        if not runs:
            return {}
        asked = _PURGE["beginnings"].bind(*zip(*runs, strict=True))
        found = open_histories(self._sealer, self._purger.query(asked))
        return {run_id: entries[0] for run_id, entries in found.items()}

    def delete(self, sagas: Sequence[SagaRow]) -> int:
        """See `purging.Purging.delete`."""
        runs = [(row.shard, row.run_id, row.ended_at) for row in sagas if row.ended_at is not None]
        if not runs:
            return 0
        return self._written(_PURGE["delete"].bind(*zip(*runs, strict=True)))

    def ended_runs(
        self,
        older_than: timedelta,
        names: Sequence[str] = (),
        *,
        others: bool = True,
        after: UUID | None = None,
        limit: int = 100,
    ) -> EndedRuns:
        """See `purging.Purging.ended_runs`."""
        before = self._purger.query(_PURGE["clock"].bind())[0][0] - older_than
        asked = _PURGE["ended_runs"].bind(after or _FIRST, list(names), others, limit, before)
        seen = self._purger.query(asked)
        runs = [
            EarlierRuns(shard, run_id, first)
            for run_id, shard, first, oldest in seen
            if first is not None and oldest < first
        ]
        return EndedRuns(runs, seen[-1][0] if len(seen) == limit else None)

    def cut(self, runs: EarlierRuns) -> int:
        """See `purging.Purging.cut`."""
        return self._written(_PURGE["cut"].bind(*runs))

    def kept(self, shard: int, run_id: UUID, *, before: int | None = None) -> list[HistoryRow]:
        """See `purging.Purging.kept`; read by pages."""
        found: list[HistoryRow] = []
        while True:
            last = found[-1].seq if found else -1
            asked = _PURGE["kept"].bind(shard, run_id, last, before or _LAST, _PAGE)
            page = [rows.history_row(row) for row in self._purger.query(asked)]
            found += page
            if len(page) < _PAGE:
                return found

    def note_archived(self, place: str, *, sagas: int, size: int) -> None:
        """See `purging.Purging.note_archived`."""
        self._written(_PURGE["archived"].bind(place, sagas, size))

    def note_archive_failed(self, place: str, error: str) -> None:
        """See `purging.Purging.note_archive_failed`."""
        self._written(_PURGE["archive_failed"].bind(place, error))

    def archive_state(self) -> ArchiveState | None:
        """See `purging.Purging.archive_state`."""
        found = self._readers.query(_PURGE["archive_state"].bind())
        return ArchiveState(*found[0]) if found else None

    def forget(self, remember: timedelta, *, limit: int = 10_000) -> int:
        """See `purging.Purging.forget`."""
        before = self._purger.query(_PURGE["clock"].bind())[0][0] - remember
        forgotten = self._written(_PURGE["forget"].bind(before, limit))
        return forgotten + self._written(_PURGE["forget_older"].bind(before, limit))

    def _written(self, call: Call) -> int:
        """Run one statement; return how many rows it has written."""
        return self._purger.run(call)[0].command_tuples or 0
