"""The headers of what a client sends: a start, or an action."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kasaga_wire.envelope import ControlEnvelope, Headers, ReplyTo, StartEnvelope
from kasaga_wire.headers import MAX_SAGA_ID_CHARACTERS
from kasaga_wire.messages import Kind, MessageEnvelope

from .errors import BadRequest

_TRACE = TraceContextTextMapPropagator()


class Starting(NamedTuple):
    """What a start says, beside whose it is."""

    value: bytes
    """The input, encoded."""
    version: int | None
    """None for the newest."""
    attributes: bytes
    """Search attributes, as JSON text."""


def start_headers(
    run_id: str, source: str, saga_id: str, saga: str, start: Starting, reply_to: ReplyTo | None
) -> Headers:
    """The headers of a start; no version means the newest."""
    traceparent, tracestate = _trace()
    return StartEnvelope(
        run_id=run_id,
        source=source,
        time=datetime.now(UTC),
        saga_id=saga_id,
        saga=saga,
        saga_version=start.version,
        reply_to=reply_to,
        traceparent=traceparent,
        tracestate=tracestate,
        attributes=start.attributes,
    ).to_headers()


def control_headers(action_id: str, source: str, action: str, saga_id: str, reply_to: ReplyTo) -> Headers:
    """The headers of an action."""
    traceparent, tracestate = _trace()
    return ControlEnvelope(
        id=action_id,
        source=source,
        action=action,
        time=datetime.now(UTC),
        saga_id=saga_id,
        reply_to=reply_to,
        traceparent=traceparent,
        tracestate=tracestate,
    ).to_headers()


def message_headers(
    kind: Kind,
    key: str,
    source: str,
    name: str,
    saga_id: str,
    reply_to: ReplyTo,
    *,
    json: bool,
    keep: bool,
) -> Headers:
    """The headers of a signal or an update."""
    traceparent, tracestate = _trace()
    return MessageEnvelope(
        kind=kind,
        key=key,
        name=name,
        source=source,
        time=datetime.now(UTC),
        saga_id=saga_id,
        json=json,
        keep=keep,
        reply_to=reply_to,
        traceparent=traceparent,
        tracestate=tracestate,
    ).to_headers()


def check_id(saga_id: str) -> None:
    """Refuse, as BadRequest, what can't be a saga's id."""
    if not saga_id or len(saga_id) > MAX_SAGA_ID_CHARACTERS or not saga_id.isprintable():
        raise BadRequest(
            f"the saga id {saga_id[:80]!r} can't be used",
            remedy=f"Use 1 to {MAX_SAGA_ID_CHARACTERS} printable characters, such as an order's number",
        )


def _trace() -> tuple[str | None, str | None]:
    """The trace that the caller is in, if it is in one."""
    carrier: dict[str, str] = {}
    _TRACE.inject(carrier)
    return carrier.get("traceparent"), carrier.get("tracestate")
