"""One batch in the making: what the turn has decided and not committed yet."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from ..engine.decide import Run
from ..engine.model import Event, Faulted, Record
from ..engine.notes import EndedFields
from ..engine.step import Step
from ..store.base import Batch, Offsets, OutboxRow, SagaWrite, ShardWrite, Suspect
from .clock import to_datetime
from .early import is_kept
from .relay import Relay
from .rows import Addresses, add_record, uuid_of
from .shards import Shard
from .tracing import NO_TRACER, Tracing

SPARE_ROWS = 100_000
"""Outbox sequence numbers kept free behind each commit, for the sagas that the store makes us park in it.
Only a new owner skips them, so that they may be many."""


Key = tuple[int, str]
"""What tells a saga from all others: its shard and its run's id."""


class Happened(NamedTuple):
    """One decision, for metrics and traces. The run may have gone on by the time that it is looked at."""

    shard: int
    run: Run
    record: Record
    ended: list[EndedFields]
    """The attempts that it ended."""
    steps: Mapping[str, Step]
    """All that the record may be about, also those of a run that it has ended."""

    @property
    def key(self) -> Key:
        """Whose decision it is."""
        return self.shard, self.run.state.run_id


class Parked(NamedTuple):
    """What stands in the place of a saga's rows that can't be decided or stored."""

    write: SagaWrite
    records: list[Happened]


class Work:
    """The rows, per saga, of one transaction. Made again from nothing for the next one."""

    def __init__(self, where: Addresses, fingerprint: str) -> None:
        self._where = where
        self._fingerprint = fingerprint
        self.writes: dict[Key, SagaWrite] = {}
        self.events: dict[Key, list[Event]] = {}
        """What was decided of each saga, should the store refuse its rows."""
        self.faults: dict[Key, Faulted] = {}
        """Why a saga is parked by this batch: whatever else comes for it is recorded undecided."""
        self.convicted: set[int] = set()
        """The shards whose convicted saga this batch parks."""
        self.replacements: dict[Key, Parked] = {}
        """What the store was given instead."""
        self.records: list[Happened] = []
        """What was decided, in order."""
        self._homes: dict[str, int] = {}
        """In which shard each run of the batch is."""
        self.loose: list[OutboxRow] = []
        self.delivered: dict[tuple[int, int], OutboxRow] = {}
        """Kept signals that are given to their sagas, or given up."""
        self.shards: dict[int, Shard] = {}
        self.offsets: dict[int, Offsets] = {}
        """Where each touched shard goes on to read; the shard's own offsets move with the commit."""

    def touch(self, shard: Shard) -> Offsets:
        """Have the shard's offsets written, whatever else is; returns those to be written."""
        offsets = self.offsets.get(shard.number)
        if offsets is None:
            self.shards[shard.number] = shard
            offsets = self.offsets[shard.number] = replace(shard.offsets)
        return offsets

    def add(self, shard: Shard, run: Run, record: Record) -> None:
        """Take one saga's decision."""
        state = run.state
        key = (shard.number, state.run_id)
        write = self.writes.get(key)
        if write is None:
            write = self.writes[key] = SagaWrite(shard.number, uuid_of(state.run_id))
            self._homes[state.run_id] = shard.number
        add_record(write, state, record, self._where, self._fingerprint)
        self.events.setdefault(key, []).append(record.event)
        self.records.append(Happened(shard.number, run, record, state.ended, state.known_steps))
        shard.next_row = state.row
        self.touch(shard)

    def elsewhere(self, run_id: str, shard: int) -> bool:
        """Say whether the batch holds a saga of another shard with this run id."""
        return bool(run_id) and self._homes.get(run_id, shard) != shard

    def park(self, shard: Shard, run_id: str, parked: Parked) -> None:
        """Take this instead of all that was decided of a saga."""
        key = (shard.number, run_id)
        self.writes[key] = parked.write
        self._homes[run_id] = shard.number
        self.records = [each for each in self.records if each.key != key] + parked.records
        self.touch(shard)

    def add_loose(self, shard: Shard, make: Callable[[int], OutboxRow]) -> None:
        """Take a record that belongs to no saga; `make` gets its sequence number."""
        self.loose.append(make(shard.next_row))
        shard.next_row += 1
        self.touch(shard)

    def deliver(self, shard: Shard, row: OutboxRow) -> None:
        """Take a kept signal's row away."""
        self.delivered[row.shard, row.seq] = row
        self.touch(shard)

    def keep(self, dropped: Container[tuple[int, int]]) -> None:
        """After the commit: remember signals that are kept now, and forget those that aren't any more."""
        for row in self.loose:
            if is_kept(row) and row.shard in self.shards and (row.shard, row.seq) not in dropped:
                self.shards[row.shard].keep(row)
        for row in self.delivered.values():
            if row.shard in self.shards:
                self.shards[row.shard].forget(row)

    def lose(self, lost: set[int]) -> None:
        """Leave out everything of shards that aren't ours any more."""
        self.writes = {key: write for key, write in self.writes.items() if write.shard not in lost}
        self.records = [each for each in self.records if each.shard not in lost]
        self.loose = [row for row in self.loose if row.shard not in lost]
        for number in lost:
            self.shards.pop(number, None)

    def keep_replacements(self, replaced: Container[UUID]) -> None:
        """Forget those that the store asked for and didn't write in the end."""
        self.replacements = {
            key: parked for key, parked in self.replacements.items() if parked.write.run_id in replaced
        }

    def written(self, batch: Batch) -> list[SagaWrite]:
        """Return what the store has written of each saga, its own rows or those of its replacement."""
        if not self.replacements:
            return batch.sagas
        parked = [self.replacements.get((write.shard, str(write.run_id))) for write in batch.sagas]
        return [
            other.write if other is not None else write
            for write, other in zip(batch.sagas, parked, strict=True)
        ]

    @property
    def happened(self) -> list[Happened]:
        """What the store has written down, of each saga in order."""
        if not self.replacements:
            return self.records
        kept = [each for each in self.records if each.key not in self.replacements]
        return kept + [each for parked in self.replacements.values() for each in parked.records]

    def batch(
        self, relay: Relay, now: int, suspect: Suspect | None = None, tracer: Tracing = NO_TRACER
    ) -> Batch:
        """Return the transaction's rows. Call it once; the same batch is submitted until it is known."""
        writes: list[ShardWrite] = []
        acked: list[tuple[int, int]] = []
        for shard in self.shards.values():
            shard.now = max(shard.now, now)
            mark = tracer.mark(shard.number, now)
            shard.untraced = mark is not None and (mark < now or bool(self.records))
            writes.append(
                ShardWrite(
                    shard=shard.number,
                    token=shard.token,
                    commit_seq=shard.commit_seq + 1,
                    offsets=shard.hold_back(self.offsets[shard.number]),
                    acked_seq=relay.acknowledged(shard.number, shard.sent_row),
                    next_seq=shard.next_row + SPARE_ROWS,
                    now=to_datetime(shard.now),
                    suspect=suspect,
                    acquitted=self._acquitted(shard),
                    traced=to_datetime(mark) if mark is not None else None,
                )
            )
            acked += relay.take_acked(shard.number)
        acked += [key for key in self.delivered if key[0] in self.shards]
        return Batch(writes, list(self.writes.values()), self.loose, acked)

    def _acquitted(self, shard: Shard) -> UUID | None:
        culprit = shard.convicted if shard.number in self.convicted else None
        return culprit.run_id if culprit is not None else None
