"""Decisions to rows: what the store writes, and the records that will go to Kafka.

Pure. The envelope is made here, once; the store keeps it with the row, so that a new owner sends
the very same record.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import NamedTuple
from uuid import UUID

from kasaga_wire.envelope import (
    AnswerEnvelope,
    CommandEnvelope,
    DomainEventEnvelope,
    EventEnvelope,
    ReplyTo,
    Undoes,
)
from kasaga_wire.records import NULL_PAYLOAD, Answer, Event, answer_codec, event_codec
from kasaga_wire.sealing import PLAIN, Sealer, record_place
from kasaga_wire.topics import Topics

from ..engine import lifecycle, renewing
from ..engine.attributes import changed_by
from ..engine.awaited import is_awaited
from ..engine.codec import encode
from ..engine.deferrals import Defer
from ..engine.keylocks import LOCK, Lock
from ..engine.kinship import Report
from ..engine.model import (
    COMMAND,
    DEADLINE,
    DONE,
    LOCAL,
    SIGNAL,
    VOID,
    Alarm,
    Asked,
    Deadline,
    Emit,
    Fence,
    Record,
    RunLocal,
    Send,
    Sleep,
    Tell,
)
from ..engine.state import State
from ..engine.undo import VOID_TYPE
from ..engine.versions import Await
from ..store.base import RENEWED, HistoryRow, OutboxRow, RowKind, SagaRow, SagaState, SagaWrite
from . import children
from .claims import Desk
from .clock import to_datetime
from .shards import AWAIT, lock_headers
from .traceids import EVERY_SAGA, Sampling, traceparent, tracestate

WRITES_SAGA = frozenset({"Adopt", "Move", "Return", "Hold", "Release", "Postpone", "Continue"})


Trace = tuple[str | None, str | None]
"""A traceparent and a tracestate."""


LATE = "late"
"""Form of the row that stands for a deferred command: the time-out of its participant's silence."""


class Addresses(NamedTuple):
    """Where records of one namespace go."""

    topics: Topics
    source: str
    shards: int
    sampling: Sampling = EVERY_SAGA
    """Which sagas are traced: the headers say so."""
    sealer: Sealer = PLAIN
    """For what goes to Kafka, and waits for it in the outbox."""
    desk: Desk | None = None
    """Writes and fetches large payloads, where there is a store for them."""


def awaited(row: OutboxRow) -> tuple[str, int] | None:
    """Return the saga and version that the row of a saga is waiting for, None of any other row."""
    if row.step != AWAIT or not row.headers:
        return None
    name, _, version = row.headers[0][1].decode().rpartition("/")
    return name, int(version)


def step_name(step: str, form: str) -> str:
    """Name a step's form as rows and command ids do: `3`, `3~undo`, `3~void`."""
    return step if form in (COMMAND, LOCAL, "sleep", DEADLINE) else f"{step}~{form}"


def split_step(name: str) -> tuple[str, str]:
    """Take a name of `step_name` apart; the form of a plain step is COMMAND."""
    step, _, form = name.partition("~")
    return step, form or COMMAND


def add_record(write: SagaWrite, state: State, record: Record, where: Addresses, fingerprint: str) -> None:
    """Add what one record writes to its saga's write set."""
    name = type(record.event).__name__
    step = getattr(record.event, "step", "")
    body = encode(record)
    if state.base == record.seq and state.number > 1:
        name, state.size = RENEWED, 0
    state.size += len(body)
    write.history.append(HistoryRow(record.seq, to_datetime(record.at), name, step, body))
    opened: dict[int, OutboxRow] = {row.seq: row for row in write.opens}
    for seq, decision in state.opens:
        row = _row(state, decision, seq, write.shard, record.at, where)
        if where.sealer is not PLAIN and not _is_public(decision):
            seal(row, where.sealer)
        write.opens.append(row)
        opened[seq] = row
    for seq in state.closes:
        if seq in opened:
            write.opens.remove(opened[seq])
        else:
            write.closes.append(seq)
    if state.freed:
        write.frees += state.freed
    if state.attributes is not None and (changes := changed_by(record)):
        write.attributes = {**(write.attributes or {}), **changes}
    if any(type(decision).__name__ in WRITES_SAGA for decision in record.decisions) or record.seq == 1:
        write.saga = saga_row(state, write.shard, record.at)
        write.new = write.new or record.seq == 1


