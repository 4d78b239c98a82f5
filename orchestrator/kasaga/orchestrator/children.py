"""Child sagas on the wire: what a parent's step sends, and what its child answers. Pure.

Station: `rows.py` makes rows of a parent's steps here, `intake.py` reads them in the child's shard, and
`decider.py` answers what needs no decision: a beginning that comes twice, an undo of what has ended.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple
from uuid import UUID

from kasaga_wire.children import BEGIN, UNDO, VOID, ChildEnvelope
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import ReplyEnvelope, ReplyTo, Undoes
from kasaga_wire.errors import EnvelopeError
from kasaga_wire.headers import Headers
from kasaga_wire.kafka import Record, partition_for
from kasaga_wire.nodes import clean_text
from kasaga_wire.records import (
    NULL_PAYLOAD,
    Control,
    Deferral,
    clean_error,
    control_codec,
    deferral_codec,
    errors_codec,
)
from kasaga_wire.topics import RETENTION_MS

from ..engine import kinship, lifecycle
from ..engine.kinship import ENDED, LEAVE, TOO_DEEP, Parent, Recalled
from ..engine.model import COMMAND, DONE, Send, Started
from ..engine.model import UNDO as UNDO_FORM
from ..engine.model import VOID as VOID_FORM
from ..engine.state import MAX_REASON, State, Step
from ..store.base import OutboxRow, RowKind, SagaRow
from .clock import to_datetime

FORMS = {COMMAND: BEGIN, UNDO_FORM: UNDO, VOID_FORM: VOID}
_FORM_OF = {type_: form for form, type_ in FORMS.items()}

FORGOTTEN_MICROS = RETENTION_MS * 1000
"""After this time a child that isn't known may have been, and be deleted."""


class Said(NamedTuple):
    """An answer to the parent."""

    outcome: str
    payload: bytes = NULL_PAYLOAD


# --- from the parent


def child_run_id(command_id: str) -> str:
    """The run of a step's child, the same for each attempt: a UUIDv7 with its parent's time.

    The step's own time isn't in it. Where Postgres has lost that step, and it is asked for once more, the
    child that has begun meanwhile is the same saga, and no stranger that has taken its id.
    """
    chance = int.from_bytes(hashlib.sha256(f"child/{command_id}".encode()).digest()[:10]) & (1 << 74) - 1
    value = UUID(command_id.partition(".")[0]).int >> 80 << 80
    value |= 0x7 << 76
    value |= (chance >> 62) << 64
    value |= 0b10 << 62
    value |= chance & (1 << 62) - 1
    return str(UUID(int=value))


def envelope(
    state: State, step: Step, send: Send, at: int, *, source: str, reply_to: ReplyTo
) -> ChildEnvelope:
    """What goes to a child with one attempt of a step, of its undo or its void; without the trace."""
    command_id = f"{state.run_id}.{step.path}"
    undoes = None
    if send.form != COMMAND:
        knowledge = "done" if step.outcome == DONE else "unknown"
        undoes = Undoes(step.type, "done" if knowledge == "done" else "unknown", to_datetime(step.last_at))
    return ChildEnvelope(
        type=FORMS[send.form],
        run_id=child_run_id(command_id),
        command_id=command_id if send.form == COMMAND else f"{command_id}~{send.form}",
        attempt=send.attempt,
        source=source,
        time=to_datetime(send.send_at or at),
        saga_id=step.key.decode(),
        saga=step.type.removeprefix("child."),
        saga_version=step.version or None,
        parent_id=state.saga_id,
        waits=step.child != LEAVE,
        depth=(state.parent.depth if state.parent is not None else 0) + 1,
        reply_to=reply_to,
        undoes=undoes,
    )


def body(state: State, step: Step, form: str) -> bytes:
    """The value of a child's record: its input, or why it is undone."""
    if form == COMMAND:
        return step.payload
    said = clean_text(state.undo_reason or step.error or "nobody waits for it any more", MAX_REASON)
    return control_codec.encode(Control(action=form, by=state.saga_id, reason=said))


def place(send: Send, step: Step, *, sagas: str, control: str, shards: int) -> tuple[str, int]:
    """The topic and partition of a child's record."""
    return sagas if send.form == COMMAND else control, partition_for(step.key, shards)


# --- to the child


def read(record: Record, sent: ChildEnvelope, reply_to: str, schemas: Schemas) -> Started | Recalled:
    """What a parent's record does to its child. Raises KasagaError."""
    form = _FORM_OF[sent.type]
    command = sent.command_id.partition("~")[0]
    parent = Parent(sent.parent_id, command, sent.attempt, reply_to, sent.waits, sent.depth)
    trace = sent.traceparent or "", sent.tracestate or ""
    version = sent.saga_version or 0
    if sent.undoes is None:
        value = record.value or b""
        return Started(sent.saga_id, sent.saga, version, value, *trace, "", sent.source, parent)
    said = control_codec.decode(record.value or b"", schemas)
    parent = parent._replace(reason=clean_text(said.reason, MAX_REASON))
    undoes = sent.undoes
    sent_at = int(undoes.last_sent.timestamp() * 1_000_000)
    return Recalled(
        command,
        sent.run_id,
        form,
        sent.attempt,
        undoes.knowledge,
        sent_at,
        parent,
        sent.saga,
        version,
        *trace,
    )


def check_topic(sent: ChildEnvelope, *, control: bool) -> None:
    """Refuse what came on the wrong topic. Raises EnvelopeError."""
    if control == (sent.type == BEGIN):
        raise EnvelopeError("ce_type", f"{sent.type} doesn't belong on this topic")


