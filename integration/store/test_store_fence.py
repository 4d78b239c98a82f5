"""Two owners and one shard: wherever the old one is stopped, the token decides.

`gate` stops its bytes between any two messages, and within each; `busy_owner` is a process to freeze.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import IO

import psycopg
import pytest

from eventually import eventually
from kasaga.store.base import Batch, LostShards, SagaFilter, SagaState, SagaWrite, StoreUnavailable
from store.gate import Gate, gate
from store.postgres_bench import PostgresBench, shared_database
from store.samples import TTL, Owner, history_row, outbox_row, refuse_all, run_id, saga_row, start

__all__ = ["gate", "shared_database"]


@pytest.fixture
def bench(shared_database: str) -> Generator[PostgresBench]:
    with PostgresBench(shared_database, claim_timeout=0.1) as bench:
        yield bench


def full_batch(owner: Owner, first: int) -> Batch:
    """A batch with all of a commit's statements, over two shards."""
    done = saga_row(3, first - 1, SagaState.COMPLETED)
    return owner.batch(
        start(3, first, seq=first * 10),
        start(4, first + 1, seq=first * 10),
        SagaWrite(3, done.run_id, [history_row(first)], done, closes=[1]),
        loose=[outbox_row(3, first * 10 + 1)],
    )


class Attempt(threading.Thread):
    """A commit in a thread of its own."""

    def __init__(self, owner: Owner, batch: Batch) -> None:
        super().__init__()
        self.owner = owner
        self.batch = batch
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.owner.store.commit(self.batch, refuse_all)
        except (StoreUnavailable, LostShards) as error:
            self.error = error


@pytest.fixture
def zombie(bench: PostgresBench, gate: Gate) -> Owner:
    """Owns the shards 3 and 4 through the gate and has committed once; its statements are prepared."""
    owner = Owner(bench.postgres(port=gate.port), "zombie").claim(3, 4)
    owner.commit(start(3, 1, seq=1))
    batch = full_batch(owner, 2)
    owner.store.commit(batch, refuse_all)
    owner.done(batch)
    return owner


def test_count(gate: Gate, zombie: Owner) -> None:
    """Where the cuts of the tests below may lie."""
    gate.arm(None)
    zombie.store.commit(full_batch(zombie, 4), refuse_all)
    assert gate.passed == CUTS


CUTS = 6 * 3 + 1
"""Messages of one commit: Bind, Describe and Execute of each of its six statements, and the Sync."""


@pytest.mark.parametrize("half", [False, True], ids=["between", "within"])
@pytest.mark.parametrize("cut", range(CUTS))
def test_an_owner_stopped_anywhere_commits_nothing_after_the_take_over(
    bench: PostgresBench, gate: Gate, zombie: Owner, cut: int, half: bool
) -> None:
    attempt = Attempt(zombie, full_batch(zombie, 4))
    bench.expire()
    gate.arm(cut, half=half)
    attempt.start()
    assert gate.held.wait(10)
    heir = Owner(bench.postgres(), "heir").claim(3, 4)
    assert [row.commit_seq for row in heir.rows.values()] == [2, 1]
    before = heir.store.list_sagas(SagaFilter())
    heir.commit(start(3, 9, seq=9))
    gate.open()
    attempt.join()
    assert attempt.error is not None
    with pytest.raises(LostShards) as lost:
        zombie.store.commit(attempt.batch, refuse_all)
    assert lost.value.shards == {3, 4}
    after = heir.store.list_sagas(SagaFilter())
    assert [row for row in after if row.saga_id != "order-9"] == before
    assert sorted(row.saga_id for row in after) == ["order-1", "order-2", "order-3", "order-9"]


def test_a_commit_that_was_sent_whole_is_whole(bench: PostgresBench, zombie: Owner) -> None:
    """The process is frozen after its last byte: its heir finds all of the batch."""
    batch = full_batch(zombie, 4)
    zombie.store.commit(batch, refuse_all)
    bench.expire()
    heir = Owner(bench.postgres(), "heir").claim(4)
    assert heir.rows[4].commit_seq == 2
    with pytest.raises(LostShards) as lost:
        zombie.store.commit(batch, refuse_all)
    assert lost.value.shards == {4}


def test_a_commit_waits_for_a_take_over_that_is_under_way(bench: PostgresBench) -> None:
    owner = Owner(bench.postgres(), "p1").claim(3)
    attempt = Attempt(owner, owner.batch(start(3, 1)))
    with bench.session() as other:
        other.execute("UPDATE kasaga.shard SET token = gen_random_uuid(), owner = 'p2' WHERE shard = 3")
        attempt.start()
        eventually(lambda: bench.run("SELECT 1 FROM pg_locks WHERE NOT granted"))
        other.commit()
    attempt.join()
    assert isinstance(attempt.error, LostShards)
    assert owner.store.list_sagas(SagaFilter()) == []


