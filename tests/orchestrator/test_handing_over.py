"""Planned changes of owners: shards change hands a few at a time, each in a moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kasaga.orchestrator.ownership import LEAVE_SECONDS
from kasaga_wire.envelope import CommandEnvelope
from orchestrator.node import Node
from orchestrator.world import World

SHARDS = 8
MOMENT = 0.15
"""Seconds of the world for which a shard may be nobody's."""


@pytest.fixture
def world() -> Iterator[World]:
    with World(5, shards=SHARDS) as made:
        yield made


class Watch:
    """Lets processes turn, and looks at the shards in between."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._free: dict[int, int] = {}
        self.longest = 0.0
        """Seconds for which some shard was nobody's, once it was somebody's."""
        self.most = 0
        """Shards that were nobody's at a time."""
        self._owned: set[int] = set()

    def turn(self, *nodes: Node) -> None:
        world = self._world
        for node in nodes:
            world.turn(node)
            self.look()
        world.serve()
        world.pass_time(0.005)

    def look(self) -> None:
        now = self._world.nanos
        for lease in self._world.store.shards():
            if lease.owner is not None:
                self._owned.add(lease.shard)
                self.longest = max(self.longest, (now - self._free.pop(lease.shard, now)) / 1e9)
            elif lease.shard in self._owned:
                self._free.setdefault(lease.shard, now)
        self.most = max(self.most, len(self._free))


def owned(node: Node) -> int:
    return len(node.loop.shards)


def settled(world: World, watch: Watch, *nodes: Node) -> None:
    for _ in range(2000):
        watch.turn(*nodes)
        if all(owned(node) == SHARDS // len(nodes) for node in nodes):
            return
    raise AssertionError([owned(node) for node in nodes])


def test_a_process_that_joins_gets_its_share_bit_by_bit(world: World) -> None:
    first = world.join()
    watch = Watch(world)
    settled(world, watch, first)
    for number in range(24):
        world.start("trip", f"s{number}")
    settled(world, watch, first, world.join())
    assert watch.most == 1
    assert watch.longest < MOMENT
    world.settle()
    world.audit()


def test_a_process_that_leaves_hands_over_bit_by_bit_and_goes_on_with_the_rest(world: World) -> None:
    stays, leaves = world.join(), world.join()
    watch = Watch(world)
    settled(world, watch, stays, leaves)
    for number in range(48):
        world.start("trip", f"s{number}")
    for _ in range(4):
        watch.turn(stays, leaves)
    begun = world.nanos
    leaves.loop.stop()
    seen: set[int] = set()
    while not leaves.loop.over:
        assert world.nanos < begun + LEAVE_SECONDS * 1e9, "it must not come to that"
        watch.turn(stays, leaves)
        seen.add(owned(leaves))
    assert seen == set(range(SHARDS // 2 + 1))
    world.end(leaves)
    settled(world, watch, stays)
    assert watch.most == 1
    assert watch.longest < MOMENT
    world.settle()
    world.audit()
    ids = [CommandEnvelope.parse(record.headers).id for record in world.commands()]
    assert len(ids) == len(set(ids)), "what Kafka had acknowledged was written down before the hand-over"


def test_a_slow_database_is_not_asked_all_the_time_for_what_is_to_move(world: World) -> None:
    """Who is below its share looks often, but not for more than a quarter of its time."""
    first, looks = world.join(), 0
    settled(world, Watch(world), first)
    world.fault = lambda name: world.pass_time(0.04) if name == "heartbeat" else None
    second = world.join()
    begun = world.nanos
    for _ in range(600):
        before = world.nanos
        world.turn(second)
        looks += world.nanos - before > 0.04e9
    assert 0 < looks * 0.04e9 < (world.nanos - begun) / 4


def test_who_leaves_alone_waits_for_nobody(world: World) -> None:
    node = world.join()
    settled(world, Watch(world), node)
    begun = world.nanos
    world.end(node)
    assert world.nanos - begun < 0.1e9
    assert all(lease.owner is None for lease in world.store.shards())


def test_two_that_leave_at_once_do_not_wait_for_each_other(world: World) -> None:
    one, other = world.join(), world.join()
    watch = Watch(world)
    settled(world, watch, one, other)
    begun = world.nanos
    for node in (one, other):
        node.loop.stop()
    while not (one.loop.over and other.loop.over):
        watch.turn(one, other)
    assert world.nanos - begun < 0.5e9
    world.end(one)
    world.end(other)
    assert all(lease.owner is None for lease in world.store.shards())


def test_an_heir_that_takes_nothing_gets_nothing_more_until_the_leaver_is_late(world: World) -> None:
    """It lives by its heartbeats, and its claims don't succeed."""
    lame, leaves = world.join(), world.join()
    watch = Watch(world)
    settled(world, watch, lame, leaves)
    begun = world.nanos
    leaves.loop.stop()
    while not leaves.loop.over:
        world.turn(leaves)
        world.store.heartbeat(lame.name, [], ttl=3.0)
        watch.look()
        world.pass_time(0.02)
    assert LEAVE_SECONDS * 1e9 <= world.nanos - begun < (LEAVE_SECONDS + 0.2) * 1e9
    assert owned(leaves) == SHARDS // 2 - 1
    world.end(leaves)
    free = [lease.shard for lease in world.store.shards() if lease.owner != lame.name]
    assert len(free) == SHARDS // 2
    settled(world, watch, lame)


def test_a_leaver_that_is_killed_leaves_no_more_behind_than_any_other(world: World) -> None:
    stays, leaves = world.join(), world.join()
    watch = Watch(world)
    settled(world, watch, stays, leaves)
    for number in range(24):
        world.start("failing", f"s{number}")
    leaves.loop.stop()
    while owned(leaves) > 2:
        watch.turn(stays, leaves)
    world.kill(leaves)
    settled(world, watch, stays)
    world.settle()
    world.audit()
