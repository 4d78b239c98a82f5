"""An owner that was frozen, or cut off, and doesn't know that its shards have another owner by now."""

from __future__ import annotations

from kasaga.store.base import SagaState
from kasaga_wire.envelope import CommandEnvelope
from orchestrator.node import Node
from orchestrator.world import World


def busy(world: World, sagas: int = 6) -> Node:
    """A process with shards and a start for each of some sagas; it hasn't read them yet."""
    world.odds.slow = 0.0
    node = world.join()
    world.turns(node, 3)
    for number in range(sagas):
        world.start("trip", f"s{number}")
    return node


def test_a_zombie_commits_nothing_that_it_decided_before_it_froze() -> None:
    with World() as world:
        zombie = busy(world)
        woken: list[str] = []

        def freeze(point: str) -> bool:
            if point == "orchestrator.before_commit" and not woken and world.running is zombie:
                woken.append(point)
                world.pass_time(10)
                other = world.join()
                world.turns(other, 10)
                assert other.loop.shards.keys() == {0, 1}
            return False

        world.crash = freeze
        world.turns(zombie, 3)

        assert woken
        assert not zombie.loop.shards
        world.settle()
        world.audit()
        assert all(row.state is SagaState.COMPLETED for row in world.sagas())


def test_what_a_zombie_still_produces_changes_nothing() -> None:
    with World() as world:
        zombie = busy(world)
        woken: list[str] = []

        def freeze(point: str) -> bool:
            if point == "orchestrator.after_commit" and not woken and world.running is zombie:
                woken.append(point)
                world.pass_time(10)
                other = world.join()
                for _ in range(200):
                    world.turn(other)
                    world.serve()
                    world.pass_time(0.01)
                assert world.over()
            return False

        world.crash = freeze
        world.turns(zombie, 3)

        assert woken
        ids = [CommandEnvelope.parse(record.headers).id for record in world.commands()]
        assert len(set(ids)) < len(ids), "it has produced what it committed, for the second time"
        world.settle()
        world.audit()


def test_a_batch_of_two_shards_commits_for_the_one_that_is_still_owned() -> None:
    with World(2) as world:
        node = busy(world, sagas=12)
        taken: list[int] = []

        def steal(point: str) -> bool:
            if point == "orchestrator.before_commit" and not taken and len(world.sagas()) == 0:
                world.pass_time(10)
                row = world.store.claim(0, "thief", ttl=1.0)
                assert row is not None
                taken.append(row.shard)
            return False

        world.crash = steal
        world.turns(node, 2)

        assert taken == [0]
        assert {row.shard for row in world.sagas()} == {1}
        assert node.loop.shards.keys() == {1}
        world.settle()
        world.audit()


def test_a_database_that_went_back_in_time_is_read_again_from_there() -> None:
    with World() as world:
        node = busy(world)
        world.turns(node, 2)
        world.serve()
        earlier = world.snapshot()
        for _ in range(10):
            world.turn(node)
            world.serve()

        world.restore(earlier)

        world.settle()
        world.audit()
        assert all(row.state is SagaState.COMPLETED for row in world.sagas())


def test_an_owner_that_waits_for_nothing_sees_that_the_database_went_back_in_time() -> None:
    """Nothing comes any more that it would commit: what the database has lost would be open for ever."""
    with World(shards=1) as world:
        node = busy(world)
        taken: list[object] = []
        while sum(row.state is SagaState.COMPLETED for row in world.sagas()) < 6:
            taken.append(world.snapshot())
            world.turn(node)
            world.serve()
        before = taken[-1]
        world.turns(node, 700)
        assert not world.outbox()

        world.restore(before)

        assert world.outbox()
        world.turns(node, 700)
        assert not world.outbox()
        world.audit()


def test_a_lease_that_ran_out_and_that_nobody_took_is_renewed() -> None:
    with World() as world:
        node = busy(world)
        epochs = {number: shard.token for number, shard in node.loop.shards.items()}
        world.pass_time(60)

        world.turns(node, 3)

        assert {number: shard.token for number, shard in node.loop.shards.items()} == epochs
        world.settle()
        world.audit()


def test_an_owner_that_drops_its_shard_claims_it_anew_at_the_next_heartbeat() -> None:
    with World() as world:
        node = busy(world)
        token = node.loop.shards[0].token
        node.ownership.lost({0})
        world.pass_time(0.6)

        world.turns(node, 2)

        assert node.loop.shards[0].token != token
        world.settle()
        world.audit()


def test_a_take_over_reads_again_what_its_former_time_had_only_read() -> None:
    """The position of an earlier ownership says nothing: timers would overtake answers that are there."""
    with World() as world:
        node = busy(world)
        for _ in range(6):
            world.turn(node)
            world.serve()
        shard = node.loop.shards[0]
        read = shard.position
        assert read > 0
        node.ownership.lost({0})
        world.offsets(0).replies = 0
        world.pass_time(0.6)
        node.consumer.cut_off = True  # it reads nothing now

        world.turn(node)

        assert node.loop.shards[0].position == 0
