"""ctx.run's functions: off the loop, at least once, and never for a shard that is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from unittest.mock import patch
from uuid import UUID

import pytest

from eventually import eventually
from kasaga.engine.codec import decode
from kasaga.engine.decide import Run
from kasaga.engine.model import Ran
from kasaga.errors import MissingVersion
from kasaga.orchestrator.functions import Functions
from kasaga.orchestrator.threads import Pool
from kasaga.store.base import OutboxRow, RowKind, SagaState
from kasaga_wire.codec import Schemas
from orchestrator import trips
from orchestrator.node import Node
from orchestrator.world import World

RUN = UUID(int=1)


@pytest.fixture
def world() -> Iterator[World]:
    trips.UNDONE.clear()
    with World(shards=1, lease_seconds=1.0, heartbeat_seconds=0.2) as world:
        world.odds.slow = 0.0
        yield world
    trips.HOOK[0] = lambda: 7


def go_on(world: World, node: Node, until: object) -> None:
    def step() -> bool:
        world.turn(node)
        world.serve()
        return bool(until()) if callable(until) else False

    eventually(step, interval=0)


def over(world: World, saga_id: str = "a") -> bool:
    row = world.store.saga(saga_id)
    return row is not None and row.state in (SagaState.COMPLETED, SagaState.COMPENSATED)


def ran(world: World) -> list[Ran]:
    records = [decode(each.seq, each.body) for each in world.store.history(world.saga("a"))]
    return [record.event for record in records if isinstance(record.event, Ran)]


def test_a_functions_result_is_kept(world: World) -> None:
    node = world.join()
    world.start("local", "a")
    go_on(world, node, lambda: over(world))

    assert [(each.ok, each.attempt) for each in ran(world)] == [(True, 1)]
    assert world.saga("a").state is SagaState.COMPLETED


def test_a_function_that_fails_is_tried_again(world: World) -> None:
    left = [2]

    def unwell() -> int:
        left[0] -= 1
        if left[0] >= 0:
            raise OSError("not now")
        return 3

    trips.HOOK[0] = unwell
    node = world.join()
    world.start("local", "a")
    world.odds.slow = 0.0

    def later() -> bool:
        world.pass_time(0.5)
        return over(world)

    go_on(world, node, later)
    assert [(each.ok, each.attempt, each.error_type) for each in ran(world)] == [
        (False, 1, "OSError"),
        (False, 2, "OSError"),
        (True, 3, ""),
    ]


def test_a_function_runs_again_when_its_process_died_in_the_middle(world: World) -> None:
    calls: list[str] = []
    go = threading.Event()

    def slow() -> int:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            go.wait(30)
        return len(calls)

    trips.HOOK[0] = slow
    node = world.join()
    world.start("local", "a")
    go_on(world, node, lambda: calls)
    world.kill(node)
    world.pass_time(2)
    node = world.join()
    go_on(world, node, lambda: over(world))
    go.set()

    assert len(calls) == 2
    assert [each.ok for each in ran(world)] == [True]
    world.settle()
    world.audit()


def test_what_ends_after_its_shard_was_lost_is_of_no_use_and_no_harm(world: World) -> None:
    go = threading.Event()
    calls: list[int] = []

    def slow() -> int:
        calls.append(1)
        go.wait(30)
        return 5

    trips.HOOK[0] = slow
    node = world.join()
    world.start("local", "a")
    go_on(world, node, lambda: calls)
    world.pass_time(5)
    other = world.join()
    go_on(world, other, lambda: len(calls) == 2)
    go.set()
    go_on(world, node, lambda: not node.functions.running)
    go_on(world, other, lambda: over(world))
    assert [each.ok for each in ran(world)] == [True]
    world.settle()
    world.audit()


def test_a_function_whose_saga_was_parked_runs_when_it_goes_on(world: World) -> None:
    """In the same process: nobody brings the row a second time."""
    go = threading.Event()
    trips.HOOK[0] = lambda: go.wait(30) and 7
    node = world.join()
    world.start("local", "a")
    go_on(world, node, lambda: node.functions.running)
    world.kill(node)
    go.set()
    world.pass_time(2)
    node = world.join()

    def refuse(run: Run, *about: object) -> object:
        raise MissingVersion("no such saga here")

    with patch.object(Run, "live", refuse):
        go_on(world, node, lambda: world.saga("a").state is SagaState.STUCK)
        world.turns(node, 3)
    assert (node.functions.holds, node.functions.running) == (True, 0)
    world.control("retry", "a")
    go_on(world, node, lambda: over(world))
    assert not node.functions.holds
    assert world.saga("a").state is SagaState.COMPLETED
    world.settle()
    world.audit()


def row(seq: int, shard: int) -> OutboxRow:
    return OutboxRow(shard, seq, RowKind.LOCAL, RUN, "1", "", None, None, [], None, 1, None, None)


def test_rows_of_several_shards_with_the_same_number_are_all_started() -> None:
    functions = Functions(2, Schemas(), 1000)
    for shard in (3, 1, 2):
        functions.add(row(7, shard))
        functions.add(row(7, shard))  # a shard that came back brings its rows once more
    assert [each.shard for each in functions.due(1)] == [1, 2, 3]
    assert functions.due(1) == []
    assert functions.next_due is None


def test_rows_that_are_held_go_with_their_shard() -> None:
    functions = Functions(2, Schemas(), 1000)
    functions.hold(row(1, 1))
    functions.hold(row(2, 1))
    functions.hold(row(3, 2))
    functions.went_on(1, "another run")
    assert functions.due(1) == []
    functions.went_on(1, str(RUN))
    assert [each.seq for each in functions.due(1)] == [1, 2]
    functions.drop_shard(2)
    assert not functions.holds


def test_rows_of_a_shard_that_is_gone_are_not_started() -> None:
    functions = Functions(2, Schemas(), 1000)
    functions.add(row(1, 1))
    functions.add(row(2, 2))
    functions.drop_shard(1)
    assert [each.shard for each in functions.due(1)] == [2]


def test_a_pool_has_no_more_threads_than_it_may_and_no_more_than_it_needs() -> None:
    pool, go = Pool(3), threading.Event()
    done: list[int] = []
    before = threading.active_count()
    pool.submit(lambda: done.append(0))
    eventually(lambda: done == [0])
    pool.submit(lambda: done.append(1))
    eventually(lambda: len(done) == 2)
    assert threading.active_count() - before <= 2

    def wait() -> None:
        go.wait(30)
        done.append(2)

    for _ in range(10):
        pool.submit(wait)
    assert threading.active_count() - before <= 3
    go.set()
    eventually(lambda: len(done) == 12)
    pool.close()


def has(found: list[int], many: int) -> bool:
    return len(found) == many


def test_lost_threads_are_replaced_as_far_as_it_goes() -> None:
    """Two at work, one spare: with two lost there is one left, with three none; they come back one by one."""
    pool, done = Pool(2, spare=1), list[int]()
    doors = [threading.Event() for _ in range(3)]
    hanging: list[int] = []

    def hang(number: int) -> None:
        hanging.append(number)
        doors[number].wait(30)
        pool.regain()

    before = set(threading.enumerate())

    def mine() -> int:
        return len(set(threading.enumerate()) - before)

    for number in range(3):
        pool.submit(partial(hang, number))
        eventually(partial(has, hanging, number + 1))
        pool.lose()
        assert pool.full == (number == 2)
        if number < 2:
            pool.submit(partial(done.append, number))
            eventually(partial(has, done, number + 1))
    pool.submit(lambda: done.append(2))
    assert (pool.lost, done) == (3, [0, 1])
    assert mine() == 3
    doors[0].set()
    eventually(lambda: done == [0, 1, 2])
    for door in doors:
        door.set()
    eventually(lambda: pool.lost == 0)
    eventually(lambda: mine() == 2)
    pool.close()
    eventually(lambda: mine() == 0)


def test_work_that_raises_costs_no_thread(caplog: pytest.LogCaptureFixture) -> None:
    pool, done = Pool(1), list[int]()

    def fail() -> None:
        raise ValueError("no outcome of a function")

    pool.submit(fail)
    pool.submit(lambda: done.append(1))
    eventually(lambda: done == [1])
    assert "a bug" in caplog.text
    pool.close()


def test_a_pool_that_is_closed_begins_nothing_more_and_waits_for_nobody() -> None:
    pool, go, begun = Pool(1), threading.Event(), threading.Event()
    done: list[int] = []

    def wait() -> None:
        begun.set()
        go.wait(30)
        done.append(1)

    pool.submit(wait)
    pool.submit(lambda: done.append(2))
    assert begun.wait(30)
    pool.close()
    go.set()
    eventually(lambda: done == [1])
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "kasaga-run")
