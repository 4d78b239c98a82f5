"""Many processes at once: claims, heartbeats, releases and commits, with leases that run out in between."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import Generator

import pytest

from kasaga.store.base import LostShards, SagaWrite, StoreUnavailable
from store.postgres_bench import PostgresBench, shared_database
from store.samples import TTL, Owner, history_row, refuse_all, run_id

__all__ = ["shared_database"]

PROCESSES = 6
TURNS = 60
CONTESTED = (0, 1, 2)


@pytest.fixture
def bench(shared_database: str) -> Generator[PostgresBench]:
    with PostgresBench(shared_database, claim_timeout=0.2) as bench:
        yield bench


class Rival(threading.Thread):
    """A process that wants all the shards, holds what it gets, and commits to what it holds."""

    def __init__(self, bench: PostgresBench, seed: str) -> None:
        super().__init__()
        self.random = random.Random(seed)
        self.owner = Owner(bench.postgres(), seed)
        self.committed: list[tuple[int, int]] = []
        self.tokens: list[tuple[int, int]] = []
        self.astray: frozenset[int] = frozenset()
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(TURNS):
                act = self.random.choice(
                    [self.claim, self.beat, self.commit, self.commit, self.commit, self.release]
                )
                with contextlib.suppress(StoreUnavailable):  # a claim ended what held its row
                    act()
        except BaseException as error:
            self.error = error
            raise

    def claim(self) -> None:
        shard = self.random.choice(CONTESTED)
        row = self.owner.store.claim(shard, self.owner.name, ttl=TTL)
        if row is not None:
            self.owner.rows[shard] = row
            self.tokens.append((shard, row.epoch))

    def beat(self) -> None:
        held = [(shard, row.token) for shard, row in self.owner.rows.items()]
        self.owner.store.heartbeat(self.owner.name, held, ttl=TTL)

    def release(self) -> None:
        shard = self.random.choice(CONTESTED)
        row = self.owner.rows.pop(shard, None)
        if row is not None:
            self.owner.store.release([(shard, row.token)])

    def commit(self) -> None:
        if not self.owner.rows:
            return
        writes = [
            SagaWrite(shard, run_id(shard), [history_row(row.commit_seq, self.owner.name.encode())])
            for shard, row in self.owner.rows.items()
        ]
        batch = self.owner.batch(*writes)
        while True:
            try:
                self.owner.store.commit(batch, refuse_all)
            except StoreUnavailable:  # ended by a claim, or waited too long for one: the same batch again
                continue
            except LostShards as lost:
                for shard in lost.shards:
                    del self.owner.rows[shard]
                self.astray |= lost.astray
                return
            self.owner.done(batch)
            self.committed += [(write.shard, write.commit_seq) for write in batch.shards]
            return


@pytest.mark.parametrize("seed", range(3))
def test_every_commit_is_one_owners_and_none_is_lost(bench: PostgresBench, seed: int) -> None:
    rivals = [Rival(bench, f"p{number} of {seed}") for number in range(PROCESSES)]
    for rival in rivals:
        rival.start()
    while any(rival.is_alive() for rival in rivals):
        bench.expire()
        rivals[0].join(0.02)
    for rival in rivals:
        rival.join()
    assert [rival.error for rival in rivals if rival.error is not None] == []
    assert [rival.astray for rival in rivals if rival.astray] == []
    committed = sorted(entry for rival in rivals for entry in rival.committed)
    assert len(committed) == len(set(committed))
    assert committed
    for shard in CONTESTED:
        seqs = [seq for owned, seq in committed if owned == shard]
        assert seqs == list(range(1, len(seqs) + 1))
        histories = rivals[0].owner.store.load([(shard, run_id(shard))])
        assert [row.seq for row in histories.get(run_id(shard), [])] == list(range(len(seqs)))
    epochs = sorted(entry for rival in rivals for entry in rival.tokens)
    assert len(epochs) == len(set(epochs))


def test_one_of_many_claimers_gets_a_shard(bench: PostgresBench) -> None:
    stores = [bench.postgres() for _ in range(8)]
    barrier = threading.Barrier(len(stores))
    winners: list[int] = []

    def claim(number: int) -> None:
        stores[number].namespace()
        barrier.wait()
        if stores[number].claim(5, f"p{number}", ttl=30) is not None:
            winners.append(number)

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(len(stores))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(winners) == 1
    assert stores[0].shards()[5].owner == f"p{winners[0]}"


def test_a_store_may_be_shared_by_threads(bench: PostgresBench) -> None:
    """The heartbeat may come from another thread than the commits."""
    owner = Owner(bench.postgres()).claim(3)
    done = threading.Event()
    beats: list[str] = []

    def beat() -> None:
        while not done.wait(0.002):
            beats.extend(owner.store.heartbeat("p1", [(3, owner.rows[3].token)], ttl=TTL).processes)

    thread = threading.Thread(target=beat)
    thread.start()
    for number in range(60):
        owner.commit(SagaWrite(3, run_id(1), [history_row(number)]))
    done.set()
    thread.join()
    assert set(beats) == {"p1"}
    assert len(owner.store.load([(3, run_id(1))])[run_id(1)]) == 60