def fence(event: Recalled, saga_id: str) -> Started:
    """The beginning of a child that is never to begin."""
    parent = event.parent._replace(fence=event.form)
    return Started(
        saga_id, event.name, event.version, b"", event.traceparent, event.tracestate, "", "", parent
    )


def _too_deep(event: Started, parent: Parent) -> Said | None:
    """Refuse a child of children of children without end."""
    if parent.depth <= kinship.MAX_DEPTH:
        return None
    said = f"{event.saga_id} would be the child of {parent.depth - 1} sagas, one in the other"
    return _refused(TOO_DEEP, f"{said}; {kinship.MAX_DEPTH} are the most")


def to_start(event: Started, run_id: str, known: State | SagaRow | None) -> Said | None:
    """The answer to a beginning whose saga id is taken, or that is too deep.

    None: let it begin.
    """
    parent = event.parent
    assert parent is not None, "only a child's beginning is answered so"
    if known is None:
        return _too_deep(event, parent)
    if str(known.run_id) != run_id:
        return _refused("KSG-231", f"saga id {event.saga_id!r} belongs to another saga")
    result = known.returned if isinstance(known, State) else known.result
    state, reason = str(known.state), known.reason
    if state not in lifecycle.FINAL:
        return Said("done") if not parent.waits else deferred(parent.attempt)
    if state == lifecycle.COMPENSATED:
        return ended(state, event.saga_id, result, reason)
    return ended(state, event.saga_id, result, reason) if parent.waits else Said("done")


def to_recall(event: Recalled, known: State | SagaRow | None, now: int) -> Said | None:
    """The answer to an undo or a void that needs no decision; None: it does."""
    undo = event.form == UNDO_FORM
    if known is None:
        if event.knowledge == "done" or now - event.last_sent > FORGOTTEN_MICROS:
            return failed("nobody knows it any more, so nobody can tell what it did")
        return None
    if str(known.run_id) != event.run_id:
        return Said("nothing" if undo else "voided")  # its id belongs to another saga: it never began
    state = str(known.state)
    if not undo:
        return Said("refused" if state == lifecycle.COMPENSATED else "executed")
    if state == lifecycle.COMPENSATED:
        return Said("undone")
    if state == lifecycle.TERMINATED:
        return failed(f"it was ended as it was: {known.reason}")
    if not isinstance(known, State):
        return failed(f"it is {state}, and has no history any more")
    if state == lifecycle.STUCK and known.recalled and event.attempt > known.recalled:
        return failed(f"it is STUCK: {known.reason}")
    return None


# --- from the child


def deferred(attempt: int) -> Said:
    """It has begun, and the answer comes at its end."""
    return Said("deferred", deferral_codec.encode(Deferral(attempt=attempt)))


def ended(state: str, saga_id: str, result: bytes | None, reason: str) -> Said:
    """How it ended."""
    if state == lifecycle.COMPLETED:
        return Said("done", result or NULL_PAYLOAD)
    if state == lifecycle.COMPENSATED:
        return _refused(ENDED, f"child saga {saga_id} was undone: {reason}")
    said = f"child saga {saga_id} was ended as it was: {reason}"
    return Said("failed", errors_codec.encode(clean_error(ENDED, said)))


def failed(why: str) -> Said:
    """An undo that can't be: the parent is STUCK with the reason."""
    return Said("failed", errors_codec.encode(clean_error("Refused", f"the child can't be undone: {why}")))


def _refused(type_: str, why: str) -> Said:
    return Said("refused", errors_codec.encode(clean_error(type_, why)))


def said_of(state: State, form: str, outcome: str) -> Said:
    """What a saga's own decision to tell its parent comes to."""
    parent = state.parent
    assert parent is not None, "only a child reports"
    if form != COMMAND:
        how = "is STUCK" if state.state == lifecycle.STUCK else "was ended as it was"
        return failed(f"it {how}: {state.reason}") if outcome == "failed" else Said(outcome)
    if outcome == "deferred":
        return deferred(parent.attempt)
    return (
        Said("done") if not parent.waits else ended(state.state, state.saga_id, state.returned, state.reason)
    )


def reply_row(
    said: Said,
    parent: Parent,
    form: str,
    attempt: int,
    *,
    seq: int,
    shard: int,
    at: int,
    source: str,
    trace: tuple[str | None, str | None],
    run_id: UUID | None = None,
) -> OutboxRow:
    """The outbox row of an answer to the parent."""
    topic, _, partition = parent.reply_to.rpartition("/")
    headers: Headers = ReplyEnvelope(
        command_id=parent.command if form == COMMAND else f"{parent.command}~{form}",
        attempt=attempt,
        source=source,
        time=to_datetime(at),
        saga_id=parent.saga_id,
        outcome=said.outcome,
        traceparent=trace[0],
        tracestate=trace[1],
        suffix="d0" if said.outcome == "deferred" else "r",
    ).to_headers()
    key = parent.saga_id.encode()
    return OutboxRow(
        shard,
        seq,
        RowKind.RECORD,
        run_id,
        "",
        topic,
        int(partition),
        key,
        headers,
        said.payload,
        1,
        None,
        None,
    )


def loose_row(said: Said, parent: Parent, form: str, seq: int, shard: int, at: int, source: str) -> OutboxRow:
    """The outbox row of an answer that no saga has decided: to the attempt that asked."""
    return reply_row(
        said, parent, form, parent.attempt, seq=seq, shard=shard, at=at, source=source, trace=(None, None)
    )
