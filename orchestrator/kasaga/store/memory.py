"""The store in memory: the same face and the same answers, for tests and the simulator.

Station: one object stands for one database and is shared by all simulated processes. The clock, the tokens
and the faults are given from outside, so that one seed gives one run. Rows are copied in and out, as a
database would.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from kasaga.search.conditions import matches
from kasaga.store.base import (
    FINAL_STATES,
    REPLACEMENT_TRIES,
    Attention,
    Batch,
    Committed,
    DefinitionRow,
    HistoryRow,
    Membership,
    Namespace,
    OutboxRow,
    Pulse,
    Replace,
    RowKind,
    SagaFilter,
    SagaRow,
    SagaState,
    SagaWrite,
    ShardLease,
    ShardRow,
    ShardWrite,
    Tokens,
)
from kasaga.store.checks import check_batch
from kasaga.store.errors import ContentRefused, LostShards
from kasaga.store.memory_hearing import MemoryHearing
from kasaga.store.memory_locks import MemoryLocks
from kasaga.store.memory_purging import MemoryPurging
from kasaga.store.memory_scheduling import MemoryScheduling
from kasaga.store.memory_tables import MemoryShard, Processes, Staged, Tables, holds, timer_place
from kasaga.store.memory_tables import pulse as pulse_of
from kasaga.store.search import condition_of
from kasaga_wire.attributes import merged


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _no_fault(_point: str) -> None:
    """Let everything pass."""


class MemoryStore(MemoryPurging, MemoryLocks, MemoryHearing, MemoryScheduling):
    """`base.Store` in memory; every method may be called by any thread."""

    def __init__(
        self,
        *,
        namespace: str = "test",
        shards: int = 16,
        clock: Callable[[], datetime] = _utc_now,
        tokens: Callable[[], UUID] = uuid4,
        fault: Callable[[str], None] = _no_fault,
    ) -> None:
        """`fault` is called with a point's name and may raise, as StoreUnavailable does.

        The points: the method's name before it does anything; `commit.done` when a batch is committed and
        its answer isn't given yet.
        """
        self._namespace = Namespace(namespace, shards)
        self._clock = clock
        self._make_token = tokens
        self._fault = fault
        self._lock = threading.RLock()
        self._shards = {number: MemoryShard(number) for number in range(shards)}
        self._processes = Processes()
        self._tables = Tables()

    def namespace(self) -> Namespace:
        """Return the namespace given at the start."""
        self._fault("namespace")
        return replace(self._namespace)

    # leases
    def heartbeat(
        self, process: str, tokens: Tokens, *, ttl: float, leaving: bool = False, sagas: Sequence[str] = ()
    ) -> Membership:
        """See `base.Store.heartbeat`."""
        self._fault("heartbeat")
        with self._lock:
            now = self._clock()
            self._processes.beat(process, now + timedelta(seconds=0.0 if leaving else ttl), sagas)
            for number, token in tokens:
                shard = self._shards.get(number)
                if shard is not None and shard.token == token:
                    shard.until, shard.seconds = now + timedelta(seconds=ttl), ttl
            longest = max([ttl, *(shard.seconds for shard in self._shards.values())])
            alive = self._processes.alive(longest, now)
            told = [] if leaving else [number for number, _ in tokens if number in self._shards]
            commits = {number: self._shards[number].commit_seq for number in told}
            others = self._processes.sagas(longest, now, without=process)
            return Membership(now, alive, self._leases(now), commits, others)

    def fleet(self) -> dict[str, frozenset[str]]:
        """See `base.Store.fleet`."""
        with self._lock:
            longest = max(shard.seconds for shard in self._shards.values())
            return self._processes.sagas(longest, self._clock())

    def claim(self, shard: int, process: str, *, ttl: float) -> ShardRow | None:
        """See `base.Store.claim`."""
        self._fault("claim")
        with self._lock:
            now = self._clock()
            row, token = self._shards.get(shard), self._make_token()
            if row is None:
                return None
            died = row.owner not in (None, process)
            if died and holds(row.until, row.seconds, now):
                return None
            row.deaths += died
            row.take_mark(died=died)
            last_owner = row.owner
            row.token, row.owner = token, process
            row.replaced, row.dropped = {}, []
            row.epoch += 1
            row.until, row.seconds = now + timedelta(seconds=ttl), ttl
            return row.taken(token, now, last_owner)

    def release(self, tokens: Sequence[tuple[int, UUID]], process: str | None = None) -> None:
        """See `base.Store.release`."""
        self._fault("release")
        with self._lock:
            for number, token in tokens:
                shard = self._shards.get(number)
                if shard is not None and shard.token == token:
                    shard.owner = shard.token = shard.until = None
                    shard.deaths, shard.suspects = 0, {}
            if process is not None:
                self._processes.leave(process)

    def pardon(self, shard: int, token: UUID) -> None:
        """See `base.Store.pardon`."""
        self._fault("pardon")
        with self._lock:
            row = self._shards.get(shard)
            if row is not None and row.token == token:
                row.deaths, row.suspect, row.suspects = 0, None, {}

    # reading, for the loop
    def open_rows(self, shard: int, *, acked: int = 0, asleep: bool = True) -> list[OutboxRow]:
        """See `base.Store.open_rows`."""
        self._fault("open_rows")
        with self._lock:
            found = sorted(self._tables.outbox.get(shard, {}).items())
        rows = [row for _, row in found if asleep or timer_place(row) is None]
        bare: dict[str, Any] = {"topic": "", "partition": None, "key": None, "payload": None}
        return [
            replace(row)
            if row.seq > acked or row.send_at is not None or row.kind > RowKind.RECORD
            else replace(row, headers=[], **bare)
            for row in rows
        ]

    def timers(self, shard: int, after: tuple[datetime, int] | None, limit: int) -> list[OutboxRow]:
        """See `base.Store.timers`."""
        self._fault("timers")
        with self._lock:
            rows = list(self._tables.outbox.get(shard, {}).values())
        found = [(place, row) for row in rows if (place := timer_place(row)) is not None]
        found = [each for each in found if after is None or each[0] > after]
        return [replace(row) for _, row in sorted(found, key=lambda each: each[0])[:limit]]

    def timers_behind(self, places: Sequence[tuple[int, datetime, int]]) -> int:
        """See `base.Store.timers_behind`."""
        return sum(len(self.timers(shard, (at, seq), sys.maxsize)) for shard, at, seq in places)

    def find(self, sagas: Sequence[tuple[int, str]]) -> dict[str, SagaRow]:
        """See `base.Store.find`."""
        self._fault("find")
        with self._lock:
            found = ((saga_id, self._find(shard, saga_id)) for shard, saga_id in sagas)
            return {saga_id: replace(row) for saga_id, row in found if row is not None}

    def _find(self, shard: int, saga_id: str) -> SagaRow | None:
        run_id = self._tables.runs.get((shard, saga_id))
        return self._tables.ended.get((shard, saga_id)) if run_id is None else self._tables.sagas[run_id]

    def find_runs(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, SagaRow]:
        """See `base.Store.find_runs`."""
        self._fault("find_runs")
        with self._lock:
            found = ((shard, self._tables.sagas.get(run_id)) for shard, run_id in runs)
            return {
                row.run_id: replace(row) for shard, row in found if row is not None and row.shard == shard
            }

    def load(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, list[HistoryRow]]:
        """See `base.Store.load`."""
        self._fault("load")
        with self._lock:
            tables = self._tables
            bases = {run: tables.sagas[run].base if run in tables.sagas else 1 for _, run in runs}
            return {
                run: self._history_of(run, bases[run]) for _, run in sorted(runs) if run in tables.history
            }

    def _history_of(self, run_id: UUID, base: int = 0) -> list[HistoryRow]:
        rows = sorted(self._tables.history.get(run_id, {}).items())
        return [replace(row) for seq, row in rows if base <= 1 or seq >= base]

    def parked(self, shard: int, code: str) -> list[UUID]:
        """See `base.Store.parked`."""
        self._fault("parked")
        with self._lock:
            return sorted(
                row.run_id
                for row in self._tables.sagas.values()
                if row.shard == shard and row.state is SagaState.STUCK and row.parked_code not in ("", code)
            )

    # reading, for the thread that exports spans
    def touched(self, shard: int, since: datetime, until: datetime, *, limit: int) -> list[UUID]:
        """See `base.Store.touched`."""
        self._fault("touched")
        with self._lock:
            found = (
                run_id
                for run_id, rows in sorted(self._tables.history.items())
                if self._tables.sagas[run_id].shard == shard
                and any(since <= row.at <= until for row in rows.values())
            )
            return list(islice(found, limit))

    def histories(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, list[HistoryRow]]:
        """See `base.Store.histories`."""
        self._fault("histories")
        with self._lock:
            return {run: self._history_of(run) for _, run in sorted(runs) if run in self._tables.history}

    # writing
    def commit(self, batch: Batch, replace: Replace) -> Committed:
        """See `base.Store.commit`."""
        self._fault("commit")
        check_batch(batch)
        with self._lock:
            now = self._clock()
            if not self._fence(batch.shards):
                shards = [self._shards[write.shard] for write in batch.shards]
                before = {run: text for shard in shards for run, text in shard.replaced.items()}
                return Committed(now, before, [entry for shard in shards for entry in shard.dropped])
            staged = Staged(self._tables)
            refusals = ((row, staged.add_loose(row)) for row in batch.loose)
            dropped = [(row, refusal) for row, refusal in refusals if refusal is not None]
            replaced: dict[UUID, str] = {}
            for write in batch.sagas:
                refusal = staged.add(write)
                if refusal is not None:
                    self._add_replacement(staged, replace, write, refusal)
                    replaced[write.run_id] = refusal
            self._apply(batch, staged)
            self._renew(batch.shards, now)
            runs = {write.run_id: write.shard for write in batch.sagas}
            for entry in batch.shards:
                shard = self._shards[entry.shard]
                shard.replaced = {run: text for run, text in replaced.items() if runs[run] == entry.shard}
                shard.dropped = [(row, text) for row, text in dropped if row.shard == entry.shard]
        self._fault("commit.done")
        return Committed(now, replaced, dropped)

    def _fence(self, writes: Sequence[ShardWrite]) -> bool:
        """Return whether the batch is new; raises LostShards."""
        lost: set[int] = set()
        astray: set[int] = set()
        known = 0
        for write in writes:
            shard = self._shards.get(write.shard)
            if shard is None or shard.token != write.token:
                lost.add(write.shard)
            elif shard.commit_seq == write.commit_seq:
                known += 1
            elif shard.commit_seq != write.commit_seq - 1:
                astray.add(write.shard)
        if known == len(writes):
            return False
        if known and not lost and not astray:
            astray = {write.shard for write in writes}
        if lost or astray:
            raise LostShards(frozenset(lost | astray), frozenset(astray))
        return True

    def _renew(self, writes: Sequence[ShardWrite], now: datetime) -> None:
        """Renew leases of which less than half is left, as the fence does."""
        for write in writes:
            shard = self._shards[write.shard]
            if shard.until is not None and shard.until < now + timedelta(seconds=shard.seconds / 2):
                shard.until = now + timedelta(seconds=shard.seconds)

    @staticmethod
    def _add_replacement(staged: Staged, make: Replace, write: SagaWrite, cause: str) -> None:
        refusal: str | None = cause
        for number in range(1, REPLACEMENT_TRIES + 1):
            refusal = staged.add(make(write, refusal or cause, number))
            if refusal is None:
                return
        raise ContentRefused(f"run {write.run_id}: {cause}; its replacement: {refusal}")

    def _apply(self, batch: Batch, staged: Staged) -> None:
        tables = self._tables
        for entry in batch.shards:
            shard = self._shards[entry.shard]
            shard.offsets, shard.commit_seq = replace(entry.offsets), entry.commit_seq
            shard.acked_seq, shard.next_seq = entry.acked_seq, entry.next_seq
            shard.now, shard.suspect, shard.traced = entry.now, entry.suspect, entry.traced
            if entry.acquitted is not None:
                shard.suspects.pop(entry.acquitted, None)
        for write in staged.writes:
            if write.history:
                history = tables.history.setdefault(write.run_id, {})
                history.update((row.seq, replace(row)) for row in write.history)
            if write.saga is not None:
                self._apply_saga(write.saga, new=write.new)
            if write.attributes:
                known = tables.attributes.get(write.run_id, {})
                tables.attributes[write.run_id] = merged(known, write.attributes)
            for key in write.frees:
                tables.locks.get(key, {}).pop(write.run_id, None)
        opens = [row for write in staged.writes for row in write.opens] + staged.loose
        for row in opens:
            tables.outbox.setdefault(row.shard, {})[row.seq] = replace(row, headers=list(row.headers))
        closes = [(write.shard, seq) for write in staged.writes for seq in write.closes]
        for number, seq in closes + batch.acked:
            tables.outbox.get(number, {}).pop(seq, None)

    def _apply_saga(self, row: SagaRow, *, new: bool) -> None:
        sagas = self._tables.sagas
        if new:
            sagas[row.run_id] = replace(row)
            self._tables.runs[row.shard, row.saga_id] = row.run_id
        elif row.run_id in sagas:
            old = sagas[row.run_id]
            sagas[row.run_id] = replace(
                row,
                saga_id=old.saga_id,
                name=old.name,
                input_hash=old.input_hash,
                started_at=old.started_at,
            )

    # schemas
    def put_schemas(self, schemas: Mapping[bytes, str]) -> None:
        """See `base.Store.put_schemas`."""
        self._fault("put_schemas")
        with self._lock:
            self._tables.schemas = {**schemas, **self._tables.schemas}

    def schemas(self) -> dict[bytes, str]:
        """See `base.Store.schemas`."""
        self._fault("schemas")
        with self._lock:
            return dict(self._tables.schemas)

    # what can be started
    def announce(self, definitions: Sequence[DefinitionRow]) -> None:
        """See `base.Store.announce`."""
        self._fault("announce")
        with self._lock:
            self._tables.definitions = list(definitions)

    def definitions(self) -> list[DefinitionRow]:
        """See `base.Store.definitions`."""
        self._fault("definitions")
        with self._lock:
            return sorted(self._tables.definitions, key=lambda each: (each.name, each.version))

    # reading, for people
    def list_sagas(self, where: SagaFilter, *, after: UUID | None = None, limit: int = 100) -> list[SagaRow]:
        """See `base.Store.list_sagas`."""
        self._fault("list_sagas")
        with self._lock:
            rows = sorted(self._matching(where), key=lambda row: row.run_id, reverse=True)
            return [replace(row) for row in rows if after is None or row.run_id < after][:limit]

    def count(self, where: SagaFilter) -> dict[SagaState, int]:
        """See `base.Store.count`."""
        counts: dict[SagaState, int] = {}
        for (_, state), number in self.tally(where).items():
            counts[state] = counts.get(state, 0) + number
        return counts

    def tally(self, where: SagaFilter) -> dict[tuple[str, SagaState], int]:
        """See `base.Store.tally`."""
        self._fault("count")
        with self._lock:
            return Counter((row.name, row.state) for row in self._matching(where))

    def attention(self, shards: Sequence[int]) -> list[Attention]:
        """See `base.Store.attention`."""
        self._fault("attention")
        found: dict[tuple[str, SagaState], Attention] = {}
        now = self._clock()
        with self._lock:
            for row in self._tables.sagas.values():
                if (
                    row.shard in shards
                    and row.state is not SagaState.RUNNING
                    and row.state not in FINAL_STATES
                ):
                    age = (now - row.updated_at).total_seconds()
                    known = found.setdefault((row.name, row.state), Attention(row.name, row.state, 0, age))
                    known.sagas, known.oldest = known.sagas + 1, max(known.oldest, age)
        return list(found.values())

    def _matching(self, where: SagaFilter) -> Iterator[SagaRow]:
        condition, attributes = condition_of(where), self._tables.attributes
        for row in self._tables.sagas.values():
            found = replace(row, attributes=dict(attributes.get(row.run_id, {})))
            if matches(condition, found):
                yield found

    def pulse(
        self, *, seconds: float = 300.0, slices: int = 60, newest: int = 10_000, rows: int = 50_000
    ) -> Pulse:
        """See `base.Store.pulse`."""
        self._fault("pulse")
        with self._lock:
            return pulse_of(self._tables, self._clock(), seconds, slices, newest, rows)

    def saga(self, saga_id: str) -> SagaRow | None:
        """See `base.Store.saga`."""
        self._fault("saga")
        with self._lock:
            found = (self._find(shard, saga_id) for shard in self._shards)
            row = next((row for row in found if row is not None), None)
            known = self._tables.attributes
            return row and replace(row, attributes=dict(known.get(row.run_id, {})))

    def history(self, row: SagaRow, *, since: int = 0) -> Iterable[HistoryRow]:
        """See `base.Store.history`."""
        self._fault("history")
        with self._lock:
            return self._history_of(row.run_id, since)

    def waits(self, row: SagaRow) -> list[OutboxRow]:
        """See `base.Store.waits`."""
        self._fault("waits")
        with self._lock:
            rows = sorted(self._tables.outbox.get(row.shard, {}).items())
            return [replace(found) for _, found in rows if found.run_id == row.run_id]

    def waiting(self, shard: int, *, after: int = 0, limit: int = 500) -> tuple[list[SagaRow], int | None]:
        """See `base.Store.waiting`."""
        self._fault("waiting")
        with self._lock:
            page = [row for row in sorted(self._tables.outbox.get(shard, {}).items()) if row[0] > after][
                :limit
            ]
            runs = dict.fromkeys(row.run_id for _, row in page if row.run_id is not None)
            sagas = [self._tables.sagas[run_id] for run_id in runs if run_id in self._tables.sagas]
            return [replace(row) for row in sagas], page[-1][0] if len(page) == limit else None

    def shards(self) -> list[ShardLease]:
        """See `base.Store.shards`."""
        self._fault("shards")
        with self._lock:
            return self._leases(self._clock())

    def _leases(self, now: datetime) -> list[ShardLease]:
        return [
            ShardLease(
                number,
                row.owner,
                row.owner is not None and row.until is not None and not holds(row.until, row.seconds, now),
            )
            for number, row in sorted(self._shards.items())
        ]

    def close(self) -> None:
        """Do nothing: the rows stay, as a database's do."""
