"""Signals, updates and queries through the whole loop: told, or a dead letter, and none lost."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kasaga.orchestrator import early
from kasaga.orchestrator.early import KEEP_MICROS
from kasaga.orchestrator.holding import HOLD_MICROS
from kasaga.store.base import SagaState
from kasaga.testing.network import Place
from kasaga_wire.messages import MessageEnvelope
from orchestrator.messages import code_of, dead, send, told
from orchestrator.node import Node
from orchestrator.world import World

LEASE = 5.0
"""Seconds after which a dead owner's shards are anybody's."""


def rows_of(world: World) -> int:
    """How many rows the histories of all sagas have."""
    return sum(1 for row in world.sagas() for _ in world.store.history(row))


def calm(shards: int = 2) -> World:
    world = World(shards=shards)
    world.odds.slow = 0.0
    return world


def go_on(world: World, node: Node, times: int = 10) -> None:
    for _ in range(times):
        world.turn(node)
        world.serve()


def whats(world: World, about: str) -> list[str]:
    return [answer.what for answer in told(world, about)]


def result_of(world: World, about: str) -> bytes | None:
    return told(world, about)[-1].result


def test_signals_reach_the_saga_in_order_and_once() -> None:
    with calm() as world:
        world.join()
        run_id = world.start("mailbox", "a")
        keys = [send(world, "signal", "a", "letter", letter) for letter in "xyz"]
        send(world, "signal", "a", "letter", "y", key=keys[1])
        send(world, "signal", "a", "end")
        world.settle()

        world.audit()
        assert [whats(world, key) for key in keys] == [["accepted"], ["accepted"] * 2, ["accepted"]]
        end = told(world, run_id)[-1]
        assert end.what == "COMPLETED"
        assert end.result is not None
        assert b"xyz" in end.result


def test_signals_outlive_the_process_that_read_them() -> None:
    with calm() as world:
        node = world.join()
        run_id = world.start("mailbox", "a")
        go_on(world, node)
        first = send(world, "signal", "a", "letter", "x")
        go_on(world, node)
        world.kill(node)
        world.pass_time(LEASE)
        heir = world.join()
        send(world, "signal", "a", "letter", "x", key=first)
        send(world, "signal", "a", "letter", json='"y"')
        go_on(world, heir, 20)
        send(world, "signal", "a", "end")
        world.settle()

        world.audit()
        end = told(world, run_id)[-1]
        assert end.result is not None
        assert b"xy" in end.result


@pytest.mark.parametrize("ask", [True, False])
def test_a_signal_that_nobody_takes_is_told_or_a_dead_letter(ask: bool) -> None:
    with calm() as world:
        node = world.join()
        world.start("mailbox", "a")
        send(world, "signal", "a", "end")
        world.settle()
        over = send(world, "signal", "a", "letter", "x", ask=ask)
        world.start("mailbox", "b")
        go_on(world, node)
        wrong = send(world, "signal", "b", "leter", "x", ask=ask)
        kind = send(world, "signal", "b", "letter", json="7", ask=ask)
        go_on(world, node)

        codes = {over: "KSG-232", wrong: "KSG-233", kind: "KSG-233"}
        if ask:
            for key, code in codes.items():
                assert [(each.what, each.error) for each in told(world, key)] == [("not_applicable", code)]
            assert not dead(world)
        else:
            ids = {MessageEnvelope.parse(each.headers).key: code_of(each) for each in dead(world)}
            assert ids == codes


def test_the_same_signal_after_the_end_is_answered_as_the_first_time() -> None:
    with calm() as world:
        node = world.join()
        world.start("mailbox", "a")
        key = send(world, "signal", "a", "end")
        world.settle()
        send(world, "signal", "a", "end", key=key)
        go_on(world, node)
        assert whats(world, key) == ["accepted", "accepted"]


def test_an_unknown_saga() -> None:
    with calm() as world:
        node = world.join()
        go_on(world, node)  # up to the end of what was there before
        signal = send(world, "signal", "nobody", "end")
        update = send(world, "update", "nobody", "first", "x")
        query = world.control("query", "nobody", step="letters")
        go_on(world, node)
        assert [whats(world, each) for each in (signal, update, query)] == [["unknown"]] * 3


@pytest.mark.parametrize("kind", ["signal", "update"])
def test_what_was_accepted_outlives_a_postgres_that_loses_it_with_its_saga(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record is read again before the start is; its sender has his answer, and asks nobody again."""
    with calm() as world:
        node = world.join()
        go_on(world, node)
        before = world.snapshot()
        world.start("mailbox", "a")
        go_on(world, node)
        key = send(world, "signal", "a", "letter", "x") if kind == "signal" else ""
        key = key or send(world, "update", "a", "first", "x")
        go_on(world, node)
        assert whats(world, key)[0] in ("accepted", "answered")

        world.restore(before)
        starts = {(world.topics.sagas, shard) for shard in range(world.shards)}
        assign = node.consumer.incremental_assign

        def assign_all_but_starts(positions: Mapping[Place, int]) -> None:
            assign(positions)
            node.consumer.deaf |= starts & positions.keys()

        monkeypatch.setattr(node.consumer, "incremental_assign", assign_all_but_starts)
        world.pass_time(2)  # the next heartbeat tells the process what the database has lost
        go_on(world, node, 20)
        assert not world.sagas()
        node.consumer.deaf -= starts
        while not world.sagas():
            go_on(world, node)
        go_on(world, node)
        query = world.control("query", "a", step="letters")
        go_on(world, node)
        send(world, "signal", "a", "end")
        world.settle()

        world.audit()
        assert result_of(world, query) == b'"x"'
        assert set(whats(world, key)) <= {"accepted", "answered"}


