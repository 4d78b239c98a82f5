"""What a parent asks of its child: there and back, and what is off is an EnvelopeError."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasaga_wire.children import BEGIN, UNDO, VOID, ChildEnvelope, is_child
from kasaga_wire.envelope import ReplyTo, Undoes
from kasaga_wire.errors import EnvelopeError

NOW = datetime(2026, 11, 23, 1, 21, 0, 5, UTC)
RUN = "01934f3e-7a5c-7cc0-8c3f-0123456789ab"
START = ChildEnvelope(
    type=BEGIN,
    run_id=RUN,
    command_id=f"{RUN}.2.1",
    attempt=3,
    source="/kasaga/shop",
    time=NOW,
    saga_id="order 7.2.1",
    saga="shipment",
    parent_id="order 7",
    waits=True,
    depth=1,
    reply_to=ReplyTo("shop.replies", 3),
    traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    tracestate="a=b",
)
TAKEN_BACK = replace(
    START,
    type=UNDO,
    command_id=f"{RUN}.2.1~undo",
    waits=False,
    saga_version=2,
    undoes=Undoes("child.shipment", "done", NOW),
)
FENCED = replace(TAKEN_BACK, type=VOID, command_id=f"{RUN}.2.1~void", traceparent=None, tracestate=None)


@pytest.mark.parametrize("sent", [START, TAKEN_BACK, FENCED], ids=["start", "undo", "void"])
def test_what_is_sent_is_read(sent: ChildEnvelope) -> None:
    headers = sent.to_headers()
    assert ChildEnvelope.parse(headers) == sent
    assert is_child(sent.type)
    assert len([name for name, _ in headers if not name.startswith("trace")]) <= 12


@pytest.mark.parametrize(
    ("of", "header", "value"),
    [
        (START, "ce_type", b"kasaga.start"),
        (START, "ce_id", b"another.1"),
        (START, "ce_id", f"{RUN}.2.1.x".encode()),
        (START, "ce_kasagacommand", f"{RUN}.2.1~undo".encode()),
        (TAKEN_BACK, "ce_kasagacommand", f"{RUN}.2.1".encode()),
        (TAKEN_BACK, "ce_kasagaundoes", b""),
        (START, "ce_kasagaundoes", b"x done 2026-11-23T01:21:00.000000Z"),
        (START, "ce_kasagachild", b"run await 1"),
        (START, "ce_kasagachild", b"run later 1 order"),
        (START, "ce_kasagachild", b"run await 0 order"),
        (START, "ce_kasagachild", b"run await -1 order"),
        (START, "ce_kasagachild", b"run await 1 " + b"x" * 257),
        (START, "ce_kasagasaga", b"/1"),
        (START, "ce_kasagasaga", b"shipment/new"),
        (START, "ce_subject", b"x" * 257),
    ],
)
def test_what_is_off_is_named(of: ChildEnvelope, header: str, value: bytes) -> None:
    headers = [each for each in of.to_headers() if each[0] != header] + [(header, value)]
    with pytest.raises(EnvelopeError) as caught:
        ChildEnvelope.parse(headers)
    assert caught.value.header in {header, "ce_id"}


@pytest.mark.parametrize("header", [name for name, _ in START.to_headers() if name.startswith("ce_")])
def test_what_is_missing_is_named(header: str) -> None:
    with pytest.raises(EnvelopeError):
        ChildEnvelope.parse([each for each in START.to_headers() if each[0] != header])


@given(
    st.lists(
        st.tuples(st.sampled_from([name for name, _ in TAKEN_BACK.to_headers()]), st.binary()), max_size=4
    )
)
def test_garbage_is_an_envelope_error_or_an_envelope(changes: list[tuple[str, bytes]]) -> None:
    with suppress(EnvelopeError):
        ChildEnvelope.parse([*changes, *TAKEN_BACK.to_headers()])
