"""Who owns what: a pure plan that every process makes for itself, and that must agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from kasaga.orchestrator.leases import plan, share
from kasaga.store.base import Membership, ShardLease

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@dataclass
class Cluster:
    """The store's side: who lives, and who holds each shard."""

    owner: list[str | None]
    alive: set[str] = field(default_factory=set[str])
    believes: dict[str, set[int]] = field(default_factory=dict[str, set[int]])
    """What each process thinks that it owns."""

    def membership(self) -> Membership:
        leases = [
            ShardLease(number, owner, owner is not None and owner not in self.alive)
            for number, owner in enumerate(self.owner)
        ]
        return Membership(NOW, sorted(self.alive), leases)

    def beat(self, process: str) -> bool:
        """One heartbeat; says whether anything changed."""
        membership = self.membership()
        owned = self.believes.setdefault(process, set())
        owned &= {number for number, owner in enumerate(self.owner) if owner == process}
        todo = plan(process, owned, membership)
        assert not set(todo.claim) & owned
        assert set(todo.release) <= owned
        for number in todo.release:
            owned.discard(number)
            self.owner[number] = None
        for number in todo.claim:
            holder = self.owner[number]
            if holder is None or holder == process or holder not in self.alive:
                self.owner[number] = process
                owned.add(number)
        return bool(todo.claim or todo.release)


changes = st.lists(st.tuples(st.sampled_from(["join", "die", "leave"]), st.integers(0, 7)), max_size=20)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 24), changes, st.randoms(use_true_random=False))
def test_whatever_comes_and_goes_every_shard_ends_with_one_owner_and_all_have_a_fair_share(
    shards: int, happened: list[tuple[str, int]], dice: Random
) -> None:
    cluster = Cluster([None] * shards)
    for what, number in happened:
        name = f"process-{number}"
        if what == "join":
            cluster.alive.add(name)
        elif what == "die":
            cluster.alive.discard(name)
        elif name in cluster.alive:
            cluster.alive.discard(name)
            cluster.owner = [None if owner == name else owner for owner in cluster.owner]
        for process in dice.sample(sorted(cluster.alive), len(cluster.alive)):
            if dice.random() < 0.5:
                cluster.beat(process)
    cluster.alive.add("process-0")

    for _ in range(2 * shards + 4):
        order = sorted(cluster.alive)
        dice.shuffle(order)
        changed = [process for process in order if cluster.beat(process)]
        if not changed:
            break

    assert not any(cluster.beat(process) for process in sorted(cluster.alive)), "it never settles"
    assert set(cluster.owner) <= cluster.alive
    sizes = [cluster.owner.count(process) for process in cluster.alive]
    assert sum(sizes) == shards
    assert max(sizes) - min(sizes) <= 1


@given(st.integers(1, 20), st.integers(0, 100))
def test_shares_add_up(processes: int, shards: int) -> None:
    names = [f"{number:03}" for number in range(processes)]
    shares = [share(name, names, shards) for name in names]
    assert sum(shares) == shards
    assert max(shares) - min(shares) <= 1


def test_a_process_that_is_not_listed_does_nothing() -> None:
    """Its own heartbeat has run out in between."""
    membership = Membership(NOW, ["b"], [ShardLease(0, None, False), ShardLease(1, "a", True)])
    assert plan("a", {1}, membership) == ([], [], False)


def test_what_is_ours_without_our_knowing_is_claimed_without_waiting_for_the_lease() -> None:
    membership = Membership(NOW, ["a"], [ShardLease(0, "a", False), ShardLease(1, "a", False)])
    assert plan("a", {0}, membership).claim == [1]


def test_a_living_owners_shard_is_never_claimed() -> None:
    membership = Membership(NOW, ["a", "b"], [ShardLease(n, "b", False) for n in range(4)])
    assert plan("a", set(), membership) == ([], [], True), "it will get some: it looks often"
    assert plan("b", {0, 1, 2, 3}, membership) == ([], [2], True)


def test_the_next_shard_is_given_up_when_the_last_one_is_taken() -> None:
    """What nobody owns stands still: not all of it at once."""
    free = Membership(NOW, ["a", "b"], [ShardLease(n, "b" if n < 3 else None, False) for n in range(4)])
    assert plan("b", {0, 1, 2}, free) == ([], [], True)
    assert plan("a", set(), free) == ([3], [], True)
    taken = Membership(NOW, ["a", "b"], [ShardLease(n, "b" if n < 3 else "a", False) for n in range(4)])
    assert plan("b", {0, 1, 2}, taken) == ([], [2], True)
    assert plan("a", {3}, taken) == ([], [], True)
    even = Membership(NOW, ["a", "b"], [ShardLease(n, "b" if n < 2 else "a", False) for n in range(4)])
    assert plan("b", {0, 1}, even) == plan("a", {2, 3}, even) == ([], [], False)


def test_many_shards_are_given_up_in_sixteen_steps() -> None:
    membership = Membership(NOW, ["a", "b"], [ShardLease(n, "b", False) for n in range(64)])
    assert plan("b", set(range(64)), membership).release == [32, 33, 34, 35]