def test_updates_and_queries() -> None:
    with calm() as world:
        node = world.join()
        world.start("mailbox", "a")
        go_on(world, node)
        update = send(world, "update", "a", "first", "x")
        empty = send(world, "update", "a", "first", json='""')
        go_on(world, node)
        assert (whats(world, update), result_of(world, update)) == (["answered"], b"1")
        assert "an empty letter" in (told(world, empty)[0].reason or "")
        world.kill(node)
        world.pass_time(LEASE)
        node = world.join()
        send(world, "update", "a", "first", "x", key=update)
        query = world.control("query", "a", step="letters")
        go_on(world, node, 20)
        assert (whats(world, update)[-1], result_of(world, update)) == ("answered", b"1")
        assert result_of(world, query) == b'"x"'
        history = rows_of(world)
        query = world.control("query", "a", step="letters")
        wrong = world.control("query", "a", step="nothing")
        go_on(world, node)
        assert result_of(world, query) == b'"x"'
        assert told(world, wrong)[0].error == "KSG-236"
        assert rows_of(world) == history
        send(world, "signal", "a", "end")
        world.settle()
        query = world.control("query", "a", step="letters")
        late = send(world, "update", "a", "first", "y")
        go_on(world, node)
        assert result_of(world, query) == b'"x"'
        assert told(world, late)[0].error == "KSG-232"
        world.settle()
        world.audit()


def test_a_stuck_saga_keeps_signals_and_refuses_updates() -> None:
    with calm() as world:
        node = world.join()
        run_id = world.start("mailbox", "a")
        go_on(world, node)
        bug = send(world, "update", "a", "first", "bug")
        go_on(world, node)
        assert world.sagas()[0].state is SagaState.STUCK
        assert whats(world, bug) == ["accepted"]
        signal = send(world, "signal", "a", "letter", "x")
        update = send(world, "update", "a", "first", "y")
        go_on(world, node)
        assert whats(world, signal) == ["accepted"]
        assert told(world, update)[0].error == "KSG-235"
        assert told(world, run_id)[-1].what == "STUCK"


