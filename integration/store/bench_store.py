"""What a commit costs, by batch size: `python integration/store/bench_store.py [conninfo]`; JSON lines.

Drives payment sagas of three steps (a start, three replies) through one store on an otherwise idle server. A
record is one thing that a batch decided. `wall` and `client` are microseconds of this process, `server` of
its backend (from /proc, so it must run on this machine).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

from kasaga.dev.servers import PostgresServer
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
)
from kasaga.store.migrate import migrate
from kasaga.store.postgres import PostgresStore
from kasaga.store.settings import StoreSettings

SHARDS = 16
STEPS = 3
TICKS = os.sysconf("SC_CLK_TCK")
HEADERS = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"0190a0b0-c0d0-7000-8000-0123456789ab.1.1"),
    ("ce_source", b"/kasaga/shop"),
    ("ce_type", b"inventory.reserve"),
    ("ce_time", b"2026-01-01T00:00:00.000000Z"),
    ("ce_subject", b"order-123456"),
    ("content-type", b"application/vnd.confluent.avro"),
    ("ce_kasagacommand", b"0190a0b0-c0d0-7000-8000-0123456789ab.1"),
    ("ce_replyto", b"shop.replies/11"),
    ("ce_kasagasaga", b"payment/1"),
    ("traceparent", b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"),
]
PAYLOAD = bytes(range(90))
BODY = bytes(range(200))


class Load:
    """Sagas in lockstep: each turn is one batch, one record of each of `size` sagas."""

    def __init__(self, store: PostgresStore, size: int) -> None:
        self.store = store
        self.size = size
        self.shards: dict[int, ShardRow] = {}
        for shard in range(SHARDS):
            row = store.claim(shard, "bench", ttl=60)
            assert row is not None
            self.shards[shard] = row
        self.number = int(time.time() * 1000) << 20
        self.live: list[tuple[SagaRow, int]] = []
        self.step = 0

    def batch(self) -> Batch:
        now = datetime.now(UTC)
        if self.step == 0:
            self.live = [(self._new(now, index), 0) for index in range(self.size)]
        writes = [self._advance(index, now) for index in range(self.size)]
        self.step = (self.step + 1) % (STEPS + 1)
        shards = {write.shard for write in writes}
        return Batch([self._shard(shard, now) for shard in shards], writes)

    def _new(self, now: datetime, index: int) -> SagaRow:
        self.number += 1
        run = UUID(int=int(now.timestamp() * 1000) << 80 | 7 << 76 | 2 << 62 | self.number & (1 << 62) - 1)
        shard = (index + self.number) % SHARDS
        return SagaRow(
            shard, run, f"order-{self.number}", "payment", 1, SagaState.RUNNING, bytes(32), now, now
        )

    def _advance(self, index: int, now: datetime) -> SagaWrite:
        saga, seq = self.live[index]
        step = self.step
        write = SagaWrite(saga.shard, saga.run_id, [HistoryRow(step, now, "replied", str(step), BODY)])
        if step == 0:
            write.saga, write.new = saga, True
        else:
            write.closes.append(seq)
        if step < STEPS:
            write.opens.append(self._command(saga, step, now))
            self.live[index] = (saga, write.opens[0].seq)
        else:
            saga.state, saga.updated_at, saga.ended_at, saga.result = SagaState.COMPLETED, now, now, PAYLOAD
            write.saga = saga
        return write

    def _command(self, saga: SagaRow, step: int, now: datetime) -> OutboxRow:
        shard = self.shards[saga.shard]
        row = OutboxRow(
            saga.shard,
            shard.next_seq,
            RowKind.COMMAND,
            saga.run_id,
            str(step + 1),
            "inventory.commands",
            None,
            saga.saga_id.encode(),
            HEADERS,
            PAYLOAD,
            1,
            None,
            now + timedelta(seconds=30),
        )
        shard.next_seq += 1
        return row

    def _shard(self, shard: int, now: datetime) -> ShardWrite:
        row = self.shards[shard]
        row.commit_seq += 1
        return ShardWrite(shard, row.token, row.commit_seq, Offsets(1, 2, 3), 0, row.next_seq, now)


def refused(write: SagaWrite, message: str, number: int) -> SagaWrite:
    raise AssertionError(message)


def backend_cpu(pid: int) -> float:
    """Seconds of CPU that a server process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(conninfo: str, size: int, seconds: float, **settings: bool) -> dict[str, object]:
    store = PostgresStore(StoreSettings(conninfo, **settings))
    load = Load(store, size)
    for _ in range(2 * (STEPS + 1)):
        store.commit(load.batch(), refused)
    pid = store.backend_pid
    before = store.counters.statements
    waits: list[float] = []
    cpu = 0.0
    server = backend_cpu(pid)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or load.step:
        batch = load.batch()
        started, started_cpu = time.perf_counter(), time.process_time()
        store.commit(batch, refused)
        waits.append(time.perf_counter() - started)
        cpu += time.process_time() - started_cpu
    records = len(waits) * size
    waits.sort()
    answer: dict[str, object] = {
        "batch": size,
        **settings,
        "commits": len(waits),
        "statements_per_commit": round((store.counters.statements - before) / len(waits), 2),
        "ms_per_commit_median": round(waits[len(waits) // 2] * 1000, 3),
        "ms_per_commit_p99": round(waits[len(waits) * 99 // 100] * 1000, 3),
        "wall_us_per_record": round(sum(waits) / records * 1e6, 1),
        "client_us_per_record": round(cpu / records * 1e6, 1),
        "server_us_per_record": round((backend_cpu(pid) - server) / records * 1e6, 1),
    }
    store.close()
    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description="What a commit costs, by batch size.")
    parser.add_argument("conninfo", nargs="?", help="an empty database; without it, a server is started")
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1, 10, 100, 200, 500])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kasaga-bench-") as directory:
        os.chmod(directory, 0o711)
        server = None if options.conninfo else PostgresServer(Path(directory) / "postgres")
        if server is not None:
            server.start()
        try:
            conninfo = server.create_database("bench") if server is not None else options.conninfo
            migrate(conninfo, namespace="bench", shards=SHARDS)
            for size in options.sizes:
                print(json.dumps(measure(conninfo, size, options.seconds)), flush=True)
            print(json.dumps(measure(conninfo, 1, options.seconds, prepare=False)))
        finally:
            if server is not None:
                server.stop()


if __name__ == "__main__":
    main()