def _is_public(decision: object) -> bool:
    """Events are for anybody: those that the saga emits, and what is told of its state."""
    return isinstance(decision, Emit) or (isinstance(decision, Tell) and not decision.to)


def seal(row: OutboxRow, sealer: Sealer) -> OutboxRow:
    """The same row with its payload as Kafka is to have it."""
    if row.payload:
        row.payload = sealer.seal(record_place(row.headers), row.payload)
    return row


@lru_cache(maxsize=50_000)  # each record of a saga names its run
def uuid_of(run_id: str) -> UUID:
    """A run's id as Postgres has it. Raises ValueError."""
    return UUID(run_id)


def saga_row(state: State, shard: int, at: int) -> SagaRow:
    """The summary of a saga as it stands."""
    final = state.state in lifecycle.FINAL
    return SagaRow(
        shard=shard,
        run_id=uuid_of(state.run_id),
        saga_id=state.saga_id,
        name=state.name,
        version=state.version,
        state=SagaState(state.state),
        input_hash=state.start_hash or hashlib.sha256(state.input).digest(),
        started_at=to_datetime(state.started_at),
        updated_at=to_datetime(at),
        ended_at=to_datetime(at) if final else None,
        step=state.stuck_step or state.undo_step,
        code=state.code,
        reason=state.reason,
        remedy=state.remedy,
        with_exceptions=state.with_exceptions,
        parked_code=state.fingerprint if state.state == lifecycle.STUCK else "",
        result=state.returned if state.state == lifecycle.COMPLETED else None,
        base=state.base,
    )


def _row(state: State, decision: object, seq: int, shard: int, at: int, where: Addresses) -> OutboxRow:
    run_id = uuid_of(state.run_id)
    match decision:
        case Send():
            return _command(state, decision, seq, shard, at, where)
        case Sleep(step=step, due_at=due):
            return OutboxRow(
                shard, seq, RowKind.TIMER, run_id, step, "", None, None, [], None, 1, None, to_datetime(due)
            )
        case Await() | Lock():
            name, headers = _wish(decision)
            return OutboxRow(
                shard, seq, RowKind.TIMER, run_id, name, "", None, None, headers, None, 1, None, None
            )
        case Alarm(step=step, due_at=due):
            name, until = step_name(step, SIGNAL), to_datetime(due) if due else None
            awaits = state.steps[step].type  # an event's row is found by its name and key
            key = awaits.encode() if state.steps[step].kind == SIGNAL and is_awaited(awaits) else None
            return OutboxRow(shard, seq, RowKind.TIMER, run_id, name, "", None, key, [], None, 1, None, until)
        case Defer(step=step, due_at=due):
            name, until = step_name(step, LATE), to_datetime(due) if due else None
            return OutboxRow(
                shard, seq, RowKind.TIMER, run_id, name, "", None, None, [], None, 1, None, until
            )
        case Deadline(due_at=due):
            return OutboxRow(
                shard, seq, RowKind.TIMER, run_id, "", "", None, None, [], None, 1, None, to_datetime(due)
            )
        case RunLocal():
            name = step_name(decision.step, decision.form)
            send_at = to_datetime(decision.send_at) if decision.send_at else None
            return OutboxRow(
                shard,
                seq,
                RowKind.LOCAL,
                run_id,
                name,
                "",
                None,
                None,
                [],
                None,
                decision.attempt,
                send_at,
                None,
            )
        case Tell():
            return _told(state, decision, seq, shard, at, where)
        case Fence():
            return _fence(state, decision, seq, shard, at, where)
        case Emit():
            return _emitted(state, decision, seq, shard, at, where)
        case Report():
            return _reported(state, decision, seq, shard, at, where)
        case _:
            raise AssertionError(f"takes no row: {decision!r}")