def test_a_signal_in_the_wrong_partition_is_forwarded() -> None:
    with calm() as world:
        node = world.join()
        world.start("mailbox", "a")
        key = send(world, "signal", "a", "end", partition=1 - world.shard_of("a"))
        go_on(world, node, 20)
        world.settle()
        assert whats(world, key) == ["accepted"]
        assert world.sagas()[0].state is SagaState.COMPLETED


def test_what_is_no_json_and_what_has_no_schema() -> None:
    with calm() as world:
        node = world.join()
        world.start("mailbox", "a")
        go_on(world, node)
        send(world, "signal", "a", "letter", json="{")
        headers = MessageEnvelope(
            kind="signal",
            key="k",
            name="letter",
            source="/test",
            time=world.now(),
            saga_id="a",
        ).to_headers()
        where = world.shard_of("a")
        for payload in (b"\x00\x00\x00\x00\x07x", b"", b"\x01"):
            world.kafka.append(world.topics.control, where, b"a", payload, headers)
        world.pass_time(HOLD_MICROS / 1e6)
        go_on(world, node)
        world.pass_time(HOLD_MICROS / 1e6)
        go_on(world, node)
        assert sorted(map(code_of, dead(world))) == ["KSG-111", *["KSG-233"] * 3]


# --- before the start


def test_a_signal_that_comes_before_its_saga_is_kept_over_a_crash_and_taken() -> None:
    with calm() as world:
        node = world.join()
        first = send(world, "signal", "a", "letter", "x", keep=True)
        silent = send(world, "signal", "a", "letter", "y", ask=False)
        other = send(world, "signal", "b", "letter", "z", keep=True)
        go_on(world, node)
        assert [whats(world, key) for key in (first, silent, other)] == [["kept"], [], ["kept"]]
        world.kill(node)
        world.pass_time(LEASE)
        node = world.join()
        go_on(world, node)
        send(world, "signal", "a", "letter", "x", key=first, keep=True)
        go_on(world, node)
        run_id = world.start("mailbox", "a")
        send(world, "signal", "a", "end")
        go_on(world, node, 40)
        end = told(world, run_id)[-1]
        assert end.result is not None
        assert b"xy" in end.result
        kept = [row for shard in range(2) for row in world.store.open_rows(shard) if early.is_kept(row)]
        assert [row.key for row in kept] == [b"b"]
        assert not dead(world)


def test_a_signal_for_a_saga_that_never_begins_is_a_dead_letter_in_the_end() -> None:
    with calm() as world:
        node = world.join()
        send(world, "signal", "a", "letter", "x", ask=False)
        go_on(world, node)
        assert not dead(world)
        world.pass_time(KEEP_MICROS / 1e6)
        go_on(world, node)
        assert [code_of(record) for record in dead(world)] == ["KSG-237"]
        world.settle()
        world.audit()


def test_only_so_many_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "MAX_KEPT", 2)
    with calm() as world:
        node = world.join()
        for _ in range(2):
            send(world, "signal", "a", "letter", "x", keep=True)
        go_on(world, node)
        third = send(world, "signal", "a", "letter", "x", keep=True)
        lost = send(world, "signal", "a", "letter", "x", ask=False)
        go_on(world, node)
        assert whats(world, third) == ["unknown"]
        assert [MessageEnvelope.parse(record.headers).key for record in dead(world)] == [lost]


def test_after_an_outage_a_signal_that_is_there_wins_over_the_time_out() -> None:
    with calm() as world:
        node = world.join()
        run_id = world.start("mailbox", "a", "hurry")
        go_on(world, node)
        world.kill(node)
        send(world, "signal", "a", "letter", "in time")
        world.pass_time(60)
        node = world.join()
        go_on(world, node, 40)
        assert told(world, run_id)[-1].what == "COMPLETED"
        run_id = world.start("mailbox", "b", "hurry")
        go_on(world, node)
        world.pass_time(60)
        go_on(world, node, 40)
        assert told(world, run_id)[-1].what == "COMPENSATED"
        world.settle()
        world.audit()
