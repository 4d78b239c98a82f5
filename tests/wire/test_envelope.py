"""The envelopes: there and back, and whatever a stranger puts into headers is an EnvelopeError."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasaga_wire.dead_letters import dead_letter_headers
from kasaga_wire.envelope import (
    OUTCOMES,
    AnswerEnvelope,
    CommandEnvelope,
    ControlEnvelope,
    EventEnvelope,
    ReplyEnvelope,
    ReplyTo,
    StartEnvelope,
    Undoes,
    command_id,
    original_of,
    parse_time,
    rfc3339,
    split_command_id,
    type_of,
)
from kasaga_wire.errors import EnvelopeError

NOW = datetime(2026, 11, 23, 1, 21, 0, 5, UTC)
RUN = "01934f3e-7a5c-7cc0-8c3f-0123456789ab"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

COMMAND = CommandEnvelope(
    command_id=f"{RUN}.2",
    attempt=3,
    source="/kasaga/shop",
    type="inventory.reserve",
    time=NOW,
    saga_id="order-42",
    saga="payment",
    saga_version=1,
    reply_to=ReplyTo("shop.replies", 3),
    deadline=NOW + timedelta(minutes=1),
    traceparent=TRACE,
    tracestate="a=b",
)
UNDO = CommandEnvelope(
    command_id=f"{RUN}.2~undo",
    attempt=1,
    source="/kasaga/shop",
    type="inventory.release",
    time=NOW,
    saga_id="order-42",
    saga="payment",
    saga_version=1,
    reply_to=ReplyTo("shop.replies", 3),
    undoes=Undoes("inventory.reserve", "done", NOW - timedelta(hours=1)),
)
VOID = CommandEnvelope(
    command_id=f"{RUN}.2.1~void",
    attempt=1,
    source="/kasaga/shop",
    type="kasaga.void",
    time=NOW,
    saga_id="order-42",
    saga="payment",
    reply_to=ReplyTo("shop.replies", 3),
    undoes=Undoes("inventory.reserve", "unknown", NOW),
)
REPLY = ReplyEnvelope(
    command_id=f"{RUN}.2",
    attempt=3,
    source="/kasaga/participants/inventory",
    time=NOW,
    saga_id="o",
    outcome="done",
)
START = StartEnvelope(
    run_id=RUN,
    source="/kasaga/clients/c1",
    time=NOW,
    saga_id="order-42",
    saga="payment",
    saga_version=1,
    reply_to=ReplyTo("shop.answers", 0),
    traceparent=TRACE,
)
CONTROL = ControlEnvelope(
    id="a-1",
    source="/kasaga/clients/c1",
    action="cancel",
    time=NOW,
    saga_id="o",
    reply_to=ReplyTo("shop.answers", 0),
)
ANSWER = AnswerEnvelope(
    asked=RUN, what="started", source="/kasaga/shop", time=NOW, saga_id="o", traceparent=TRACE
)
EVENT = EventEnvelope(id=f"{RUN}.7", source="/kasaga/shop", state="STUCK", time=NOW, saga_id="o")


def parse(like: Any, headers: Any) -> Any:
    """Parse as the class of an envelope."""
    return like.__class__.parse(headers)


ALL: list[Any] = [COMMAND, UNDO, VOID, REPLY, START, CONTROL, ANSWER, EVENT]


@pytest.mark.parametrize("envelope", ALL, ids=lambda e: f"{type(e).__name__}-{e.source}")
def test_an_envelope_survives_the_wire(envelope: Any) -> None:
    headers = envelope.to_headers()
    assert parse(envelope, headers) == envelope
    assert len([name for name, _ in headers if name not in ("traceparent", "tracestate")]) <= 12
    assert sum(len(name) + len(value) for name, value in headers) < 8 * 1024
    names = [name for name, _ in headers]
    assert len(names) == len(set(names))
    for name in names:  # CloudEvents: a-z and 0-9, 20 characters at most
        assert not name.startswith("ce_") or (name[3:].isalnum() and name.islower() and len(name) <= 23)


def test_the_headers_of_a_command() -> None:
    assert COMMAND.to_headers() == [
        ("ce_specversion", b"1.0"),
        ("ce_id", f"{RUN}.2.3".encode()),
        ("ce_source", b"/kasaga/shop"),
        ("ce_type", b"inventory.reserve"),
        ("ce_time", b"2026-11-23T01:21:00.000005Z"),
        ("ce_subject", b"order-42"),
        ("content-type", b"application/vnd.confluent.avro"),
        ("ce_kasagacommand", f"{RUN}.2".encode()),
        ("ce_kasagasaga", b"payment/1"),
        ("ce_replyto", b"shop.replies/3"),
        ("ce_kasagadeadline", b"2026-11-23T01:22:00.000005Z"),
        ("traceparent", TRACE.encode()),
        ("tracestate", b"a=b"),
    ]


def test_what_an_undo_says() -> None:
    assert dict(UNDO.to_headers())["ce_kasagaundoes"] == b"inventory.reserve done 2026-11-23T00:21:00.000005Z"


def test_kinds_and_ids() -> None:
    assert [e.kind for e in (COMMAND, UNDO, VOID)] == ["command", "undo", "void"]
    assert [e.original_id for e in (COMMAND, UNDO, VOID)] == [f"{RUN}.2", f"{RUN}.2", f"{RUN}.2.1"]
    assert [e.id for e in (COMMAND, UNDO, REPLY, ANSWER)] == [
        f"{RUN}.2.3",
        f"{RUN}.2~undo.1",
        f"{RUN}.2.3.r",
        f"{RUN}.started",
    ]
    assert command_id(RUN, "2.1") == f"{RUN}.2.1"
    assert split_command_id(f"{RUN}.2.1~undo") == (RUN, "2.1~undo")
    assert original_of(f"{RUN}.2.1~undo") == f"{RUN}.2.1"
    assert type_of(COMMAND.to_headers()) == "inventory.reserve"


def test_a_reply_answers_the_attempt_that_asked() -> None:
    reply = ReplyEnvelope.to(COMMAND, "refused", source="/kasaga/participants/inventory", time=NOW)
    assert (reply.id, reply.saga_id, reply.traceparent, reply.tracestate) == (
        f"{RUN}.2.3.r",
        "order-42",
        TRACE,
        "a=b",
    )


def replace(headers: list[tuple[str, bytes]], name: str, value: bytes | None) -> list[Any]:
    return [(key, value if key == name else old) for key, old in headers]


def without(headers: list[tuple[str, bytes]], name: str) -> list[Any]:
    return [header for header in headers if header[0] != name]


@pytest.mark.parametrize("envelope", ALL, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "ce_subject"])
@pytest.mark.parametrize("change", ["missing", "null", "empty", "not utf-8", "too long", "control character"])
def test_what_is_required_is_required(envelope: Any, name: str, change: str) -> None:
    headers = envelope.to_headers()
    wrong = {
        "null": None,
        "empty": b"",
        "not utf-8": b"\xff",
        "too long": b"x" * 600,
        "control character": b"a\nb",
    }
    changed = without(headers, name) if change == "missing" else replace(headers, name, wrong[change])
    with pytest.raises(EnvelopeError) as caught:
        parse(envelope, changed)
    assert caught.value.code == "KSG-120"
    assert caught.value.header.startswith("ce_")
    if change != "not utf-8" or name != "ce_specversion":
        assert caught.value.header == name


WRONG: list[tuple[Any, str, bytes | None]] = [
    (COMMAND, "ce_specversion", b"0.3"),
    (COMMAND, "ce_id", f"{RUN}.2".encode()),
    (COMMAND, "ce_id", f"{RUN}.3.1".encode()),
    (COMMAND, "ce_id", f"{RUN}.2.".encode()),
    (COMMAND, "ce_id", f"{RUN}.2.x".encode()),
    (COMMAND, "ce_id", f"{RUN}.2.-1".encode()),
    (COMMAND, "ce_id", f"{RUN}.2.٣".encode()),
    (COMMAND, "ce_id", f"{RUN}.2.1000000000".encode()),
    (COMMAND, "ce_kasagacommand", b"no-path"),
    (COMMAND, "ce_kasagacommand", f"{RUN}.".encode()),
    (COMMAND, "ce_kasagacommand", f"{RUN}.a".encode()),
    (COMMAND, "ce_kasagacommand", f"{RUN}.2~redo".encode()),
    (COMMAND, "ce_kasagacommand", f"{RUN}.2~undo".encode()),
    (COMMAND, "ce_kasagacommand", b"a b.2"),
    (COMMAND, "ce_kasagacommand", b""),
    (COMMAND, "ce_kasagasaga", b"payment/x"),
    (COMMAND, "ce_kasagasaga", b"/1"),
    (COMMAND, "ce_replyto", b"shop.replies"),
    (COMMAND, "ce_replyto", b"shop.replies/"),
    (COMMAND, "ce_replyto", b"/1"),
    (COMMAND, "ce_replyto", b"shop.replies/-1"),
    (COMMAND, "ce_replyto", b"shop.replies/99999999"),
    (COMMAND, "ce_time", b"2026-11-23"),
    (COMMAND, "ce_time", b"2026-11-23T01:21:00"),
    (COMMAND, "ce_time", b"yesterday"),
    (COMMAND, "ce_time", b"9999-12-31T23:59:59-14:00"),
    (COMMAND, "ce_time", b"20261123T012100Z"),
    (COMMAND, "ce_kasagadeadline", b"soon"),
    (COMMAND, "ce_type", b"kasaga.void"),
    (UNDO, "ce_kasagacommand", f"{RUN}.2".encode()),
    (UNDO, "ce_kasagacommand", f"{RUN}.2~void".encode()),
    (UNDO, "ce_kasagaundoes", b""),
    (UNDO, "ce_kasagaundoes", b"inventory.reserve done"),
    (UNDO, "ce_kasagaundoes", b"inventory.reserve maybe 2026-11-23T00:21:00Z"),
    (UNDO, "ce_kasagaundoes", b"inventory.reserve done yesterday"),
    (UNDO, "ce_kasagaundoes", None),
    (VOID, "ce_kasagaundoes", None),
    (VOID, "ce_kasagacommand", f"{RUN}.2.1~undo".encode()),
    (REPLY, "ce_type", b"inventory.reserve"),
    (REPLY, "ce_id", f"{RUN}.2.3".encode()),
    (REPLY, "ce_kasagaoutcome", b"perhaps"),
    (REPLY, "ce_kasagaoutcome", None),
    (START, "ce_type", b"kasaga.reply"),
    (START, "ce_id", b"with.dot"),
    (START, "ce_id", b"with space"),
    (START, "ce_kasagasaga", None),
    (CONTROL, "ce_type", b"kasaga.control."),
    (CONTROL, "ce_type", b"kasaga.start"),
    (ANSWER, "ce_id", b"started"),
    (ANSWER, "ce_id", b".started"),
    (ANSWER, "ce_id", b"x.rejected"),
    (EVENT, "ce_type", b"kasaga.saga."),
]


@pytest.mark.parametrize(("envelope", "name", "value"), WRONG, ids=[f"{w[1]}={w[2]!r}" for w in WRONG])
def test_what_is_malformed_is_refused(envelope: Any, name: str, value: bytes | None) -> None:
    with pytest.raises(EnvelopeError):
        parse(envelope, replace(envelope.to_headers(), name, value))


def test_the_first_of_repeated_headers_wins() -> None:
    headers = [*COMMAND.to_headers(), ("ce_subject", b"another"), ("ce_id", b"nonsense")]
    assert CommandEnvelope.parse(headers) == COMMAND


def test_other_peoples_headers_do_no_harm() -> None:
    more: list[tuple[str, bytes | None]] = [(f"baggage-{n}", b"x" * 1000) for n in range(40)]
    assert CommandEnvelope.parse([*more, ("nothing", None), *COMMAND.to_headers()]) == COMMAND


def test_there_is_a_largest_number_and_size() -> None:
    headers = COMMAND.to_headers()
    filler = [(f"h{n}", b"") for n in range(64 - len(headers))]
    assert CommandEnvelope.parse([*headers, *filler]) == COMMAND
    with pytest.raises(EnvelopeError, match="65 headers; 64 are the most"):
        CommandEnvelope.parse([*headers, *filler, ("last", b"")])
    with pytest.raises(EnvelopeError, match="8192 are the most"):
        CommandEnvelope.parse([*headers, ("ce_more", b"x" * 8_100)])


@pytest.mark.parametrize("headers", [None, []])
def test_no_headers_at_all(headers: Any) -> None:
    for envelope in ALL:
        with pytest.raises(EnvelopeError, match="no headers at all"):
            parse(envelope, headers)
    with pytest.raises(EnvelopeError):
        type_of(headers)


@pytest.mark.parametrize(
    ("parent", "state", "expected"),
    [
        (TRACE.encode(), b"a=b", (TRACE, "a=b")),
        (TRACE.encode(), None, (TRACE, None)),
        (TRACE.encode(), b"x" * 1025, (TRACE, None)),
        (TRACE.encode(), b"\xff", (TRACE, None)),
        (b"00-nonsense-01", b"a=b", (None, None)),
        (TRACE.encode().replace(b"00-", b"ff-", 1), b"a=b", (None, None)),
        (b"00-%b-00f067aa0ba902b7-01" % (b"0" * 32), b"a=b", (None, None)),
        (b"00-4bf92f3577b34da6a3ce929d0e0e4736-%b-01" % (b"0" * 16), b"a=b", (None, None)),
        (b"\xff", b"a=b", (None, None)),
        (None, b"a=b", (None, None)),
    ],
)
def test_a_broken_trace_never_costs_a_record(
    parent: bytes | None, state: bytes | None, expected: Any
) -> None:
    headers: list[Any] = without(without(COMMAND.to_headers(), "traceparent"), "tracestate")
    got = CommandEnvelope.parse([*headers, ("traceparent", parent), ("tracestate", state)])
    assert (got.traceparent, got.tracestate) == expected


def test_times_are_utc_with_microseconds() -> None:
    assert rfc3339(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000000Z"
    assert (
        rfc3339(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == "2026-01-01T00:00:00.000000Z"
    )
    assert parse_time("ce_time", "2026-01-01T02:00:00+02:00") == datetime(2026, 1, 1, tzinfo=UTC)
    assert parse_time("ce_time", "2026-01-01T00:00:00.5Z") == datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)
    with pytest.raises(EnvelopeError, match="naive"):
        rfc3339(datetime(2026, 1, 1))


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_time_survives(moment: datetime) -> None:
    assert parse_time("ce_time", rfc3339(moment)) == moment


IDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=40)


@given(IDS, IDS, st.integers(0, 10**8), st.sampled_from(sorted(OUTCOMES)))
def test_any_text_survives(saga_id: str, source: str, attempt: int, outcome: str) -> None:
    reply = ReplyEnvelope(
        command_id=f"{RUN}.1.2", attempt=attempt, source=source, time=NOW, saga_id=saga_id, outcome=outcome
    )
    assert ReplyEnvelope.parse(reply.to_headers()) == reply


@given(st.data())
def test_no_headers_make_parsing_fail_otherwise(data: st.DataObject) -> None:
    envelope = data.draw(st.sampled_from(ALL))
    headers: list[Any] = envelope.to_headers()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(headers) - 1))
        value = data.draw(st.none() | st.binary(max_size=40) | st.sampled_from([v for _, v in headers]))
        headers[at] = (data.draw(st.sampled_from([headers[at][0], "ce_id", "x"])), value)
    try:
        parse(envelope, headers)
    except EnvelopeError as error:
        assert error.header  # noqa: PT017 (both ways are right)


def test_a_dead_letter_says_where_it_lay_and_keeps_its_own_headers() -> None:
    original: list[tuple[str, bytes | None]] = [
        *COMMAND.to_headers(),
        ("null", None),
        ("kasaga_dlq_code", b"older"),
    ]
    headers = dead_letter_headers(
        original,
        topic="inventory.commands",
        partition=2,
        offset=77,
        code="KSG-120",
        reason="bad\0" + "x" * 2_000,
        by="/kasaga/participants/inventory",
        time=NOW,
    )
    names = [name for name, _ in headers]
    assert names.count("kasaga_dlq_code") == 1
    assert headers[7:] == original[:-1]
    ours = dict(headers[:7])
    assert ours["kasaga_dlq_reason"] == ("bad\ufffd" + "x" * 996).encode()
    assert {**ours, "kasaga_dlq_reason": b""} == {
        "kasaga_dlq_code": b"KSG-120",
        "kasaga_dlq_reason": b"",
        "kasaga_dlq_topic": b"inventory.commands",
        "kasaga_dlq_partition": b"2",
        "kasaga_dlq_offset": b"77",
        "kasaga_dlq_time": b"2026-11-23T01:21:00.000005Z",
        "kasaga_dlq_by": b"/kasaga/participants/inventory",
    }
