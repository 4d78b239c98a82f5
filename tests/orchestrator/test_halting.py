"""Paused and terminated sagas in whole processes: what goes out, what a take-over finds, what comes late."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from kasaga.engine.lifecycle import TERMINATED
from kasaga.engine.model import Asked, CodeArrived, Updated
from kasaga.engine.state import State
from kasaga.orchestrator.suspects import wakes
from kasaga.store.base import SagaState
from orchestrator import trips
from orchestrator.desk import DONE, SILENT
from orchestrator.node import Node
from orchestrator.test_functions import go_on as until
from orchestrator.test_unknown_steps import go_on, old_copies
from orchestrator.world import World


@pytest.fixture
def world() -> Iterator[World]:
    with World(shards=1) as world:
        world.odds.slow = 0.0
        yield world


def paused(world: World, node: Node, saga: str) -> None:
    """A saga that is paused while its first command isn't answered."""
    world.desk.mood = lambda envelope: SILENT
    world.start(saga, "a")
    go_on(world, node, 5)
    world.control("pause", "a")
    go_on(world, node, 5)
    assert world.saga("a").state is SagaState.PAUSED


def attempts(world: World) -> set[bytes | None]:
    """The ids of what was sent: a command's and its attempt's."""
    return {dict(record.headers)["ce_id"] for record in world.commands()}


def test_a_paused_saga_sends_nothing_over_a_kill_and_goes_on(world: World) -> None:
    node = world.join()
    paused(world, node, "trip")
    before = attempts(world)
    world.kill(node)
    world.pass_time(3600)
    node = world.join()
    go_on(world, node, 20, 60)
    assert attempts(world) == before, "what was open may be sent again, and nothing else"
    assert world.saga("a").state is SagaState.PAUSED
    world.desk.mood = lambda envelope: DONE
    world.control("resume", "a")
    world.settle()
    assert world.saga("a").state is SagaState.COMPLETED
    world.audit()


def test_a_function_waits_for_the_resume_in_the_same_process(world: World) -> None:
    go = threading.Event()
    trips.HOOK[0] = lambda: go.wait(30) and 7
    node = world.join()
    world.start("local", "a")
    until(world, node, lambda: node.functions.running)
    world.control("pause", "a")
    go_on(world, node, 3)
    world.kill(node)
    go.set()
    world.pass_time(10)
    node = world.join()
    until(world, node, lambda: node.functions.holds)
    assert node.functions.running == 0
    world.control("resume", "a")
    until(world, node, lambda: world.saga("a").state is SagaState.COMPLETED)
    assert not node.functions.holds
    world.settle()
    world.audit()


def test_what_a_terminated_saga_had_sent_can_not_happen_later(world: World) -> None:
    node = world.join()
    paused(world, node, "trip")
    world.desk.mood = lambda envelope: DONE
    world.control("terminate", "a")
    go_on(world, node, 20, 0.2)
    row = world.saga("a")
    assert row.state is SagaState.TERMINATED
    assert row.ended_at is not None
    assert "it leaves may have happened: 1 " in row.reason
    assert any(record for record in world.commands() if dict(record.headers)["ce_type"] == b"kasaga.void")
    assert old_copies(world) == 0
    assert world.outbox() == []


def test_what_runs_the_code_of_a_paused_saga() -> None:
    state = State("run")
    state.phase, state.begun_at = "RUNNING", 1
    resume, pause, end = (Asked("x", each, "", "", "", "", "") for each in ("resume", "pause", "terminate"))
    update = Updated("u", "n", b"", "")
    assert (wakes(state, resume), wakes(state, pause), wakes(state, end)) == (True, False, False)
    assert wakes(state, update)
    state.state = TERMINATED
    assert wakes(state, CodeArrived("x"))
