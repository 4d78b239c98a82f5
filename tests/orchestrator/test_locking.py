"""Locks, through the orchestrator's loop and the store, and those who look at them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from kasaga import App, Deadlock, LockRefused, SagaContext, SagaFailed, TimedOut, saga
from kasaga.engine.keylocks import Granted, Lock
from kasaga.explain import as_text as described
from kasaga.lookup import look, read_records
from kasaga.store.base import SagaState
from kasaga.timeline import as_text, timeline
from kasaga.timeline_data import decoder
from kasaga_wire.codec import Schemas
from orchestrator.messages import send
from orchestrator.test_chaos import PROFILES
from orchestrator.test_crash_windows import POINTS, nth
from orchestrator.trips import CONTRACTS, Hotel, Trip
from orchestrator.world import World


@saga("buyer", locks=lambda trip: [f"room:{trip.note}"])
async def buyer(ctx: SagaContext, trip: Trip) -> str:
    """Holds a room, books it, and goes when it is told to."""
    await ctx.use(Hotel).book(trip)
    if await ctx.signal("go", str) == "undo":
        raise SagaFailed("thought better of it")
    return trip.id


@saga("crosser")
async def crosser(ctx: SagaContext, trip: Trip) -> str:
    """Asks for two keys, one after the other."""
    first, second = trip.note.split(" ")
    await ctx.lock(first)
    await ctx.use(Hotel).book(trip)
    await ctx.signal("go", str)
    await ctx.lock(second)
    return trip.id


@saga("catcher")
async def catcher(ctx: SagaContext, trip: Trip) -> str:
    """Does without the second key where it isn't to be had."""
    first, second = trip.note.split(" ")
    await ctx.lock(first)
    await ctx.signal("go", str)
    try:
        await ctx.lock(second)
    except Deadlock as error:
        return error.message
    return "both"


@saga("rash")
async def rash(ctx: SagaContext, trip: Trip) -> str:
    """Doesn't wait."""
    try:
        await ctx.lock(trip.note, "other", wait=False)
    except LockRefused as error:
        return error.message
    await ctx.signal("go", str)
    return "had it"


@saga("timid")
async def timid(ctx: SagaContext, trip: Trip) -> str:
    """Waits for a while."""
    try:
        async with ctx.timeout(60):
            await ctx.lock(trip.note)
    except TimedOut:
        await ctx.signal("go", str)
        return "did without"
    return "had it"


@saga("walker", locks=lambda trip: ["way"])
async def walker(ctx: SagaContext, trip: Trip) -> str:
    """Goes on as a new run, with what it holds."""
    await ctx.signal("go", str)
    if ctx.run_number < 3:
        await ctx.continue_as_new(trip)
    return trip.id


@saga("forgetful", locks=lambda trip: [""])
async def forgetful(ctx: SagaContext, trip: Trip) -> None:
    """Asks for what can't be a key."""


SAGAS = (buyer, crosser, catcher, rash, timid, walker, forgetful)


def world_of(seed: int = 3) -> World:
    made = World(seed)
    made.odds.slow = 0.0
    made.app = App("trips", sagas=[*made.app.sagas.values(), *SAGAS], participants=CONTRACTS)
    return made


def begin(world: World, saga: str, saga_id: str, note: str) -> None:
    world.start(saga, saga_id, note)
    world.run(80)


def go(world: World, saga_id: str, word: str = "go") -> None:
    send(world, "signal", saga_id, "go", word, key=f"{saga_id}-{world.nanos}", keep=True)
    world.run(120)


def queue(world: World, *keys: str) -> list[str]:
    return [row.saga_id for row in world.store.queues(keys)]


def state(world: World, saga_id: str) -> SagaState:
    return world.saga(saga_id).state


def result(world: World, saga_id: str) -> str:
    row = world.saga(saga_id)
    assert row.state is SagaState.COMPLETED, row
    return (row.result or b"").decode("utf-8", "replace")


def held(world: World, saga_id: str) -> dict[str, tuple[int, int]]:
    """From when to when a saga held its keys, as its history tells it."""
    records = read_records(world.store, world.saga(saga_id))
    wanted = {
        each.step: each.keys for record in records for each in record.decisions if isinstance(each, Lock)
    }
    return {
        key: (record.at, records[-1].at)
        for record in records
        if isinstance(record.event, Granted)
        for key in wanted[record.event.step]
    }


