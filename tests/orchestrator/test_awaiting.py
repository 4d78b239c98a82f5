"""Sagas that await events by a key, and their owners' deaths: each is given each event once, in order."""

from __future__ import annotations

from typing import Any

import pytest

from kasaga import App, Event, SagaContext, saga
from kasaga.messages import message_codec
from kasaga.store.base import SagaState
from kasaga.store.hearing import Kept
from orchestrator.messages import code_of, dead, send
from orchestrator.node import Node
from orchestrator.test_crash_windows import nth
from orchestrator.trips import CONTRACTS, SAGAS, Trip
from orchestrator.world import World

POINTS = (
    "orchestrator.after_claim",
    "orchestrator.after_resend",
    "orchestrator.after_read",
    "orchestrator.before_commit",
    "orchestrator.after_commit",
)

letter = Event("letters", str, key=lambda text: text[0])


@saga("collector", awaits=[letter])
async def collector(ctx: SagaContext, trip: Trip) -> str:
    """Takes three letters of its key, and sleeps after each."""
    found: list[str] = []
    for _ in range(3):
        found.append(await ctx.event(letter, key=trip.note, timeout=300))
        await ctx.sleep(1)
    return "".join(found)


def made(**settings: Any) -> World:
    world = World(7, **settings)
    world.odds.slow = 0.0
    world.app = App("trips", sagas=[*SAGAS, collector], participants=CONTRACTS)
    return world


def hear(world: World, text: str, *, seconds: float = 60.0) -> list[str]:
    """What a listener does with a record; returns who waited."""
    payload = message_codec(str, "event", "letters").encode(text)
    name, position = f"letters:{text[0]}", f"letters:0:{text[1:]}"
    waiters = world.store.hear([Kept("letters", name, position, f"kafka:{position}", payload, seconds)])
    for each in waiters:
        send(world, "signal", each.saga_id, name, text, key=position, ask=False, keep_seconds=0)
    return [each.saga_id for each in waiters]


def go_on(world: World, node: Node, times: int = 20) -> None:
    for _ in range(times):
        world.turn(node)
        world.serve()


def until_over(world: World) -> None:
    for _ in range(3000):
        world.step()
        if world.over():
            return
    raise AssertionError("it doesn't end")


def ended(world: World) -> dict[str, tuple[SagaState, bytes | None]]:
    return {row.saga_id: (row.state, row.result) for row in world.sagas()}


def result(text: str) -> tuple[SagaState, bytes | None]:
    return SagaState.COMPLETED, collector.result.encode(text)


def story(world: World) -> None:
    """Letters before the saga, for two sagas, while they wait, and again; and others that nobody awaits."""
    world.join()
    for text in ("a1", "b2", "a3"):
        hear(world, text)
    for saga_id in ("one", "two"):
        world.start("collector", saga_id, note="a", ask=False)
    for _ in range(60):
        world.step()
    hear(world, "a3")  # a listener that had died reads it again
    hear(world, "a4")
    until_over(world)


@pytest.mark.parametrize("point", POINTS)
def test_no_crash_window_loses_or_doubles_an_event(point: str) -> None:
    with made() as world:
        story(world)
        times = world.points.get(point, 0)
        assert ended(world) == {"one": result("a1a3a4"), "two": result("a1a3a4")}
    assert times, f"nothing passes {point}"
    for number in range(1, times + 1, 1 + times // 20):
        with made(lease_seconds=0.4, heartbeat_seconds=0.1) as world:
            world.crash = nth(point, number)
            story(world)
            world.audit()
            assert ended(world) == {"one": result("a1a3a4"), "two": result("a1a3a4")}, number


def test_what_is_kept_is_given_until_its_time_is_over() -> None:
    with made() as world:
        node = world.join()
        hear(world, "a1", seconds=5)
        hear(world, "a2", seconds=90)
        world.pass_time(10)
        world.start("collector", "one", note="a", ask=False)
        go_on(world, node)
        hear(world, "a3")
        hear(world, "a4")
        world.settle()
        assert ended(world) == {"one": result("a2a3a4")}


def test_a_wait_ends_when_its_time_is_over_and_nobody_waits_any_more() -> None:
    with made() as world:
        node = world.join()
        world.start("collector", "one", note="a", ask=False)
        go_on(world, node)
        assert hear(world, "b1") == []
        [row] = world.store.waits(world.sagas()[0])
        assert row.key == b"letters:a"
        world.pass_time(301)
        world.settle()
        assert ended(world)["one"][0] is SagaState.COMPENSATED
        assert "no event letters with key 'a' came in time" in world.sagas()[0].reason
        assert hear(world, "a1") == []


def test_a_signal_of_that_name_that_is_none_is_refused() -> None:
    with made() as world:
        node = world.join()
        world.start("collector", "one", note="a", ask=False)
        go_on(world, node)
        send(world, "signal", "one", "other:a", "x", ask=False)
        send(world, "signal", "one", "letters:a", 7, ask=False)
        go_on(world, node)
        assert world.sagas()[0].state is SagaState.RUNNING
        assert [code_of(each) for each in dead(world)] == ["KSG-233"] * 2
