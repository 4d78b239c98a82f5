"""The envelopes: which headers a command, a reply, a start, a control record, an answer and an event carry.

Station: whoever produces a record builds its headers here, whoever consumes one parses them here, before
the payload is looked at. CloudEvents names in the Kafka binding, ours as extensions, W3C trace context.
Both directions are on the hot path: building is one list of literals, parsing one pass.

A record that can't be parsed raises EnvelopeError with the header's name; its place is the dead letters'
topic.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from .attributes import ATTRIBUTES, MAX_ATTRIBUTES_BYTES, of_header
from .errors import EnvelopeError
from .headers import (
    MAX_ID_CHARACTERS,
    MAX_SAGA_ID_CHARACTERS,
    Fields,
    Headers,
    Knowledge,
    RawHeaders,
    ReplyTo,
    Undoes,
    command_id,
    original_of,
    parse_time,
    rfc3339,
    split_command_id,
    type_of,
)

__all__ = [
    "AnswerEnvelope",
    "CommandEnvelope",
    "ControlEnvelope",
    "DomainEventEnvelope",
    "EventEnvelope",
    "Headers",
    "Knowledge",
    "RawHeaders",
    "ReplyEnvelope",
    "ReplyTo",
    "StartEnvelope",
    "Undoes",
    "command_id",
    "original_of",
    "parse_time",
    "rfc3339",
    "split_command_id",
    "type_of",
]

AVRO = "application/vnd.confluent.avro"
VOID = "kasaga.void"
AUDIT = "kasaga.audit"
DRILL = "ce_kasagadrill"
"""Header of an undo that is only rehearsed: the id of the command that it would undo."""
REPLY = "kasaga.reply"
START = "kasaga.start"
CONTROL = "kasaga.control."
ANSWER = "kasaga.answer."
EVENT = "kasaga.saga."

DEFERRED = "deferred"
"""Outcome of a reply that is none yet: the command is accepted, and answered later."""
COMMAND_OUTCOMES = frozenset({DEFERRED, "done", "refused", "failed", "expired", "conflict", "undecodable"})
UNDO_OUTCOMES = frozenset({"undone", "nothing", "lost"})
VOID_OUTCOMES = frozenset({"voided", "refused", "executed"})
OUTCOMES = COMMAND_OUTCOMES | UNDO_OUTCOMES | VOID_OUTCOMES

_SPEC = ("ce_specversion", b"1.0")
_CONTENT = ("content-type", AVRO.encode())
_JSON = ("content-type", b"application/json")
_REPLY = ("ce_type", REPLY.encode())
_START = ("ce_type", START.encode())


def _traced(headers: Headers, traceparent: str | None, tracestate: str | None) -> Headers:
    if traceparent is not None:
        headers.append(("traceparent", traceparent.encode()))
        if tracestate is not None:
            headers.append(("tracestate", tracestate.encode()))
    return headers


@dataclass(slots=True, kw_only=True)
class CommandEnvelope:
    """A command, an undo or a void: `undoes` and the type tell which. All attempts share `command_id`."""

    command_id: str
    attempt: int
    source: str
    type: str
    time: datetime
    saga_id: str
    saga: str
    saga_version: int | None = None
    reply_to: ReplyTo | None = None
    deadline: datetime | None = None
    undoes: Undoes | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def id(self) -> str:
        """`ce_id`: another one for each attempt, else a conforming consumer would drop the second."""
        return f"{self.command_id}.{self.attempt}"

    @property
    def kind(self) -> Literal["command", "undo", "void"]:
        """Which of the three it is."""
        return "command" if self.undoes is None else "void" if self.type == VOID else "undo"

    @property
    def original_id(self) -> str:
        """The id of the command itself, for an undo or a void too."""
        return original_of(self.command_id)

    def to_headers(self) -> Headers:
        """The headers of the record."""
        command = self.command_id.encode()
        headers: Headers = [
            _SPEC,
            ("ce_id", b"%b.%d" % (command, self.attempt)),
            ("ce_source", self.source.encode()),
            ("ce_type", self.type.encode()),
            ("ce_time", rfc3339(self.time).encode()),
            ("ce_subject", self.saga_id.encode()),
            _CONTENT,
            ("ce_kasagacommand", command),
            ("ce_kasagasaga", _saga_text(self.saga, self.saga_version)),
        ]
        if self.reply_to is not None:
            headers.append(("ce_replyto", str(self.reply_to).encode()))
        if self.deadline is not None:
            headers.append(("ce_kasagadeadline", rfc3339(self.deadline).encode()))
        if self.undoes is not None:
            headers.append(("ce_kasagaundoes", str(self.undoes).encode()))
        return _traced(headers, self.traceparent, self.tracestate)

    @classmethod
    def parse(cls, headers: RawHeaders | None) -> CommandEnvelope:
        """From a record's headers, or EnvelopeError."""
        fields = Fields(headers)
        type_ = fields.need("ce_type")
        command = fields.need("ce_kasagacommand", MAX_ID_CHARACTERS)
        split_command_id(command)
        saga = fields.get("ce_kasagasaga")
        name, version = (_saga_of(saga)) if saga else ("", None)
        deadline = fields.get("ce_kasagadeadline")
        undoes = fields.get("ce_kasagaundoes")
        _check_kind(type_, command, undoes)
        parent, state = fields.trace()
        return cls(
            command_id=command,
            attempt=_attempt(fields.need("ce_id", MAX_ID_CHARACTERS + 16), command, ""),
            source=fields.need("ce_source"),
            type=type_,
            time=fields.time("ce_time"),
            saga_id=fields.need("ce_subject", MAX_SAGA_ID_CHARACTERS),
            saga=name,
            saga_version=version,
            reply_to=fields.reply_to(),
            deadline=None if deadline is None else parse_time("ce_kasagadeadline", deadline),
            undoes=None if undoes is None else Undoes.parse(undoes),
            traceparent=parent,
            tracestate=state,
        )


