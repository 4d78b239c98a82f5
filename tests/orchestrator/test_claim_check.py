"""Payloads that are objects: processes die around them, and stores are away, forget and change."""

from __future__ import annotations

import pytest

from kasaga.engine.codec import decode
from kasaga.engine.model import Replied
from kasaga.store.base import SagaState
from kasaga_wire.claims import is_claim
from kasaga_wire.kafka import Record
from orchestrator.shelf import Shelf, furnish
from orchestrator.test_crash_windows import POINTS, nth, until_over
from orchestrator.world import Odds, World

LARGE = "a chair, " * 50


def story(world: World, shelf: Shelf) -> None:
    """One saga that ends well, and one that is undone, with every payload an object."""
    furnish(world, shelf)
    world.desk.mood = lambda envelope: "refused" if envelope.type == "post.send" else "done"
    world.odds.slow = 0.0
    world.join()
    for number, saga in enumerate(("hasty", "trip", "nap")):
        world.start(saga, f"{saga}-{number}", LARGE)
    until_over(world)


def errors(world: World, saga_id: str) -> list[str]:
    """What answers of a saga have said was wrong with them."""
    found = world.saga(saga_id)
    rows = world.store.load([(found.shard, found.run_id)])[found.run_id]
    records = [decode(row.seq, row.body) for row in rows]
    return [each.event.error for each in records if isinstance(each.event, Replied) and each.event.error_type]


def replies(world: World) -> list[Record]:
    logs = [log for (topic, _), log in world.kafka.logs.items() if topic == world.topics.replies]
    return [record for log in logs for record in log.records]


def test_kafka_has_claims_and_histories_have_payloads() -> None:
    with World(7) as world:
        shelf = Shelf()
        story(world, shelf)
        world.audit()
        commands = [
            record
            for (topic, _), log in world.kafka.logs.items()
            if topic in {world.topics.commands(name) for name in world.app.contracts}
            for record in log.records
        ]
        assert sum(is_claim(record.value) for record in commands) > 5
        assert any(is_claim(record.value) for record in replies(world))
        assert all(name.count("/") == 1 for name in shelf.objects)
        for found in world.sagas():
            for row in world.store.load([(found.shard, found.run_id)])[found.run_id]:
                assert b"\xc1K\x04" not in row.body


@pytest.mark.parametrize("point", [*POINTS, "orchestrator.after_object"])
def test_no_crash_window_names_an_object_that_is_not_there(point: str) -> None:
    with World(7) as world:
        story(world, Shelf())
        times = world.points.get(point, 0)
    if not times:
        assert point in ("orchestrator.before_offsets", "orchestrator.after_offsets")
    for number in range(1, times + 1, 1 + times // 12):
        with World(7, lease_seconds=0.4, heartbeat_seconds=0.1) as world:
            world.crash = nth(point, number)
            story(world, Shelf())
            world.audit()


def test_a_store_that_is_away_holds_up_those_alone_that_need_it() -> None:
    with World(7) as world:
        shelf = Shelf()
        furnish(world, shelf)
        world.odds.slow = 0.0
        world.join()
        shelf.away = True
        world.start("trip", "large", LARGE)
        world.start("empty", "small")
        for _ in range(400):
            world.step()
        assert world.saga("small").state is SagaState.COMPLETED
        assert world.saga("large").state is SagaState.RUNNING
        shelf.away = False
        until_over(world)
        world.audit()
        assert world.saga("large").state is SagaState.COMPLETED


@pytest.mark.parametrize("what", ["gone", "changed", "away"])
def test_an_answer_that_can_not_be_fetched_is_asked_for_again(what: str) -> None:
    with World(7) as world:
        shelf = Shelf()
        furnish(world, shelf)
        world.odds.slow = 0.0
        world.join()
        world.start("trip", "one", LARGE)
        for _ in range(500):
            if any(is_claim(record.value) for record in replies(world)):
                break
            world.serve()
            for name in [name for name in shelf.objects if replies(world)]:
                _spoil(shelf, name, what)
            world.turn(world.nodes[0])
        for name in list(shelf.objects):
            _spoil(shelf, name, what)
        for _ in range(600):
            world.step()
            if errors(world, "one"):
                break
        assert "KSG-115" in errors(world, "one")[0]
        shelf.away = False
        until_over(world)
        world.audit()
        assert world.saga("one").state is SagaState.COMPLETED


def _spoil(shelf: Shelf, name: str, what: str) -> None:
    if what == "away":
        shelf.away = True
    elif what == "gone":
        shelf.objects.pop(name)
    else:
        shelf.objects[name] = shelf.objects[name][:-1] + b"?"


def test_a_new_owner_fetches_what_the_old_one_was_fetching() -> None:
    with World(7, lease_seconds=0.4, heartbeat_seconds=0.1) as world:
        shelf = Shelf()
        furnish(world, shelf)
        world.odds.slow = 0.0
        node = world.join()
        world.start("trip", "one", LARGE)
        for _ in range(500):
            if any(is_claim(record.value) for record in replies(world)):
                break
            world.serve()
            world.turn(node)
        shelf.away = True
        world.turns(node, 20)
        world.kill(node)
        shelf.away = False
        world.join()
        until_over(world)
        world.audit()
        assert errors(world, "one") == []


@pytest.mark.parametrize("seed", range(12))
def test_whatever_goes_wrong_at_once_the_books_agree(seed: int) -> None:
    odds = Odds(die=0.002, freeze=0.002, store=0.01, unknown=0.01, outage=0.002, again=0.05, slow=0.3)
    with World(seed, odds=odds, lease_seconds=0.4, heartbeat_seconds=0.1) as world:
        shelf = Shelf()
        furnish(world, shelf)
        world.join()
        world.join()
        for number in range(8):
            world.start(("trip", "hasty", "failing", "nap")[number % 4], f"s-{number}", LARGE)
        for _ in range(600):
            shelf.away = world.dice.random() < 0.1
            if shelf.objects and world.dice.random() < 0.02:
                _spoil(shelf, world.dice.choice(sorted(shelf.objects)), "changed")
            world.step()
        shelf.away = False
        world.heal()
        world.settle()
        world.audit()
        assert shelf.writes > 20
