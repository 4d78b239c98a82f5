"""What the owner of a shard does with starts and signals that were made of somebody's records."""

from __future__ import annotations

import pytest

from kasaga.orchestrator import early
from kasaga.store.base import SagaState
from orchestrator.messages import code_of, dead, send, told
from orchestrator.node import Node
from orchestrator.world import World


def calm() -> World:
    world = World(shards=2)
    world.odds.slow = 0.0
    return world


def go_on(world: World, node: Node, times: int = 10) -> None:
    for _ in range(times):
        world.turn(node)
        world.serve()


def dropped(node: Node) -> float:
    labels = {"why": "event without a saga"}
    return node.metrics.registry.get_sample_value("kasaga_inputs_ignored_total", labels) or 0.0


def event(world: World, saga_id: str, name: str, seconds: int, key: str = "") -> str:
    return send(world, "signal", saga_id, name, ask=False, keep_seconds=seconds, key=key)


def test_an_event_waits_for_its_saga_for_its_time() -> None:
    with calm() as world:
        node = world.join()
        go_on(world, node)  # up to the end of what was there before
        event(world, "a", "end", 60)
        event(world, "b", "end", 60)
        go_on(world, node)
        world.pass_time(30)
        world.start("mailbox", "a")
        world.settle()
        assert [(row.saga_id, row.state) for row in world.sagas()] == [("a", SagaState.COMPLETED)]
        world.pass_time(30 + early.LOOK_MICROS / 1e6 + 1)
        go_on(world, node)
        assert (dropped(node), dead(world)) == (1, [])
        world.start("mailbox", "b")
        go_on(world, node, 20)
        assert {row.saga_id: row.state for row in world.sagas()}["b"] == SagaState.RUNNING


def test_an_event_that_does_not_wait_is_dropped_at_once() -> None:
    with calm() as world:
        node = world.join()
        go_on(world, node)
        event(world, "a", "end", 0)
        go_on(world, node)
        assert (dropped(node), dead(world)) == (1, [])


def test_an_event_after_the_end_is_dropped_and_the_same_one_again_is_none() -> None:
    with calm() as world:
        node = world.join()
        world.start("mailbox", "a")
        key = event(world, "a", "end", 60)
        world.settle()
        event(world, "a", "end", 60, key=key)
        go_on(world, node)
        assert dropped(node) == 0
        event(world, "a", "end", 60)
        go_on(world, node)
        assert (dropped(node), dead(world)) == (1, [])


def test_an_event_that_the_saga_refuses_is_a_dead_letter() -> None:
    with calm() as world:
        node = world.join()
        world.start("mailbox", "a")
        go_on(world, node)
        event(world, "a", "nonsense", 60)
        go_on(world, node)
        assert [code_of(each) for each in dead(world)] == ["KSG-233"]


def test_events_for_which_there_is_no_room_are_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "MAX_KEPT", 1)
    with calm() as world:
        node = world.join()
        go_on(world, node)
        for _ in range(2):
            event(world, "a", "end", 60)
            go_on(world, node)
        assert [code_of(each) for each in dead(world)] == ["KSG-234"]


def test_an_event_whose_id_is_taken_is_a_dead_letter_and_the_same_one_is_none() -> None:
    with calm() as world:
        node = world.join()
        for _ in range(2):
            world.start("trip", "a", ask=False, source="kafka:orders:0:1")
        go_on(world, node)
        assert dead(world) == []
        world.start("trip", "a", note="another", ask=False, source="kafka:orders:0:2")
        go_on(world, node)
        assert [code_of(each) for each in dead(world)] == ["KSG-231"]
        world.settle()
        world.start("trip", "a", note="another", ask=False, source="kafka:orders:0:3")
        asked = world.start("trip", "a", note="another")
        go_on(world, node)
        assert [code_of(each) for each in dead(world)] == ["KSG-231"] * 2
        assert [answer.what for answer in told(world, asked)] == ["rejected"]