def assert_no_two_held_a_key(world: World) -> None:
    spans: dict[str, list[tuple[int, int]]] = {}
    for row in world.sagas():
        for key, span in held(world, row.saga_id).items():
            spans.setdefault(key, []).append(span)
    for key, found in spans.items():
        found.sort()
        for (_, end), (begun, _) in pairwise(found):
            assert end <= begun, (key, found)
    assert world.store.locks() == [], "nobody holds anything when all is over"


def test_contenders_get_a_key_in_the_order_in_which_they_asked() -> None:
    with world_of() as world:
        world.join(world.app)
        for name in "abc":
            begin(world, "buyer", name, "1")
        assert queue(world, "room:1") == ["a", "b", "c"]
        assert [each.run_id for each in world.desk.executed] == [str(world.saga("a").run_id)]
        go(world, "a")
        assert (state(world, "a"), queue(world, "room:1")) == (SagaState.COMPLETED, ["b", "c"])
        go(world, "b", "undo")
        assert (state(world, "b"), queue(world, "room:1")) == (SagaState.COMPENSATED, ["c"])
        go(world, "c")
        assert_no_two_held_a_key(world)


def test_a_key_is_held_until_the_saga_is_undone() -> None:
    with world_of() as world:
        world.join(world.app)
        begin(world, "buyer", "a", "1")
        begin(world, "buyer", "b", "1")
        world.desk.mood = lambda envelope: "failed" if envelope.kind != "command" else "done"
        go(world, "a", "undo")
        assert state(world, "a") in (SagaState.COMPENSATING, SagaState.STUCK)
        assert queue(world, "room:1") == ["a", "b"]
        assert len({each.run_id for each in world.desk.executed}) == 1, "b has not begun"
        world.desk.mood = lambda envelope: "done"
        world.pass_time(600)
        world.run(200)
        assert (state(world, "a"), queue(world, "room:1")) == (SagaState.COMPENSATED, ["b"])
        go(world, "b")
        assert_no_two_held_a_key(world)


def test_a_deadlock_is_found_by_who_closes_it_and_only_that_one_is_undone() -> None:
    with world_of() as world:
        world.join(world.app)
        world.join(world.app)
        begin(world, "crosser", "a", "x y")
        begin(world, "crosser", "b", "y x")
        go(world, "a")
        assert queue(world, "y") == ["b", "a"]
        go(world, "b")
        row = world.saga("b")
        assert (row.state, row.code) == (SagaState.COMPENSATED, "KSG-263")
        assert row.reason.endswith("b would wait for x behind a; a waits for y behind b")
        assert state(world, "a") is SagaState.COMPLETED
        assert_no_two_held_a_key(world)


def test_code_may_catch_a_deadlock_and_keeps_what_it_holds() -> None:
    with world_of() as world:
        world.join(world.app)
        begin(world, "catcher", "a", "x y")
        begin(world, "crosser", "b", "y x")
        go(world, "b")
        go(world, "a")
        assert "behind b" in result(world, "a")
        assert state(world, "b") is SagaState.COMPLETED
        assert_no_two_held_a_key(world)


def test_who_does_not_wait_is_refused_and_stands_in_no_queue() -> None:
    with world_of() as world:
        world.join(world.app)
        begin(world, "rash", "a", "x")
        begin(world, "rash", "b", "x")
        assert "other is held by saga a" in result(world, "b")
        assert queue(world, "x", "other") == ["a", "a"]
        go(world, "a")
        assert_no_two_held_a_key(world)


def test_who_gives_up_waiting_leaves_the_queue_at_once() -> None:
    with world_of() as world:
        world.join(world.app)
        begin(world, "rash", "a", "x")
        begin(world, "timid", "b", "x")
        begin(world, "timid", "c", "x")
        assert queue(world, "x") == ["a", "b", "c"]
        world.control("cancel", "c")
        world.run(60)
        assert (state(world, "c"), queue(world, "x")) == (SagaState.COMPENSATED, ["a", "b"])
        world.pass_time(60)
        world.run(60)
        assert queue(world, "x") == ["a"]
        go(world, "b")
        assert "did without" in result(world, "b")
        go(world, "a")
        assert_no_two_held_a_key(world)


