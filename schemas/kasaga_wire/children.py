"""The envelope of what a saga asks of another: to begin as its child, to be undone, or never to begin.

Station: built by the orchestrator for a step that is a child saga, parsed by the intake of the child's
shard. The answers are replies (`ReplyEnvelope`), on the topic and partition that `ce_replyto` names. Types
of their own, so that a release that doesn't know them makes dead letters of them instead of beginning a saga
that never answers; the parent asks again.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from .envelope import AVRO, CONTROL, START, Headers, RawHeaders, ReplyTo, Undoes, rfc3339, split_command_id
from .errors import EnvelopeError
from .headers import MAX_ID_CHARACTERS, MAX_SAGA_ID_CHARACTERS, Fields

BEGIN, UNDO, VOID = f"{START}.child", f"{CONTROL}child.undo", f"{CONTROL}child.void"
"""`ce_type`: begin (on `<ns>.sagas`); be undone, or, if it hasn't begun, never begin (`<ns>.control`)."""

KINDS = {BEGIN: "", UNDO: "~undo", VOID: "~void"}
"""By `ce_type`, what the command's id ends in."""

MAX_DEPTH = 1_000
"""Of what a header may say; the orchestrator's own limit is far lower."""


@dataclass(slots=True, kw_only=True)
class ChildEnvelope:
    """A parent's record for its child. `command_id` is the parent's step, as in a command."""

    type: str
    run_id: str
    """The child's: `ce_id` of its beginning, and the same in all that follows."""
    command_id: str
    attempt: int
    source: str
    time: datetime
    saga_id: str
    """The child's."""
    saga: str
    saga_version: int | None = None
    parent_id: str
    """The parent's saga id."""
    waits: bool
    """The parent's step is done when the child is; else when the child has begun."""
    depth: int
    """1 for the child of a saga that has no parent."""
    reply_to: ReplyTo
    undoes: Undoes | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    def to_headers(self) -> Headers:
        """The headers of the record."""
        version = "" if self.saga_version is None else f"/{self.saga_version}"
        how = "await" if self.waits else "leave"
        headers: Headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{self.command_id}.{self.attempt}".encode()),
            ("ce_source", self.source.encode()),
            ("ce_type", self.type.encode()),
            ("ce_time", rfc3339(self.time).encode()),
            ("ce_subject", self.saga_id.encode()),
            ("content-type", AVRO.encode()),
            ("ce_kasagasaga", f"{self.saga}{version}".encode()),
            ("ce_kasagacommand", self.command_id.encode()),
            ("ce_kasagachild", f"{self.run_id} {how} {self.depth} {self.parent_id}".encode()),
            ("ce_replyto", str(self.reply_to).encode()),
        ]
        if self.undoes is not None:
            headers.append(("ce_kasagaundoes", str(self.undoes).encode()))
        if self.traceparent is not None:
            headers.append(("traceparent", self.traceparent.encode()))
            if self.tracestate is not None:
                headers.append(("tracestate", self.tracestate.encode()))
        return headers

    @classmethod
    def parse(cls, headers: RawHeaders | None) -> ChildEnvelope:
        """From a record's headers, or EnvelopeError."""
        fields = Fields(headers)
        type_ = fields.need("ce_type")
        suffix = KINDS.get(type_)
        if suffix is None:
            raise EnvelopeError("ce_type", "nothing that a parent asks of its child")
        command = fields.need("ce_kasagacommand", MAX_ID_CHARACTERS)
        _, path = split_command_id(command)
        if path[len(path.partition("~")[0]) :] != suffix:
            raise EnvelopeError("ce_kasagacommand", f"doesn't end as {type_} does")
        undoes = fields.get("ce_kasagaundoes")
        if (undoes is None) != (type_ == BEGIN):
            raise EnvelopeError("ce_kasagaundoes", "missing" if undoes is None else "of a beginning")
        reply_to = fields.reply_to()
        if reply_to is None:
            raise EnvelopeError("ce_replyto", "missing")
        run_id, waits, depth, parent_id = _child(fields.need("ce_kasagachild"))
        saga, version = _saga(fields.need("ce_kasagasaga"))
        parent, state = fields.trace()
        return cls(
            type=type_,
            run_id=run_id,
            command_id=command,
            attempt=_attempt(fields.need("ce_id", MAX_ID_CHARACTERS + 16), command),
            source=fields.need("ce_source"),
            time=fields.time("ce_time"),
            saga_id=fields.need("ce_subject", MAX_SAGA_ID_CHARACTERS),
            saga=saga,
            saga_version=version,
            parent_id=parent_id,
            waits=waits,
            depth=depth,
            reply_to=reply_to,
            undoes=None if undoes is None else Undoes.parse(undoes),
            traceparent=parent,
            tracestate=state,
        )


def is_child(type_: str) -> bool:
    """Whether a record of this `ce_type` is a parent's for its child."""
    return type_ in KINDS


def _number(header: str, text: str) -> int:
    if not (text.isdecimal() and text.isascii() and len(text) < 10):
        raise EnvelopeError(header, "no number where one should be")
    return int(text)


def _attempt(id_: str, command: str) -> int:
    if not id_.startswith(f"{command}."):
        raise EnvelopeError("ce_id", "not <command id>.<attempt>")
    return _number("ce_id", id_[len(command) + 1 :])


def _child(text: str) -> tuple[str, bool, int, str]:
    parts = text.split(" ", 3)
    if (
        len(parts) != 4
        or parts[1] not in ("await", "leave")
        or not 0 < len(parts[3]) <= MAX_SAGA_ID_CHARACTERS
    ):
        raise EnvelopeError("ce_kasagachild", "not <run id> await|leave <depth> <parent's saga id>")
    depth = _number("ce_kasagachild", parts[2])
    if not 1 <= depth <= MAX_DEPTH:
        raise EnvelopeError("ce_kasagachild", f"a depth of {depth}")
    return parts[0], parts[1] == "await", depth, parts[3]


def _saga(text: str) -> tuple[str, int | None]:
    name, slash, version = text.partition("/")
    if not name:
        raise EnvelopeError("ce_kasagasaga", "not <saga name>/<version>")
    return name, _number("ce_kasagasaga", version) if slash else None
