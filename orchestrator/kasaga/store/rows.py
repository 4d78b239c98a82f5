"""Result rows to the store's dataclasses, in the column order of `sql/read.sql`."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from kasaga.store.base import (
    HistoryRow,
    Membership,
    Offsets,
    OpenCalls,
    OutboxRow,
    Pulse,
    RowKind,
    SagaRow,
    SagaState,
    ShardLease,
    ShardRow,
    Suspect,
)
from kasaga.store.encode import unpack_headers
from kasaga.store.terms import values

Row = tuple[Any, ...]

_KINDS = {int(kind): kind for kind in RowKind}  # five times as fast as the call


def outbox_row(row: Row) -> OutboxRow:
    """Read `open_rows` and `waits`."""
    shard, seq, kind, run_id, step, topic, partition, key, headers, payload, attempt, send_at, due_at = row
    return OutboxRow(
        shard,
        seq,
        _KINDS[kind],
        run_id,
        step,
        topic or "",
        partition,
        key,
        unpack_headers(headers) if headers is not None else [],
        payload,
        attempt,
        send_at,
        due_at,
    )


def saga_row(row: Row) -> SagaRow:
    """Read whatever selects a saga's summary."""
    shard, run_id, saga_id, name, version, state, *rest = row
    return SagaRow(shard, run_id, saga_id, name, version, SagaState(state), *rest)


def listed_row(row: Row) -> SagaRow:
    """Read whatever selects a saga's summary for people: its attributes' terms stand behind it."""
    made = saga_row(row[:-1])
    made.attributes = values(row[-1]) if row[-1] else {}
    return made


def history_row(row: Row) -> HistoryRow:
    """Read seq, at, kind, step and body."""
    return HistoryRow(*row)


def histories(rows: list[Row]) -> dict[UUID, list[HistoryRow]]:
    """Read `load`: run ids in front, sorted."""
    found: dict[UUID, list[HistoryRow]] = {}
    for run_id, *rest in rows:
        found.setdefault(run_id, []).append(HistoryRow(*rest))
    return found


def shard_row(shard: int, row: Row) -> ShardRow:
    """Read `claim`."""
    token, epoch, sagas, replies, control, commit_seq, acked_seq, next_seq, now, deaths, *rest = row
    *marked, traced, last_owner = rest
    offsets = None if sagas is None else Offsets(sagas, replies, control)
    suspect = None if marked[0] is None else Suspect(*marked)
    counts = commit_seq, acked_seq, next_seq, now, deaths
    return ShardRow(shard, token, epoch, offsets, *counts, suspect, traced, last_owner)


def membership(rows: list[Row]) -> Membership:
    """Read `heartbeat`: a row a shard, the time and the processes repeated in each."""
    leases = [ShardLease(shard, owner, expired) for _, _, shard, owner, expired, _ in rows]
    commits = {shard: commit_seq for _, _, shard, _, _, commit_seq in rows if commit_seq is not None}
    now, processes = rows[0][:2]
    return Membership(now, processes or [], leases, commits)


def pulse(recent: Row, open_rows: list[Row], looked_at: int) -> Pulse:
    """Read `pulse` and `pulse_open`, of which the first row is all of it."""
    now, seconds, started, completed, compensated, latencies = recent
    (_, _, sagas, total), *calls = open_rows
    return Pulse(
        now,
        seconds,
        started,
        completed,
        compensated,
        tuple(latencies) if latencies else None,
        sagas,
        [OpenCalls(RowKind(kind), topic, count, again) for kind, topic, count, again in calls],
        total >= looked_at,
    )
