"""Which sagas are audited, how fast, and looking twice before anything is called wrong.

Station: the command line gives it sagas and inboxes, and takes verdicts. Nothing here writes, locks, or keeps
more than a batch of sagas.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from ..store.audit import Ends, Slice
from ..store.base import SagaFilter, SagaRow, SagaState, Store
from .compare import Verdict, compare
from .facts import SagaFacts, gather
from .inboxes import Inbox, Seen, Unanswered

BATCH = 100
"""Sagas that are compared together: one question to each participant."""

LIMIT = 1_000
"""Sagas that one question of the database may find at work."""

ALL = 1_000_000
"""The same of the shortest slice: what one moment brings is bounded by the orchestrators' batches."""

FIRST, SHORTEST, LONGEST = timedelta(seconds=1), timedelta(milliseconds=1), timedelta(days=30)
"""How long the slices of time are that are asked for: they grow where little happened."""

PAGE = 100
"""STUCK sagas read at a time."""

LOOKS = 3
"""How often a saga that goes on while it is compared is looked at; then it is left for the next audit."""


class Pace:
    """So many sagas a second at most."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._next = time.monotonic()

    def spend(self, sagas: int) -> None:
        """Wait until the next sagas may be read."""
        wait = self._next - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        self._next = max(self._next, time.monotonic()) + sagas / self._rate


@dataclass(slots=True)
class Inboxes:
    """The inboxes of an audit, by participant. One that didn't answer is asked no more."""

    find: Callable[[str], Inbox]
    silent: dict[str, Unanswered] = field(default_factory=dict[str, Unanswered])
    _open: dict[str, Inbox] = field(default_factory=dict[str, Inbox])

    def read(self, wanted: Mapping[str, list[str]]) -> dict[str, Seen]:
        """What those say that answer, by participant. `wanted`: run ids by participant."""
        seen: dict[str, Seen] = {}
        for participant, runs in sorted(wanted.items()):
            if participant in self.silent:
                continue
            try:
                if participant not in self._open:
                    self._open[participant] = self.find(participant)
                seen[participant] = self._open[participant].read(runs)
            except Unanswered as error:
                self.silent[participant] = error
        return seen

    def close(self) -> None:
        """Close them all."""
        for inbox in self._open.values():
            inbox.close()


class Auditor:
    """Compares sagas, batch by batch."""

    def __init__(
        self,
        store: Store,
        inboxes: Inboxes,
        pace: Pace,
        *,
        confirm: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`confirm`: seconds after which what seems wrong is looked at again. `clock`: seconds since 1970."""
        self._store = store
        self._inboxes = inboxes
        self._pace = pace
        self._confirm = confirm
        self._clock = clock

    def audit(self, rows: Iterable[SagaRow]) -> Iterator[tuple[SagaFacts, Verdict]]:
        """Compare these sagas; those that have been purged meanwhile are left out."""
        left = iter(rows)
        while batch := tuple(islice(left, BATCH)):
            self._pace.spend(len(batch))
            looked = self._look(batch)
            suspects = [facts.row for facts, verdict in looked if verdict.findings]
            again = self._look_again(suspects) if suspects else {}
            for facts, verdict in looked:
                if not verdict.findings:
                    yield facts, verdict
                elif facts.row.run_id in again:
                    yield again[facts.row.run_id]

    def _look(self, rows: Iterable[SagaRow]) -> list[tuple[SagaFacts, Verdict]]:
        """One look: the histories, then the inboxes."""
        found = [facts for facts in map(self._facts, rows) if facts.last_seq]
        wanted: dict[str, list[str]] = {}
        for facts in found:
            for participant in facts.participants:
                wanted.setdefault(participant, []).append(str(facts.row.run_id))
        seen = self._inboxes.read(wanted)
        now = self._clock()
        return [(facts, compare(facts, seen, now)) for facts in found]

    def _facts(self, row: SagaRow) -> SagaFacts:
        return gather(row, ((each.seq, each.body) for each in self._store.history(row)))

    def _look_again(self, rows: list[SagaRow]) -> dict[UUID, tuple[SagaFacts, Verdict]]:
        """Look at what seems wrong once more; a verdict counts if the history didn't grow meanwhile."""
        settled: dict[UUID, tuple[SagaFacts, Verdict]] = {}
        for _ in range(LOOKS):
            if not rows:
                break
            time.sleep(self._confirm)
            looked = self._look(self._fresh(rows))
            latest = {row.run_id: row for row in self._fresh([facts.row for facts, _ in looked])}
            rows = []
            for facts, verdict in looked:
                row = latest.get(facts.row.run_id)
                if row is None:
                    continue  # it was purged
                if facts.final or self._facts(row).last_seq == facts.last_seq:
                    settled[row.run_id] = (facts, verdict)
                else:
                    rows.append(row)
        return settled

    def _fresh(self, rows: Iterable[SagaRow]) -> list[SagaRow]:
        return list(self._store.find_runs([(row.shard, row.run_id) for row in rows]).values())


def ended(
    ends: Ends, shards: Mapping[int, tuple[datetime, datetime]]
) -> Iterator[tuple[datetime, list[SagaRow]]]:
    """Sagas by when they ended, each shard between bounds of its own: slices of time, and where each ends."""
    if not shards:
        return
    at, end = min(since for since, _ in shards.values()), max(until for _, until in shards.values())
    length = FIRST
    while at < end:
        until = min(at + length, end)
        found = ends.ended(Slice(at, until, shards), limit=LIMIT)
        if found is None and length > SHORTEST:
            length = max(SHORTEST, length / 4)
            continue
        if found is None:
            found = ends.ended(Slice(at, until, shards), limit=ALL) or []
        yield until, found
        at = until
        if len(found) < LIMIT // 4:
            length = min(LONGEST, length * 2)


def stuck(store: Store, name: str = "") -> Iterator[SagaRow]:
    """The sagas that are STUCK now, by pages of their index."""
    after: UUID | None = None
    while page := store.list_sagas(SagaFilter(states=[SagaState.STUCK], name=name), after=after, limit=PAGE):
        yield from page
        after = page[-1].run_id
