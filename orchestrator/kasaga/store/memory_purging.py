"""Retention in memory: `purging.Purging` over the tables of `memory.MemoryStore`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from kasaga.store.base import FINAL_STATES, RENEWED, HistoryRow, SagaRow
from kasaga.store.memory_tables import Tables, summary
from kasaga.store.purging import Finished, Shortened


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

    def shorten(
        self,
        older_than: timedelta,
        names: Sequence[str] = (),
        *,
        others: bool = True,
        after: UUID | None = None,
        limit: int = 100,
    ) -> Shortened:
        """See `purging.Purging.shorten`."""
        self._fault("shorten")
        with self._lock:
            tables, before, deleted = self._tables, self._clock() - older_than, 0
            seen = [
                run
                for run, row in sorted(tables.sagas.items())
                if row.base > 1 and (after is None or run > after) and (row.name in names) != others
            ][:limit]
            for run in seen:
                history, base = tables.history[run], tables.sagas[run].base
                begun = [seq for seq, row in history.items() if row.kind == RENEWED and row.at < before]
                first = max((seq for seq in begun if seq <= base), default=0)
                gone = [seq for seq in history if seq < first]
                for seq in gone:
                    del history[seq]
                deleted += len(gone)
            return Shortened(deleted, seen[-1] if len(seen) == limit else None)

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
