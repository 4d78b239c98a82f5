"""Child sagas in whole processes: deaths, duplicates, what comes out of order, what can't be undone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from kasaga import App, SagaContext, SagaFailed, saga
from kasaga.engine.codec import decode
from kasaga.engine.kinship import MAX_DEPTH
from kasaga.engine.state import State, fold
from kasaga.explain import as_text
from kasaga.lookup import look
from kasaga.saga import Saga
from kasaga.store.base import SagaState
from kasaga.timeline import as_text as history
from kasaga.timeline import timeline
from kasaga_wire.children import BEGIN, UNDO, ChildEnvelope
from kasaga_wire.envelope import CommandEnvelope, type_of
from kasaga_wire.kafka import Record
from orchestrator import trips
from orchestrator.desk import DONE, REFUSED, SILENT, Mood
from orchestrator.test_chaos import PROFILES, moody
from orchestrator.test_crash_windows import POINTS, nth, passages_of, until_over
from orchestrator.trips import Trip
from orchestrator.world import World
from store.samples import purge


def refused(envelope: CommandEnvelope) -> str:
    return REFUSED if envelope.type == "post.send" else DONE


def states(world: World, saga_id: str = "a") -> dict[str, str]:
    """How a saga and its children stand."""
    return {row.saga_id: str(row.state) for row in world.sagas() if row.saga_id.split(".")[0] == saga_id}


def folded(world: World, saga_id: str) -> State:
    row = world.saga(saga_id)
    return fold(str(row.run_id), [decode(each.seq, each.body) for each in world.store.history(row)])


def asked(world: World, kind: str) -> list[Record]:
    """What parents have asked of their children."""
    topic = world.topics.sagas if kind == BEGIN else world.topics.control
    return [record for record in world.kafka.all(topic) if type_of(record.headers) == kind]


def well(envelope: CommandEnvelope) -> str:
    return DONE


def calm(mood: Mood = well) -> World:
    world = World(7)
    world.odds.slow = 0.0
    world.desk.mood = mood
    return world


def until(world: World, saga_id: str, *wanted: SagaState) -> None:
    """Go on until a saga stands so, with nothing that goes wrong."""
    for _ in range(3000):
        world.step()
        row = world.store.saga(saga_id)
        if row is not None and row.state in wanted:
            return
    raise AssertionError(f"{saga_id} is never {wanted}: {states(world)}")


ALL = ("a", "a.2", "a.3.1", "a.3.2")


@pytest.mark.parametrize("mood", [refused, well], ids=["undone", "done"])
@pytest.mark.parametrize("point", POINTS)
def test_no_crash_window_loses_or_doubles_a_child(point: str, mood: Mood) -> None:
    def story(world: World) -> None:
        world.odds.slow = 0.0
        world.desk.mood = mood
        world.join()
        world.start("journey", "a")
        until_over(world)

    end = "COMPENSATED" if mood is refused else "COMPLETED"
    for number in range(1, passages_of(point, story) + 1):
        with World(7, lease_seconds=0.4, heartbeat_seconds=0.1) as world:
            world.crash = nth(point, number)
            story(world)
            world.audit()
            assert states(world) == dict.fromkeys(ALL, end), f"passage {number}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("profile", PROFILES)
def test_children_and_parents_end_alike_whatever_goes_wrong(profile: str, seed: int) -> None:
    with World(seed, odds=PROFILES[profile]) as world:
        mood = moody(world.dice)
        world.desk.mood = lambda each: (
            REFUSED if each.type == "post.send" and "refused" in each.saga_id else mood(each)
        )
        for _ in range(2):
            world.join()
        for number in range(6):
            world.start("journey", f"{'refused' if number % 2 else 'well'}{number}")
            world.run(world.dice.randint(0, 60))
        world.run(200)
        world.heal()
        world.desk.mood = refused_by_name
        for _ in range(20_000):
            world.step()
            if world.over():
                break
        world.audit()
        ends = Counter((row.saga_id[:7] == "refused", str(row.state)) for row in world.sagas())
        assert ends == {(True, "COMPENSATED"): 12, (False, "COMPLETED"): 12}


def refused_by_name(envelope: CommandEnvelope) -> str:
    return REFUSED if envelope.type == "post.send" and "refused" in envelope.saga_id else DONE


def test_what_parents_ask_may_come_twice_at_any_time() -> None:
    with calm(refused) as world:
        world.join()
        world.start("journey", "a")
        until_over(world)
        before = {row.saga_id: folded(world, row.saga_id).next_seq for row in world.sagas()}
        for record in [*asked(world, BEGIN), *asked(world, UNDO)]:
            world.kafka.append(record.topic, record.partition, record.key, record.value, record.headers)
        world.run(200)
        until_over(world)
        assert states(world) == dict.fromkeys(ALL, "COMPENSATED")
        assert {row.saga_id: folded(world, row.saga_id).next_seq for row in world.sagas()} == before
        world.audit()


def hold_starts(world: World) -> list[Record]:
    """Keep what asks children to begin from its log; whoever lets it go appends it."""
    held: list[Record] = []

    def appended(record: Record) -> None:
        if record.topic == world.topics.sagas and type_of(record.headers) == BEGIN:
            held.append(world.kafka.logs[record.topic, record.partition].records.pop())

    world.kafka.appended = appended
    return held


def let_go(world: World, held: list[Record]) -> None:
    world.kafka.appended = lambda record: None
    for record in held:
        world.kafka.append(record.topic, record.partition, record.key, record.value, record.headers)


def test_an_undo_that_comes_before_the_start_is_a_fence() -> None:
    """The parent is cancelled while its child's start is on its way, which comes much later."""
    with calm() as world:
        world.join()
        held = hold_starts(world)
        world.start("journey", "a")
        for _ in range(300):
            world.step()
        assert {ChildEnvelope.parse(record.headers).saga_id for record in held} == {"a.2"}
        world.control("cancel", "a")
        until(world, "a", SagaState.COMPENSATED)
        assert states(world) == {"a": "COMPENSATED", "a.2": "COMPENSATED"}
        let_go(world, held)
        world.run(100)
        until_over(world)
        assert not folded(world, "a.2").order, "it never began"
        assert [step.undo_how for step in folded(world, "a").order] == ["undone", "nothing"]
        world.audit()