def _check_kind(type_: str, command: str, undoes: str | None) -> None:
    suffix = command.partition("~")[2]
    wanted = "" if undoes is None else "void" if type_ == VOID else "undo"
    if undoes is None and (suffix or type_ == VOID):
        raise EnvelopeError("ce_kasagaundoes", "missing")
    if suffix != wanted:
        raise EnvelopeError("ce_kasagacommand", f"doesn't end in ~{wanted}")


def _attempt(id_: str, command: str, suffix: str) -> int:
    attempt = id_[len(command) + 1 : len(id_) - len(suffix)]
    if (
        not (attempt.isdecimal() and attempt.isascii() and len(attempt) < 10)
        or id_ != f"{command}.{attempt}{suffix}"
    ):
        raise EnvelopeError("ce_id", f"not <command id>.<attempt>{suffix}")
    return int(attempt)


def _saga_text(saga: str, version: int | None) -> bytes:
    return (saga if version is None else f"{saga}/{version}").encode()


def _saga_of(text: str) -> tuple[str, int | None]:
    name, slash, version = text.partition("/")
    if not name or (slash and not (version.isdecimal() and version.isascii() and len(version) < 10)):
        raise EnvelopeError("ce_kasagasaga", "not <saga name>/<version>")
    return name, int(version) if slash else None


