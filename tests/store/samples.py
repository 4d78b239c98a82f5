"""Rows to fill stores with; made by number, so that tests read and repeat well."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from kasaga.store.base import (
    Batch,
    HistoryRow,
    Offsets,
    OutboxRow,
    RowKind,
    SagaRow,
    SagaState,
    SagaWrite,
    ShardRow,
    ShardWrite,
    Store,
    Suspect,
)

T0 = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
TTL = 3.0


def run_id(number: int, at: datetime = T0) -> UUID:
    """A UUIDv7 of a time; higher numbers are newer."""
    millis = int((at + timedelta(milliseconds=number)).timestamp() * 1000)
    return UUID(int=millis << 80 | 0x7 << 76 | 0x2 << 62 | number)


def saga_row(shard: int, number: int, state: SagaState = SagaState.RUNNING, **changes: object) -> SagaRow:
    row = SagaRow(
        shard=shard,
        run_id=run_id(number),
        saga_id=f"order-{number}",
        name="payment",
        version=1,
        state=state,
        input_hash=number.to_bytes(32, "big"),
        started_at=T0 + timedelta(seconds=number),
        updated_at=T0 + timedelta(seconds=number),
    )
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def history_row(seq: int, body: bytes = b"\x00body\xff", **changes: object) -> HistoryRow:
    row = HistoryRow(seq=seq, at=T0 + timedelta(seconds=seq), kind="replied", step=f"{seq}", body=body)
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def outbox_row(shard: int, seq: int, run: UUID | None = None, **changes: object) -> OutboxRow:
    row = OutboxRow(
        shard=shard,
        seq=seq,
        kind=RowKind.COMMAND,
        run_id=run,
        step="1",
        topic="inventory.commands",
        partition=None,
        key=b"order",
        headers=[("ce_id", b"x.1"), ("traceparent", b"00-\xc3\xa9")],
        payload=b"\x00\x01\xff",
        attempt=1,
        send_at=None,
        due_at=T0 + timedelta(seconds=30),
    )
    for name, value in changes.items():
        setattr(row, name, value)
    return row


def start(shard: int, number: int, seq: int | None = None) -> SagaWrite:
    """A saga's first decision, with one command if `seq` is given."""
    opens = [] if seq is None else [outbox_row(shard, seq, run_id(number))]
    return SagaWrite(shard, run_id(number), [history_row(0)], saga_row(shard, number), new=True, opens=opens)


def refuse_all(write: SagaWrite, message: str, number: int) -> SagaWrite:
    """The `replace` of tests in which nothing may be refused."""
    raise AssertionError(f"refused: {write.run_id} try {number}: {message}")


@dataclass
class Owner:
    """A process that holds shards and counts as the loop does."""

    store: Store
    name: str = "p1"
    rows: dict[int, ShardRow] = field(default_factory=dict[int, ShardRow])
    reads: int = 0

    def claim(self, *shards: int) -> Owner:
        for shard in shards:
            row = self.store.claim(shard, self.name, ttl=TTL)
            assert row is not None, f"{self.name} can't have shard {shard}"
            self.rows[shard] = row
        return self

    def batch(self, *sagas: SagaWrite, shards: tuple[int, ...] = (), **parts: object) -> Batch:
        """The next batch over these sagas' shards; `done` once it is committed."""
        named = sorted({write.shard for write in sagas} | set(shards)) or sorted(self.rows)
        self.reads += 1
        batch = Batch([self.shard_write(shard) for shard in named], list(sagas))
        for name, value in parts.items():
            setattr(batch, name, value)
        return batch

    def shard_write(self, shard: int) -> ShardWrite:
        row = self.rows[shard]
        return ShardWrite(
            shard=shard,
            token=row.token,
            commit_seq=row.commit_seq + 1,
            offsets=Offsets(self.reads, self.reads + 1, self.reads + 2),
            acked_seq=0,
            next_seq=1_000_000,
            now=T0 + timedelta(seconds=self.reads),
        )

    def mark(self, shard: int, number: int, place: str | None = None) -> None:
        """Say that a saga is about to be stepped, as in suspect mode."""
        batch = self.batch(shards=(shard,))
        at = f"line {number}" if place is None else place
        batch.shards[0].suspect = Suspect(run_id(number), at)
        self.store.commit(batch, refuse_all)
        self.done(batch)

    def done(self, batch: Batch) -> None:
        for write in batch.shards:
            self.rows[write.shard].commit_seq = write.commit_seq

    def commit(self, *sagas: SagaWrite, shards: tuple[int, ...] = (), **parts: object) -> Batch:
        """Commit what must pass whole."""
        batch = self.batch(*sagas, shards=shards, **parts)
        committed = self.store.commit(batch, refuse_all)
        assert not committed.replaced
        assert not committed.dropped
        self.done(batch)
        return batch


def purge(store: Store, older_than: timedelta, *, after: UUID | None = None, limit: int = 1000) -> int:
    """Delete one slice of what ended so long ago, whatever its name; return how many sagas."""
    return store.delete(store.finished(older_than, after=after, limit=limit).rows)


def shorten(store: Store, older_than: timedelta, *of: Any, **more: Any) -> tuple[int, UUID | None]:
    """Delete one slice of runs that ended so long ago; return how many rows, and where the next begins."""
    found = store.ended_runs(older_than, *of, **more)
    return sum(store.cut(runs) for runs in found.runs), found.after