def test_a_start_that_is_lost_is_sent_again() -> None:
    with calm() as world:
        world.join()
        hold_starts(world)
        world.start("journey", "a")
        for _ in range(300):
            world.step()
        let_go(world, [])
        world.pass_time(61)
        until_over(world)
        assert states(world) == dict.fromkeys(ALL, "COMPLETED")
        world.audit()


def test_a_cancel_reaches_children_that_run() -> None:
    with calm(
        lambda each: SILENT if each.type == "flight.reserve" and each.saga == "stay" else DONE
    ) as world:
        world.join()
        world.start("journey", "a")
        for _ in range(600):
            world.step()
        assert states(world) == {"a": "RUNNING", "a.2": "COMPLETED", "a.3.1": "RUNNING", "a.3.2": "COMPLETED"}
        world.control("cancel", "a")
        until_over(world)
        assert states(world) == dict.fromkeys(ALL, "COMPENSATED")
        world.audit()


Family = Callable[[SagaContext, Trip], Coroutine[Any, Any, str]]


def family(parent: Family, *children: Saga[Any, Any]) -> App:
    return App("trips", sagas=[saga("parent")(parent), trips.trip, *children], participants=trips.CONTRACTS)


def test_an_abandoned_child_goes_on_when_its_parent_is_undone() -> None:
    async def parent(ctx: SagaContext, trip: Trip) -> str:
        begun = await ctx.start_child(trips.nap, trip, on_undo="abandon")
        await ctx.child(trips.stay, trip, on_undo="abandon")
        raise SagaFailed(begun)

    with calm() as world:
        world.join(family(parent, trips.nap, trips.stay))
        world.start("parent", "a")
        until_over(world)
        assert states(world) == {"a": "COMPENSATED", "a.1": "COMPLETED", "a.2": "COMPLETED"}
        assert world.saga("a").reason == "a.1"


