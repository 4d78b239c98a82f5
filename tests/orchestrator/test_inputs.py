"""What Kafka may bring: twice, late, out of order, in the wrong place, made of nonsense."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kasaga.orchestrator.answers import MAX_START_AGE_MS
from kasaga.store.base import SagaState
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import CommandEnvelope, ReplyEnvelope, ReplyTo, StartEnvelope
from kasaga_wire.kafka import Record
from kasaga_wire.records import Answer, answer_codec
from orchestrator.desk import LOST, SILENT
from orchestrator.node import Node
from orchestrator.trips import Trip
from orchestrator.world import World


def calm(shards: int = 2) -> World:
    world = World(shards=shards)
    world.odds.slow = 0.0
    return world


def go_on(world: World, node: Node, times: int = 10) -> None:
    for _ in range(times):
        world.turn(node)
        world.serve()


def answers(world: World, about: str) -> list[Answer]:
    found = [
        answer_codec.decode(record.value or b"", Schemas())
        for record in world.kafka.all(world.topics.answers)
    ]
    return [answer for answer in found if answer.about == about]


def dead(world: World) -> list[Record]:
    return world.kafka.all(world.topics.orchestrator_dead_letters)


def header(record: Record, name: str) -> bytes | None:
    return dict(record.headers).get(name)


# --- starts


def test_a_start_twice_in_one_batch_is_one_saga() -> None:
    with calm() as world:
        node = world.join()
        run_id = world.start("trip", "a")
        world.start("trip", "a", run_id=run_id)

        world.settle()

        world.audit()
        assert len(world.sagas()) == 1
        assert node.alive


@pytest.mark.parametrize("apart", [False, True])
def test_the_same_start_by_somebody_else_is_a_duplicate_who_is_told_the_end_too(apart: bool) -> None:
    with calm() as world:
        node = world.join()
        first = world.start("trip", "a")
        if apart:
            go_on(world, node, 3)
        second = world.start("trip", "a")
        world.settle()

        assert [str(row.run_id) for row in world.sagas()] == [first]
        told = [answer.what for answer in answers(world, second)]
        assert (told[0], told[-1]) == ("COMPLETED" if "duplicate" not in told else "duplicate", "COMPLETED")
        assert {answer.run_id for answer in answers(world, second)} == {first}


@pytest.mark.parametrize("apart", [False, True])
def test_another_start_with_the_same_id_is_rejected(apart: bool) -> None:
    with calm() as world:
        node = world.join()
        world.start("trip", "a")
        if apart:
            go_on(world, node, 3)
        second = world.start("trip", "a", "another note")
        world.settle()

        told = answers(world, second)
        assert [answer.what for answer in told] == ["rejected"]
        assert told[0].remedy


@pytest.mark.parametrize("in_memory", [False, True])
def test_a_start_after_the_end_is_told_the_end(in_memory: bool) -> None:
    with calm() as world:
        node = world.join()
        first = world.start("trip", "a")
        world.settle()
        if in_memory:  # a late reply brings a saga back that has ended
            late = next(iter(world.kafka.all(world.topics.replies)))
            world.kafka.append(late.topic, late.partition, late.key, late.value, late.headers)
            world.turns(node, 2)
            assert len(node.runs) == 1
        second, third = world.start("trip", "a"), world.start("trip", "a", "another note")
        watch, cancel = world.control("watch", "a"), world.control("cancel", "a")
        world.turns(node, 3)

        assert [answer.what for answer in answers(world, second)] == ["COMPLETED"]
        assert answers(world, second)[0].result == answers(world, first)[0].result
        assert [answer.what for answer in answers(world, third)] == ["rejected"]
        assert [answer.what for answer in answers(world, watch)] == ["COMPLETED"]
        assert [answer.what for answer in answers(world, cancel)] == ["not_applicable"]
        world.settle()
        world.audit()


def test_a_start_that_is_older_than_the_memory_is_a_dead_letter() -> None:
    with calm() as world:
        node = world.join()
        world.start("trip", "old", ask=False, age=timedelta(milliseconds=MAX_START_AGE_MS + 1000))
        world.start("trip", "young", ask=False, age=timedelta(milliseconds=MAX_START_AGE_MS - 60_000))
        go_on(world, node)

        assert [row.saga_id for row in world.sagas()] == ["young"]
        assert [header(record, "ce_subject") for record in dead(world)] == [b"old"]


def test_a_start_with_the_run_id_of_another_saga_does_not_reach_that_one() -> None:
    with calm(shards=1) as world:
        node = world.join()
        run_id = world.start("trip", "a")
        go_on(world, node, 2)
        world.start("trip", "b", run_id=run_id, ask=False)
        go_on(world, node, 2)
        node.runs.close()  # and once more, when it isn't in memory
        world.start("trip", "c", run_id=run_id, ask=False)

        world.settle()

        assert [(row.saga_id, row.state) for row in world.sagas()] == [("a", SagaState.COMPLETED)]
        world.audit()
        assert [header(record, "ce_subject") for record in dead(world)] == [b"b"]


def test_a_run_id_used_in_two_shards_keeps_the_sagas_apart() -> None:
    with calm() as world:
        world.join()
        here = next(f"s{n}" for n in range(99) if world.shard_of(f"s{n}") == 0)
        there = next(f"s{n}" for n in range(99) if world.shard_of(f"s{n}") == 1)
        run_id = world.start("empty", here)
        world.start("empty", there, run_id=run_id, ask=False)

        world.settle()

        assert {row.saga_id for row in world.sagas()} <= {here, there}
        assert {row.state for row in world.sagas()} == {SagaState.COMPLETED}


def test_a_start_of_a_saga_that_nobody_knows_is_stuck_and_says_why() -> None:
    with calm() as world:
        node = world.join()
        world.start("no-such-saga", "a")
        go_on(world, node)

        row = world.saga("a")
        assert row.state is SagaState.STUCK
        assert "no-such-saga" in row.reason


# --- the wrong place


def test_a_start_in_the_wrong_partition_is_forwarded_once() -> None:
    with calm() as world:
        world.join()
        right = world.shard_of("a")
        world.start("trip", "a", partition=1 - right)

        world.settle()

        world.audit()
        assert world.saga("a").shard == right
        assert not dead(world)


def test_what_was_forwarded_and_is_still_wrong_is_a_dead_letter() -> None:
    with calm() as world:
        node = world.join()
        right = world.shard_of("a")
        world.start("trip", "a", partition=1 - right, ask=False)
        go_on(world, node, 1)
        go_on(world, node, 1)
        forwarded = next(
            record for record in world.kafka.all(world.topics.sagas) if header(record, "kasagaforwarded")
        )
        world.kafka.append(forwarded.topic, 1 - right, forwarded.key, forwarded.value, forwarded.headers)

        go_on(world, node)

        assert len(dead(world)) == 1
        assert header(dead(world)[0], "kasaga_dlq_topic") == world.topics.sagas.encode()


def test_a_reply_in_the_wrong_partition_finds_its_saga() -> None:
    with calm() as world:
        node = world.join()
        world.start("trip", "a")
        go_on(world, node, 1)
        lost = [reply for record in world.commands() for reply in world.desk.take(record)]
        for reply in lost:
            world.kafka.append(reply.to.topic, 1 - reply.to.partition, reply.key, reply.value, reply.headers)

        world.settle()

        world.audit()
        assert {row.shard for row in world.sagas()} == {world.shard_of("a")}


# --- replies


def test_replies_of_all_kinds_that_change_nothing() -> None:
    """Twice, out of order, late, of an old attempt, of an unknown run, of an unknown step."""
    with calm() as world:
        node = world.join()
        run_id = world.start("trip", "a")
        go_on(world, node, 2)
        shard = world.shard_of("a")

        def reply(command_id: str, outcome: str, attempt: int = 1) -> None:
            envelope = ReplyEnvelope(
                command_id=command_id,
                attempt=attempt,
                source="/kasaga/participants/test",
                time=world.now(),
                saga_id="a",
                outcome=outcome,
            )
            world.kafka.append(world.topics.replies, shard, b"a", b"", envelope.to_headers())

        for outcome in ("failed", "refused", "done", "undone", "nothing", "voided", "executed", "lost"):
            reply(f"{world.uuid()}.1", outcome)
            reply(f"{run_id}.77", outcome)
            reply(f"{run_id}.1~undo", outcome)
            reply(f"{run_id}.1~void", outcome)
        reply(f"{run_id}.1", "failed", attempt=99)
        world.settle()
        for outcome in ("failed", "refused", "done", "undone", "nothing"):
            reply(f"{run_id}.1", outcome)
        go_on(world, node)

        world.audit()
        assert world.saga("a").state is SagaState.COMPLETED
        assert {CommandEnvelope.parse(record.headers).attempt for record in world.commands()} == {1}


def test_an_answer_that_comes_after_its_time_out_still_counts() -> None:
    with calm() as world:
        node = world.join()
        world.desk.mood = lambda envelope: LOST if envelope.attempt == 1 else SILENT
        run_id = world.start("trip", "a")
        go_on(world, node, 2)
        world.pass_time(2.1)
        go_on(world, node, 3)
        assert [each.attempt for each in world.desk.received if each.type == "hotel.book"] == [1, 2]
        world.desk.mood = lambda envelope: "done"
        first = next(
            record for record in world.commands() if CommandEnvelope.parse(record.headers).attempt == 1
        )
        for reply in world.desk.take(first):
            world.kafka.append(reply.to.topic, reply.to.partition, reply.key, reply.value, reply.headers)
        world.turns(node, 2)

        assert any(each.command_id == f"{run_id}.2" for each in sent(world))
        world.settle()
        world.audit()


def sent(world: World) -> list[CommandEnvelope]:
    return [CommandEnvelope.parse(record.headers) for record in world.commands()]


# --- control


@pytest.mark.parametrize("apart", [False, True])
def test_a_cancel_right_behind_the_start_cancels(apart: bool) -> None:
    with calm() as world:
        node = world.join()
        world.start("trip", "a")
        if apart:
            world.turns(node, 1)
        action = world.control("cancel", "a")

        world.settle()

        world.audit()
        assert world.saga("a").state is SagaState.COMPENSATED
        assert [answer.what for answer in answers(world, action)] == ["applied"]


def test_an_action_that_comes_twice_is_done_once() -> None:
    with calm() as world:
        world.join()
        world.start("nap", "a")
        action = world.control("cancel", "a")
        record = world.kafka.all(world.topics.control)[0]
        world.kafka.append(record.topic, record.partition, record.key, record.value, record.headers)

        world.settle()

        assert [answer.what for answer in answers(world, action)] == ["applied", "applied"]
        world.audit()


def test_an_operators_words_can_hold_anything() -> None:
    with calm() as world:
        node = world.join()
        world.start("no-such-saga", "a", ask=False)
        go_on(world, node, 3)
        actions = [
            world.control("retry", "a", step="\x00 \x01", reason="NUL \x00"),
            world.control("skip", "a", reason="x" * 100_000, step="1" * 10_000),
            world.control("resolve", "a", value="{" * 50_000),
            world.control("no-such-action", "a"),
            world.control("cancel", "nobody"),
        ]
        go_on(world, node, 5)

        assert node.alive
        said = [answers(world, action)[0].what for action in actions]
        assert said == ["not_applicable"] * 4 + ["unknown"]


def test_answers_go_to_topics_for_answers_alone() -> None:
    with calm() as world:
        node = world.join()
        envelope = StartEnvelope(
            run_id=str(world.uuid()),
            source="/kasaga/clients/test",
            time=world.now(),
            saga_id="a",
            saga="trip",
            reply_to=ReplyTo(world.topics.commands("hotel"), 0),
        )
        value = world.app.sagas["trip", 1].input.encode(Trip(id="a"))
        world.kafka.append(world.topics.sagas, world.shard_of("a"), b"a", value, envelope.to_headers())
        go_on(world, node)

        assert not world.sagas()
        assert b"no topic for answers" in (header(dead(world)[0], "kasaga_dlq_reason") or b"")


# --- nonsense


NONSENSE: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
    (None, None, []),
    (b"", b"", [("ce_specversion", b"1.0")]),
    (b"k", b"\x00\x01", [("ce_specversion", b"2.0")]),
    (b"k", b"\x00" * 40, [("ce_specversion", b"1.0"), ("ce_id", None)]),
    (b"k", b"\xff" * 40, [(f"h{number}", b"x") for number in range(65)]),
    (b"k", b"x", [("ce_specversion", b"1.0"), ("ce_id", b"\xff\xfe"), ("ce_type", b"kasaga.start")]),
    (b"k" * 9000, b"x" * 990_000, [("big", b"y" * 50_000)]),
    (b"k", b"x" * 100, [("big", b"y" * 990_000)]),
]


@pytest.mark.parametrize("topic", ["sagas", "replies", "control"])
def test_nonsense_becomes_dead_letters_that_fit_into_a_record(topic: str) -> None:
    with calm() as world:
        node = world.join()
        world.start("trip", "a")
        for key, value, headers in NONSENSE:
            world.kafka.append(getattr(world.topics, topic), 0, key, value, headers)
        world.start("trip", "b")
        world.settle()
        world.pass_time(11)  # what might be a schema on its way
        go_on(world, node)
        world.settle()

        world.audit()
        letters = dead(world)
        assert len(letters) == len(NONSENSE)
        for letter in letters:
            size = len(letter.value or b"") + sum(len(n) + len(v or b"") for n, v in letter.headers)
            assert size + len(letter.key or b"") < 950_000
        assert sum(header(letter, "kasaga_dlq_cut") is not None for letter in letters) == 3


def test_nonsense_among_the_schemas_is_left_out() -> None:
    texts = [
        b"",
        b"\xff",
        b"{",
        b"[]",
        b"7",
        b"null",
        b'"no such type"',
        b'{"type": "record"}',
        b'{"type": "record", "name": "a", "fields": 7}',
        b'{"type": {"type": {"type": 7}}}',
        b"[" * 100_000,
        b'{"type":"array","items":' * 5_000 + b'"int"' + b"}" * 5_000,
    ]
    with calm() as world:
        world.kafka.append(world.topics.schemas, 0, b"1", None, ())
        for text in texts:
            world.kafka.append(world.topics.schemas, 0, b"1", text, ())
        node = world.join()
        world.start("trip", "a")

        world.settle()

        assert node.alive
        world.audit()
