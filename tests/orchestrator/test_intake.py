"""Kafka's records to events: nothing that anybody may write to a topic does more than make a dead letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasaga.engine.model import Asked, Replied, Started
from kasaga.orchestrator.answers import MAX_DEAD_BYTES, MAX_DEAD_KEY_BYTES, dead_letter, forward
from kasaga.orchestrator.intake import (
    CONTROL,
    FORWARDED,
    REPLY,
    START,
    Dead,
    Input,
    Intake,
    Item,
    Misplaced,
    shard_of,
)
from kasaga.orchestrator.rows import Addresses
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import ControlEnvelope, ReplyEnvelope, ReplyTo, StartEnvelope
from kasaga_wire.kafka import Record, partition_for
from kasaga_wire.records import Control, clean_error, control_codec, errors_codec, own_schemas
from kasaga_wire.topics import Topics

SHARDS = 4
NOW = datetime(2030, 1, 1, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
TOPICS = Topics("shop")
SAGA = "order-1"
SHARD = partition_for(SAGA.encode(), SHARDS)
RUN = str(uuid4())
INPUTS = (TOPICS.sagas, TOPICS.replies, TOPICS.control)


@pytest.fixture(scope="module")
def intake() -> Intake:
    schemas = Schemas()
    for schema in own_schemas():
        schemas.add(schema)
    return Intake(TOPICS, SHARDS, schemas, 7 * 86_400_000)


def record(
    topic: str,
    headers: list[tuple[str, bytes]] | list[tuple[str, bytes | None]],
    value: bytes | None = b"\x00payload",
    partition: int = SHARD,
) -> Record:
    return Record(topic, partition, 0, SAGA.encode(), value, list(headers), NOW_MS)


def start(**about: object) -> list[tuple[str, bytes]]:
    given = {"run_id": RUN, "source": "/c", "time": NOW, "saga_id": SAGA, "saga": "payment", **about}
    return StartEnvelope(**given).to_headers()  # type: ignore[arg-type]


def reply(outcome: str, command_id: str = f"{RUN}.1") -> list[tuple[str, bytes]]:
    return ReplyEnvelope(
        command_id=command_id, attempt=2, source="/p", time=NOW, saga_id=SAGA, outcome=outcome
    ).to_headers()


def control(action: str = "cancel", to: str = TOPICS.answers) -> list[tuple[str, bytes]]:
    return ControlEnvelope(
        id="a-1", source="/c", action=action, time=NOW, saga_id=SAGA, reply_to=ReplyTo(to, 2)
    ).to_headers()


def one(intake: Intake, made: Record) -> Input:
    found = intake.read([made], NOW_MS)
    assert len(found) == 1
    return found[0]


def test_a_start(intake: Intake) -> None:
    found = one(intake, record(TOPICS.sagas, start(saga_version=3, reply_to=ReplyTo(TOPICS.answers, 1))))
    assert isinstance(found, Item)
    assert (found.order, found.shard, found.run_id, found.saga_id) == (START, SHARD, RUN, SAGA)
    assert isinstance(found.event, Started)
    assert (found.event.name, found.event.version, found.event.input) == ("payment", 3, b"\x00payload")
    assert found.event.reply_to == "shop.answers/1"


@pytest.mark.parametrize("outcome", ["done", "undone", "nothing", "lost", "voided", "executed"])
def test_a_reply_that_says_yes(intake: Intake, outcome: str) -> None:
    found = one(intake, record(TOPICS.replies, reply(outcome, f"{RUN}.3~undo")))
    assert isinstance(found, Item)
    payload = b"\x00payload" if outcome == "done" else b""
    assert found.event == Replied("3", "undo", 2, outcome, payload)


def test_a_reply_that_says_no_is_read_now(intake: Intake) -> None:
    body = errors_codec.encode(clean_error("OutOfStock", "no more", details='{"left": 0}', retryable=True))
    found = one(intake, record(TOPICS.replies, reply("failed"), body))
    assert isinstance(found, Item)
    assert found.event == Replied(
        "1", "command", 2, "failed", b"", "OutOfStock", "no more", '{"left": 0}', True
    )


@pytest.mark.parametrize("value", [None, b"", b"\x00", b"garbage", b"\x00\xff\xff\xff\xff"])
def test_a_no_that_nobody_can_read_is_a_no_all_the_same(intake: Intake, value: bytes | None) -> None:
    found = one(intake, record(TOPICS.replies, reply("refused"), value))
    assert isinstance(found, Item)
    assert isinstance(found.event, Replied)
    assert found.event.error_type == "kasaga.Unreadable"


def test_an_action(intake: Intake) -> None:
    body = control_codec.encode(Control(action="cancel", by="me", reason="NUL \x00", step="1", run_id=RUN))
    found = one(intake, record(TOPICS.control, control(), body))
    assert isinstance(found, Item)
    assert (found.order, found.run_id) == (CONTROL, RUN)
    assert isinstance(found.event, Asked)
    assert "\x00" not in found.event.reason


def test_the_order_of_a_batch_is_control_replies_starts_and_no_record_overtakes_its_own_kind(
    intake: Intake,
) -> None:
    action = control_codec.encode(Control(action="cancel", by="me"))
    made: list[Record] = []
    for offset in range(4):
        for topic, headers, value in (
            (TOPICS.sagas, start(), b"\x00s"),
            (TOPICS.replies, reply("done"), b"\x00r"),
            (TOPICS.control, control(), action),
        ):
            nonsense: list[tuple[str, bytes]] = []
            made.append(
                Record(topic, SHARD, offset, b"k", value, list(headers if offset % 2 else nonsense), NOW_MS)
            )
    found = intake.read(made, NOW_MS)

    assert [each.order for each in found] == [CONTROL] * 4 + [REPLY] * 4 + [START] * 4
    for topic in INPUTS:
        offsets = [
            each.offset
            for item in found
            if (each := item.source if isinstance(item, Item) else item.record) is not None
            and each.topic == topic
        ]
        assert offsets == [0, 1, 2, 3]


def test_what_is_in_the_wrong_partition_is_forwarded_once(intake: Intake) -> None:
    wrong = (SHARD + 1) % SHARDS
    action = control_codec.encode(Control(action="cancel", by="me"))
    for topic, headers, value in (
        (TOPICS.sagas, start(), b"\x00s"),
        (TOPICS.replies, reply("done"), b"\x00r"),
        (TOPICS.control, control(), action),
    ):
        found = one(intake, record(topic, headers, value, partition=wrong))
        assert isinstance(found, Misplaced)
        assert (found.partition, shard_of(found)) == (SHARD, wrong)
        row = forward(found, 7, wrong)
        assert (row.topic, row.partition, row.payload) == (topic, SHARD, value)
        again = Record(topic, wrong, 1, row.key, row.payload, list(row.headers), NOW_MS)
        dead = one(intake, again)
        assert isinstance(dead, Dead)
        assert "forwarded once" in str(dead.error)
        assert dict(row.headers)[FORWARDED] == str(wrong).encode()


def test_what_is_too_large_to_be_forwarded_is_a_dead_letter(intake: Intake) -> None:
    wrong = (SHARD + 1) % SHARDS
    found = one(intake, record(TOPICS.sagas, start(), b"\x00" * 990_000, partition=wrong))
    assert isinstance(found, Dead)


@pytest.mark.parametrize(
    ("days", "refused"), [(6.9, False), (7.1, True), (-3.0, False)], ids=["young", "old", "in the future"]
)
def test_a_start_older_than_the_memory_is_refused(intake: Intake, days: float, refused: bool) -> None:
    found = one(intake, record(TOPICS.sagas, start(time=NOW - timedelta(days=days))))
    assert isinstance(found, Dead) == refused


@pytest.mark.parametrize("to", ["shop.sagas", "inventory.commands", "other.answers", "x", "shop.replies"])
def test_nobody_makes_this_process_write_anywhere_but_to_where_answers_are_read(
    intake: Intake, to: str
) -> None:
    body = control_codec.encode(Control(action="cancel", by="me"))
    for made in (
        record(TOPICS.sagas, start(reply_to=ReplyTo(to, 0))),
        record(TOPICS.control, control(to=to), body),
    ):
        assert isinstance(one(intake, made), Dead) == (to != "shop.replies")


@pytest.mark.parametrize("run_id", ["x", "0", "not-a-uuid", "zz" * 16])
def test_a_run_id_that_is_no_uuid_is_refused(intake: Intake, run_id: str) -> None:
    assert isinstance(one(intake, record(TOPICS.sagas, start(run_id=run_id))), Dead)
    assert isinstance(one(intake, record(TOPICS.replies, reply("done", f"{run_id}.1"))), Dead)


# --- anything


VALUES = st.one_of(
    st.none(),
    st.binary(max_size=60),
    st.sampled_from([b"1.0", b"kasaga.start", b"kasaga.reply", b"kasaga.control.cancel", SAGA.encode()]),
    st.sampled_from([RUN.encode(), f"{RUN}.1".encode(), f"{RUN}.1.2.r".encode(), b"payment/1", b"done"]),
    st.sampled_from([b"2030-01-01T00:00:00.000000Z", b"0001-01-01T00:00:00.000000+23:59", b"shop.answers/0"]),
    st.text(max_size=20).map(str.encode),
)
NAMES = st.one_of(
    st.sampled_from(
        [
            "ce_specversion",
            "ce_id",
            "ce_source",
            "ce_type",
            "ce_time",
            "ce_subject",
            "content-type",
            "ce_kasagacommand",
            "ce_kasagasaga",
            "ce_kasagaoutcome",
            "ce_replyto",
            "traceparent",
            "tracestate",
            FORWARDED,
        ]
    ),
    st.text(max_size=12),
)
RIGHT: dict[str, list[tuple[str, bytes]]] = {
    TOPICS.sagas: start(reply_to=ReplyTo(TOPICS.answers, 1)),
    TOPICS.replies: reply("done"),
    TOPICS.control: control(),
}


@settings(max_examples=600, deadline=None)
@given(
    st.sampled_from(INPUTS),
    st.lists(st.tuples(NAMES, VALUES), max_size=8),
    st.lists(st.integers(0, 12), max_size=3),
    st.one_of(
        st.none(), st.binary(max_size=40), st.binary(max_size=40).map(lambda body: b"\0\0\0\0\0" + body)
    ),
    st.one_of(st.none(), st.binary(max_size=20)),
    st.integers(0, SHARDS - 1),
)
def test_any_record_becomes_one_thing_of_its_shard_and_a_dead_letter_of_it_can_be_sent(
    intake: Intake,
    topic: str,
    more: list[tuple[str, bytes | None]],
    left_out: list[int],
    value: bytes | None,
    key: bytes | None,
    partition: int,
) -> None:
    kept = [header for number, header in enumerate(RIGHT[topic]) if number not in left_out]
    made = Record(topic, partition, 5, key, value, [*more, *kept], NOW_MS)

    found = one(intake, made)

    assert shard_of(found) == partition
    if isinstance(found, Misplaced):
        assert 0 <= found.partition < SHARDS
        assert found.partition != partition
    elif isinstance(found, Dead):
        row = dead_letter(found, 1, partition, 0, Addresses(TOPICS, "/kasaga/shop", SHARDS))
        assert row.topic == TOPICS.orchestrator_dead_letters
        assert all(isinstance(each, bytes) for _, each in row.headers)
        assert row.payload == value


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=9), st.integers(0, 300_000)), max_size=90),
    st.integers(0, 1_100_000),
    st.integers(0, 20_000),
)
def test_a_dead_letter_always_fits_into_a_record(
    intake: Intake, headers: list[tuple[str, int]], size: int, key: int
) -> None:
    made = Record(
        TOPICS.sagas, 0, 5, b"k" * key, b"v" * size, [(name, b"h" * long) for name, long in headers], NOW_MS
    )
    found = one(intake, made)
    assert isinstance(found, Dead)
    row = dead_letter(found, 1, 0, 0, Addresses(TOPICS, "/kasaga/shop", SHARDS))
    whole = len(row.payload or b"") + len(row.key or b"") + sum(len(n) + len(v) for n, v in row.headers)
    assert whole <= MAX_DEAD_BYTES + MAX_DEAD_KEY_BYTES + 10_000
    cut = size + sum(len(name.encode()) + long for name, long in headers) > MAX_DEAD_BYTES
    assert (b"kasaga_dlq_cut" in [name.encode() for name, _ in row.headers]) == (cut or len(headers) > 64)
