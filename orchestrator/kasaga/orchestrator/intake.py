"""Kafka's records to events of sagas. Pure: no record is lost here, each becomes an item or a dead letter.

The order within a batch is the rule: control, replies, (timers,) starts. A record that can't be
understood is forwarded to the dead letters' topic through the outbox, like everything else.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from pydantic_core import from_json

from kasaga_wire.children import ChildEnvelope, is_child
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import (
    DEFERRED,
    ControlEnvelope,
    ReplyEnvelope,
    ReplyTo,
    StartEnvelope,
    split_command_id,
    type_of,
)
from kasaga_wire.errors import (
    CannotOpen,
    CodecError,
    DecodeError,
    EnvelopeError,
    KasagaError,
    ObjectUnreadable,
)
from kasaga_wire.kafka import Record, partition_for
from kasaga_wire.messages import KINDS, MessageEnvelope
from kasaga_wire.nodes import clean_text
from kasaga_wire.records import (
    MAX_PROGRESS_CHARACTERS,
    NULL_PAYLOAD,
    control_codec,
    deferral_codec,
    errors_codec,
)
from kasaga_wire.sealing import MAGIC, PLAIN, Sealer, is_sealed, place, record_place
from kasaga_wire.topics import Topics

from ..engine.deferrals import Deferred
from ..engine.model import COMMAND, Asked, Event, Replied, Signalled, Started, Updated
from ..engine.model import Record as Decided
from ..store.base import OutboxRow
from . import about, children
from .claims import Desk
from .rows import Addresses, split_step, step_name

log = logging.getLogger("kasaga.orchestrator")

FORWARDED = "kasagaforwarded"
"""Header of a record that has been forwarded to its right partition once."""

HEARD = "kafka:"
"""What the source begins with of a start or a signal that was made of somebody's record."""

CONTROL, REPLY, TIMER, START = range(4)

MAX_FORWARDED_BYTES = 900_000
"""What is larger might not fit into a record with a header more."""

MAX_TEXT = 4_000
"""Characters of what an operator says."""

MIN_HEARTBEAT_SECONDS, MAX_HEARTBEAT_SECONDS = 1.0, 366 * 86_400.0
"""Between two heartbeats: each that comes is a row of history."""

UNREAD_OBJECT = "kasaga.ObjectUnreadable"
"""Type of the error of an attempt whose answer is an object that can't be had."""

SUCCESSES = frozenset({"done", "undone", "nothing", "lost", "voided", "executed"})


class Item(NamedTuple):
    """Something that happens to one saga."""

    order: int
    """CONTROL, REPLY, TIMER or START: the order within a batch. All records of a topic have the same, so
    that none overtakes another of its partition.
    """
    shard: int
    run_id: str
    """Empty where only the saga's id is known (control)."""
    saga_id: str
    event: Event
    source: Record | None
    ask: Asked | None = None
    """Of a signal or an update: who is to be told what becomes of it."""
    keep: bool = False
    """Of a signal: to be kept for a while if there is no such saga."""
    keep_for: int | None = None
    """Of an event that was heard: for how many microseconds. It is no dead letter where nobody wants it."""
    kept: OutboxRow | None = None
    """The row of a signal that was kept."""
    locked: CannotOpen | None = None
    """Of a reply: why its payload can't be opened. The saga waits for the key, with it in its history."""


class Misplaced(NamedTuple):
    """A record in another partition than its saga's: to be forwarded once."""

    order: int
    record: Record
    partition: int


class Dead(NamedTuple):
    """A record that is of no use to any saga."""

    order: int
    record: Record
    error: KasagaError


Input = Item | Misplaced | Dead
"""Whatever comes out of the intake: each is decided, forwarded or dead-lettered."""


def shard_of(found: Input) -> int:
    """The shard by whose owner it is handled."""
    return found.shard if isinstance(found, Item) else found.record.partition


