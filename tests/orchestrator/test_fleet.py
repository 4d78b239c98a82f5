"""Several versions among several processes: which one is started, and who goes on with what."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kasaga import App
from kasaga.engine.codec import decode
from kasaga.engine.state import fold
from kasaga.fleet import Fleet, listed, newest
from kasaga.store.base import SagaState
from orchestrator import versions
from orchestrator.messages import told
from orchestrator.node import Node
from orchestrator.trips import CONTRACTS
from orchestrator.world import World

WITHOUT = App(
    "trips", sagas=[each for each in versions.sagas() if each.name != "trip"], participants=CONTRACTS
)
ONLY_TWO = App("trips", sagas=[versions.second], participants=CONTRACTS)
BOTH = App("trips", sagas=versions.sagas(), participants=CONTRACTS)


@pytest.fixture
def world() -> Iterator[World]:
    with World(shards=1, lease_seconds=1.0, heartbeat_seconds=0.2) as world:
        world.odds.slow = 0.0
        yield world


def go_on(world: World, *nodes: Node, times: int = 25) -> None:
    for _ in range(times):
        for node in nodes:
            world.turn(node)
        world.serve()


def test_the_newest_that_all_have() -> None:
    one, two, both = (frozenset(listed(each)) for each in ([("s", 1)], [("s", 2)], [("s", 1), ("s", 2)]))
    assert newest("s", both, []) == 2
    assert newest("s", both, [both, one]) == 1
    assert newest("s", both, [both, both]) == 2
    assert newest("s", both, [frozenset({"other/9"})]) == 2, "a saga that is new has no version before"
    assert newest("s", one, [two]) == 1
    assert newest("s", frozenset(), [one, both]) == 2, "it waits for who has it"
    assert newest("s", frozenset(), [frozenset({"other/9"})]) == 0


def test_what_a_fleet_knows_changes_with_those_who_live() -> None:
    fleet = Fleet([("s", 1), ("s", 2)])
    assert fleet.newest("s") == 2
    fleet.learn({"old": frozenset({"s/1"})})
    assert fleet.newest("s") == 1
    fleet.learn({})
    assert fleet.newest("s") == 2


def test_a_new_version_starts_when_the_last_old_process_is_gone(world: World) -> None:
    old = world.join()
    go_on(world, old, times=3)
    new = world.join(BOTH)
    go_on(world, old, new, times=5)
    world.start("trip", "s1")
    go_on(world, old, new)
    assert (world.saga("s1").version, world.saga("s1").state) == (1, SagaState.COMPLETED)
    world.kill(old)
    world.pass_time(3.0)
    go_on(world, new, times=10)
    world.start("trip", "s2")
    go_on(world, new, times=5)
    world.pass_time(0.6)
    go_on(world, new)
    assert (world.saga("s2").version, world.saga("s2").state) == (2, SagaState.COMPLETED)


def test_a_saga_whose_version_its_owner_lacks_waits_for_one_that_has_it(world: World) -> None:
    first = world.join()
    go_on(world, first, times=3)
    world.start("trip", "s1")
    world.turn(first)
    world.turn(first)
    assert world.saga("s1").version == 1
    world.kill(first)
    world.pass_time(3.0)
    lacking = world.join(ONLY_TWO)
    go_on(world, lacking, times=30)
    row = world.saga("s1")
    assert (row.state, row.code) == (SagaState.RUNNING, "KSG-203")
    assert "no saga trip version 1" in row.reason
    history = len(list(world.store.history(row)))
    world.kill(lacking)
    world.pass_time(3.0)
    again = world.join(ONLY_TWO)
    go_on(world, again)
    assert len(list(world.store.history(row))) == history, "an owner that lacks it as well writes nothing"
    assert [len(shard.lacking) for shard in again.loop.shards.values()] == [1]
    world.kill(again)
    world.pass_time(3.0)
    go_on(world, world.join(BOTH), times=40)
    row = world.saga("s1")
    assert (row.state, row.code, row.version) == (SagaState.COMPLETED, "", 1)


def test_a_saga_of_a_name_that_nobody_had_is_of_the_version_that_comes(world: World) -> None:
    without = world.join(WITHOUT)
    go_on(world, without, times=3)
    world.start("trip", "s1")
    for _ in range(30):  # it may be that only the schema of its input hasn't arrived yet
        world.pass_time(0.5)
        go_on(world, without, times=3)
    row = world.saga("s1")
    assert (row.state, row.code, row.version) == (SagaState.STUCK, "KSG-203", 0)
    world.kill(without)
    world.pass_time(3.0)
    having = world.join(BOTH)
    go_on(world, having, times=10)
    world.pass_time(0.6)
    go_on(world, having, times=10)
    row = world.saga("s1")
    assert (row.state, row.code, row.version) == (SagaState.COMPLETED, "", 2)


# --- moving to another version


@pytest.mark.parametrize("point", ["after_read", "before_commit", "after_commit", "after_produce"])
def test_a_saga_is_moved_once_whoever_dies(world: World, point: str) -> None:
    node = world.join(BOTH)
    go_on(world, node, times=3)
    for number in range(5):
        world.start("rest", f"n{number}", note="9", version=1)
    while sum(row.step == "1" for row in world.outbox()) < 5:
        go_on(world, node, times=1)
    deaths = 0

    def die(name: str) -> bool:
        nonlocal deaths
        deaths += name == f"orchestrator.{point}" and not deaths
        return deaths == 1 and name == f"orchestrator.{point}"

    for number in range(4):
        world.control("move", f"n{number}", value="2")
    refused = world.control("move", "n4", value="7")
    world.crash = die
    while not deaths:
        go_on(world, node, times=1)
    world.crash = lambda point: False
    world.pass_time(3.0)
    world.join(BOTH)
    world.settle()
    assert [world.saga(f"n{number}").version for number in range(5)] == [2, 2, 2, 2, 1]
    assert [world.saga(f"n{number}").state for number in range(5)] == [SagaState.COMPLETED] * 5
    letters = [each for each in world.commands() if "post" in each.topic]
    assert {each.key for each in letters} == {f"n{number}".encode() for number in range(4)}
    answer = told(world, refused)[-1]
    assert answer.what == "not_applicable"
    assert "no rest version 7" in (answer.reason or "")
    world.audit()


# --- going back


@pytest.mark.parametrize("point", ["after_read", "before_commit", "after_commit", "after_produce"])
@pytest.mark.parametrize("which", [1, 2, 3])
def test_a_saga_is_set_back_once_whoever_dies(world: World, point: str, which: int) -> None:
    node = world.join(BOTH)
    go_on(world, node, times=3)
    for number in range(3):
        world.start("lodge", f"n{number}", note="9")
    for _ in range(200):
        if sum(row.step == "3" for row in world.outbox()) == 3:
            break
        world.pass_time(0.1)
        go_on(world, node, times=1)
    deaths = reached = 0

    def die(name: str) -> bool:
        nonlocal deaths, reached
        if name != f"orchestrator.{point}" or deaths:
            return False
        reached += 1
        deaths += reached == which
        return bool(deaths)

    asked = [world.control("reset", f"n{number}", step="1") for number in range(3)]
    world.crash = die
    for _ in range(100):
        if deaths:
            break
        world.pass_time(0.1)
        go_on(world, node, times=1)
    assert deaths == 1
    world.crash = lambda point: False
    world.pass_time(3.0)
    world.join(BOTH)
    world.settle()
    assert [world.saga(f"n{number}").state for number in range(3)] == [SagaState.COMPLETED] * 3
    assert {told(world, each)[-1].what for each in asked} == {"applied"}
    for number in range(3):
        row = world.saga(f"n{number}")
        state = fold(str(row.run_id), [decode(each.seq, each.body) for each in world.store.history(row)])
        assert [(step.path, step.left) for step in state.order] == [
            ("1", ""),
            ("2", "reset"),
            ("3", "reset"),
            ("4", ""),
            ("5", ""),
        ]
        assert state.steps["2"].undo_how == "undone"
    world.audit()
