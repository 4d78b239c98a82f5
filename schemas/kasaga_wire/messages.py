"""The envelope of signals and updates: control records whose value is the author's own.

Station: built by clients and by any service with an outbox; parsed by the orchestrator's intake.
Unlike other control records they carry no `kasaga.Control`: the value is what is sent, Avro or JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from .envelope import AVRO, CONTROL, Headers, RawHeaders, ReplyTo, rfc3339
from .errors import EnvelopeError
from .headers import MAX_SAGA_ID_CHARACTERS, Fields

JSON = "application/json"

Kind = Literal["signal", "update"]

KINDS: dict[str, Kind] = {CONTROL + "signal": "signal", CONTROL + "update": "update"}
"""By `ce_type`."""

MAX_KEY_CHARACTERS = 256
"""Of an idempotency key."""

MAX_KEEP_SECONDS = 86_400
"""For which a signal may wait for its saga to begin."""


@dataclass(slots=True, kw_only=True)
class MessageEnvelope:
    """A signal or an update. `key` is its `ce_id`: the same one twice is one signal."""

    kind: Kind
    key: str
    name: str
    source: str
    time: datetime
    saga_id: str
    json: bool = False
    keep: bool = False
    """Keep it for a time if there is no such saga yet, although somebody could be told so."""
    keep_seconds: int | None = None
    """Of an event that was heard: for how long, at most; then, and after the saga's end, it is nobody's."""
    reply_to: ReplyTo | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    def to_headers(self) -> Headers:
        """The headers of the record."""
        headers: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", self.key.encode()),
            ("ce_source", self.source.encode()),
            ("ce_type", f"{CONTROL}{self.kind}".encode()),
            ("ce_time", rfc3339(self.time).encode()),
            ("ce_subject", self.saga_id.encode()),
            ("content-type", (JSON if self.json else AVRO).encode()),
            ("ce_kasagasignal", self.name.encode()),
        ]
        if self.keep_seconds is not None:
            headers.append(("ce_kasagakeep", b"%d" % self.keep_seconds))
        elif self.keep:
            headers.append(("ce_kasagakeep", b"true"))
        if self.reply_to is not None:
            headers.append(("ce_replyto", str(self.reply_to).encode()))
        if self.traceparent is not None:
            headers.append(("traceparent", self.traceparent.encode()))
            if self.tracestate is not None:
                headers.append(("tracestate", self.tracestate.encode()))
        return headers

    @classmethod
    def parse(cls, headers: RawHeaders | None) -> MessageEnvelope:
        """From a record's headers, or EnvelopeError."""
        fields = Fields(headers)
        kind = KINDS.get(fields.need("ce_type"))
        if kind is None:
            raise EnvelopeError("ce_type", "neither a signal nor an update")
        content = (fields.get("content-type") or AVRO).partition(";")[0].strip().lower()
        if content not in (AVRO, JSON):
            raise EnvelopeError("content-type", "neither Avro nor JSON", remedy=f"{AVRO} or {JSON}")
        parent, state = fields.trace()
        keep = fields.get("ce_kasagakeep")
        return cls(
            kind=kind,
            key=fields.need("ce_id", MAX_KEY_CHARACTERS),
            name=fields.need("ce_kasagasignal"),
            source=fields.need("ce_source"),
            time=fields.time("ce_time"),
            saga_id=fields.need("ce_subject", MAX_SAGA_ID_CHARACTERS),
            json=content == JSON,
            keep=keep == "true",
            keep_seconds=_keep_seconds(keep) if keep not in (None, "true", "false") else None,
            reply_to=fields.reply_to(),
            traceparent=parent,
            tracestate=state,
        )


def _keep_seconds(text: str | None) -> int:
    seconds = int(text) if text and text.isascii() and text.isdecimal() and len(text) < 6 else -1
    if not 0 <= seconds <= MAX_KEEP_SECONDS:
        raise EnvelopeError("ce_kasagakeep", f"neither true nor seconds up to {MAX_KEEP_SECONDS}")
    return seconds