@dataclass(slots=True, kw_only=True)
class ReplyEnvelope:
    """A participant's reply to one attempt."""

    command_id: str
    attempt: int
    source: str
    time: datetime
    saga_id: str
    outcome: str
    traceparent: str | None = None
    tracestate: str | None = None
    suffix: str = "r"
    """Behind the id of the record that is answered: `r`; of a deferral and its heartbeats `d0`, `d1`, …"""

    @property
    def id(self) -> str:
        """`ce_id`: the one of the attempt that asked, and the suffix."""
        return f"{self.command_id}.{self.attempt}.{self.suffix}"

    @classmethod
    def to(cls, command: CommandEnvelope, outcome: str, *, source: str, time: datetime) -> ReplyEnvelope:
        """The reply to a command: same saga, same trace."""
        return cls(
            command_id=command.command_id,
            attempt=command.attempt,
            source=source,
            time=time,
            saga_id=command.saga_id,
            outcome=outcome,
            traceparent=command.traceparent,
            tracestate=command.tracestate,
            suffix="d0" if outcome == DEFERRED else "r",
        )

    def to_headers(self) -> Headers:
        """The headers of the record."""
        command = self.command_id.encode()
        headers: Headers = [
            _SPEC,
            ("ce_id", b"%b.%d.%b" % (command, self.attempt, self.suffix.encode())),
            ("ce_source", self.source.encode()),
            _REPLY,
            ("ce_time", rfc3339(self.time).encode()),
            ("ce_subject", self.saga_id.encode()),
            _CONTENT,
            ("ce_kasagacommand", command),
            ("ce_kasagaoutcome", self.outcome.encode()),
        ]
        return _traced(headers, self.traceparent, self.tracestate)

    @classmethod
    def parse(cls, headers: RawHeaders | None) -> ReplyEnvelope:
        """From a record's headers, or EnvelopeError."""
        fields = Fields(headers)
        if fields.need("ce_type") != REPLY:
            raise EnvelopeError("ce_type", f"not {REPLY}")
        command = fields.need("ce_kasagacommand", MAX_ID_CHARACTERS)
        split_command_id(command)
        outcome = fields.need("ce_kasagaoutcome")
        if outcome not in OUTCOMES:
            raise EnvelopeError(
                "ce_kasagaoutcome", "no outcome that is known", remedy=", ".join(sorted(OUTCOMES))
            )
        parent, state = fields.trace()
        id_ = fields.need("ce_id", MAX_ID_CHARACTERS + 24)
        suffix = id_.rpartition(".")[2] if outcome == DEFERRED else "r"
        return cls(
            command_id=command,
            attempt=_attempt(id_, command, f".{suffix}"),
            source=fields.need("ce_source"),
            time=fields.time("ce_time"),
            saga_id=fields.need("ce_subject", MAX_SAGA_ID_CHARACTERS),
            outcome=outcome,
            traceparent=parent,
            tracestate=state,
            suffix=suffix,
        )


@dataclass(slots=True, kw_only=True)
class StartEnvelope:
    """A start.

    The run id is made once by the caller and kept through forwards and redrives. No version: the newest.
    """

    run_id: str
    source: str
    time: datetime
    saga_id: str
    saga: str
    saga_version: int | None = None
    reply_to: ReplyTo | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    attributes: bytes = b""
    """Search attributes, as JSON text; empty for none."""

    def to_headers(self) -> Headers:
        """The headers of the record."""
        headers: Headers = [
            _SPEC,
            ("ce_id", self.run_id.encode()),
            ("ce_source", self.source.encode()),
            _START,
            ("ce_time", rfc3339(self.time).encode()),
            ("ce_subject", self.saga_id.encode()),
            _CONTENT,
            ("ce_kasagasaga", _saga_text(self.saga, self.saga_version)),
        ]
        if self.reply_to is not None:
            headers.append(("ce_replyto", str(self.reply_to).encode()))
        if self.attributes:
            headers.append((ATTRIBUTES, self.attributes))
        return _traced(headers, self.traceparent, self.tracestate)

    @classmethod
    def parse(cls, headers: RawHeaders | None) -> StartEnvelope:
        """From a record's headers, or EnvelopeError."""
        fields = Fields(headers)
        if fields.need("ce_type") != START:
            raise EnvelopeError("ce_type", f"not {START}")
        saga, version = _saga_of(fields.need("ce_kasagasaga"))
        parent, state = fields.trace()
        return cls(
            run_id=fields.run_id("ce_id"),
            source=fields.need("ce_source"),
            time=fields.time("ce_time"),
            saga_id=fields.need("ce_subject", MAX_SAGA_ID_CHARACTERS),
            saga=saga,
            saga_version=version,
            reply_to=fields.reply_to(),
            traceparent=parent,
            tracestate=state,
            attributes=of_header(fields.get(ATTRIBUTES, MAX_ATTRIBUTES_BYTES)),
        )