def _wish(decision: Await | Lock) -> tuple[str, list[tuple[str, bytes]]]:
    """The step and the headers of a row that only says what its saga waits for."""
    if isinstance(decision, Lock):
        return step_name(decision.step, LOCK), lock_headers(decision.keys, wait=decision.wait)
    return AWAIT, [("saga", f"{decision.name}/{decision.version}".encode())]


def _command(state: State, send: Send, seq: int, shard: int, at: int, where: Addresses) -> OutboxRow:
    step = state.steps[send.step]
    name = step_name(send.step, send.form)
    command_id = f"{state.run_id}.{name}"
    if step.child:
        return _to_child(state, send, seq, shard, at, where)
    undoes = None
    if send.form == COMMAND:
        payload = step.payload
    else:
        payload = NULL_PAYLOAD if send.form == VOID else step.undo_payload
        undoes = Undoes(step.type, "done" if step.outcome == DONE else "unknown", to_datetime(step.last_at))
    sent_at = send.send_at or at
    envelope = CommandEnvelope(
        source=where.source,
        type=send.type,
        time=to_datetime(sent_at),
        saga_id=state.saga_id,
        command_id=command_id,
        attempt=send.attempt,
        reply_to=ReplyTo(where.topics.replies, shard),
        deadline=to_datetime(send.due_at),
        undoes=undoes,
        saga=state.name,
        saga_version=state.version,
        traceparent=traceparent(state, f"{command_id}.{send.attempt}", where.sampling),
        tracestate=tracestate(state),
    )
    return OutboxRow(
        shard,
        seq,
        RowKind.COMMAND,
        uuid_of(state.run_id),
        name,
        where.topics.commands(send.participant),
        None,
        send.key,
        envelope.to_headers(),
        payload,
        send.attempt,
        to_datetime(send.send_at) if send.send_at else None,
        to_datetime(send.due_at),
    )


def _to_child(state: State, send: Send, seq: int, shard: int, at: int, where: Addresses) -> OutboxRow:
    step, topics = state.steps[send.step], where.topics
    reply_to = ReplyTo(topics.replies, shard)
    envelope = children.envelope(state, step, send, at, source=where.source, reply_to=reply_to)
    envelope.traceparent = traceparent(state, f"{envelope.command_id}.{send.attempt}", where.sampling)
    envelope.tracestate = tracestate(state)
    topic, partition = children.place(
        send, step, sagas=topics.sagas, control=topics.control, shards=where.shards
    )
    return OutboxRow(
        shard,
        seq,
        RowKind.COMMAND,
        uuid_of(state.run_id),
        step_name(send.step, send.form),
        topic,
        partition,
        step.key,
        envelope.to_headers(),
        children.body(state, step, send.form),
        send.attempt,
        to_datetime(send.send_at) if send.send_at else None,
        to_datetime(send.due_at),
    )


def _reported(state: State, report: Report, seq: int, shard: int, at: int, where: Addresses) -> OutboxRow:
    parent = state.parent
    assert parent is not None, "only a child reports"
    attempt = parent.attempt if report.form == COMMAND or parent.fence else state.recalled
    return children.reply_row(
        children.said_of(state, report.form, report.outcome),
        parent,
        report.form,
        attempt,
        seq=seq,
        shard=shard,
        at=at,
        source=where.source,
        trace=own_trace(state, where),
        run_id=uuid_of(state.run_id),
    )


def _fence(state: State, fence: Fence, seq: int, shard: int, at: int, where: Addresses) -> OutboxRow:
    """A void that nobody waits for: gone when Kafka has it."""
    step = state.steps[fence.step]
    void = Send(fence.step, VOID, 1, VOID_TYPE, step.participant, fence.due_at, 0, step.key)
    row = _command(state, void, seq, shard, at, where)
    row.kind, row.due_at = RowKind.RECORD, None
    return row


