"""What `memory.MemoryStore` keeps, and the checks of a batch against it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from uuid import UUID

from kasaga.store.base import (
    DefinitionRow,
    HistoryRow,
    Offsets,
    OpenCalls,
    OutboxRow,
    Pulse,
    RowKind,
    SagaRow,
    SagaState,
    SagaWrite,
    ShardRow,
    Suspect,
)
from kasaga.store.checks import refusal_of_row, refusal_of_write
from kasaga.store.hearing import Kept
from kasaga.store.purging import ArchiveState
from kasaga.store.scheduling import ScheduleRow
from kasaga_wire.attributes import Stored


def holds(until: datetime | None, seconds: float, now: datetime) -> bool:
    """Whether a lease of so many seconds holds: not where it ends later than any of that length could."""
    return until is not None and now < until <= now + timedelta(seconds=2 * seconds)


def timer_place(row: OutboxRow) -> tuple[datetime, int] | None:
    """Where a row comes in `Store.timers`; None: it doesn't."""
    asleep = row.kind is RowKind.TIMER and row.run_id is not None and row.due_at is not None
    return (row.due_at, row.seq) if asleep and row.due_at is not None else None


class Processes:
    """The rows of the table process."""

    def __init__(self) -> None:
        self._rows: dict[str, tuple[datetime, frozenset[str] | None]] = {}

    def beat(self, name: str, until: datetime, sagas: Sequence[str]) -> None:
        """Note until when a process lives, and which sagas it has if it says so."""
        known = self._rows.get(name)
        self._rows[name] = until, frozenset(sagas) if sagas else known[1] if known else None

    def leave(self, name: str) -> None:
        """Take it off the list."""
        self._rows.pop(name, None)

    def outlast(self, names: frozenset[str], passed: timedelta) -> None:
        """As if these had lived so much longer: for tests that leave heartbeats out."""
        for name in self._rows.keys() & names:
            until, sagas = self._rows[name]
            self._rows[name] = until + passed, sagas

    def alive(self, longest: float, now: datetime) -> list[str]:
        """Those that live, sorted."""
        return sorted(name for name, (until, _) in self._rows.items() if holds(until, longest, now))

    def sagas(self, longest: float, now: datetime, *, without: str = "") -> dict[str, frozenset[str]]:
        """What those that live say that they have."""
        rows = ((name, self._rows[name][1]) for name in self.alive(longest, now) if name != without)
        return {name: has for name, has in rows if has is not None}


@dataclass(slots=True)
class MemoryShard:
    """A shard's rows in the tables shard, position and suspect, and its last commit's answer."""

    number: int
    token: UUID | None = None
    epoch: int = 0
    owner: str | None = None
    until: datetime | None = None
    seconds: float = 0.0
    deaths: int = 0
    offsets: Offsets | None = None
    commit_seq: int = 0
    acked_seq: int = 0
    next_seq: int = 1
    now: datetime | None = None
    suspect: Suspect | None = None
    suspects: dict[UUID, Suspect] = field(default_factory=dict[UUID, Suspect])
    traced: datetime | None = None
    replaced: dict[UUID, str] = field(default_factory=dict[UUID, str])
    dropped: list[tuple[OutboxRow, str]] = field(default_factory=list[tuple[OutboxRow, str]])

    def taken(self, token: UUID, now: datetime, last_owner: str | None) -> ShardRow:
        """Return it as its new owner finds it."""
        return ShardRow(
            self.number,
            token,
            self.epoch,
            None if self.offsets is None else replace(self.offsets),
            self.commit_seq,
            self.acked_seq,
            self.next_seq,
            self.now or now,
            self.deaths,
            self.prime_suspect,
            self.traced,
            last_owner,
        )

    def take_mark(self, *, died: bool) -> None:
        """Take the mark away; if the owner has died with it, count that."""
        mark, self.suspect = self.suspect, None
        if died and mark is not None:
            known = self.suspects.get(mark.run_id, mark)
            place = mark.place or known.place
            self.suspects[mark.run_id] = Suspect(mark.run_id, place, known.deaths + 1)

    @property
    def prime_suspect(self) -> Suspect | None:
        """The saga that was marked at most deaths."""
        return min(self.suspects.values(), key=lambda each: (-each.deaths, each.run_id), default=None)


@dataclass(frozen=True, slots=True)
class Place:
    """A run's row in the table lock."""

    shard: int


@dataclass(slots=True)
class Tables:
    """What grows with the sagas, by primary key."""

    sagas: dict[UUID, SagaRow] = field(default_factory=dict[UUID, SagaRow])
    runs: dict[tuple[int, str], UUID] = field(default_factory=dict[tuple[int, str], UUID])
    history: dict[UUID, dict[int, HistoryRow]] = field(default_factory=dict[UUID, dict[int, HistoryRow]])
    outbox: dict[int, dict[int, OutboxRow]] = field(default_factory=dict[int, dict[int, OutboxRow]])
    attributes: dict[UUID, dict[str, Stored]] = field(default_factory=dict[UUID, dict[str, Stored]])
    ended: dict[tuple[int, str], SagaRow] = field(default_factory=dict[tuple[int, str], SagaRow])
    deleted: dict[tuple[int, str], datetime] = field(default_factory=dict[tuple[int, str], datetime])
    """Since when those are remembered that have `ended`."""
    heard: dict[tuple[str, str], tuple[datetime, Kept]] = field(
        default_factory=dict[tuple[str, str], tuple[datetime, Kept]]
    )
    """Records that are kept for who awaits them, in the order in which they came, and until when."""
    retention: dict[str, float] = field(default_factory=dict[str, float])
    locks: dict[str, dict[UUID, Place]] = field(default_factory=dict[str, dict[UUID, Place]])
    """By key: runs in the order in which they came."""
    archive: ArchiveState | None = None
    schedules: dict[str, ScheduleRow] = field(default_factory=dict[str, ScheduleRow])
    schemas: dict[bytes, str] = field(default_factory=dict[bytes, str])
    definitions: list[DefinitionRow] = field(default_factory=list[DefinitionRow])


