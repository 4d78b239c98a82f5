"""Retention in memory: `purging.Purging` over the tables of `memory.MemoryStore`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from kasaga.store.base import FINAL_STATES, RENEWED, HistoryRow, SagaRow
from kasaga.store.memory_tables import Tables, summary
from kasaga.store.purging import ArchiveState, EarlierRuns, EndedRuns, Finished


class MemoryPurging:
    """The part of `memory.MemoryStore` that deletes."""

    _lock: threading.RLock
    _tables: Tables
    _clock: Callable[[], datetime]
    _fault: Callable[[str], None]

    def retain(self, periods: Mapping[str, float | None]) -> None:
        """See `purging.Purging.retain`."""
        self._fault("retain")
        with self._lock:
            for name, seconds in periods.items():
                if seconds is None:
                    self._tables.retention.pop(name, None)
                else:
                    self._tables.retention[name] = seconds

    def retained(self) -> dict[str, float]:
        """See `purging.Purging.retained`."""
        self._fault("retained")
        with self._lock:
            return dict(self._tables.retention)

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
        self._fault("finished")
        with self._lock:
            tables, before = self._tables, self._clock() - older_than
            seen = [run for run in sorted(tables.sagas) if after is None or run > after][:limit]
            found = [tables.sagas[run] for run in seen]
            rows = [
                replace(row, attributes=dict(tables.attributes.get(row.run_id, {})))
                for row in found
                if row.state in FINAL_STATES and row.ended_at is not None and row.ended_at < before
                if (row.name in names) != others
            ]
            return Finished(rows, seen[-1] if len(seen) == limit else None)

    def standing(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, SagaRow]:
        """See `purging.Purging.standing`."""
        self._fault("standing")
        with self._lock:
            found = {run: self._tables.sagas.get(run) for _, run in runs}
            return {run: replace(row) for run, row in found.items() if row is not None}

    def beginnings(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, HistoryRow]:
        """See `purging.Purging.beginnings`."""
        self._fault("beginnings")
        with self._lock:
            found = {run: self._tables.history.get(run) for _, run in runs}
            return {run: replace(rows[min(rows)]) for run, rows in found.items() if rows}

    def delete(self, sagas: Sequence[SagaRow]) -> int:
        """See `purging.Purging.delete`."""
        self._fault("delete")
        with self._lock:
            tables, deleted = self._tables, 0
            for each in sagas:
                row = tables.sagas.get(each.run_id)
                if row is None or row.state not in FINAL_STATES or row.ended_at != each.ended_at:
                    continue
                assert row.ended_at is not None, "what has ended says when"
                del tables.sagas[row.run_id]
                del tables.runs[row.shard, row.saga_id]
                tables.history.pop(row.run_id, None)
                tables.attributes.pop(row.run_id, None)
                tables.ended[row.shard, row.saga_id] = summary(row, row.ended_at)
                tables.deleted[row.shard, row.saga_id] = self._clock()
                deleted += 1
            return deleted

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
        self._fault("ended_runs")
        with self._lock:
            tables, before, found = self._tables, self._clock() - older_than, list[EarlierRuns]()
            seen = [
                run
                for run, row in sorted(tables.sagas.items())
                if row.base > 1 and (after is None or run > after) and (row.name in names) != others
            ][:limit]
            for run in seen:
                history, row = tables.history[run], tables.sagas[run]
                begun = (seq for seq, each in history.items() if each.kind == RENEWED and each.at < before)
                first = max((seq for seq in begun if seq <= row.base), default=0)
                if min(history) < first:
                    found.append(EarlierRuns(row.shard, run, first))
            return EndedRuns(found, seen[-1] if len(seen) == limit else None)

    def cut(self, runs: EarlierRuns) -> int:
        """See `purging.Purging.cut`."""
        self._fault("cut")
        with self._lock:
            history = self._tables.history.get(runs.run_id, {})
            gone = [seq for seq in history if seq < runs.first]
            for seq in gone:
                del history[seq]
            return len(gone)

    def kept(self, shard: int, run_id: UUID, *, before: int | None = None) -> list[HistoryRow]:
        """See `purging.Purging.kept`; nothing is sealed here."""
        self._fault("kept")
        with self._lock:
            found = sorted(self._tables.history.get(run_id, {}).items())
            return [replace(row) for seq, row in found if before is None or seq < before]

    def note_archived(self, place: str, *, sagas: int, size: int) -> None:
        """See `purging.Purging.note_archived`."""
        self._fault("note_archived")
        with self._lock:
            was = self._tables.archive or ArchiveState(place, 0, 0, 0, None, None, "")
            counts = was.sagas + sagas, was.objects + 1, was.size + size
            self._tables.archive = ArchiveState(place, *counts, self._clock(), None, "")

    def note_archive_failed(self, place: str, error: str) -> None:
        """See `purging.Purging.note_archive_failed`."""
        self._fault("note_archive_failed")
        with self._lock:
            was = self._tables.archive or ArchiveState(place, 0, 0, 0, None, None, "")
            since = was.failing_since or self._clock()
            self._tables.archive = replace(was, place=place, failing_since=since, error=error)

    def archive_state(self) -> ArchiveState | None:
        """See `purging.Purging.archive_state`."""
        self._fault("archive_state")
        with self._lock:
            return None if self._tables.archive is None else replace(self._tables.archive)

    def forget(self, remember: timedelta, *, limit: int = 10_000) -> int:
        """See `purging.Purging.forget`."""
        self._fault("forget")
        with self._lock:
            before = self._clock() - remember
            old = sorted((at, key) for key, at in self._tables.deleted.items() if at < before)[:limit]
            for _, key in old:
                del self._tables.ended[key]
                del self._tables.deleted[key]
            return len(old)
