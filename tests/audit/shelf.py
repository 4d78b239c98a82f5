"""A store and inboxes that hold many copies of a few sagas that were really played."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import pytest

from kasaga.audit.inboxes import InboxRow, Memory, Seen, Unanswered
from kasaga.store.audit import Slice
from kasaga.store.base import HistoryRow, SagaFilter, SagaRow, SagaState, ShardLease, Store
from kasaga.testing import Case, Fault, case
from kasaga.testing.services import Services, Virtual
from kasaga.testing.world import World
from testing.bookings import SERVED, Trip, trip

NOON = datetime(2031, 5, 1, 12, tzinfo=UTC)
SHARDS = 4


@dataclass(frozen=True)
class Played:
    """One saga as it ended: its row, its history, and each inbox's rows by path."""

    row: SagaRow
    history: list[HistoryRow]
    inboxes: Mapping[str, list[InboxRow]]


def play(*faults: Fault) -> Played:
    """Play a trip, and take everything down."""
    played: list[Played] = []
    begin: Callable[..., Any] = Services.begin
    virtuals: dict[str, Virtual] = {}

    def begun(self: Services, clock: Any) -> Any:
        made, data = begin(self, clock)
        virtuals.update(made)
        return made, data

    class Watched(World):
        def run(self, payload: bytes) -> None:
            super().run(payload)
            run_id = str(self.row.run_id)
            inboxes = {
                name: [
                    InboxRow(row.id.partition(".")[2], row.type, row.outcome, row.input_hash, row.result_hash)
                    for row in virtual.inbox.examine([run_id], "", 1000)
                ]
                for name, virtual in virtuals.items()
            }
            played.append(Played(self.row, list(self.store.history(self.row)), inboxes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Services, "begin", begun)
        patch.setattr(case, "World", Watched)
        Case(trip, Trip(id="t-1"), **SERVED).run(faults)
    return played[0]


@dataclass
class Shelf:
    """What `Auditor` needs of a store, of an end and of inboxes. `log` says in which order it was asked."""

    sagas: dict[UUID, tuple[SagaRow, list[HistoryRow]]] = field(default_factory=dict[Any, Any])
    inboxes: dict[str, dict[str, InboxRow]] = field(default_factory=dict[Any, Any])
    commits: dict[int, datetime] = field(default_factory=dict[int, datetime])
    log: list[tuple[str, object]] = field(default_factory=list[tuple[str, object]])
    away: set[str] = field(default_factory=set[str])
    on_read: Callable[[str], None] | None = None

    def put(self, played: Played, at: datetime, *, shard: int = 0, **what: Any) -> SagaRow:
        number = len(self.sagas) + 1
        run_id = UUID(int=number << 64)
        ended = None if played.row.state is SagaState.STUCK else at
        row = replace(
            played.row,
            run_id=run_id,
            saga_id=f"s-{number}",
            shard=shard,
            ended_at=ended,
            updated_at=at,
            **what,
        )
        self.sagas[run_id] = (row, played.history)
        for name, rows in played.inboxes.items():
            inbox = self.inboxes.setdefault(name, {})
            for each in rows:
                id_ = f"{run_id}.{each.id}"
                inbox[id_] = replace(each, id=id_)
        self.commits[shard] = max(at, self.commits.get(shard, at))
        return row

    @property
    def store(self) -> Store:
        return cast("Store", self)

    # --- as a store

    def history(self, row: SagaRow) -> Iterable[HistoryRow]:
        self.log.append(("history", row.run_id))
        return iter(self.sagas[row.run_id][1] if row.run_id in self.sagas else [])

    def find_runs(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, SagaRow]:
        return {run_id: self.sagas[run_id][0] for _, run_id in runs if run_id in self.sagas}

    def list_sagas(self, where: SagaFilter, *, after: UUID | None = None, limit: int = 100) -> list[SagaRow]:
        rows = sorted((row for row, _ in self.sagas.values()), key=lambda row: row.run_id, reverse=True)
        wanted = (row for row in rows if not where.states or row.state in where.states)
        return [row for row in wanted if after is None or row.run_id < after][:limit]

    def shards(self) -> list[ShardLease]:
        return [ShardLease(shard, None, False) for shard in range(SHARDS)]

    # --- as ends

    def bounds(self) -> Mapping[int, datetime]:
        return dict(self.commits)

    def ended(self, within: Slice, *, limit: int) -> list[SagaRow] | None:
        self.log.append(("ended", within.until - within.since))
        found = [row for row, _ in self.sagas.values() if _is_within(row, within)]
        return None if len(found) > limit else found

    def close(self) -> None:
        """Nothing is open."""

    # --- as inboxes

    def find(self, participant: str) -> Asked:
        return Asked(self, participant)


def _is_within(row: SagaRow, within: Slice) -> bool:
    if row.ended_at is None or row.shard not in within.shards:
        return False
    since, until = within.shards[row.shard]
    return within.since < row.ended_at <= within.until and since < row.ended_at <= until


@dataclass
class Asked:
    """One participant's inbox."""

    shelf: Shelf
    participant: str

    def read(self, runs: Sequence[str]) -> Seen:
        self.shelf.log.append((self.participant, list(runs)))
        if self.participant in self.shelf.away:
            raise Unanswered(f"{self.participant} is away")
        if self.shelf.on_read is not None:
            self.shelf.on_read(self.participant)
        seen = Seen(Memory())
        wanted = set(runs)
        for id_, row in self.shelf.inboxes[self.participant].items():
            if id_.partition(".")[0] in wanted:
                seen.add(row)
        return seen

    def close(self) -> None:
        """Nothing is open."""


def minutes(number: float) -> timedelta:
    return timedelta(minutes=number)