class Staged:
    """What a batch adds, checked against what is there and against itself; nothing is applied yet."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._history: set[tuple[UUID, int]] = set()
        self._runs: set[UUID] = set()
        self._ids: set[tuple[int, str]] = set()
        self._rows: set[tuple[int, int]] = set()
        self.writes: list[SagaWrite] = []
        self.loose: list[OutboxRow] = []

    def add_loose(self, row: OutboxRow) -> str | None:
        """Take a loose row, or return why not."""
        refusal = refusal_of_row(row) or self._clash([row])
        if refusal is None:
            self._rows.add((row.shard, row.seq))
            self.loose.append(row)
        return refusal

    def add(self, write: SagaWrite) -> str | None:
        """Take a saga's rows, or return why not."""
        refusal = refusal_of_write(write) or self._clash(write.opens) or self._clash_of_saga(write)
        if refusal is not None:
            return refusal
        self.writes.append(write)
        self._rows.update((row.shard, row.seq) for row in write.opens)
        self._history.update((write.run_id, row.seq) for row in write.history)
        if write.new and write.saga is not None:
            self._runs.add(write.run_id)
            self._ids.add((write.shard, write.saga.saga_id))
        return None

    def _clash(self, rows: Sequence[OutboxRow]) -> str | None:
        keys = {(row.shard, row.seq) for row in rows}
        there = any(seq in self._tables.outbox.get(shard, {}) for shard, seq in keys)
        return "23505 outbox" if there or keys & self._rows or len(keys) < len(rows) else None

    def _clash_of_saga(self, write: SagaWrite) -> str | None:
        keys = {(write.run_id, row.seq) for row in write.history}
        known = self._tables.history.get(write.run_id, {})
        if keys & self._history or len(keys) < len(write.history) or any(seq in known for _, seq in keys):
            return "23505 history"
        if write.new and write.saga is not None:
            name = (write.shard, write.saga.saga_id)
            if write.run_id in self._tables.sagas or write.run_id in self._runs:
                return "23505 saga"
            if name in self._tables.runs or name in self._ids:
                return "23505 saga"
        return None


def summary(row: SagaRow, ended_at: datetime) -> SagaRow:
    """Return what is remembered of a purged saga."""
    return replace(
        row, updated_at=ended_at, step="", code="", reason="", remedy="", parked_code="", result=None
    )


def pulse(tables: Tables, now: datetime, seconds: float, slices: int, newest: int, rows: int) -> Pulse:
    """Return what `base.Store.pulse` tells."""
    recent = sorted(tables.sagas.values(), key=lambda row: row.run_id, reverse=True)[:newest]
    if len(recent) == newest:
        seconds = min(seconds, max((now - min(row.started_at for row in recent)).total_seconds(), 1.0))
    made = Pulse(now, seconds, [0] * slices, [0] * slices, [0] * slices, None, 0, [], more_open=False)

    def slice_of(at: datetime) -> int:
        return min(math.floor(slices + (at - now).total_seconds() * slices / seconds), slices - 1)

    took: list[float] = []
    for row in recent:
        if (slice_ := slice_of(row.started_at)) >= 0:
            made.started[slice_] += 1
        if row.ended_at is None or (slice_ := slice_of(row.ended_at)) < 0:
            continue
        if row.state is SagaState.COMPLETED:
            made.completed[slice_] += 1
            took.append((row.ended_at - row.started_at).total_seconds())
        elif row.state is SagaState.COMPENSATED:
            made.compensated[slice_] += 1
    if took:
        took.sort()
        made.latencies = (_percentile(took, 0.5), _percentile(took, 0.95), _percentile(took, 0.99))
    open_rows = (row for shard in tables.outbox.values() for row in shard.values())
    looked_at = list(islice((row for row in open_rows if row.kind is not RowKind.RECORD), rows))
    made.open_sagas = len({row.run_id for row in looked_at if row.run_id is not None})
    made.more_open = len(looked_at) >= rows
    calls: dict[tuple[RowKind, str], OpenCalls] = {}
    for each in looked_at:
        found = calls.setdefault((each.kind, each.topic), OpenCalls(each.kind, each.topic, 0, 0))
        found.rows, found.again = found.rows + 1, found.again + (each.attempt > 1)
    made.open_calls = [calls[key] for key in sorted(calls)]
    return made


def _percentile(values: Sequence[float], part: float) -> float:
    """Between the two nearest, as PostgreSQL's `percentile_cont`. The values are sorted."""
    place = part * (len(values) - 1)
    below = math.floor(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)
