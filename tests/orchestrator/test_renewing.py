"""Sagas that go on as new runs, through the orchestrator's loop and the store, and those who look at them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kasaga import App, SagaContext, saga
from kasaga.audit.facts import gather
from kasaga.engine.lifecycle import LONG_HISTORY
from kasaga.explain import as_text as described
from kasaga.lookup import look, read_records
from kasaga.store.base import SagaState
from kasaga.timeline import as_text, timeline
from kasaga.timeline_data import decoder
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import EventEnvelope
from orchestrator.messages import send, told
from orchestrator.test_chaos import PROFILES
from orchestrator.test_crash_windows import POINTS, nth
from orchestrator.test_retention import retention
from orchestrator.trips import CONTRACTS, Hotel, Trip
from orchestrator.world import World

DAY = timedelta(days=1)


@saga("guest")
async def guest(ctx: SagaContext, trip: Trip) -> str:
    """Books a room for each signal, and goes on as a new run."""
    room = await ctx.signal("book", str)
    await ctx.use(Hotel).book(trip)
    if room == "last":
        return f"{trip.note} in run {ctx.run_number}"
    return await ctx.continue_as_new(Trip(id=trip.id, note=f"{trip.note}{room}"))


@saga("host")
async def host(ctx: SagaContext, trip: Trip) -> str:
    """Waits for a guest, and then for a word."""
    said = await ctx.child(guest, trip, id="g")
    await ctx.signal("bye", str)
    return said


@saga("talker")
async def talker(ctx: SagaContext, trip: Trip) -> int:
    """Takes signals until it is told that its history is long."""
    while not ctx.should_continue:
        await ctx.signal("word", str)
    return ctx.history_length


def world_of(seed: int = 3) -> World:
    made = World(seed)
    made.odds.slow = 0.0
    made.app = App("trips", sagas=[*made.app.sagas.values(), guest, host, talker], participants=CONTRACTS)
    return made


def book(world: World, saga_id: str, rooms: str) -> None:
    for number, room in enumerate(rooms):
        send(world, "signal", saga_id, "book", room, key=f"{saga_id}-{number}", keep=True)


def steps_of(world: World, saga_id: str) -> list[str]:
    run_id = str(world.saga(saga_id).run_id)
    return [each.path for each in world.desk.executed if each.run_id == run_id]


def test_runs_follow_each_other_and_who_waits_is_told_once() -> None:
    with world_of() as world:
        world.join(world.app)
        run_id = world.start("guest", "g")
        book(world, "g", "abc")
        send(world, "signal", "g", "book", "last", keep=True)
        world.settle()
        row = world.saga("g")
        assert (str(row.run_id), row.state) == (run_id, SagaState.COMPLETED)
        assert steps_of(world, "g") == ["2", "4", "6", "8"]
        (answer,) = told(world, run_id)
        assert answer.result == row.result
        world.start("guest", "g", run_id=run_id)  # the same record again
        world.settle()
        assert len(told(world, run_id)) == 1
        other = world.start("guest", "g")  # somebody else with the same input
        world.settle()
        assert [each.what for each in told(world, other)] == ["COMPLETED"]


@pytest.mark.parametrize("point", POINTS)
def test_whoever_dies_at_any_point_each_signal_is_taken_once(point: str) -> None:
    for passage in (1, 3, 5):
        with world_of() as world:
            world.join(world.app)
            world.join(world.app)
            world.start("guest", "g")
            world.crash = nth(point, passage)
            book(world, "g", "abc")
            send(world, "signal", "g", "book", "last", key="end", keep=True)
            world.settle()
            row = world.saga("g")
            assert row.state is SagaState.COMPLETED, row
            assert row.result is not None
            assert b"abc in run 4" in row.result
            assert sorted(steps_of(world, "g"), key=int) == ["2", "4", "6", "8"]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(4))
def test_chaos(profile: str, seed: int) -> None:
    with world_of(seed) as world:
        world.odds = PROFILES[profile]
        world.join(world.app)
        world.join(world.app)
        for number in range(4):
            world.start("guest", f"g{number}")
            book(world, f"g{number}", "abc")
            send(world, "signal", f"g{number}", "book", "last", keep=True)
        for _ in range(300):
            world.step()
        world.settle()
        for number in range(4):
            row = world.saga(f"g{number}")
            assert row.state is SagaState.COMPLETED, row
            assert row.result is not None
            assert b"abc in run 4" in row.result
            assert sorted(steps_of(world, f"g{number}"), key=int) == ["2", "4", "6", "8"]


def test_a_parent_waits_for_the_last_run_and_undoes_that() -> None:
    with world_of() as world:
        world.join(world.app)
        run_id = world.start("host", "h")
        for _ in range(40):
            world.step()
        book(world, "g", "ab")
        send(world, "signal", "g", "book", "last", keep=True)
        for _ in range(80):
            world.step()
        assert world.saga("g").state is SagaState.COMPLETED
        assert world.saga("h").state is SagaState.RUNNING
        world.control("cancel", "h")
        world.settle()
        assert world.saga("h").state is SagaState.COMPENSATED
        assert world.saga("g").state is SagaState.COMPENSATED
        assert steps_of(world, "g") == ["2", "4", "6", "6~undo"], "the last run's alone"
        assert [each.what for each in told(world, run_id)] == ["COMPENSATED"]


def test_what_people_see_is_the_last_run_and_all_of_them() -> None:
    with world_of() as world:
        world.join(world.app)
        world.start("guest", "g")
        book(world, "g", "ab")
        for _ in range(60):
            world.step()
        row = world.saga("g")
        seen, records = look(world.store, "g", world.now())
        assert seen.run is not None
        assert (seen.run.number, records[0].seq) == (3, row.base)
        assert any("run 3, begun" in line for line in described(seen, decoder(Schemas())))
        whole = read_records(world.store, row)
        assert len(whole) > len(records)
        lines = as_text(timeline(whole), decoder(Schemas()), now=world.now())
        assert [each.split()[2:4] for each in lines if "begins here" in each] == [["run", "2"], ["run", "3"]]
        lines = as_text(timeline(records), decoder(Schemas()), now=world.now())
        assert "begins here" in lines[0]


def test_ended_runs_are_deleted_after_their_time_and_the_saga_lives_on() -> None:
    with world_of() as world:
        world.join(world.app)
        world.start("guest", "g")
        book(world, "g", "ab")
        for _ in range(60):
            world.step()
        world.pass_time(2 * 86_400)
        send(world, "signal", "g", "book", "c", keep=True)
        for _ in range(40):
            world.step()
        row, before = world.saga("g"), read_records(world.store, world.saga("g"))
        with retention(world, DAY) as made:
            made.round()
            left = read_records(world.store, row)
            assert len(left) < len(before)
            assert left[0].seq < row.base, "the run that ended today is kept"
            assert timeline(left)[0].name == "run 3"
            facts = gather(row, ((each.seq, each.body) for each in world.store.history(row)))
            assert (facts.fault, facts.deleted) == ("", 4)
            assert [(step.path, step.final) for step in facts.steps] == [("6", True)]
            made.round()
            assert read_records(world.store, row) == left
        for node in list(world.nodes):
            world.kill(node)
        world.pass_time(10)
        world.join(world.app)
        send(world, "signal", "g", "book", "last", keep=True)
        world.settle()
        assert b"abc in run 4" in (world.saga("g").result or b"")


def test_a_long_history_is_told_of_and_its_bytes_are_counted_again_after_a_death() -> None:
    with world_of() as world:
        node = world.join(world.app, history_bytes=1500, history_warn_at=0.5)
        world.start("talker", "t")
        for number in range(2):
            send(world, "signal", "t", "word", "x" * 100, key=f"w{number}", keep=True)
        for _ in range(30):
            world.step()
        assert world.saga("t").state is SagaState.RUNNING
        world.kill(node)
        world.pass_time(10)
        world.join(world.app, history_bytes=1500, history_warn_at=0.5)
        for number in range(2, 6):
            send(world, "signal", "t", "word", "x" * 100, key=f"w{number}", keep=True)
        world.settle()
        row = world.saga("t")
        assert row.state is SagaState.COMPLETED
        states = [EventEnvelope.parse(each.headers).state for each in world.kafka.all(world.topics.events)]
        assert states == [LONG_HISTORY.lower()]
        size = sum(len(each.body) for each in list(world.store.history(row))[:-1])
        assert size >= 750
