"""Answers carry the trace that was sent with the question, however late they come; else the saga's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kasaga.engine.codec import decode
from kasaga.engine.model import Asked
from kasaga.orchestrator.traceids import hashed_trace_id
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import AnswerEnvelope
from kasaga_wire.records import answer_codec
from orchestrator.node import Node
from orchestrator.world import World

STARTER, WATCHER, OTHER = (f"00-{digits * 16}-{digits * 8}-01" for digits in ("ab", "cd", "ef"))


@pytest.fixture
def world() -> Iterator[World]:
    with World(shards=1, lease_seconds=1.0, heartbeat_seconds=0.2) as world:
        world.odds.slow = 0.0
        yield world


def go_on(world: World, node: Node, times: int = 15) -> None:
    for _ in range(times):
        world.turn(node)
        world.serve()


def traces(world: World, about: str) -> list[tuple[str, str | None]]:
    """What was answered, and in which trace. The same may have come twice."""
    found: list[tuple[str, str | None]] = []
    for record in world.kafka.all(world.topics.answers):
        body = answer_codec.decode(record.value or b"", Schemas())
        if body.about == about:
            found.append((body.what, AnswerEnvelope.parse(record.headers).traceparent))
    return list(dict.fromkeys(found))


def test_the_end_is_told_in_the_traces_of_those_who_wait(world: World) -> None:
    """Also by a process that has only read about them."""
    node = world.join()
    world.desk.mood = lambda envelope: "silent"
    start = world.start("trip", "a", traceparent=STARTER)
    watched = world.control("watch", "a", traceparent=WATCHER)
    go_on(world, node, 3)
    world.kill(node)
    world.pass_time(1.5)
    world.join()
    world.settle()
    assert traces(world, start) == [("COMPLETED", STARTER)]
    assert traces(world, watched) == [("running", WATCHER), ("COMPLETED", WATCHER)]


def test_an_action_is_answered_in_the_trace_that_it_came_with(world: World) -> None:
    node = world.join()
    world.desk.mood = lambda envelope: "silent"
    world.start("trip", "a", traceparent=STARTER)
    go_on(world, node, 3)
    refused = world.control("retry", "a", traceparent=WATCHER)
    applied = world.control("cancel", "a", traceparent=OTHER)
    unknown = world.control("cancel", "nobody", traceparent=OTHER)
    go_on(world, node, 3)
    world.settle()
    late = world.control("cancel", "a", traceparent=WATCHER)
    go_on(world, node, 3)
    assert traces(world, refused) == [("not_applicable", WATCHER)]
    assert traces(world, applied) == [("applied", OTHER)]
    assert traces(world, unknown) == [("unknown", OTHER)]
    assert traces(world, late) == [("not_applicable", WATCHER)]
    records = [decode(each.seq, each.body) for each in world.store.history(world.saga("a"))]
    (asked,) = (record.event for record in records if isinstance(record.event, Asked))
    assert asked.traceparent == OTHER


def test_a_second_start_is_answered_in_its_own_trace(world: World) -> None:
    node = world.join()
    world.desk.mood = lambda envelope: "silent"
    world.start("trip", "a", traceparent=STARTER)
    go_on(world, node, 3)
    again = world.start("trip", "a", traceparent=WATCHER)
    rejected = world.start("nap", "a", "else", traceparent=OTHER)
    go_on(world, node, 3)
    world.settle()
    said = ("duplicate", "running", "COMPLETED")
    assert traces(world, again) == [(what, WATCHER) for what in said]
    assert traces(world, rejected) == [("rejected", OTHER)]


def test_who_names_no_trace_is_answered_in_the_sagas(world: World) -> None:
    node = world.join()
    start = world.start("empty", "a")
    go_on(world, node, 3)
    world.desk.mood = lambda envelope: "silent"
    world.start("trip", "b", traceparent=STARTER)
    go_on(world, node, 3)
    watched = world.control("watch", "b")
    nobody = world.control("watch", "nobody")
    go_on(world, node, 3)
    ((_, told),) = traces(world, start)
    assert (told or "")[3:35] == hashed_trace_id(start)
    ((_, told),) = traces(world, watched)
    assert (told or "")[3:35] == STARTER[3:35]
    assert traces(world, nobody) == [("unknown", None)]
