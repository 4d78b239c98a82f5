"""Functions of ctx.run that take longer than they may: given up, tried again, not listened to any more."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from eventually import eventually, never
from kasaga import App, RetryPolicy, SagaContext, SagaFailed, StepTimeout, saga
from kasaga.engine.codec import decode
from kasaga.engine.driver import TIMED_OUT
from kasaga.engine.model import Ran
from kasaga.orchestrator import functions, threads
from kasaga.orchestrator.threads import Attempt
from kasaga.saga import Saga
from kasaga.store.base import SagaState
from orchestrator.node import Node
from orchestrator.trips import CONTRACTS, Trip, trip
from orchestrator.world import World

TWICE = RetryPolicy(initial_interval=0.001, maximum_attempts=2)
LIMIT = 5.0
"""Seconds by `NOW`, which passes only where a test says so: a slow machine makes nobody late."""
LONG = 30.0
"""Real seconds: longer than any test waits for what it needs."""

NOW = [0.0]

DOORS: list[threading.Event] = []
"""One for each call of `slow`, which waits until it is opened."""
CALLED: list[str] = []


def slow() -> str:
    """Hang at the first door that is there."""
    number = len(CALLED)
    CALLED.append(f"call {number}")
    if number < len(DOORS):
        DOORS[number].wait(LONG)
    return f"call {number}"


def undo(result: str | None) -> None:
    """Undo of `slow`; hangs like it."""
    CALLED.append(f"undo of {result}")
    if len(CALLED) <= len(DOORS):
        DOORS[len(CALLED) - 1].wait(LONG)


async def lazy() -> str:
    CALLED.append("lazy")
    try:
        await asyncio.sleep(0 if len(CALLED) > 1 else LONG)
    except asyncio.CancelledError:
        CALLED.append("cancelled")
        raise
    return "lazy"


async def stubborn() -> str:
    CALLED.append("stubborn")
    for door in DOORS:
        try:
            await asyncio.to_thread(door.wait, LONG)
        except asyncio.CancelledError:
            CALLED.append("cancelled")
    return "stubborn"


@saga("limited")
async def limited(ctx: SagaContext, order: Trip) -> str:
    return await ctx.run(slow, timeout=LIMIT, retry=TWICE, undo=undo, undo_retry=TWICE)


@saga("catching")
async def catching(ctx: SagaContext, order: Trip) -> str:
    try:
        return await ctx.run(slow, timeout=LIMIT, retry=RetryPolicy(maximum_attempts=1), undo=undo)
    except StepTimeout as error:
        return str(error)


@saga("undone")
async def undone(ctx: SagaContext, order: Trip) -> None:
    await ctx.run(slow, timeout=LIMIT, undo=undo, undo_retry=TWICE)
    raise SagaFailed("it was for nothing")


@saga("unlimited")
async def unlimited(ctx: SagaContext, order: Trip) -> str:
    return await ctx.run(slow, timeout=None)


@saga("usual")
async def usual(ctx: SagaContext, order: Trip) -> str:
    return await ctx.run(slow, timeout=1000)


@saga("lazy")
async def lazily(ctx: SagaContext, order: Trip) -> str:
    return await ctx.run(lazy, timeout=LIMIT, retry=TWICE)


@saga("stubborn")
async def stubbornly(ctx: SagaContext, order: Trip) -> str:
    return await ctx.run(stubborn, timeout=LIMIT, retry=RetryPolicy(maximum_attempts=1))


SAGAS: list[Saga[Any, Any]] = [limited, catching, undone, unlimited, usual, lazily, stubbornly, trip]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    CALLED.clear()
    DOORS.clear()
    before = set(threading.enumerate())
    time = SimpleNamespace(monotonic=lambda: NOW[0])
    for module in (functions, threads):
        monkeypatch.setattr(module, "time", time)
    with World(shards=1, lease_seconds=1.0, heartbeat_seconds=0.2) as world:
        world.odds.slow = 0.0
        world.app = App("trips", sagas=SAGAS, participants=CONTRACTS)
        yield world
        for door in DOORS:
            door.set()
    eventually(lambda: set(threading.enumerate()) <= before)


def doors(number: int) -> None:
    DOORS.extend(threading.Event() for _ in range(number))


def go_on(world: World, node: Node, until: Callable[[], object]) -> None:
    def step() -> bool:
        world.turn(node)
        world.pass_time(0.05)
        return bool(until())

    eventually(step)


def called(calls: int) -> bool:
    return len(CALLED) >= calls


def hang(world: World, node: Node, calls: int) -> None:
    """Let one function after the other take longer than it may, until so many have been called."""
    for number in range(len(CALLED), calls):
        go_on(world, node, partial(called, number + 1))
        NOW[0] += 2 * LIMIT


def state(world: World) -> SagaState | None:
    row = world.store.saga("a")
    return row.state if row is not None else None


def ran(world: World) -> list[tuple[str, int, str]]:
    """What was recorded of the function: form, attempt, and the error or the result."""
    records = [decode(each.seq, each.body) for each in world.store.history(world.saga("a"))]
    return [
        (event.form, event.attempt, event.error_type or "ok")
        for event in (record.event for record in records)
        if isinstance(event, Ran)
    ]


def shown(world: World, node: Node, metric: str) -> float | None:
    world.pass_time(1.1)
    world.turn(node)
    return node.metrics.registry.get_sample_value(metric)


def test_one_that_hangs_is_tried_again_and_its_late_result_counts_for_nothing(world: World) -> None:
    doors(1)
    node = world.join()
    world.start("limited", "a")
    hang(world, node, 1)
    go_on(world, node, lambda: state(world) is SagaState.COMPLETED)
    assert ran(world) == [("local", 1, TIMED_OUT), ("local", 2, "ok")]
    assert shown(world, node, "kasaga_functions_abandoned") == 1
    assert shown(world, node, "kasaga_functions_running") == 0

    DOORS[0].set()
    eventually(lambda: node.functions.abandoned == 0)
    world.turns(node, 3)
    assert len(ran(world)) == 2
    assert shown(world, node, "kasaga_functions_abandoned") == 0
    row = world.saga("a")
    assert row.result == limited.result.encode("call 1")
    world.settle()
    world.audit()


def test_a_late_result_does_not_end_the_attempt_that_came_after(world: World) -> None:
    doors(2)
    node = world.join()
    world.start("limited", "a")
    hang(world, node, 1)
    go_on(world, node, lambda: len(CALLED) == 2)
    DOORS[0].set()
    eventually(lambda: node.functions.abandoned == 0)
    world.turns(node, 5)
    assert ran(world) == [("local", 1, TIMED_OUT)], "the second is at work"
    DOORS[1].set()
    go_on(world, node, lambda: state(world) is SagaState.COMPLETED)
    assert world.saga("a").result == limited.result.encode("call 1")


def test_used_up_it_is_unknown_and_its_undo_gets_nothing(world: World) -> None:
    """The function may be at work yet, beside its undo: nobody can know what it has done."""
    doors(2)
    node = world.join()
    world.start("limited", "a")
    hang(world, node, 2)
    go_on(world, node, lambda: state(world) is SagaState.COMPENSATED)
    assert ran(world) == [("local", 1, TIMED_OUT), ("local", 2, TIMED_OUT), ("undo", 1, "ok")]
    assert CALLED == ["call 0", "call 1", "undo of None"]
    assert node.functions.abandoned == 2
    assert "timed out" in world.saga("a").reason
    assert f"attempt 2 didn't end within {LIMIT:g} s" in world.saga("a").reason


def test_the_sagas_code_gets_a_step_timeout(world: World) -> None:
    doors(1)
    node = world.join()
    world.start("catching", "a")
    hang(world, node, 1)
    go_on(world, node, lambda: state(world) is SagaState.COMPLETED)
    told = world.saga("a").result or b""
    assert b"timed out: attempt 1 didn't end" in told
    assert CALLED == ["call 0", "undo of None"], "what is unknown is undone before the end"


def test_an_undo_that_hangs_is_given_up_and_tried_again(world: World) -> None:
    doors(2)
    DOORS[0].set()
    node = world.join()
    world.start("undone", "a")
    go_on(world, node, lambda: len(CALLED) == 2)
    NOW[0] += 2 * LIMIT
    go_on(world, node, lambda: state(world) is SagaState.COMPENSATED)
    assert ran(world) == [("local", 1, "ok"), ("undo", 1, TIMED_OUT), ("undo", 2, "ok")]
    assert CALLED == ["call 0", "undo of call 0", "undo of call 0"]
    DOORS[1].set()
    eventually(lambda: node.functions.abandoned == 0)
    world.settle()
    world.audit()


def test_an_async_function_is_cancelled_and_its_thread_is_free(world: World) -> None:
    node = world.join()
    world.start("lazy", "a")
    hang(world, node, 1)
    go_on(world, node, lambda: state(world) is SagaState.COMPLETED)
    assert ran(world) == [("local", 1, TIMED_OUT), ("local", 2, "ok")]
    eventually(lambda: node.functions.abandoned == 0)
    assert Counter(CALLED) == Counter(["lazy", "lazy", "cancelled"]), "in any order: they are two threads'"


def test_an_async_function_that_swallows_the_cancel_keeps_its_thread(world: World) -> None:
    doors(2)
    node = world.join()
    world.start("stubborn", "a")
    hang(world, node, 1)
    go_on(world, node, lambda: state(world) is SagaState.COMPENSATED)
    eventually(lambda: CALLED == ["stubborn", "cancelled"])
    assert node.functions.abandoned == 1
    for door in DOORS:
        door.set()
    eventually(lambda: node.functions.abandoned == 0)
    world.turns(node, 3)
    assert ran(world) == [("local", 1, TIMED_OUT)]


def test_without_a_limit_it_may_take_for_ever(world: World) -> None:
    doors(1)
    node = world.join()
    world.start("unlimited", "a")
    hang(world, node, 1)
    world.turns(node, 5)
    assert (ran(world), node.functions.abandoned) == ([], 0)
    DOORS[0].set()
    go_on(world, node, lambda: state(world) is SagaState.COMPLETED)


def test_to_wait_for_a_thread_is_not_to_take_long(world: World) -> None:
    """One thread: the second saga's function waits for longer than it may then take."""
    doors(1)
    node = world.join(run_threads=1)
    world.start("usual", "other")
    go_on(world, node, lambda: CALLED)
    world.start("limited", "a")
    go_on(world, node, lambda: node.functions.running == 2)
    NOW[0] += 10 * LIMIT
    world.turns(node, 5)
    assert ran(world) == []
    DOORS[0].set()
    go_on(world, node, lambda: state(world) is SagaState.COMPLETED)
    assert ran(world) == [("local", 1, "ok")]