def test_an_abandoned_child_that_may_have_begun_is_left_if_it_has() -> None:
    async def parent(ctx: SagaContext, trip: Trip) -> str:
        return (await ctx.child(trips.stay, trip, on_undo="abandon")).ref

    with calm(lambda each: SILENT if each.type == "flight.reserve" else DONE) as world:
        world.join(family(parent, trips.stay))
        world.start("parent", "a")
        for _ in range(300):
            world.step()
        world.control("cancel", "a")
        until(world, "a", SagaState.COMPENSATED)
        assert states(world) == {"a": "COMPENSATED", "a.1": "RUNNING"}
        assert folded(world, "a").steps["1"].undo_how == "executed"


@pytest.mark.parametrize("given", ["taken", "a"])
def test_an_id_that_belongs_to_another_saga_is_refused(given: str) -> None:
    async def parent(ctx: SagaContext, trip: Trip) -> str:
        return (await ctx.child(trips.stay, trip, id=given)).ref

    with calm() as world:
        world.join(family(parent, trips.stay))
        world.start("stay", "taken")
        until_over(world)
        world.start("parent", "a")
        until_over(world)
        assert states(world) == {"a": "COMPENSATED"}
        assert f"saga id {given!r} belongs to another saga" in world.saga("a").reason
        assert str(world.saga("taken").state) == "COMPLETED", (
            "it isn't undone with a parent that isn't its own"
        )


def test_children_of_children_come_to_an_end() -> None:
    async def parent(ctx: SagaContext, trip: Trip) -> str:
        return await ctx.child(app.sagas["parent", 1], trip)

    app = family(parent)
    with calm() as world:
        world.join(app)
        world.start("parent", "a")
        until_over(world)
        assert set(states(world).values()) == {"COMPENSATED"}
        assert len(states(world)) == MAX_DEPTH + 1
        assert f"{MAX_DEPTH} are the most" in world.saga("a").reason


def stuck_parent(world: World, child: Saga[Any, Any]) -> None:
    """A parent whose child has ended, and that is then cancelled."""

    async def parent(ctx: SagaContext, trip: Trip) -> str:
        await ctx.start_child(child, trip)
        await ctx.signal("never")
        return ""

    world.join(family(parent, child))
    world.start("parent", "a")
    for _ in range(600):
        world.step()


def test_a_child_behind_its_pivot_makes_its_parent_stuck_with_the_reason() -> None:
    with calm() as world:
        stuck_parent(world, trips.sold)
        assert str(world.saga("a.1").state) == "COMPLETED"
        world.control("cancel", "a")
        until(world, "a", SagaState.STUCK)
        row = world.saga("a")
        assert row.code == "KSG-220"
        assert "it has passed its pivot" in row.reason
        world.control("skip", "a", step="1")
        until(world, "a", SagaState.COMPENSATED)
        assert str(world.saga("a.1").state) == "COMPLETED"


def test_a_child_that_was_terminated_makes_its_parent_stuck_with_the_reason() -> None:
    with calm(lambda each: SILENT) as world:
        stuck_parent(world, trips.stay)
        world.control("terminate", "a.1")
        until(world, "a.1", SagaState.TERMINATED)
        world.control("cancel", "a")
        until(world, "a", SagaState.STUCK)
        assert "was ended as it was" in world.saga("a").reason or "TERMINATED" in world.saga("a").reason


def test_a_child_that_was_terminated_in_its_undoing_answers_each_further_undo() -> None:
    """Its parent would wait for ever for the answer to a retry."""
    with calm(lambda each: SILENT if each.undoes is not None else DONE) as world:
        stuck_parent(world, trips.stay)
        world.control("cancel", "a")
        until(world, "a.1", SagaState.CANCELLING)
        world.control("terminate", "a.1")
        until(world, "a", SagaState.STUCK)
        for _ in range(2):
            world.control("retry", "a")
            until(world, "a", SagaState.CANCELLING)
            until(world, "a", SagaState.STUCK)
            assert "was ended as it was" in world.saga("a").reason