def _told(state: State, tell: Tell, seq: int, shard: int, at: int, where: Addresses) -> OutboxRow:
    run_id = uuid_of(state.run_id)
    if tell.to:
        return answer_row(
            Answer(
                saga_id=state.saga_id,
                run_id=state.run_id,
                what=tell.what,
                about=tell.about,
                state=state.state,
                result=state.returned if state.state == lifecycle.COMPLETED else None,
                error=state.code or None,
                reason=state.reason or None,
                remedy=state.remedy or None,
                step=(state.stuck_step or state.undo_step) or None,
            ),
            tell.to,
            seq=seq,
            shard=shard,
            at=at,
            where=where,
            run_id=run_id,
            trace=_trace_of(state, tell) or own_trace(state, where),
        )
    body = Event(
        saga_id=state.saga_id,
        run_id=state.run_id,
        saga=state.name,
        version=state.version,
        state=tell.what,
        at=to_datetime(at),
        reason=state.reason or None,
        remedy=state.remedy or None,
        step=(state.stuck_step or state.undo_step) or None,
    )
    if tell.what == lifecycle.LONG_HISTORY and state.swollen is not None:
        body.reason, body.remedy, body.step = renewing.told(state.swollen[1]), renewing.REMEDY, None
    headers = EventEnvelope(
        id=f"{state.run_id}.{state.next_seq}.{seq}",
        source=where.source,
        state=tell.what.lower(),
        time=to_datetime(at),
        saga_id=state.saga_id,
        traceparent=traceparent(state, state.run_id, where.sampling),
        tracestate=tracestate(state),
    ).to_headers()
    return OutboxRow(
        shard,
        seq,
        RowKind.RECORD,
        run_id,
        "",
        where.topics.events,
        None,
        state.saga_id.encode(),
        headers,
        event_codec.encode(body),
        1,
        None,
        None,
    )


def _emitted(state: State, emit: Emit, seq: int, shard: int, at: int, where: Addresses) -> OutboxRow:
    # Of the events of one record the first rows come first.
    number = state.emitted_before + len(state.emitted or ())
    number -= sum(isinstance(each, Emit) and row > seq for row, each in state.opens)
    trace, trace_state = own_trace(state, where)
    headers = DomainEventEnvelope(
        id=f"{state.run_id}.event.{number}",
        source=where.source,
        type=emit.type,
        time=to_datetime(at),
        saga_id=state.saga_id,
        traceparent=trace,
        tracestate=trace_state,
    ).to_headers()
    key = emit.key or state.saga_id.encode()
    run_id = uuid_of(state.run_id)
    return OutboxRow(
        shard, seq, RowKind.RECORD, run_id, "", emit.topic, None, key, headers, emit.payload, 1, None, None
    )


def own_trace(state: State, where: Addresses) -> Trace:
    """The saga's, for whoever has asked without naming one."""
    return traceparent(state, state.run_id, where.sampling), tracestate(state)


def _trace_of(state: State, tell: Tell) -> Trace | None:
    """The trace that was sent with what is answered now: by this record, or by one of those who wait."""
    event = state.event
    if isinstance(event, Asked) and event.action_id == tell.about and event.traceparent:
        return event.traceparent, event.tracestate or None
    for watcher in state.watchers:
        if watcher.about == tell.about and watcher.traceparent:
            return watcher.traceparent, watcher.tracestate or None
    return None


def answer_row(
    body: Answer,
    to: str,
    *,
    seq: int,
    shard: int,
    at: int,
    where: Addresses,
    trace: Trace,
    run_id: UUID | None = None,
) -> OutboxRow:
    """The answer to a start or a control record, for `topic/partition`; `trace` goes with it."""
    topic, _, partition = to.rpartition("/")
    headers = AnswerEnvelope(
        asked=body.about,
        what=body.what.lower(),
        source=where.source,
        time=to_datetime(at),
        saga_id=body.saga_id,
        traceparent=trace[0],
        tracestate=trace[1],
    ).to_headers()
    return OutboxRow(
        shard,
        seq,
        RowKind.RECORD,
        run_id,
        "",
        topic,
        int(partition),
        body.about.encode(),
        headers,
        answer_codec.encode(body),
        1,
        None,
        None,
    )
