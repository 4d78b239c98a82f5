"""One bad saga in a batch of good ones: it is stuck and says why, the others end as if it weren't there."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch
from uuid import UUID

import pytest

from kasaga.engine.codec import decode
from kasaga.engine.decide import Definitions, Run, decide
from kasaga.engine.model import Event, Move
from kasaga.errors import (
    BugInSaga,
    EngineBug,
    KilledProcess,
    PayloadTooLarge,
    RefusedByStore,
    SagaFailed,
)
from kasaga.orchestrator import decider
from kasaga.store import memory_tables
from kasaga.store.base import SagaState, SagaWrite, StoreUnavailable
from kasaga.store.checks import refusal_of_write
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import CommandEnvelope
from kasaga_wire.records import answer_codec, event_codec
from orchestrator import trips
from orchestrator.node import Node
from orchestrator.trips import CONTRACTS, MENDED, SAGAS, NewCode
from orchestrator.world import Died, World


@pytest.fixture
def world() -> Iterator[World]:
    with World(shards=1, lease_seconds=1.0, heartbeat_seconds=0.2) as world:
        world.odds.slow = 0.0
        yield world


def begin(world: World, note: str, others: int = 5) -> Node:
    """A bad saga among good ones."""
    node = world.join()
    for number in range(others):
        world.start("trip", f"s{number}")
    world.start("bad", "bad", note)
    return node


def go_on(world: World, node: Node, times: int = 25) -> None:
    for _ in range(times):
        world.turn(node)
        world.serve()


def good(world: World) -> set[SagaState]:
    return {row.state for row in world.sagas() if row.saga_id != "bad"}


def events(world: World) -> list[str]:
    found = [event_codec.decode(r.value or b"", Schemas()) for r in world.kafka.all(world.topics.events)]
    return [event.state for event in found if event.saga_id == "bad"]


def suspects(node: Node) -> bool:
    return node.loop.shards[0].suspects


def test_a_bug_makes_a_saga_stuck_with_its_line_until_new_code_comes(world: World) -> None:
    node = begin(world, "bug")
    go_on(world, node)
    row = world.saga("bad")
    assert (row.state, row.code) == (SagaState.STUCK, BugInSaga.code)
    assert "ZeroDivisionError" in row.reason
    assert "trips.py:" in row.reason
    assert events(world) == ["STUCK"]
    assert good(world) == {SagaState.COMPLETED}

    world.end(node)
    same = world.join()
    go_on(world, same, 5)
    assert world.saga("bad").state is SagaState.STUCK
    world.end(same)

    with patch.object(world, "app", NewCode("trips", sagas=SAGAS, participants=CONTRACTS)):
        MENDED[0] = 1
        try:
            world.join()
            world.settle()
        finally:
            MENDED[0] = 0
    world.audit()
    assert world.saga("bad").state is SagaState.COMPLETED


def test_a_payload_over_the_limit_is_the_sagas_own_trouble(world: World) -> None:
    go_on(world, begin(world, "large"))

    row = world.saga("bad")
    assert (row.state, row.code) == (SagaState.STUCK, PayloadTooLarge.code)
    assert good(world) == {SagaState.COMPLETED}
    world.settle(stuck=frozenset({"bad"}))
    world.audit(stuck=frozenset({"bad"}))


def test_a_reason_that_no_database_takes_is_cleaned(world: World) -> None:
    begin(world, "text")
    world.settle()

    world.audit()
    row = world.saga("bad")
    assert (row.state, row.code) == (SagaState.COMPENSATED, SagaFailed.code)
    assert "\x00" not in row.reason


@pytest.mark.parametrize("tries", [1, 2])
def test_what_the_store_refuses_is_never_sent_and_what_stands_instead_is(world: World, tries: int) -> None:
    """The second try records the saga's events too; the third only says what is the matter."""

    def refusal(write: SagaWrite) -> str | None:
        saga_commands = [row for row in write.opens if row.step == "1" and row.run_id == bad]
        replies = [row for row in write.history if row.kind == "Started" and write.run_id == bad]
        if saga_commands or (tries > 1 and replies and len(refused) < 3):
            refused.append(write)
            return "22021 a test"
        return refusal_of_write(write)

    node = begin(world, "ok")
    bad = UUID(world.asked["bad"])
    refused: list[SagaWrite] = []
    with patch.object(memory_tables, "refusal_of_write", refusal):
        go_on(world, node)

    assert refused
    assert good(world) == {SagaState.COMPLETED}
    assert not [r for r in world.commands() if CommandEnvelope.parse(r.headers).saga_id == "bad"]
    if tries == 1:
        row = world.saga("bad")
        assert (row.state, row.code) == (SagaState.STUCK, RefusedByStore.code)
        assert "22021" in row.reason
        assert events(world) == ["STUCK"]
        answers = [
            answer_codec.decode(r.value or b"", Schemas()) for r in world.kafka.all(world.topics.answers)
        ]
        assert [each.what for each in answers if each.about == world.asked["bad"]] == ["STUCK"]
        world.control("retry", "bad")
        world.settle()
        world.audit()
        assert world.saga("bad").state is SagaState.COMPLETED