def test_a_child_begun_before_postgres_lost_its_parents_step_is_still_the_parents() -> None:
    """The step is asked for once more, later: the child that has its id is no stranger, and is undone."""
    with calm() as world:
        before = world.snapshot()
        stuck_parent(world, trips.stay)
        world.pass_time(5)
        world.restore(before)
        until(world, "a.1", SagaState.COMPLETED)
        world.control("cancel", "a")
        until(world, "a", SagaState.COMPENSATED)
        assert states(world) == {"a": "COMPENSATED", "a.1": "COMPENSATED"}
        assert folded(world, "a.1").parent is not None


def test_a_child_whose_history_is_deleted_makes_its_parent_stuck_with_the_reason() -> None:
    with calm() as world:
        stuck_parent(world, trips.stay)
        world.pass_time(60)
        purge(world.store, timedelta(0))
        world.control("cancel", "a")
        until(world, "a", SagaState.STUCK)
        assert "has no history any more" in world.saga("a").reason


def test_a_child_that_is_stuck_in_its_undoing_is_named_by_its_parent_and_both_go_on() -> None:
    with calm() as world:
        stuck_parent(world, trips.stay)
        world.desk.mood = lambda each: SILENT if each.kind == "undo" else DONE
        world.control("cancel", "a")
        for _ in range(80):
            world.pass_time(3)
            world.run(20)
        assert states(world) == {"a": "STUCK", "a.1": "STUCK"}
        assert "it is STUCK: " in world.saga("a").reason
        world.desk.mood = lambda each: DONE
        until_over(world)
        assert states(world) == {"a": "COMPENSATED", "a.1": "COMPENSATED"}
        world.audit()


def test_a_child_that_is_paused_is_undone_when_it_is_resumed() -> None:
    with calm(lambda each: SILENT if each.type == "flight.reserve" else DONE) as world:
        stuck_parent(world, trips.stay)
        world.control("pause", "a.1")
        until(world, "a.1", SagaState.PAUSED)
        world.control("cancel", "a")
        for _ in range(200):
            world.step()
        assert states(world) == {"a": "CANCELLING", "a.1": "PAUSED"}
        assert "cancelled by its parent a" in world.saga("a.1").reason
        world.desk.mood = lambda each: DONE
        world.control("resume", "a.1")
        until_over(world)
        assert states(world) == {"a": "COMPENSATED", "a.1": "COMPENSATED"}
        world.audit()


def test_a_parent_that_is_terminated_leaves_its_children_and_says_so() -> None:
    with calm() as world:
        stuck_parent(world, trips.stay)
        world.control("terminate", "a")
        until(world, "a", SagaState.TERMINATED)
        world.run(100)
        assert states(world) == {"a": "TERMINATED", "a.1": "COMPLETED"}
        assert "done and not undone: 1 (child.stay)" in world.saga("a").reason


def test_the_trace_of_a_child_is_its_parents() -> None:
    with calm() as world:
        world.join()
        world.start("journey", "a", traceparent="00-" + "ab" * 16 + "-" + "cd" * 8 + "-01")
        until_over(world)
        traces = {dict(record.headers)["traceparent"][3:35] for record in world.commands()}  # type: ignore[index]
        assert traces == {b"ab" * 16}


def test_describe_and_history_show_children_and_parents() -> None:
    with calm(
        lambda each: SILENT if each.type == "flight.reserve" and each.saga == "stay" else DONE
    ) as world:
        world.join()
        world.start("journey", "a")
        for _ in range(600):
            world.step()
        world.control("pause", "a.3.1")
        until(world, "a.3.1", SagaState.PAUSED)
        told, records = look(world.store, "a", world.now())
        text = "\n".join(as_text(told, str))
        assert (
            "It waits for its child a.3.1 (child.stay, step 3.1) to end; it is PAUSED: paused by test" in text
        )
        assert "child.nap a.2" in text
        assert [step.child for step in told.steps if step.child] == ["a.2", "a.3.1", "a.3.2"]
        assert "child.stay a.3.1" in "\n".join(history(timeline(records), str, now=world.now()))
        world.desk.mood = well
        world.control("resume", "a.3.1")
        world.control("cancel", "a")
        until_over(world)
        child, records = look(world.store, "a.2", world.now())
        assert child.parent == "a"
        assert any(line.split() == ["child", "of", "a"] for line in as_text(child, str))
        assert "by its parent a" in "\n".join(history(timeline(records), str, now=world.now()))