class Intake:
    """Reads the records of one namespace."""

    def __init__(
        self,
        topics: Topics,
        shards: int,
        schemas: Schemas,
        max_age_ms: int,
        sealer: Sealer = PLAIN,
        desk: Desk | None = None,
    ) -> None:
        self._sealer, self.desk = sealer, desk
        self._topics = topics
        self._shards = shards
        self._schemas = schemas
        self._max_age_ms = max_age_ms
        """Starts older than this are dead letters: nobody remembers any more whether they ran."""

    @classmethod
    def of(cls, where: Addresses, schemas: Schemas, max_age_ms: int) -> Intake:
        """Of the namespace that these addresses are of, with its keys."""
        return cls(where.topics, where.shards, schemas, max_age_ms, where.sealer, where.desk)

    def read(self, records: Iterable[Record], now_ms: int) -> list[Input]:
        """Turn records into items, in the order in which they are to be decided."""
        found: list[Input] = []
        for record in records:
            order = self._order(record)
            try:
                if order == REPLY:
                    found.append(self._reply(record))
                elif order == CONTROL:
                    found.append(self._control(record, now_ms))
                else:
                    found.append(self._start(record, now_ms))
            except KasagaError as error:
                found.append(Dead(order, record, error))
            except Exception as error:
                extra = {**about.headers(record.headers), "topic": record.topic, "offset": record.offset}
                log.exception("a record can't be read: a bug", extra=extra)
                said = DecodeError(f"a bug in Kasaga: {type(error).__name__}: {error}")
                found.append(Dead(order, record, said))
        found.sort(key=order_of)
        return found

    def _order(self, record: Record) -> int:
        if record.topic == self._topics.replies:
            return REPLY
        return CONTROL if record.topic == self._topics.control else START

    def _place(self, record: Record, saga_id: str) -> Misplaced | None:
        """Say where a record belongs that isn't in its saga's partition."""
        right = partition_for(saga_id.encode(), self._shards)
        if right == record.partition:
            return None
        if any(name == FORWARDED for name, _ in record.headers):
            raise EnvelopeError(
                "ce_subject", f"the saga belongs to partition {right}, and it was forwarded once"
            )
        size = len(record.value or b"") + sum(len(name) + len(value or b"") for name, value in record.headers)
        if size > MAX_FORWARDED_BYTES:
            raise EnvelopeError("ce_subject", f"the saga belongs to partition {right}; too large to forward")
        return Misplaced(self._order(record), record, right)

    def _answerable(self, to: ReplyTo | None) -> str:
        """Nobody makes this process write anywhere but to where answers are read."""
        if to is None:
            return ""
        if not self._topics.reply_allowed(to.topic):
            raise EnvelopeError("ce_replyto", f"{to.topic} is no topic for answers of this namespace")
        return str(to)

    def _child(self, record: Record, now_ms: int, *, control: bool) -> Item | Misplaced:
        """What a parent asks of its child: to begin, or to be undone."""
        sent = ChildEnvelope.parse(record.headers)
        children.check_topic(sent, control=control)
        misplaced = self._place(record, sent.saga_id)
        if misplaced is not None:
            return misplaced
        if not control:
            self._check_age(int(sent.time.timestamp() * 1000), now_ms)
        run_id = _uuid("ce_kasagachild", sent.run_id)
        opened = record if record.value is None else replace(record, value=self._value(record))
        event = children.read(opened, sent, self._answerable(sent.reply_to), self._schemas)
        if isinstance(event, Started):
            return Item(START, record.partition, run_id, sent.saga_id, event, record)
        return Item(CONTROL, record.partition, "", sent.saga_id, event, record)

    def _check_age(self, sent_ms: int, now_ms: int) -> None:
        age = now_ms - sent_ms
        if age > self._max_age_ms:
            raise EnvelopeError(
                "ce_time", f"the start is {age // 86_400_000} days old: nobody knows if it ran"
            )

    def _start(self, record: Record, now_ms: int) -> Item | Misplaced:
        if is_child(type_of(record.headers)):
            return self._child(record, now_ms, control=False)
        envelope = StartEnvelope.parse(record.headers)
        misplaced = self._place(record, envelope.saga_id)
        if misplaced is not None:
            return misplaced
        if record.value is None:
            raise DecodeError("a start without a payload")
        self._check_age(int(envelope.time.timestamp() * 1000), now_ms)
        run_id = _uuid("ce_id", envelope.run_id)
        event = Started(
            envelope.saga_id,
            envelope.saga,
            envelope.saga_version or 0,
            self._value(record),
            envelope.traceparent or "",
            envelope.tracestate or "",
            self._answerable(envelope.reply_to),
            envelope.source,
            attributes=envelope.attributes,
        )
        return Item(START, record.partition, run_id, envelope.saga_id, event, record)

    def _reply(self, record: Record) -> Item | Misplaced:
        envelope = ReplyEnvelope.parse(record.headers)
        misplaced = self._place(record, envelope.saga_id)
        if misplaced is not None:
            return misplaced
        run, name = split_command_id(envelope.command_id)
        run_id = _uuid("ce_kasagacommand", run)
        step, form = split_step(name)
        outcome, attempt = envelope.outcome, envelope.attempt
        try:
            payload = self._value(record)
        except CannotOpen as error:
            if outcome == DEFERRED:
                raise  # its heartbeat, or the time-out of its silence, comes without it
            if isinstance(error, ObjectUnreadable):
                # As if it had been lost: it is asked for again, and who answers writes the object again.
                why = (self.desk and self.desk.why(record)) or error
                said = Replied(step, form, attempt, "failed", b"", UNREAD_OBJECT, str(why))
                return Item(REPLY, record.partition, run_id, envelope.saga_id, said, record)
            if outcome in SUCCESSES and outcome != "done":
                payload = NULL_PAYLOAD
            else:
                locked = Replied(step, form, attempt, outcome, record.value or b"")
                return Item(REPLY, record.partition, run_id, envelope.saga_id, locked, record, locked=error)
        if outcome == DEFERRED:
            event: Event = self._deferred(step, form, attempt, payload)
        else:
            event = self._replied(step, form, attempt, outcome, payload)
        return Item(REPLY, record.partition, run_id, envelope.saga_id, event, record)

    def _replied(self, step: str, form: str, attempt: int, outcome: str, payload: bytes) -> Replied:
        """A reply that settles an attempt, with its payload opened."""
        if outcome in SUCCESSES:
            return Replied(step, form, attempt, outcome, payload if outcome == "done" else b"")
        return self._error(step, form, attempt, outcome, payload)

    def reopened(self, run_id: str, record: Decided) -> Decided:
        """A record of history whose reply was locked, with it opened if there is the key now."""
        event = record.event
        if not isinstance(event, Replied) or not is_sealed(event.payload):
            return record
        where = place("reply", f"{run_id}.{step_name(event.step, event.form)}")
        try:
            payload = self._sealer.open(where, event.payload)
        except CodecError:
            return record
        made = self._replied(event.step, event.form, event.attempt, event.outcome, payload)
        return record._replace(event=made)

    def _value(self, record: Record) -> bytes:
        """A record's payload, opened. Raises CannotOpen and DecodeError."""
        value = record.value or b""
        if value[:2] != MAGIC:
            return value
        return self._sealer.open(record_place(record.headers), value)

    def peek(self, record: Record) -> bytes | None:
        """The payload, opened, or as it is where it can't be: for who looks at its schema alone."""
        try:
            return None if record.value is None else self._value(record)
        except CodecError:
            return record.value

    def _deferred(self, step: str, form: str, attempt: int, payload: bytes) -> Deferred:
        """The reply that says: later. Raises KasagaError for what makes no sense."""
        body = deferral_codec.decode(payload, self._schemas)
        if form != COMMAND:
            raise EnvelopeError("ce_kasagaoutcome", f"the {form} of a command can't be answered later")
        seconds = body.heartbeat
        if seconds is not None and not MIN_HEARTBEAT_SECONDS <= seconds <= MAX_HEARTBEAT_SECONDS:
            raise DecodeError(f"a heartbeat each {seconds} s: it is to be between 1 s and a year")
        if body.attempt < 1 or body.number < 0:
            raise DecodeError("a deferral counts its attempts from 1 and its heartbeats from 0")
        heartbeat = int(seconds * 1e6) if seconds is not None else 0
        progress = clean_text(body.progress or "", MAX_PROGRESS_CHARACTERS)
        return Deferred(step, form, attempt, body.attempt, body.number, heartbeat, progress)

    def _error(self, step: str, form: str, attempt: int, outcome: str, payload: bytes) -> Replied:
        """The reply that says no: its body is read now, since the engine decides by the type."""
        try:
            body = errors_codec.decode(payload, self._schemas)
        except KasagaError as error:
            return Replied(step, form, attempt, outcome, b"", "kasaga.Unreadable", str(error))
        details = body.details or ""
        return Replied(step, form, attempt, outcome, b"", body.type, body.message, details, body.retryable)

    def _control(self, record: Record, now_ms: int) -> Item | Misplaced:
        if is_child(type_of(record.headers)):
            return self._child(record, now_ms, control=True)
        envelope = ControlEnvelope.parse(record.headers)
        misplaced = self._place(record, envelope.saga_id)
        if misplaced is not None:
            return misplaced
        if envelope.action in _MESSAGES:
            return self._message(record)
        body = control_codec.decode(self._value(record), self._schemas)
        event = Asked(
            envelope.id,
            envelope.action,
            clean_text(body.by, MAX_TEXT),
            clean_text(body.reason, MAX_TEXT),
            clean_text(body.step or "", MAX_TEXT),
            body.value or "",
            self._answerable(envelope.reply_to),
            envelope.traceparent or "",
            envelope.tracestate or "",
        )
        run_id = _uuid("run_id", body.run_id) if body.run_id else ""
        return Item(CONTROL, record.partition, run_id, envelope.saga_id, event, record)

    def _message(self, record: Record) -> Item:
        """A signal or an update: its value is the author's own."""
        envelope = MessageEnvelope.parse(record.headers)
        payload = self._value(record)
        if envelope.json:
            _check_json(payload)
        by = clean_text(envelope.source, MAX_TEXT)
        made = Signalled if envelope.kind == "signal" else Updated
        event = made(envelope.key, clean_text(envelope.name, MAX_TEXT), payload, by, envelope.json)
        to = self._answerable(envelope.reply_to)
        trace = envelope.traceparent or "", envelope.tracestate or ""
        ask = Asked(envelope.key, envelope.kind, by, "", "", "", to, *trace)
        seconds = envelope.keep_seconds
        keep = envelope.kind == "signal" and (envelope.keep or (not to if seconds is None else seconds > 0))
        keep_for = seconds * 1_000_000 if seconds is not None else None
        return Item(CONTROL, record.partition, "", envelope.saga_id, event, record, ask, keep, keep_for)


_MESSAGES = frozenset(KINDS.values())


def _check_json(payload: bytes) -> None:
    """Refuse what is no JSON, or nested without end, before it is anybody's signal."""
    try:
        from_json(payload)
    except ValueError as error:
        raise DecodeError(f"the value is no JSON: {error}") from None


def order_of(found: Input) -> int:
    """The order within a batch, see `Item.order`."""
    return found.order


@lru_cache(maxsize=50_000)  # each reply of a saga names its run
def _canonical(run_id: str) -> str:
    return str(UUID(run_id))


def _uuid(where: str, text: str) -> str:
    try:
        return _canonical(text)
    except ValueError:
        raise EnvelopeError(where, f"{text[:64]!r} is not a run id (a UUID)") from None
