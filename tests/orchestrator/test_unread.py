"""Histories that can't be read: their sagas are STUCK and say so, once; repaired, they go on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from kasaga.engine.codec import decode
from kasaga.engine.decide import Definitions, Run, decide
from kasaga.engine.model import Event
from kasaga.errors import HistoryUnreadable
from kasaga.orchestrator import decider
from kasaga.store.base import HistoryRow, SagaState
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import EventEnvelope
from kasaga_wire.records import Answer, answer_codec, event_codec
from orchestrator import trips
from orchestrator.node import Node
from orchestrator.trips import CONTRACTS, SAGAS, NewCode
from orchestrator.world import World

Damage = Callable[[dict[int, HistoryRow]], None]

TRACE = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture
def world() -> Iterator[World]:
    with World(shards=1, lease_seconds=1.0, heartbeat_seconds=0.2) as world:
        world.odds.slow = 0.0
        yield world


def rows(world: World, saga_id: str = "bad") -> dict[int, HistoryRow]:
    return world.store._tables.history[world.saga(saga_id).run_id]  # pyright: ignore[reportPrivateUsage]


def with_body(seq: int, body: bytes) -> Damage:
    def damage(history: dict[int, HistoryRow]) -> None:
        history[seq] = replace(history[seq], body=body)

    return damage


def without(seq: int) -> Damage:
    def damage(history: dict[int, HistoryRow]) -> None:
        del history[seq]

    return damage


def with_anothers_body(history: dict[int, HistoryRow]) -> None:
    history[2] = replace(history[2], body=history[1].body)


def go_on(world: World, node: Node, times: int = 30) -> None:
    for _ in range(times):
        world.turn(node)
        world.serve()


def half_way(world: World, saga: str = "trip", others: int = 3) -> dict[int, HistoryRow]:
    """A saga whose last step is out and unanswered, others beside it; then its owner dies.

    Returns its rows as they were.
    """
    node = world.join()
    world.desk.mood = lambda envelope: "silent" if envelope.type == "post.send" else "done"
    world.start(saga, "bad", traceparent=TRACE)
    for number in range(others):
        world.start("trip", f"s{number}")
    go_on(world, node)
    world.kill(node)
    world.pass_time(1.5)
    world.desk.mood = lambda envelope: "done"
    return dict(rows(world))


def repair(world: World, before: dict[int, HistoryRow]) -> None:
    rows(world).update(before)


def events(world: World) -> list[tuple[str, str, str]]:
    """Of the saga: state, reason and trace of each event."""
    found = [
        (event_codec.decode(each.value or b"", Schemas()), EventEnvelope.parse(each.headers))
        for each in world.kafka.all(world.topics.events)
    ]
    return [
        (body.state, body.reason or "", (envelope.traceparent or "")[3:35])
        for body, envelope in found
        if body.saga_id == "bad"
    ]


def answers(world: World, about: str) -> list[Answer]:
    found = [
        answer_codec.decode(each.value or b"", Schemas()) for each in world.kafka.all(world.topics.answers)
    ]
    return [each for each in found if each.about == about]


DAMAGES: dict[str, Damage] = {
    "garbage": with_body(2, b"\xc1garbage"),
    "nothing": with_body(2, b""),
    "a newer format": with_body(2, b"\x95\x63\x01\x01\x90\x90"),
    "the first": with_body(1, b"\xff"),
    "a hole": without(2),
    "the first is missing": without(1),
    "another's": with_anothers_body,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_it_is_stuck_once_and_goes_on_when_it_is_repaired(world: World, damage: Damage) -> None:
    before = half_way(world)
    damage(rows(world))
    node = world.join()
    world.pass_time(2.5)  # its step is tried again by a timer; the others' steps too
    go_on(world, node)

    row = world.saga("bad")
    assert (row.state, row.code) == (SagaState.STUCK, HistoryUnreadable.code)
    assert row.reason
    assert "restore the row" in row.remedy
    assert {each.state for each in world.sagas() if each.saga_id != "bad"} == {SagaState.COMPLETED}
    for _ in range(3):
        world.control("watch", "bad")
        world.pass_time(2.5)
        go_on(world, node, 5)
    kinds = [each.kind for seq, each in sorted(rows(world).items()) if seq > max(before)]
    assert kinds == ["Faulted", "Fired"], "what came is kept, and nothing of it twice"
    states = [(state, reason) for state, reason, _ in events(world)]
    assert states == [("STUCK", row.reason)]

    repair(world, before)
    world.control("retry", "bad")
    world.settle()
    world.audit()
    assert world.saga("bad").state is SagaState.COMPLETED
    assert [state for state, _, _ in events(world)] == ["STUCK", "RUNNING"]


def test_who_waits_is_told_and_asking_again_is_answered(world: World) -> None:
    before = half_way(world)
    with_body(2, b"\xc1")(rows(world))
    node = world.join()
    first = world.control("watch", "bad")
    go_on(world, node, 5)
    assert [each.what for each in answers(world, world.asked["bad"])] == ["STUCK"]
    asked = [world.control(action, "bad") for action in ("watch", "retry", "cancel")]
    go_on(world, node, 5)
    said = [[(each.what, each.error) for each in answers(world, about)] for about in (first, *asked)]
    assert said == [
        [("STUCK", "KSG-211")],
        [("STUCK", "KSG-211")],
        [("not_applicable", "KSG-230")],
        [("not_applicable", "KSG-230")],
    ]
    assert "row 2" in (answers(world, asked[1])[0].reason or "")
    repair(world, before)
    again = world.control("retry", "bad")
    world.settle()
    assert [each.what for each in answers(world, again)] == ["applied"]
    world.audit()


@pytest.mark.parametrize("seq", [1, 2])
def test_the_log_names_the_saga_and_its_trace(
    world: World, seq: int, caplog: pytest.LogCaptureFixture
) -> None:
    """The trace's id stands in the first row; without it there is the one of sagas that nobody traced."""
    half_way(world)
    with_body(seq, b"\xc1")(rows(world))
    node = world.join()
    with caplog.at_level(logging.WARNING, "kasaga"):
        world.control("watch", "bad")
        go_on(world, node, 5)
    lines = {each.getMessage(): each.__dict__ for each in caplog.records}
    for message in ("a history can't be read", "saga stuck"):
        assert lines[message]["saga_id"] == "bad"
        assert lines[message]["run_id"] == str(world.saga("bad").run_id)
        assert (lines[message]["trace_id"] == "ab" * 16) == (seq > 1)
    assert [trace for _, _, trace in events(world)] == [lines["saga stuck"]["trace_id"]]