def test_the_lock_of_a_living_owner_is_respected(bench: PostgresBench) -> None:
    """A claim doesn't wait for it, and ends nobody's transaction."""
    owner = Owner(bench.postgres(), "p1").claim(3)
    with bench.session() as held:
        held.execute("SELECT FROM kasaga.shard WHERE shard = 3 FOR UPDATE")
        assert bench.postgres().claim(3, "p2", ttl=TTL) is None
        held.rollback()
    owner.commit(start(3, 1))


def test_a_lock_that_outlives_its_lease_is_broken(bench: PostgresBench) -> None:
    Owner(bench.postgres(), "p1").claim(3)
    bench.expire()
    with bench.session() as held:
        held.execute("UPDATE kasaga.shard SET deaths = 7 WHERE shard = 3")
        heir = Owner(bench.postgres(), "p2").claim(3)
        assert heir.rows[3].deaths == 1
        with pytest.raises(psycopg.OperationalError):
            held.commit()


def test_the_same_epoch_after_a_failover_is_not_the_same_owner(bench: PostgresBench) -> None:
    """Asynchronous replication loses a claim; the next owner gets the very same epoch."""
    Owner(bench.postgres(), "p1").claim(3).commit(start(3, 1))
    kept = bench.run("SELECT token, epoch, owner FROM kasaga.shard WHERE shard = 3")[0]
    bench.expire()
    lost = Owner(bench.postgres(), "p2").claim(3)
    bench.run("UPDATE kasaga.shard SET token = %s, epoch = %s, owner = %s WHERE shard = 3", *kept)
    bench.expire()
    heir = Owner(bench.postgres(), "p3").claim(3)
    assert heir.rows[3].epoch == lost.rows[3].epoch
    with pytest.raises(LostShards):
        lost.store.commit(lost.batch(start(3, 2)), refuse_all)
    heir.commit(start(3, 2))


def test_an_owner_notices_that_the_database_went_back_in_time(bench: PostgresBench) -> None:
    owner = Owner(bench.postgres(), "p1").claim(3)
    owner.commit(start(3, 1))
    owner.commit(start(3, 2))
    bench.run("UPDATE kasaga.position SET commit_seq = 1 WHERE shard = 3")
    bench.run("DELETE FROM kasaga.saga WHERE run_id = %s", run_id(2))
    bench.run("DELETE FROM kasaga.history WHERE run_id = %s", run_id(2))
    with pytest.raises(LostShards) as lost:
        owner.store.commit(owner.batch(start(3, 3)), refuse_all)
    assert lost.value.astray == {3}
    owner.claim(3)
    assert owner.rows[3].commit_seq == 1
    owner.commit(start(3, 2))


class Frozen:
    """A process of its own that commits as fast as it can, until it loses its shard."""

    def __init__(self, conninfo: str) -> None:
        program = Path(__file__).with_name("busy_owner.py")
        self.process = subprocess.Popen(
            [sys.executable, str(program), conninfo],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    @property
    def lines(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout


@pytest.mark.parametrize("commits", [1, 7, 40, 100, 160])
def test_a_process_that_is_frozen_and_wakes_commits_no_more(bench: PostgresBench, commits: int) -> None:
    frozen = Frozen(bench.conninfo)
    try:
        for _ in range(commits):
            assert frozen.lines.readline().startswith("committed")
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            bench.run("SET lock_timeout = '100ms'")
            bench.expire()
        except psycopg.errors.LockNotAvailable:
            # It stopped between fence and Sync; the lease it has renewed runs out by itself.
            eventually(lambda: any(lease.expired for lease in bench.postgres().shards()))
        heir = Owner(bench.postgres(), "heir")
        eventually(lambda: heir.store.claim(3, "heir", ttl=TTL) is not None)
        heir.claim(3)
        found = heir.rows[3].commit_seq
        assert found >= commits
        assert len(heir.store.load([(3, run_id(1))])[run_id(1)]) == found
        heir.commit(SagaWrite(3, run_id(1), [history_row(found)]))
        frozen.process.send_signal(signal.SIGCONT)
        rest = frozen.lines.read().splitlines()
        assert rest[-1] == "lost [3]"
        assert frozen.process.wait(10) == 0
        assert len(heir.store.load([(3, run_id(1))])[run_id(1)]) == found + 1
    finally:
        frozen.process.kill()
        frozen.process.wait()
        frozen.lines.close()
