"""Kafka or Postgres away for a while, and what waits meanwhile."""

from __future__ import annotations

import pytest

from kasaga.store.base import SagaState, StoreUnavailable
from kasaga_wire.envelope import CommandEnvelope
from orchestrator.desk import FAILED, SILENT
from orchestrator.node import Node
from orchestrator.world import World


def states(world: World) -> set[str]:
    return {str(row.state) for row in world.sagas()}


def attempts(world: World) -> list[int]:
    return [CommandEnvelope.parse(record.headers).attempt for record in world.commands()]


def working(world: World, sagas: int = 4) -> Node:
    """A process in the middle of some sagas."""
    world.odds.slow = 0.0
    node = world.join()
    for number in range(sagas):
        world.start("trip", f"s{number}")
    world.turns(node, 3)
    return node


POINTS = (
    "heartbeat",
    "claim",
    "open_rows",
    "timers",
    "parked",
    "find",
    "load",
    "put_schemas",
    "commit",
    "commit.done",
)


@pytest.mark.parametrize("point", POINTS)
def test_nothing_is_lost_when_postgres_goes_away_at_any_question(point: str) -> None:
    """Each time it is asked for the n-th time; `find` and `load` come when records are read already."""
    for number in range(1, 4):
        with World(number) as world:
            asked = 0

            def fault(name: str, nth: int = number) -> None:
                nonlocal asked
                asked += name == point
                if name == point and nth <= asked < nth + 2:
                    raise StoreUnavailable("a test")

            world.fault = fault
            node = working(world)
            world.serve()
            node.runs.close()  # so that sagas have to be loaded
            world.turns(node, 3)
            node.ownership.lost({0})
            assert asked, f"nothing asks {point}"
            world.settle()
            world.audit()
            assert states(world) == {"COMPLETED"}
            assert set(attempts(world)) == {1}


def test_the_loop_reads_no_more_than_a_batch_while_postgres_is_away() -> None:
    with World(max_batch=10) as world:
        node = world.join()
        world.turns(node, 3)
        for number in range(100):
            world.start("empty", f"s{number}")
        node.consumer.take = lambda most: min(most, 10)
        world.nodes.append(node)  # somebody else, so that waiting doesn't bring Postgres back
        node.away_until = world.nanos + int(30e9)
        for _ in range(30):
            world.turn(node)
        read = sum(at for at in node.consumer.positions(world.topics.sagas).values())
        world.nodes.pop()

        assert read <= 20
        world.settle()
        assert len(world.sagas()) == 100


def test_a_process_is_not_ready_again_before_postgres_has_answered_it() -> None:
    """A turn that asks nothing of the store says nothing about it."""
    with World() as world:
        node = world.join()
        world.turns(node, 3)
        assert node.loop.ready()[0]
        world.nodes.append(node)  # somebody else, so that waiting doesn't bring Postgres back
        node.away_until = world.nanos + int(30e9)
        seen: list[bool] = []
        while world.nanos < node.away_until:
            world.turn(node)
            seen.append(node.loop.ready()[0])
        first = seen.index(False)
        assert len(seen) - first > 20
        assert not any(seen[first:-1])
        world.nodes.pop()
        world.turns(node, 3)
        assert node.loop.ready()[0]


def test_after_an_hour_without_owner_no_answered_saga_is_tried_again() -> None:
    with World() as world:
        node = working(world, sagas=20)
        world.kill(node)
        for _ in range(20):
            world.serve()
        world.pass_time(3600)

        world.join()
        world.settle()

        world.audit()
        assert states(world) == {"COMPLETED"}
        assert set(attempts(world)) == {1}


def test_after_an_hour_without_kafka_no_answered_saga_is_tried_again() -> None:
    """The owner lives and hears nothing: it gives its shards up, and knows no end of the replies."""
    with World() as world:
        node = working(world, sagas=20)
        node.consumer.cut_off = node.producer.cut_off = True
        for _ in range(20):
            world.serve()
            world.turn(node)
        for _ in range(40):
            world.pass_time(90)
            world.turn(node)
        assert not node.loop.shards

        world.settle()

        world.audit()
        assert states(world) == {"COMPLETED"}
        assert set(attempts(world)) == {1}


def test_a_silent_kafka_is_asked_a_few_times_not_at_each_turn() -> None:
    """Each question that isn't answered stops the loop for its time-out, and the leases run meanwhile."""
    with World() as world:
        node = working(world)
        world.desk.mood = lambda envelope: SILENT
        world.pass_time(2.5)
        node.consumer.cut_off = True
        before = node.consumer.questions
        for _ in range(200):
            world.turn(node)  # 2 ms each

        assert node.consumer.questions - before <= 2


def test_without_kafka_for_long_a_process_gives_its_shards_up_and_takes_them_back() -> None:
    with World(brokers_lost_seconds=10) as world:
        node = working(world)
        node.consumer.cut_off = True
        for _ in range(15):
            world.pass_time(1)
            world.turn(node)
        assert not node.loop.shards
        assert [lease.owner for lease in world.store.shards()] == [None, None]

        other = world.join()
        world.turns(other, 3)
        assert other.loop.shards.keys() == {0, 1}
        world.settle()
        world.audit()


def test_records_go_out_again_when_the_producer_has_died() -> None:
    with World() as world:
        world.odds.slow = 0.0
        node = world.join()
        world.turns(node, 2)
        node.producer.deliver = lambda waiting: 0
        for number in range(5):
            world.start("trip", f"s{number}")
        world.turns(node, 2)
        assert node.producer.waiting == 5

        node.producer.die("an idempotent producer's fatal error")
        world.turns(node, 1)

        assert len(node.producers) == 2
        world.settle()
        world.audit()
        assert set(attempts(world)) == {1}