def test_threads_that_are_lost_are_replaced_as_far_as_it_goes(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """One thread and one spare: with two lost nothing begins, until one comes back."""
    doors(2)
    node = world.join(run_threads=1, run_abandoned=1)
    for number in range(2):
        world.start("catching", f"s{number}", ask=False)
    with caplog.at_level("WARNING", "kasaga"):
        hang(world, node, 2)
        go_on(world, node, lambda: node.functions.abandoned == 2)
    lines = {each.getMessage(): each.__dict__ for each in caplog.records}
    given_up = lines["a function of ctx.run is given up: its thread goes on"]
    assert given_up["saga_id"] in ("s0", "s1")
    assert "threading.py" in given_up["line"]
    assert lines["all threads of ctx.run hang: nothing of it begins any more"]["threads"] == 2
    world.start("usual", "a")
    go_on(world, node, lambda: node.functions.running)
    never(lambda: len(CALLED) > 2, during=0.1)
    DOORS[0].set()
    go_on(world, node, lambda: state(world) is SagaState.COMPLETED)
    DOORS[1].set()
    eventually(lambda: node.functions.abandoned == 0)


def test_one_of_a_shard_that_is_lost_is_given_up_all_the_same(world: World) -> None:
    doors(1)
    node = world.join()
    world.start("limited", "a")
    hang(world, node, 1)
    world.pass_time(5)
    other = world.join()
    go_on(world, other, lambda: state(world) is SagaState.COMPLETED)
    go_on(world, node, lambda: node.functions.abandoned == 1)
    DOORS[0].set()
    eventually(lambda: node.functions.abandoned == 0)
    world.turns(node, 3)
    assert ran(world) == [("local", 1, "ok")]
    world.settle()
    world.audit()


def test_an_attempt_ends_or_is_given_up_and_never_both() -> None:
    for _ in range(300):
        attempt, start = Attempt(), threading.Barrier(2)
        ended: list[bool] = []

        def end(
            attempt: Attempt = attempt, start: threading.Barrier = start, ended: list[bool] = ended
        ) -> None:
            start.wait()
            ended.append(attempt.end())

        thread = threading.Thread(target=end)
        thread.start()
        start.wait()
        given_up = attempt.give_up()
        thread.join()
        assert [given_up, *ended].count(True) == 1


def test_one_that_was_given_up_before_it_could_be_cancelled_is_told_so() -> None:
    attempt = Attempt()
    assert attempt.give_up()
    assert not attempt.cancel_by(lambda: None)