@pytest.mark.pure
def test_a_bug_of_the_engine_parks_the_saga_with_all_that_came_for_it(world: World) -> None:
    """Also what comes for it later in the same batch is recorded: nothing reads it again."""
    node = begin(world, "ok")
    world.turns(node, 2)
    for _ in range(6):
        world.serve()
    broken = world.asked["bad"]

    def fail(defs: Definitions, run: Run, event: Event, **about: Any) -> object:
        if run.state.run_id == broken:
            raise RuntimeError("a bug of ours")
        return decide(defs, run, event, **about)

    with patch.object(decider, "decide", fail):
        world.control("watch", "bad")  # comes first, and its answer with it
        go_on(world, node, 3)
    assert node.alive
    row = world.saga("bad")
    assert (row.state, row.code) == (SagaState.STUCK, EngineBug.code)
    assert "a bug of ours" in row.reason
    kinds = [each.kind for each in world.store.history(row)]
    assert kinds == ["Started", "Faulted", "Asked", "Replied"]

    world.control("retry", "bad")
    world.settle()
    world.audit()
    assert good(world) == {SagaState.COMPLETED}
    assert world.saga("bad").state is SagaState.COMPLETED


def killing(run_id: str) -> Callable[..., object]:
    """The engine's decide, for a saga whose code ends the process."""

    def die(defs: Definitions, run: Run, event: Event, **about: Any) -> object:
        if run.state.run_id == run_id and not run.state.parked:
            raise Died("os._exit")
        return decide(defs, run, event, **about)

    return die


@pytest.mark.pure
@pytest.mark.parametrize("when", ["start", "reply"])
def test_a_saga_that_kills_its_process_is_stuck_after_two_deaths(world: World, when: str) -> None:
    node = world.join()
    if when == "reply":
        world.start("bad", "bad", "ok")
        world.turns(node, 2)
        world.serve()
    else:
        world.start("bad", "bad", "ok")
    for number in range(5):
        world.start("trip", f"s{number}")
    deaths = 0
    with patch.object(decider, "decide", killing(world.asked["bad"])):
        for _ in range(6):
            go_on(world, node, 30)
            if node.alive:
                break
            deaths += 1
            world.pass_time(1.5)
            node = world.join()

    assert deaths == 4, "two at first, and two in suspect mode that tell which saga it is"
    row = world.saga("bad")
    assert (row.state, row.code) == (SagaState.STUCK, KilledProcess.code)
    assert "died 2 times" in row.reason
    assert "trips.py:" in row.reason
    go_on(world, node, 60)
    assert good(world) == {SagaState.COMPLETED}
    world.control("retry", "bad")
    world.settle()
    world.audit()


def convicted(world: World) -> list[str]:
    """Who was ever found to kill its process, once for each time."""
    return [
        row.saga_id
        for row in world.sagas()
        for each in world.store.history(row)
        for decision in decode(each.seq, each.body).decisions
        if isinstance(decision, Move) and decision.code == KilledProcess.code
    ]


def test_deaths_from_outside_convict_nobody(world: World) -> None:
    """Each process dies with another healthy saga marked; between them some die that have stepped nothing."""
    node = world.join()
    passed = 0

    def crash(point: str) -> bool:
        nonlocal passed
        passed += point == "orchestrator.before_commit"
        return passed == survives

    world.crash = crash
    marked: set[UUID] = set()
    for survives in (0, 0, 1, 2, 3, 2, 3):
        passed = 0 if survives else -100
        world.turns(node, 4)
        if node.alive:
            world.kill(node)
            for number in range(4):
                world.start("empty", f"s{survives}-{world.nanos}-{number}")
        world.pass_time(1.5)
        row = world.store.claim(0, "nobody", ttl=1.0)
        assert row is not None
        marked |= {row.suspect.run_id} if row.suspect else set()
        world.pass_time(1.5)
        node = world.join()
    assert len(marked) > 2, "the test has missed the moments"
    world.settle()

    world.audit()
    assert convicted(world) == []


@pytest.mark.pure
def test_a_saga_that_was_mended_needs_two_deaths_again(world: World) -> None:
    node = world.join()
    world.start("bad", "bad", "ok")
    with patch.object(decider, "decide", killing(world.asked["bad"])):
        for _ in range(4):
            go_on(world, node)
            assert not node.alive
            world.pass_time(1.5)
            node = world.join()
        go_on(world, node)
    assert world.saga("bad").code == KilledProcess.code

    world.control("retry", "bad")
    world.crash = lambda point: point == "orchestrator.before_commit"
    go_on(world, node, 3)
    assert not node.alive
    world.pass_time(1.5)
    world.join()
    world.settle()
    world.audit()
    assert convicted(world) == ["bad"]
    assert world.saga("bad").state is SagaState.COMPLETED


