"""Deletes finished sagas after their time, in small slices, off the loop's thread.

Only the owner of shard 0 does it, for all shards: one slice after the other is what bounds the database's
extra work, however many processes there are. Two at a time, while that shard changes hands, do no harm.
What is left of a deleted saga is its id and outcome, until nobody can start it again by a late duplicate.

A child that its parent may still take back stays, until no saga above it runs, and for its own time after.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import KasagaError, ObjectsUnavailable
from kasaga_wire.kafka import partition_for

from ..engine.codec import HistoryUnreadable, decode
from ..engine.kinship import Parent
from ..engine.model import Started
from ..engine.renewals import Continue
from ..store.base import HistoryRow, SagaRow, Store, StoreUnavailable
from .metrics import Metrics

if TYPE_CHECKING:
    from kasaga_wire.claims import Claims

    from ..archive import Archiver

log = logging.getLogger("kasaga.orchestrator")

ROUND_SECONDS = 60.0
PAUSE_SECONDS = 0.1
"""Between two slices, at least, or as long as the last one took: the loop's commits go first."""
SLICE = 500
"""Sagas looked at in one slice."""
CLOSE_SECONDS = 5.0
"""How long an archive may still write when the process ends. What isn't written by then is written again."""
CLEARERS = 8
"""Sagas whose objects are deleted at a time: each is a question of its own."""
TOGETHER = 100
"""Sagas deleted in one transaction."""
WHOLE_SECONDS = 3600.0
"""So often a round looks at all that began early enough; the others go on where the last one ended."""
BACK = timedelta(hours=1)
"""… less so much: of what began then, most has ended since."""
FOREVER = timedelta.max
UNREADABLE = UUID(int=0)
"""Stands for the parent of a saga whose beginning can't be read."""


class Pass(NamedTuple):
    """The sagas that are kept equally long."""

    keep: timedelta
    names: tuple[str, ...]
    others: bool
    """All but `names`."""


def period_of(days: float) -> timedelta:
    """Return days as a length of time; FOREVER for those without end, and those beyond it."""
    return _length(days * 86_400)


def _length(seconds: float) -> timedelta:
    return timedelta(seconds=seconds) if seconds < FOREVER.total_seconds() / 1000 else FOREVER


def passes(keep: timedelta, said: dict[str, float]) -> list[Pass]:
    """Return what a round does: the sagas of each period that ends. `said`: seconds by name."""
    periods: dict[timedelta, list[str]] = {}
    for name, seconds in sorted(said.items()):
        periods.setdefault(_length(seconds), []).append(name)
    made = [Pass(period, tuple(names), others=False) for period, names in sorted(periods.items())]
    made.append(Pass(keep, tuple(sorted(said)), others=True))
    return [each for each in made if each.keep < FOREVER]


