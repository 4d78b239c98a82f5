"""One owner at a time: what it finds when it comes back after hours, deaths, lost logs, and new code."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from eventually import eventually
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.errors import BugInSaga, HistoryUnreadable, KilledProcess, SagaHangs
from kasaga.store.base import RowKind, SagaState
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import CommandEnvelope
from kasaga_wire.records import event_codec
from orchestrator.realm import SHARDS, Owner, Realm, mood_for
from raw_kafka import cut, remake_topic


@pytest.fixture(scope="module")
def lonely(kafka: KafkaServer, postgres: PostgresServer) -> Generator[Realm]:
    """A realm whose owner each test begins and ends."""
    with tempfile.TemporaryDirectory() as directory:
        made = Realm(kafka, postgres, Path(directory))
        made.desk.mood = mood_for({})
        made.owner().stop()  # makes the topics
        with made.participants():
            yield made
        made.close()


@pytest.fixture(autouse=True)
def _alone(lonely: Realm) -> Generator[None]:
    yield
    for owner in lonely.owners:
        owner.end()


def age(realm: Realm, interval: str) -> None:
    """Let so much time pass for whatever waits: leases, and due times of commands and timers."""
    with psycopg.connect(realm.database) as connection:
        connection.execute("UPDATE kasaga.shard SET lease_until = lease_until - %s::interval", [interval])
        connection.execute(
            "UPDATE kasaga.outbox SET due_at = due_at - %s::interval, send_at = send_at - %s::interval",
            [interval, interval],
        )


def received(realm: Realm, prefix: str) -> int:
    return len(realm.attempts(prefix))


def unsent(realm: Realm) -> set[str]:
    """Runs with an open command that isn't in Kafka: nobody can have answered it."""
    in_kafka = {CommandEnvelope.parse(record.headers).command_id for record in list(realm.commands)}
    with psycopg.connect(realm.database) as connection:
        rows = connection.execute(
            "SELECT run_id, step FROM kasaga.outbox WHERE kind = %s", [RowKind.COMMAND]
        ).fetchall()
    return {str(run_id) for run_id, step in rows if f"{run_id}.{step}" not in in_kafka}


def test_after_an_hour_without_owner_no_answered_saga_is_tried_again(lonely: Realm, prefix: str) -> None:
    """Timers come after the replies that are already there, however late they are."""
    # A saga begins with two records, an event and a command; Kafka may take all the events first.
    owner = lonely.owner(KASAGA_CRASH_AT="orchestrator.at_ack:120")
    lonely.run(prefix, [("trip", str(number)) for number in range(60)])
    owner.wait_until_killed()
    seen = [-1]

    def all_received() -> bool:
        seen.append(len(lonely.commands))
        return seen[-1] == seen[-2] and received(lonely, prefix) >= 60

    eventually(all_received, interval=1.0)
    left = unsent(lonely)
    age(lonely, "1 hour")

    lonely.owner()

    lonely.wait_until_over(prefix, 60)
    rows = lonely.audit(prefix)
    assert {row.state for row in rows} == {SagaState.COMPLETED}
    answered = {str(row.run_id) for row in rows} - left
    assert len(answered) > 30
    tried = [CommandEnvelope.parse(record.headers) for record in list(lonely.commands)]
    assert {each.attempt for each in tried if each.command_id.partition(".")[0] in answered} == {1}


def test_sagas_that_block_or_end_their_process_are_stuck_after_a_few_deaths(
    lonely: Realm, prefix: str
) -> None:
    """Somebody starts the process again each time, as Kubernetes would."""
    sagas = [
        *(("trip", f"good-{number}", "") for number in range(8)),
        ("bad", "block", "block"),
        ("bad", "exit", "exit"),
        ("bad", "loop", "loop"),
        ("bad", "bug", "bug"),
    ]
    for saga, name, note in sagas:
        lonely.start(saga, prefix + name, note)
    lonely.flush()
    stuck = frozenset(prefix + note for _, _, note in sagas if note)

    def begin() -> Owner:
        return lonely.owner(KASAGA_SAGA_STEP_SECONDS="0.3", KASAGA_SAGA_KILL_SECONDS="0.8")

    owner = begin()
    deaths = 0

    def over() -> bool:
        nonlocal owner, deaths
        if not owner.alive:
            deaths += 1
            assert deaths < 12
            owner = begin()
        found = {row.saga_id: row.state for row in lonely.sagas(prefix)}
        return len(found) == len(sagas) and all(
            state is (SagaState.STUCK if saga_id in stuck else SagaState.COMPLETED)
            for saga_id, state in found.items()
        )

    eventually(over, timeout=90)
    lonely.wait_until_over(prefix, len(sagas), stuck=stuck)
    lonely.audit(prefix, stuck=stuck)
    codes = {name: lonely.saga(prefix + name).code for name in ("block", "exit", "loop", "bug")}
    assert codes == {
        "block": KilledProcess.code,
        "exit": KilledProcess.code,
        "loop": SagaHangs.code,
        "bug": BugInSaga.code,
    }
    for name in codes:
        assert "trips.py:" in lonely.saga(prefix + name).reason
    assert owner.alive

    owner.stop()
    lonely.owner(TRIPS_BUG_MENDED="1")
    lonely.wait_until_over(prefix, len(sagas))
    rows = lonely.audit(prefix)
    assert {row.state for row in rows} == {SagaState.COMPLETED}