@pytest.mark.parametrize("action", ["pause", "terminate"])
def test_a_paused_saga_keeps_its_place_and_a_terminated_one_gives_it_up(action: str) -> None:
    with world_of() as world:
        world.join(world.app)
        for name in "abc":
            begin(world, "buyer", name, "1")
        world.control(action, "b", reason="a try")
        world.run(40)
        go(world, "a")
        if action == "terminate":
            assert queue(world, "room:1") == ["c"]
        else:
            assert queue(world, "room:1") == ["b", "c"]
            world.control("resume", "b")
            world.run(40)
            go(world, "b")
        go(world, "c")
        assert state(world, "c") is SagaState.COMPLETED
        assert world.store.locks() == []


def test_a_new_run_has_what_the_one_before_it_held() -> None:
    with world_of() as world:
        world.join(world.app)
        begin(world, "walker", "a", "")
        begin(world, "walker", "b", "")
        for _ in range(2):
            go(world, "a")
            assert queue(world, "way") == ["a", "b"]
        go(world, "a")
        assert (state(world, "a"), queue(world, "way")) == (SagaState.COMPLETED, ["b"])


def test_what_cannot_be_a_key_makes_the_saga_stuck() -> None:
    with world_of() as world:
        world.join(world.app)
        begin(world, "forgetful", "a", "")
        row = world.saga("a")
        assert (row.state, row.code) == (SagaState.STUCK, "KSG-264")
        assert "@saga(locks=...): '' can't be a key" in row.reason
        assert "1 to 200 printable characters" in row.remedy


def test_people_see_who_holds_and_who_waits() -> None:
    with world_of() as world:
        world.join(world.app)
        for name in "abc":
            begin(world, "buyer", name, "1")
        first, _ = look(world.store, "a", world.now())
        assert any("room:1 (2 wait for it)" in line for line in described(first, decoder(Schemas())))
        last, records = look(world.store, "c", world.now())
        (wait,) = last.waits
        assert wait.text == "for the lock room:1 (step 1); room:1 is held by saga a, and 1 other comes first"
        lines = as_text(timeline(records), decoder(Schemas()), now=world.now())
        assert any("lock room:1" in line and "goes on" in line for line in lines)
        lines = as_text(
            timeline(read_records(world.store, world.saga("a"))), decoder(Schemas()), now=world.now()
        )
        assert any("lock room:1" in line and "done" in line for line in lines)


def test_an_owner_without_waiting_sagas_asks_for_nothing() -> None:
    asked: list[str] = []
    with world_of() as world:
        world.fault = asked.append
        world.join(world.app)
        begin(world, "trip", "a", "")
        assert state(world, "a") is SagaState.COMPLETED
        assert {"contend", "moved"}.isdisjoint(asked)


def finish(world: World, names: Sequence[str]) -> None:
    for name in names:
        send(world, "signal", name, "go", "undo" if name < "c" else "go", key=f"{name}-end", keep=True)


@pytest.mark.parametrize("point", [*POINTS, "orchestrator.after_locks"])
def test_no_crash_window_loses_or_doubles_a_lock(point: str) -> None:
    for passage in range(1, 12):
        with world_of() as world:
            world.join(world.app)
            world.join(world.app)
            world.crash = nth(point, passage)
            for name in "abcd":
                world.start("buyer", name, "1")
            for name in "ef":
                world.start("crosser", name, "x y" if name == "e" else "y x")
            finish(world, "abcdef")
            world.settle()
            world.audit()
            assert_no_two_held_a_key(world)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(4))
def test_chaos(profile: str, seed: int) -> None:
    with world_of(seed) as world:
        world.odds = PROFILES[profile]
        world.join(world.app)
        world.join(world.app)
        for number in range(8):
            world.start("buyer", f"b{number}", str(number % 2))
            world.start("crosser", f"c{number}", "x y" if number % 2 else "y x")
            finish(world, [f"b{number}", f"c{number}"])
        world.run(400)
        world.settle()
        world.audit()
        assert_no_two_held_a_key(world)
        ends = {row.saga_id: (row.state, row.code) for row in world.sagas()}
        assert all(end[0] is SagaState.COMPENSATED for name, end in ends.items() if name < "c")
        bad = {end for name, end in ends.items() if name >= "c"} - {(SagaState.COMPLETED, "")}
        assert bad <= {(SagaState.COMPENSATED, "KSG-263")}