class Retention:
    """A thread that purges while `on_duty` says so."""

    def __init__(
        self,
        store: Store,
        on_duty: Callable[[], bool],
        *,
        metrics: Metrics,
        keep: timedelta,
        remember: timedelta,
        archive: Archiver | None = None,
        claims: Claims | None = None,
        interval: float = ROUND_SECONDS,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`keep` finished sagas so long, unless their definition says it, `remember` their ids after that.

        With an `archive` they are written there first, and kept for as long as it doesn't take them. With
        `claims` their payloads' objects are deleted before them, and they are kept while that can't be.
        """
        self._store, self._on_duty, self._metrics = store, on_duty, metrics
        self._keep, self._remember, self._archive, self._claims = keep, remember, archive, claims
        self._interval, self._clock = interval, clock
        self._looked: dict[Pass, tuple[UUID, float]] = {}
        """How far the last round has come, and when the last whole one was."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kasaga-retention", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                if self._on_duty():
                    self.round()
                else:
                    self._metrics.off_duty()
            except (StoreUnavailable, KasagaError) as error:  # of the archive, too
                self._metrics.not_deleted()
                log.warning("finished sagas are not deleted now", extra={"error": str(error)})
            except Exception:
                # The thread lives: what breaks a round may be gone tomorrow, and nobody would begin it anew.
                self._metrics.not_deleted()
                log.exception("finished sagas are not deleted now")

    def round(self) -> int:
        """Delete all that is old enough; returns how many sagas. Raises StoreUnavailable."""
        shards = self._store.namespace().shards
        deleted = 0
        for each in passes(self._keep, self._store.retained()):
            deleted += self._pass(each, shards)
            self._shorten(each)
        while not self._stop.is_set() and self._store.forget(self._remember, limit=SLICE * 10) == SLICE * 10:
            self._stop.wait(PAUSE_SECONDS)
        if deleted:
            log.info("finished sagas deleted", extra={"sagas": deleted})
        return deleted

    def _pass(self, each: Pass, shards: int) -> int:
        deleted = 0
        began, reached = time.monotonic(), _run_id_of(self._clock() - each.keep - BACK)
        after, whole = self._looked.get(each, (None, began))
        if after is None or began - whole >= WHOLE_SECONDS:
            after, whole = None, began
        while not self._stop.is_set() and self._on_duty():
            started = time.monotonic()
            slice_ = self._store.finished(each.keep, each.names, others=each.others, after=after, limit=SLICE)
            free = self._free(slice_.rows, shards, each.keep)
            for together in self._safely(free):
                crash_point("retention.archived")
                self._clear(together)
                gone = self._store.delete(together)
                self._metrics.deleted(gone)
                deleted += gone
                if self._stop.is_set():
                    return deleted
            after = slice_.after
            if after is None:
                self._looked[each] = reached, whole
                break
            self._stop.wait(max(PAUSE_SECONDS, time.monotonic() - started))
        return deleted

    def _clear(self, rows: Sequence[SagaRow]) -> None:
        """Delete objects before their sagas: no history needs one. Raises ObjectsUnavailable."""
        if self._claims is None:
            return
        try:
            with ThreadPoolExecutor(CLEARERS) as threads:
                gone = sum(threads.map(self._claims.clear, [str(row.run_id) for row in rows]))
        except ObjectsUnavailable:
            self._metrics.object("delete", well=False)
            raise
        self._metrics.object("delete", well=True, times=gone)
        crash_point("retention.cleared")

    def _safely(self, free: Sequence[SagaRow]) -> Iterator[Sequence[SagaRow]]:
        """What may be deleted now, in parts: with an archive, what is in it."""
        if self._archive is not None:
            yield from self._archive.written(free)
            return
        for first in range(0, len(free), TOGETHER):
            yield free[first : first + TOGETHER]

    def _shorten(self, each: Pass) -> None:
        """Delete ended runs of sagas that live on. Those that live so are few: all are looked at."""
        after: UUID | None = None
        while not self._stop.is_set() and self._on_duty():
            started = time.monotonic()
            found = self._store.ended_runs(
                each.keep, each.names, others=each.others, after=after, limit=TOGETHER
            )
            for runs in found.runs:
                if self._stop.is_set():
                    return
                if self._archive is None or self._archive.write_earlier(runs):
                    self._store.cut(runs)
            after = found.after
            if after is None:
                return
            self._stop.wait(max(PAUSE_SECONDS, time.monotonic() - started))

    def _free(self, rows: Sequence[SagaRow], shards: int, keep: timedelta) -> list[SagaRow]:
        """Leave out those that a saga above them may still take back.

        Only a parent moves a saga out of its end. So one whose whole line above has ended, stays so.
        """
        before = self._clock() - keep
        parents: dict[UUID, UUID | None] = {}
        above: dict[UUID, SagaRow] = {}
        level = [(row.shard, row.run_id) for row in rows]
        while level:
            found = self._parents(level, shards)
            parents |= {run: parent and parent[1] for run, parent in found.items()}
            above |= self._store.standing(sorted({parent for parent in found.values() if parent is not None}))
            level = [(row.shard, run) for run, row in above.items() if run not in parents]
        kept = {run for run, row in above.items() if row.ended_at is None or row.ended_at >= before}
        kept.add(UNREADABLE)
        return [row for row in rows if kept.isdisjoint(_line(row.run_id, parents))]

    def _parents(self, runs: Sequence[tuple[int, UUID]], shards: int) -> dict[UUID, tuple[int, UUID] | None]:
        """Of each run shard and run of its parent; None: it has none, or no history."""
        found: dict[UUID, tuple[int, UUID] | None] = dict.fromkeys(run for _, run in runs)
        for run, entry in self._store.beginnings(runs).items():
            try:
                found[run] = _parent_of(entry, shards)
            except (HistoryUnreadable, ValueError) as error:
                extra = {"run_id": str(run), "error": str(error)[:200]}
                log.warning("a finished saga is kept: its history can't be read", extra=extra)
                found[run] = 0, UNREADABLE
        return found

    def close(self) -> None:
        """End the thread after the transaction at hand; an archive that hangs isn't waited for."""
        self._stop.set()
        self._thread.join(None if self._archive is None else CLOSE_SECONDS)


def _line(run: UUID, parents: Mapping[UUID, UUID | None]) -> set[UUID]:
    """Return all above a saga, and whether one of them can't be read."""
    line: set[UUID] = set()
    parent = parents.get(run)
    while parent is not None and parent not in line:
        line.add(parent)
        parent = parents.get(parent)
    return line


def _parent_of(entry: HistoryRow, shards: int) -> tuple[int, UUID] | None:
    """Shard and run of the saga that began this one. Raises HistoryUnreadable or ValueError."""
    record = decode(entry.seq, entry.body)
    event = record.event
    parent = event.parent if isinstance(event, Started) else None
    for decision in record.decisions:
        if isinstance(decision, Continue) and decision.parent:
            parent = Parent(*decision.parent)  # the beginning is deleted; a later run begins the history
    if parent is None:
        return None
    run_id = UUID(parent.command.partition(".")[0])
    return partition_for(parent.saga_id.encode(), shards), run_id


def _run_id_of(at: datetime) -> UUID:
    """The first UUIDv7 of a time: what began before it is below."""
    return UUID(int=max(0, math.floor(at.timestamp() * 1000)) << 80)
