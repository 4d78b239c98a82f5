"""Going on where the last audit ended: each saga is compared once after its end, and again while it is wrong.

Station: between the command line and `walk.py`. What it has to remember is kept by a `Book` in the
orchestrator's database: a job in a pod has no disk of its own, and whoever looks by hand goes on where that
ended.

How far a shard has come is told by the time of its last commit: an owner's time never goes back, so what ends
later in this shard has a later time. Two owners' clocks may differ by a little: the last minute is looked at
twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from ..store.audit import Book, Ends, Runs
from ..store.base import SagaRow, Store
from .compare import Verdict
from .facts import SagaFacts
from .walk import Auditor, ended, stuck

OVERLAP = timedelta(minutes=1)
"""By how much the clocks of two owners of a shard may differ. They all go by the database's."""

IDLE = timedelta(days=1)
"""A shard without commits is taken to be as far as this long ago: whoever is frozen for longer, and then
commits what was decided before, with nobody having taken the shard meanwhile, escapes the audit."""

BEGINNING = timedelta(days=60)
"""How far back the first audit goes, unless it is told: as long as sagas are kept, and as much again."""

MAX_OPEN = 10_000
"""Sagas that something is wrong with; with more, audits don't go on before these are mended."""

Results = Iterable[tuple[SagaFacts, Verdict]]


class Resumed:
    """One audit that goes on from the last one."""

    def __init__(
        self, store: Store, ends: Ends, book: Book, auditor: Auditor, *, now: datetime, since: datetime | None
    ) -> None:
        """`since`: where the first audit of this name begins."""
        self._store = store
        self._ends = ends
        self._book = book
        self._auditor = auditor
        self._now = now
        self._since = since or now - BEGINNING
        self._stays = False
        """Somebody didn't answer: the next audit has to begin there again."""
        self._seen: set[object] = set()

    def audit(self, name: str = "") -> Iterator[tuple[SagaFacts, Verdict]]:
        """First what was wrong the last time, then what has ended since, then what is STUCK."""
        open_ = self._book.open(MAX_OPEN + 1)
        self._stays = len(open_) > MAX_OPEN
        rows = self._store.find_runs(open_) if open_ else {}
        gone = [run for run in open_ if run[1] not in rows]
        self._book.note([], gone)
        self._seen = {run_id for _, run_id in open_}
        yield from self._noted(rows.values())
        shards = self._bounds()
        for until, found in ended(self._ends, shards):
            fresh = [row for row in found if (not name or row.name == name) and row.run_id not in self._seen]
            yield from self._noted(fresh)
            if not self._stays:
                self._book.keep(_reached(shards, until))
        yield from self._auditor.audit(
            row for row in stuck(self._store, name) if row.run_id not in self._seen
        )

    def _noted(self, rows: Iterable[SagaRow]) -> Iterator[tuple[SagaFacts, Verdict]]:
        """Compare, and note what is wrong before the position moves past it."""
        wrong: Runs = []
        well: Runs = []
        for facts, verdict in self._auditor.audit(rows):
            run = (facts.row.shard, facts.row.run_id)
            if verdict.unanswered:
                self._stays = True
            elif verdict.findings:
                wrong.append(run)
            elif facts.row.run_id in self._seen and not verdict.unknowable:
                well.append(run)  # what was wrong and can't be known any more isn't well
            yield facts, verdict
        self._book.note(wrong, well)

    def mended(self, rows: Iterable[SagaRow]) -> None:
        """Somebody has mended these by hand: they aren't looked at again."""
        self._book.note([], [(row.shard, row.run_id) for row in rows])

    def _bounds(self) -> dict[int, tuple[datetime, datetime]]:
        """Between what each shard is looked at now; those in which nothing was committed aren't."""
        positions, commits = self._book.positions(), self._ends.bounds()
        bounds: dict[int, tuple[datetime, datetime]] = {}
        idle: dict[int, datetime] = {}
        for lease in self._store.shards():
            shard = lease.shard
            last = positions.get(shard)
            until = commits.get(shard)
            if until is not None and (last is None or until > last):
                bounds[shard] = (self._since if last is None else last - OVERLAP, until)
            elif last is not None and last < self._now - IDLE:
                idle[shard] = self._now - IDLE
        self._book.keep(idle)
        return bounds


def _reached(shards: Mapping[int, tuple[datetime, datetime]], until: datetime) -> dict[int, datetime]:
    return {shard: min(until, end) for shard, (since, end) in shards.items() if since < until}