def test_new_code_reads_it_by_itself(world: World) -> None:
    before = half_way(world)
    with_body(2, b"\xc1")(rows(world))
    node = world.join()
    world.control("watch", "bad")
    go_on(world, node, 5)
    world.end(node)
    code = NewCode("trips", sagas=SAGAS, participants=CONTRACTS)
    node = world.join(code)
    go_on(world, node, 5)
    assert [each.kind for _, each in sorted(rows(world).items())][-1] == "Faulted", "still not to be read"
    world.end(node)
    repair(world, before)
    with patch.object(world, "app", NewCode("trips", sagas=SAGAS, participants=CONTRACTS)):
        world.join()
        world.settle()
    world.audit()
    assert world.saga("bad").state is SagaState.COMPLETED


def test_a_function_of_ctx_run_waits_for_the_repair(world: World) -> None:
    go = threading.Event()
    node = world.join()
    world.start("local", "bad")
    with patch.object(trips, "HOOK", [lambda: go.wait(30) and 7]):
        while not node.functions.running:
            go_on(world, node, 1)
        world.kill(node)
        go.set()
    before = dict(rows(world))
    with_body(2, b"\xc1")(rows(world))
    world.pass_time(1.5)
    node = world.join()
    go_on(world, node, 5)
    assert world.saga("bad").code == HistoryUnreadable.code

    repair(world, before)
    world.control("retry", "bad")
    world.settle()
    world.audit()
    assert node.alive
    assert world.saga("bad").state is SagaState.COMPLETED


