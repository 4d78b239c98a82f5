"""What clients and operators are told, and the records that belong to no saga. Pure."""

from __future__ import annotations

import hashlib

from kasaga_wire.dead_letters import dead_letter_headers
from kasaga_wire.headers import MAX_HEADERS
from kasaga_wire.kafka import Record
from kasaga_wire.records import Answer
from kasaga_wire.topics import RETENTION_MS

from ..engine import lifecycle
from ..engine.model import Asked, Message, Started, Updated
from ..engine.state import State
from ..errors import NotApplicable, UpdateRefused
from ..store.base import FINAL_STATES, OutboxRow, RowKind, SagaRow
from .clock import to_datetime
from .intake import FORWARDED, Dead, Item, Misplaced
from .rows import Addresses, Trace, answer_row, own_trace, seal

MAX_START_AGE_MS = RETENTION_MS

MAX_DEAD_BYTES = 900_000
"""Of a dead letter's own headers and value: librdkafka sends no record over 1,000,000."""

MAX_DEAD_KEY_BYTES = 4_096


def row(
    body: Answer, ask: Asked, state: State | None, seq: int, shard: int, at: int, where: Addresses
) -> OutboxRow:
    """The outbox row of an answer; `state` is the saga's, where it is in memory."""
    trace: Trace = ask.traceparent or None, ask.tracestate or None
    if trace[0] is None and state is not None and state.saga_id:
        trace = own_trace(state, where)
    made = answer_row(body, ask.reply_to, seq=seq, shard=shard, at=at, where=where, trace=trace)
    return seal(made, where.sealer)


def running(state: State, ask: Asked) -> Answer:
    """The answer at once to a watch, or to an action that was carried out before."""
    what = "running" if ask.action == "watch" else "applied"
    return Answer(
        saga_id=state.saga_id,
        run_id=state.run_id,
        about=ask.action_id,
        what=what if state.state != lifecycle.STUCK or ask.action != "watch" else lifecycle.STUCK,
        state=state.state,
        error=state.code or None,
        reason=state.reason or None,
        remedy=state.remedy or None,
        step=state.stuck_step or None,
    )


def refused(state: State, ask: Asked, why: NotApplicable) -> Answer:
    """The answer to an action that doesn't fit."""
    return Answer(
        saga_id=state.saga_id,
        run_id=state.run_id,
        about=ask.action_id,
        what="not_applicable",
        state=state.state,
        error=why.code,
        reason=why.message,
        remedy=why.remedy,
    )


def to_absent(item: Item, ask: Asked, found: SagaRow | None) -> Answer:
    """The answer to an action on a saga that has ended, or that was never started here."""
    if found is None or found.state not in FINAL_STATES:
        return Answer(saga_id=item.saga_id, run_id=item.run_id, about=ask.action_id, what="unknown")
    if ask.action == "watch":
        return _ended(found, ask.action_id, found.state.value)
    body = _ended(found, ask.action_id, "not_applicable")
    body.reason = f"the saga is {found.state.value}"
    return body


def ended(state: State, about: str) -> Answer:
    """The end of a saga that is still in memory."""
    return Answer(
        saga_id=state.saga_id,
        run_id=state.run_id,
        about=about,
        what=state.state,
        state=state.state,
        result=state.returned if state.state == lifecycle.COMPLETED else None,
        error=state.code or None,
        reason=state.reason or None,
        step=(state.stuck_step or state.undo_step) or None,
    )


def received(state: State, event: Message, ask: Asked) -> Answer:
    """The answer to a signal that is kept, and to an update: what the handler said, once it has."""
    answer = Answer(
        saga_id=state.saga_id, run_id=state.run_id, about=ask.action_id, what="accepted", state=state.state
    )
    step = state.mail.updates.get(ask.action_id) if state.mail and isinstance(event, Updated) else None
    if step is not None and step.fed_at:
        answer.what = "not_applicable" if step.error else "answered"
        answer.result = step.result or None
        if step.error:
            answer.error, answer.reason = UpdateRefused.code, step.error
    return answer