def test_a_damaged_history_makes_its_saga_stuck_until_it_is_restored(lonely: Realm, prefix: str) -> None:
    """Damaged in the database, while a step is out; the others go on meanwhile."""
    lonely.desk.mood = mood_for(
        {prefix: lambda envelope: "silent" if envelope.type == "post.send" else "done"}
    )
    owner = lonely.owner()
    lonely.run(prefix, [("trip", "bad"), *(("trip", str(number)) for number in range(8))])
    eventually(lambda: received(lonely, prefix) >= 27)
    owner.kill()
    bad = lonely.saga(f"{prefix}bad")
    where = "WHERE shard = %s AND run_id = %s AND seq = 2"
    with psycopg.connect(lonely.database) as connection:
        found = connection.execute(
            f"SELECT body FROM kasaga.history {where}".encode(), (bad.shard, bad.run_id)
        )
        (body,) = found.fetchone() or (b"",)
        update = f"UPDATE kasaga.history SET body = %s {where}".encode()
        connection.execute(update, (b"\xc1damaged", bad.shard, bad.run_id))
    lonely.desk.mood = mood_for({})

    lonely.owner()
    lonely.wait_until_over(prefix, 9, stuck=frozenset({bad.saga_id}))
    eventually(lambda: lonely.saga(bad.saga_id).code == HistoryUnreadable.code)
    row = lonely.saga(bad.saga_id)
    assert "row 2" in row.reason
    assert row.remedy
    states = [row.state for row in lonely.sagas(prefix) if row.run_id != bad.run_id]
    assert set(states) == {SagaState.COMPLETED}
    kinds = [each.kind for each in lonely.store.history(row)]
    assert (kinds.count("Faulted"), kinds[3]) == (1, "Faulted"), kinds
    eventually(lambda: lonely.answers_to(str(bad.run_id)))
    assert {answer.what for answer in lonely.answers_to(str(bad.run_id))} == {"STUCK"}
    assert states_told(lonely, bad.saga_id) == ["STUCK"]

    with psycopg.connect(lonely.database) as connection:
        connection.execute(update, (body, bad.shard, bad.run_id))
    lonely.control("retry", bad.saga_id)
    lonely.wait_until_over(prefix, 9)
    lonely.audit(prefix)
    assert lonely.saga(bad.saga_id).state is SagaState.COMPLETED


def states_told(realm: Realm, saga_id: str) -> list[str]:
    """What the events' topic says of a saga."""
    bodies = [event_codec.decode(record.value or b"", Schemas()) for record in list(realm.events)]
    return [body.state for body in bodies if body.saga_id == saga_id]


def test_logs_that_were_cut_and_topics_made_anew(lonely: Realm, prefix: str) -> None:
    """Replies that are lost are asked for again; starts in a topic made anew are all read."""
    lonely.desk.mood = mood_for({prefix: lambda envelope: "silent"})
    owner = lonely.owner()
    lonely.run(prefix, [("trip", str(number)) for number in range(30)])
    eventually(lambda: received(lonely, prefix) == 30)
    owner.kill()
    lonely.desk.mood = mood_for({})
    for record in list(lonely.commands):
        if CommandEnvelope.parse(record.headers).saga_id.startswith(prefix):
            for reply in lonely.desk.take(record):
                to = reply.to
                lonely.produce(to.topic, reply.key.decode(), reply.value, reply.headers, to.partition)
    lonely.flush()
    cut(lonely.kafka.bootstrap, lonely.topics.replies, SHARDS)
    remake_topic(lonely.kafka.bootstrap, lonely.topics.sagas, SHARDS)
    age(lonely, "2 seconds")

    lonely.owner()
    lonely.wait_until_over(prefix, 30)
    lonely.run(prefix, [("trip", f"later-{number}") for number in range(12)])

    lonely.wait_until_over(prefix, 42)
    lonely.audit(prefix)


def test_a_step_that_was_given_up_never_happens_later(lonely: Realm, prefix: str) -> None:
    """Its retries are used up while copies of its command lie in the topic: they come too late."""
    lonely.desk.mood = mood_for({prefix: lambda envelope: "silent" if envelope.kind == "command" else "done"})
    lonely.owner()
    lonely.run(prefix, [("hasty", "undone"), ("stubborn", "went-on")])
    lonely.desk.mood = mood_for(
        {
            prefix: lambda envelope: (
                "silent" if envelope.kind == "command" and envelope.type != "hotel.book" else "done"
            )
        }
    )
    lonely.wait_until_over(prefix, 2)
    lonely.desk.mood = mood_for({})
    before = len(lonely.desk.executed)
    for record in list(lonely.commands):
        if CommandEnvelope.parse(record.headers).saga_id.startswith(prefix):
            lonely.desk.take(record)

    assert len(lonely.desk.executed) == before
    states = {row.saga_id.removeprefix(prefix): row.state for row in lonely.audit(prefix)}
    assert states == {"undone": SagaState.COMPENSATED, "went-on": SagaState.COMPLETED}


def test_nonsense_on_every_input_becomes_dead_letters(lonely: Realm, prefix: str) -> None:
    lonely.owner()
    before = len(lonely.dead_letters)
    nonsense: list[tuple[bytes | None, list[tuple[str, bytes | None]]]] = [
        (None, []),
        (b"\x00\x01\x02", [("ce_specversion", b"1.0"), ("ce_id", None), ("ce_type", b"\xff")]),
        (b"x", [(f"h{number}", b"y") for number in range(65)]),
        (b"z" * 950_000, [("ce_specversion", b"1.0")]),
    ]
    for topic in (lonely.topics.sagas, lonely.topics.replies, lonely.topics.control):
        for value, headers in nonsense:
            lonely.produce(topic, prefix, value, headers)
    for text in (None, b"", b"{", b'{"type": "record"}', b"[" * 50_000):
        lonely.produce(lonely.topics.schemas, prefix, text, [], partition=0)
    lonely.run(prefix, [("trip", "good")])

    lonely.wait_until_over(prefix, 1)
    lonely.audit(prefix)
    eventually(lambda: len(lonely.dead_letters) - before == 3 * len(nonsense))