def test_a_saga_that_was_stuck_already_is_stuck_by_what_matters_more(world: World) -> None:
    node = world.join()
    world.start("bad", "bad", "bug")
    go_on(world, node)
    assert world.saga("bad").code == "KSG-207"
    world.kill(node)
    world.pass_time(1.5)
    before = dict(rows(world))
    with_body(1, b"\xc1")(rows(world))
    node = world.join()
    world.control("retry", "bad")
    go_on(world, node)
    assert world.saga("bad").code == HistoryUnreadable.code
    repair(world, before)
    trips.MENDED[0] = 1
    try:
        world.control("retry", "bad")
        world.settle()
    finally:
        trips.MENDED[0] = 0
    world.audit()


def test_one_that_has_ended_is_left_alone(world: World) -> None:
    node = world.join()
    world.start("trip", "bad")
    go_on(world, node)
    done = world.saga("bad")
    assert done.state is SagaState.COMPLETED
    history = dict(rows(world))
    with_body(2, b"\xc1")(rows(world))
    asked = world.control("watch", "bad")
    world.kafka.append(*_again(world))
    go_on(world, node, 5)
    assert world.saga("bad") == done
    assert len(rows(world)) == len(history)
    assert [each.what for each in answers(world, asked)] == ["COMPLETED"]


def _again(world: World) -> Any:
    """A late copy of a reply."""
    record = next(each for each in world.kafka.all(world.topics.replies))
    return record.topic, record.partition, record.key, record.value, record.headers


@pytest.mark.pure
def test_a_bug_of_the_engine_and_a_damaged_history_at_once(world: World) -> None:
    """It is live when the bug strikes; what stands in the database is found to be damaged only then."""
    node = world.join()
    world.start("trip", "bad")
    world.turns(node, 2)
    before = dict(rows(world))
    with_body(1, b"\xc1")(rows(world))
    bad = world.asked["bad"]

    def fail(defs: Definitions, run: Run, event: Event, **about: Any) -> object:
        if run.state.run_id == bad:
            raise RuntimeError("a bug of ours")
        return decide(defs, run, event, **about)

    with patch.object(decider, "decide", fail):
        go_on(world, node, 5)
    assert node.alive
    assert world.saga("bad").code == HistoryUnreadable.code
    assert [each.kind for _, each in sorted(rows(world).items())] == ["Started", "Faulted", "Replied"]
    repair(world, before)
    world.control("retry", "bad")
    world.settle()
    world.audit()


@pytest.mark.parametrize("seed", range(25))
def test_whatever_is_in_a_row_the_others_go_on(world: World, seed: int) -> None:
    """Bytes turned over at random: some rows can still be read and then tell something else."""
    dice = Random(seed)
    before = half_way(world, others=2)
    for seq in dice.sample(sorted(before), dice.randint(1, len(before))):
        body = bytearray(before[seq].body)
        for _ in range(dice.randint(1, 8)):
            body[dice.randrange(len(body))] = dice.randrange(256)
        with_body(seq, bytes(body))(rows(world))
    node = world.join()
    world.control("watch", "bad")
    world.pass_time(2.5)
    go_on(world, node)
    assert node.alive
    assert {each.state for each in world.sagas() if each.saga_id != "bad"} == {SagaState.COMPLETED}
    if world.saga("bad").code == HistoryUnreadable.code:
        repair(world, before)
        world.control("retry", "bad")
        world.pass_time(2.5)
        go_on(world, node)
        assert world.saga("bad").state is SagaState.COMPLETED


def test_a_record_whose_time_is_none_can_not_be_read() -> None:
    with pytest.raises(HistoryUnreadable, match="row 7"):
        decode(7, b"\x95\x01\xa1x\x01\x92\x03\xa0\x90")
