"""A participant without a service behind it: an inbox in memory, the fence, and moods instead of handlers.

It keeps what it has executed, in order, so that an audit can say what happened how often. The rules are
those of the participants' inbox; only what goes wrong is the test's to say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import Contract
from kasaga_wire.envelope import CommandEnvelope, Headers, ReplyEnvelope, ReplyTo
from kasaga_wire.kafka import Record
from kasaga_wire.records import NULL_PAYLOAD, clean_error, errors_codec

DONE = "done"
REFUSED = "refused"
FAILED = "failed"
"""Not executed, and said so; may be tried again."""
FATAL = "fatal"
"""Not executed, and said so; is not to be tried again."""
SILENT = "silent"
"""Not executed, no answer."""
LOST = "lost"
"""Executed, and the answer is lost."""
TWICE = "twice"
"""Executed, and answered two times."""

Mood = Callable[[CommandEnvelope], str]


class Executed(NamedTuple):
    """One effect: `id` is the command's, with `~undo` for the undo of it."""

    id: str
    type: str
    attempt: int

    @property
    def run_id(self) -> str:
        return self.id.partition(".")[0]

    @property
    def path(self) -> str:
        return self.id.partition(".")[2]


class Reply(NamedTuple):
    """What is to be produced."""

    to: ReplyTo
    key: bytes
    value: bytes
    headers: Headers


@dataclass
class _Row:
    outcome: str
    payload: bytes


@dataclass
class Desk:
    """All participants of some contracts; `mood` says how each attempt goes."""

    contracts: Mapping[str, Contract]
    mood: Mood = lambda envelope: DONE
    executed: list[Executed] = field(default_factory=list[Executed])
    received: list[CommandEnvelope] = field(default_factory=list[CommandEnvelope])
    rows: dict[str, _Row] = field(default_factory=dict[str, _Row])
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    result: Callable[[CommandEnvelope, Contract], bytes | None] = lambda envelope, contract: None
    """The payload of a done reply; None for the contract's own."""

    def take(self, record: Record) -> list[Reply]:
        """Handle a command, an undo or a void; return the answers, none or several."""
        envelope = CommandEnvelope.parse(record.headers)
        self.received.append(envelope)
        mood = self.mood(envelope)
        if mood == SILENT:
            return []
        known = self.rows.get(envelope.command_id)
        if known is not None:
            reply = [self._reply(envelope, known.outcome, known.payload)]
        elif mood in (FAILED, FATAL):
            error = clean_error("Unwell", f"{envelope.type} is unwell", retryable=mood == FAILED)
            return [self._reply(envelope, "failed", errors_codec.encode(error))]
        else:
            row = self.rows[envelope.command_id] = self._judge(envelope, mood)
            reply = [self._reply(envelope, row.outcome, row.payload)]
        return [] if mood == LOST else reply * 2 if mood == TWICE else reply

    def _judge(self, envelope: CommandEnvelope, mood: str) -> _Row:
        if envelope.kind == "command":
            if mood == REFUSED:
                return _Row("refused", errors_codec.encode(clean_error("Refused", "not today")))
            self.executed.append(Executed(envelope.command_id, envelope.type, envelope.attempt))
            return _Row("done", self._result(envelope))
        original = self.rows.get(envelope.original_id)
        if original is None:
            said = errors_codec.encode(clean_error("Voided", "it came after its saga had given it up"))
            self.rows[envelope.original_id] = _Row("refused", said)
            return _Row("nothing" if envelope.kind == "undo" else "voided", NULL_PAYLOAD)
        if envelope.kind == "void":
            executed = original.outcome == "done"
            return _Row("executed", NULL_PAYLOAD) if executed else _Row("refused", original.payload)
        if original.outcome != "done":
            return _Row("nothing", NULL_PAYLOAD)
        self.executed.append(Executed(envelope.command_id, envelope.type, envelope.attempt))
        return _Row("undone", NULL_PAYLOAD)

    def _result(self, envelope: CommandEnvelope) -> bytes:
        participant, _, name = envelope.type.partition(".")
        contract = self.contracts[participant]
        special = self.result(envelope, contract)
        if special is not None:
            return special
        codec = contract.commands[name].result
        made = {"ref": envelope.command_id}
        return codec.encode(None if codec.annotation in (None, type(None)) else codec.annotation(**made))

    def _reply(self, envelope: CommandEnvelope, outcome: str, payload: bytes) -> Reply:
        assert envelope.reply_to is not None
        source = f"/kasaga/participants/{envelope.type.partition('.')[0]}"
        reply = ReplyEnvelope.to(envelope, outcome, source=source, time=self.now())
        return Reply(envelope.reply_to, envelope.saga_id.encode(), payload, reply.to_headers())


def decoded(contracts: Mapping[str, Contract], record: Record) -> object:
    """A command's input."""
    envelope = CommandEnvelope.parse(record.headers)
    participant, _, name = envelope.type.partition(".")
    return contracts[participant].commands[name].input.decode(record.value or b"", Schemas())