@dataclass(slots=True, kw_only=True)
class ControlEnvelope:
    """An operator's or a client's action. `id` is the action's id, by which it is done once."""

    id: str
    source: str
    action: str
    time: datetime
    saga_id: str
    reply_to: ReplyTo | None = None
    traceparent: str | None = None
    tracestate: str | None = None

    def to_headers(self) -> Headers:
        """The headers of the record."""
        headers = _plain(self.id, self.source, CONTROL + self.action, self.time, self.saga_id)
        if self.reply_to is not None:
            headers.append(("ce_replyto", str(self.reply_to).encode()))
        return _traced(headers, self.traceparent, self.tracestate)

    @classmethod
    def parse(cls, headers: RawHeaders | None) -> ControlEnvelope:
        """From a record's headers, or EnvelopeError."""
        fields = Fields(headers)
        parent, state = fields.trace()
        return cls(
            id=fields.need("ce_id"),
            source=fields.need("ce_source"),
            action=_after(CONTROL, fields),
            time=fields.time("ce_time"),
            saga_id=fields.need("ce_subject", MAX_SAGA_ID_CHARACTERS),
            reply_to=fields.reply_to(),
            traceparent=parent,
            tracestate=state,
        )


@dataclass(slots=True, kw_only=True)
class AnswerEnvelope:
    """An answer to a start or a control record. `asked` is the `ce_id` of what is answered."""

    asked: str
    what: str
    source: str
    time: datetime
    saga_id: str
    traceparent: str | None = None
    tracestate: str | None = None

    @property
    def id(self) -> str:
        """`ce_id`: what was asked, and what is said about it."""
        return f"{self.asked}.{self.what}"

    def to_headers(self) -> Headers:
        """The headers of the record."""
        headers = _plain(self.id, self.source, ANSWER + self.what, self.time, self.saga_id)
        return _traced(headers, self.traceparent, self.tracestate)

    @classmethod
    def parse(cls, headers: RawHeaders | None) -> AnswerEnvelope:
        """From a record's headers, or EnvelopeError."""
        fields = Fields(headers)
        what = _after(ANSWER, fields)
        asked, _, said = fields.need("ce_id").rpartition(".")
        if not asked or said != what:
            raise EnvelopeError("ce_id", "not <id of what is answered>.<what>")
        parent, state = fields.trace()
        return cls(
            asked=asked,
            what=what,
            source=fields.need("ce_source"),
            time=fields.time("ce_time"),
            saga_id=fields.need("ce_subject", MAX_SAGA_ID_CHARACTERS),
            traceparent=parent,
            tracestate=state,
        )


@dataclass(slots=True, kw_only=True)
class EventEnvelope:
    """A saga's change of state, published."""

    id: str
    source: str
    state: str
    time: datetime
    saga_id: str
    traceparent: str | None = None
    tracestate: str | None = None

    def to_headers(self) -> Headers:
        """The headers of the record."""
        headers = _plain(self.id, self.source, EVENT + self.state, self.time, self.saga_id)
        return _traced(headers, self.traceparent, self.tracestate)

    @classmethod
    def parse(cls, headers: RawHeaders | None) -> EventEnvelope:
        """From a record's headers, or EnvelopeError."""
        fields = Fields(headers)
        parent, state = fields.trace()
        return cls(
            id=fields.need("ce_id"),
            source=fields.need("ce_source"),
            state=_after(EVENT, fields),
            time=fields.time("ce_time"),
            saga_id=fields.need("ce_subject", MAX_SAGA_ID_CHARACTERS),
            traceparent=parent,
            tracestate=state,
        )


@dataclass(slots=True, kw_only=True)
class DomainEventEnvelope:
    """An event of a saga's author, in JSON, for anybody."""

    id: str
    source: str
    type: str
    time: datetime
    saga_id: str
    traceparent: str | None = None
    tracestate: str | None = None

    def to_headers(self) -> Headers:
        """The headers of the record."""
        headers = _plain(self.id, self.source, self.type, self.time, self.saga_id, _JSON)
        return _traced(headers, self.traceparent, self.tracestate)


def _plain(
    id_: str, source: str, type_: str, time: datetime, saga_id: str, content: tuple[str, bytes] = _CONTENT
) -> Headers:
    return [
        _SPEC,
        ("ce_id", id_.encode()),
        ("ce_source", source.encode()),
        ("ce_type", type_.encode()),
        ("ce_time", rfc3339(time).encode()),
        ("ce_subject", saga_id.encode()),
        content,
    ]


def _after(prefix: str, fields: Fields) -> str:
    type_ = fields.need("ce_type")
    if not type_.startswith(prefix) or len(type_) == len(prefix):
        raise EnvelopeError("ce_type", f"doesn't begin with {prefix}")
    return type_[len(prefix) :]