@pytest.mark.pure
def test_a_conviction_that_is_not_written_stands(world: World) -> None:
    """Also when whoever is to write it dies of something else, again and again. It is written once."""
    node = world.join()
    world.start("bad", "bad", "ok")
    with patch.object(decider, "decide", killing(world.asked["bad"])):
        for _ in range(7):
            go_on(world, node)
            assert not node.alive
            world.pass_time(1.5)
            node = world.join()
            if node.name in ("node-5", "node-6", "node-7"):
                world.crash = lambda point: point == "orchestrator.before_commit"
        world.crash = lambda point: point == "orchestrator.after_commit" and bool(convicted(world))
        go_on(world, node)
        assert not node.alive
        world.crash = lambda point: False
        world.pass_time(1.5)
        go_on(world, world.join())
    assert world.saga("bad").code == KilledProcess.code
    assert convicted(world) == ["bad"]
    world.control("retry", "bad")
    world.settle()
    world.audit()


@pytest.mark.pure
def test_a_saga_that_kills_while_it_is_rebuilt_is_found_too(world: World) -> None:
    """Code that has changed: the line isn't known, since to find it is to run it."""
    node = world.join()
    world.start("bad", "bad", "ok")
    world.turns(node, 2)
    bad = world.asked["bad"]

    def die(run: Run, *about: Any) -> object:
        if run.state.run_id == bad:
            raise Died("os._exit")
        return live(run, *about)

    live = Run.live
    deaths = 0
    world.kill(node)
    world.serve()
    with patch.object(Run, "live", die):
        for _ in range(6):
            world.pass_time(1.5)
            node = world.join()
            go_on(world, node)
            if node.alive:
                break
            deaths += 1
    row = world.saga("bad")
    assert (deaths, row.code) == (3, KilledProcess.code)
    assert "trips.py" not in row.reason
    world.control("retry", "bad")
    world.settle()
    world.audit()


def test_a_saga_that_kills_while_it_is_rebuilt_for_its_function_is_found_too(world: World) -> None:
    go = threading.Event()
    node = world.join()
    world.start("local", "bad")
    bad = world.asked["bad"]
    with patch.object(trips, "HOOK", [lambda: go.wait(30) and 7]):
        while not node.functions.running:
            go_on(world, node, 1)
        world.kill(node)
        go.set()
    deaths = 0

    def die(run: Run, *about: Any) -> object:
        if run.state.run_id == bad:
            raise Died("os._exit")
        return live(run, *about)

    live = Run.live
    with patch.object(Run, "live", die):
        for _ in range(6):
            world.pass_time(1.5)
            node = world.join()
            go_on(world, node)
            if node.alive:
                break
            deaths += 1
    assert (deaths, world.saga("bad").code) == (3, KilledProcess.code)
    world.control("retry", "bad")
    world.settle()
    world.audit()


def test_suspects_are_stepped_one_by_one_and_nothing_overtakes_them(world: World) -> None:
    """Two deaths for other reasons: dead letters among the starts must not move the offset past them."""
    node = world.join()
    world.turns(node, 2)
    for _ in range(2):
        world.kill(node)
        world.pass_time(1.5)
        node = world.join()
        world.turns(node, 2)
    assert suspects(node)
    for number in range(4):
        world.start("trip", f"s{number}")
        world.kafka.append(world.topics.sagas, 0, b"?", b"nonsense", [])
    commits = 0

    def die(point: str) -> bool:
        nonlocal commits
        commits += point == "orchestrator.after_commit"
        return commits == 4

    world.crash = die
    go_on(world, node, 3)
    assert not node.alive
    world.crash = lambda point: False
    world.pass_time(1.5)
    world.join()
    world.settle()

    world.audit()
    assert len(world.sagas()) == 4


def test_a_shard_that_stays_quiet_is_pardoned(world: World) -> None:
    node = world.join()
    world.turns(node, 2)
    for _ in range(2):
        world.kill(node)
        world.pass_time(1.5)
        node = world.join()
        world.turns(node, 2)
    assert suspects(node)
    with patch("kasaga.orchestrator.ownership.PARDON_AFTER", 5):
        for number in range(6):
            world.start("empty", f"s{number}")
        go_on(world, node, 3)
        world.pass_time(0.3)
        go_on(world, node, 3)

    assert not suspects(node)
    world.settle()


@pytest.mark.pure
def test_what_was_decided_beside_a_bug_is_decided_again_when_postgres_goes_away_then(world: World) -> None:
    """The others were stepped already, and nothing of it is written: they begin again from their rows."""
    node = begin(world, "ok")
    world.turns(node, 2)
    for _ in range(4):
        world.serve()
    broken, away = world.asked["bad"], [True, True]

    def fail(defs: Definitions, run: Run, event: Event, **about: Any) -> object:
        if run.state.run_id == broken:
            raise RuntimeError("a bug of ours")
        return decide(defs, run, event, **about)

    def fault(name: str) -> None:
        if name == "load" and away:
            away.pop()
            raise StoreUnavailable("just now")

    with patch.object(decider, "decide", fail):
        world.fault = fault
        world.turns(node, 4)
    assert not away
    world.fault = lambda name: None
    world.control("retry", "bad")
    world.settle()
    world.audit()
    assert {CommandEnvelope.parse(record.headers).attempt for record in world.commands()} == {1}