def test_a_process_that_ends_hands_over_at_once_and_its_successor_sends_nothing_twice() -> None:
    with World() as world:
        node = working(world)
        world.end(node)
        assert [lease.owner for lease in world.store.shards()] == [None, None]

        other = world.join()
        world.turns(other, 1)

        assert other.loop.shards.keys() == {0, 1}
        assert not other.producer.produced
        world.settle()
        world.audit()


def test_a_process_that_ends_without_postgres_ends_all_the_same() -> None:
    with World() as world:
        node = working(world)
        node.away_until = world.nanos + int(1e12)
        world.nodes.append(node)  # somebody else, so that waiting doesn't bring Postgres back
        world.end(node)
        world.nodes.clear()

        world.join()
        world.settle()
        world.audit()


@pytest.mark.parametrize("topic", ["sagas", "replies", "control"])
def test_a_log_that_was_truncated_is_read_on_at_its_new_beginning(topic: str) -> None:
    with World(shards=1) as world:
        node = working(world)
        world.serve()
        world.kill(node)
        name = getattr(world.topics, topic)
        world.kafka.truncate(name, 0, world.kafka.logs[name, 0].end + 50)
        world.pass_time(5)

        world.join()
        world.start("trip", "later")
        world.settle()

        world.audit()
        assert states(world) == {"COMPLETED"}


def test_replies_that_were_lost_are_asked_for_again_at_once() -> None:
    """Every open command is sent once more: the inboxes have the answers."""
    with World(shards=1) as world:
        node = working(world, sagas=8)
        world.kill(node)
        for _ in range(20):
            world.serve()
        world.kafka.truncate(world.topics.replies, 0, 1000)

        world.pass_time(5)
        world.join()
        world.settle()

        world.audit()
        ids = [CommandEnvelope.parse(record.headers).id for record in world.commands()]
        assert len(ids) > len(set(ids))


def test_topics_made_anew_under_a_running_owner() -> None:
    with World(shards=1) as world:
        node = working(world)
        for _ in range(6):
            world.serve()
            world.turn(node)
        for name in (world.topics.sagas, world.topics.replies, world.topics.control):
            world.kafka.remake(name, 0)
        world.start("trip", "later")

        world.settle()

        world.audit()
        assert world.saga("later").state is SagaState.COMPLETED


def test_taking_many_shards_does_not_cost_the_first_ones_their_leases() -> None:
    """Each claim takes a while here: the loop comes back to its heartbeat in between."""
    with World(shards=16) as world:
        late: list[int] = []

        def slow(name: str) -> None:
            if name == "claim":
                world.pass_time(0.4)
                late.extend(lease.shard for lease in world.store.shards() if lease.owner and lease.expired)

        world.fault = slow
        node = world.join()
        world.turns(node, 30)

        assert len(node.loop.shards) == 16
        tokens = {number: shard.token for number, shard in node.loop.shards.items()}
        world.turns(node, 3)
        assert tokens == {number: shard.token for number, shard in node.loop.shards.items()}
        assert not late


def test_what_is_committed_shows_in_kafka_as_lag_would() -> None:
    with World(shards=1) as world:
        node = working(world)
        world.settle()
        world.pass_time(10)
        world.turns(node, 2)

        offsets = world.offsets(0)
        assert node.consumer.shown == {
            (world.topics.sagas, 0): offsets.sagas,
            (world.topics.replies, 0): offsets.replies,
            (world.topics.control, 0): offsets.control,
        }
        assert offsets.sagas == world.kafka.logs[world.topics.sagas, 0].end


def test_starts_pause_under_pressure_and_replies_go_on() -> None:
    with World(shards=1, max_in_flight=5, max_batch=4) as world:
        world.odds.slow = 0.0
        node = world.join()
        for number in range(40):
            world.start("trip", f"s{number}")
        most = 0
        for _ in range(400):
            world.turn(node)
            world.serve()
            most = max(most, sum(len(shard.open) for shard in node.loop.shards.values()))
        world.settle()

        assert most <= 5 + 4
        assert len(world.sagas()) == 40
        world.audit()


def test_sagas_that_sleep_keep_no_others_out() -> None:
    with World(shards=1, max_in_flight=5, max_batch=4, sleepers_in_memory=1000) as world:
        world.odds.slow = 0.0
        node = world.join()
        for number in range(40):
            world.start("nap", f"s{number}")
        busy = asleep = 0
        for _ in range(100):
            world.turn(node)
            world.serve()
            [shard] = node.loop.shards.values()
            busy, asleep = max(busy, shard.in_flight), max(asleep, len(shard.asleep))
        world.kill(node)
        world.pass_time(4)
        heir = world.join()
        world.settle()

        assert busy <= 5 + 4
        assert asleep > 40
        assert [(len(shard.asleep), shard.in_flight) for shard in heir.loop.shards.values()] == [(0, 0)]
        assert len(world.sagas()) == 40
        world.audit()


def test_a_retry_that_waits_for_its_time_is_sent_by_the_next_owner() -> None:
    """Its row lies below the acknowledged position: the one before it was answered long ago."""
    with World(shards=1, lease_seconds=0.2, heartbeat_seconds=0.05) as world:
        world.odds.slow = 0.0
        node = world.join()
        world.desk.mood = lambda envelope: FAILED if envelope.attempt == 1 else "done"
        world.start("failing", "a")
        while not any(row.send_at for row in world.outbox()):
            world.turn(node)
            world.serve()
        world.start("empty", "b")
        world.turns(node, 2)
        world.kill(node)
        world.pass_time(0.25)

        world.join()
        world.settle()

        world.audit()
        assert max(attempts(world)) == 2, "a third attempt waited for the time-out of the second"