def answered(state: State, ask: Asked, result: bytes) -> Answer:
    """The answer to a query."""
    return Answer(
        saga_id=state.saga_id,
        run_id=state.run_id,
        about=ask.action_id,
        what="answered",
        state=state.state,
        result=result,
    )


def _ended(found: SagaRow, about: str, what: str) -> Answer:
    return Answer(
        saga_id=found.saga_id,
        run_id=str(found.run_id),
        about=about,
        what=what,
        state=found.state.value,
        result=found.result,
        error=found.code or None,
        reason=found.reason or None,
        step=found.step or None,
    )


def to_second_start(item: Item, event: Started, live: State | None, found: SagaRow | None) -> Answer | None:
    """The answer to a start whose saga id is taken; None for the same start again."""
    if live is not None:
        run_id, name = live.run_id, live.name
        taken_hash = live.start_hash or hashlib.sha256(live.input).digest()
    elif found is not None:
        run_id, name, taken_hash = str(found.run_id), found.name, found.input_hash
    else:
        return None
    if run_id == item.run_id:
        return None
    same = name == event.name and taken_hash == hashlib.sha256(event.input).digest()
    if same and live is not None and live.final:
        return ended(live, item.run_id)
    if same and live is None and found is not None:
        return _ended(found, item.run_id, found.state.value)
    return Answer(
        saga_id=item.saga_id,
        run_id=run_id,
        about=item.run_id,
        what="duplicate" if same else "rejected",
        state=live.state if live else None,
        error=None if same else "KSG-231",
        reason=None if same else f"saga id {item.saga_id!r} was used by saga {name!r} with another input",
        remedy=None if same else "Use an id of its own for each saga, or send the very same input again.",
    )


def watch_of(item: Item, event: Started) -> Asked:
    """The question for its end that a start is, where there is such a saga already."""
    return Asked(
        item.run_id, "watch", event.source, "", "", "", event.reply_to, event.traceparent, event.tracestate
    )


def forward(item: Misplaced, seq: int, shard: int) -> OutboxRow:
    """The same record, for its right partition."""
    record = item.record
    headers = [(name, value) for name, value in record.headers if value is not None]
    headers.append((FORWARDED, str(record.partition).encode()))
    return OutboxRow(
        shard,
        seq,
        RowKind.RECORD,
        None,
        "",
        record.topic,
        item.partition,
        record.key,
        headers,
        record.value,
        1,
        None,
        None,
    )


def dead_letter(item: Dead, seq: int, shard: int, at: int, where: Addresses) -> OutboxRow:
    """The same record for the dead letters' topic, with where it came from and what is wrong with it.

    What is too large for another record is cut, and says so: else it could never be delivered.
    """
    record = item.record
    others, value, cut = _cut(record)
    headers = dead_letter_headers(
        others,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        code=item.error.code,
        reason=item.error.message,
        by=where.source,
        time=to_datetime(at),
    )
    kept = [(name, header) for name, header in headers if header is not None]
    if cut:
        kept.append(("kasaga_dlq_cut", b"%d" % cut))
    topic = where.topics.orchestrator_dead_letters
    key = record.key if record.key is None or len(record.key) <= MAX_DEAD_KEY_BYTES else None
    return OutboxRow(shard, seq, RowKind.RECORD, None, "", topic, 0, key, kept, value, 1, None, None)


def _cut(record: Record) -> tuple[list[tuple[str, bytes | None]], bytes | None, int]:
    """Return as many headers and as much of the value as fit, and the size of the whole if that is less."""
    headers: list[tuple[str, bytes | None]] = []
    size = sum(len(name) + len(value or b"") for name, value in record.headers) + len(record.value or b"")
    left = MAX_DEAD_BYTES
    for name, header in record.headers[:MAX_HEADERS]:
        left -= len(name) + len(header or b"")
        if left < 0:
            return headers, None, size
        headers.append((name, header))
    value = record.value
    if value is not None and len(value) > left:
        return headers, value[:left], size
    return headers, value, size if len(headers) < len(record.headers) else 0
