"""Sends undos to participants in drill mode, a few at a time, and collects what they say of them."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import Contract
from kasaga_wire.envelope import DRILL, CommandEnvelope, ReplyEnvelope, ReplyTo, Undoes
from kasaga_wire.errors import KafkaFailure, KasagaError
from kasaga_wire.kafka import Record, partition_for
from kasaga_wire.records import errors_codec
from kasaga_wire.schema import Schema
from kasaga_wire.sealing import PLAIN, Sealer, record_place
from kasaga_wire.topics import Topics

from ..audit.walk import Pace
from ..client.link import Link, Outgoing
from .choose import Undo

AT_ONCE = 8
"""Undos that are out at a time: a drill runs beside what serves."""

SILENT = 3
"""So many that a participant left unanswered, with none that it answered, and it is asked no more."""

WORKS, FAILS, LEFT_OUT, UNANSWERED = "works", "fails", "left out", "unanswered"
"""What can become of one: it would work; it wouldn't; it isn't run in drills; nobody said anything."""

Partitions = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one undo, and why."""

    undo: Undo
    kind: str
    why: str = ""


@dataclass(slots=True)
class _Out:
    undo: Undo
    until: float


@dataclass(slots=True)
class Line:
    """One drill's questions. `topics`: of the drill; `partitions`: of a topic, 0 if there is none."""

    link: Link
    topics: Topics
    partitions: Partitions
    pace: Pace
    seconds: float
    sealer: Sealer = PLAIN
    _id: str = field(default_factory=lambda: str(uuid4()))
    _count: int = 0
    _out: dict[str, _Out] = field(default_factory=dict[str, _Out])
    _heard: queue.SimpleQueue[tuple[str, Record | KasagaError]] = field(
        default_factory=queue.SimpleQueue[tuple[str, Record | KasagaError]]
    )
    _answered: set[str] = field(default_factory=set[str])
    _silences: dict[str, int] = field(default_factory=dict[str, int])
    _schemas: Schemas = field(default_factory=Schemas)
    _reply_to: ReplyTo | None = None

    def open(self, contracts: Mapping[str, Contract]) -> None:
        """Begin to listen, and publish what undos are written with. Raises KafkaFailure and NoTopics."""
        self._schemas.add(errors_codec.schema)
        _, answers = self.link.open()
        partition = partition_for(self._id.encode(), answers)
        self.link.listen(partition, self._on_record)
        for contract in contracts.values():
            for schema in contract.schemas():
                self._publish(schema)
        self._reply_to = ReplyTo(self.topics.answers, partition)

    def _publish(self, schema: Schema) -> None:
        told: queue.SimpleQueue[KasagaError | None] = queue.SimpleQueue()
        key = str(schema.id).encode()
        self.link.send(Outgoing(self.topics.schemas, 0, key, schema.json.encode(), [], told.put))
        try:
            error = told.get(timeout=self.seconds)
        except queue.Empty:
            error = KafkaFailure(f"no acknowledgement within {self.seconds:g} s")
        if error is not None:
            raise KafkaFailure(f"a schema can't be published on {self.topics.schemas}: {error.message}")

    def run(self, undos: Iterable[Undo]) -> Iterator[Outcome]:
        """Try them all; outcomes come as they are known."""
        for undo in undos:
            if undo.fault is not None:
                yield Outcome(undo, FAILS, f"it can't be sent: {undo.fault.message}")
                continue
            while len(self._out) >= AT_ONCE:
                yield from self._wait()
            unasked = self._unasked(undo.participant)
            if unasked:
                yield Outcome(undo, UNANSWERED, unasked)
                continue
            self.pace.spend(1)
            self._send(undo)
        while self._out:
            yield from self._wait()

    def _unasked(self, participant: str) -> str:
        """Why it isn't even asked; empty where it is."""
        if participant in self._answered:
            return ""
        if self._silences.get(participant, 0) >= SILENT:
            return "it doesn't answer"
        if not self.partitions(self.topics.commands(participant)):
            return f"there is no {self.topics.commands(participant)}: nobody serves it with KASAGA_DRILL=1"
        return ""

    def _send(self, undo: Undo) -> None:
        self._count += 1
        topic = self.topics.commands(undo.participant)
        envelope = CommandEnvelope(
            command_id=f"{self._id}.{self._count}~undo",
            attempt=1,
            source=f"/kasaga/{self.topics.namespace}/drill",
            type=undo.type,
            time=datetime.now(UTC),
            saga_id=undo.saga_id,
            saga=undo.saga,
            saga_version=undo.version,
            reply_to=self._reply_to,
            undoes=Undoes(undo.undoes, "done", undo.sent),
        )
        id_ = envelope.command_id
        headers = [*envelope.to_headers(), (DRILL, undo.command_id.encode())]
        partition = partition_for(undo.key, self.partitions(topic))
        self._out[id_] = _Out(undo, time.monotonic() + self.seconds)

        def done(error: KasagaError | None) -> None:
            if error is not None:
                self._heard.put((id_, error))

        value = self.sealer.seal(record_place(headers), undo.payload)
        self.link.send(Outgoing(topic, partition, undo.key, value, headers, done))

    def _wait(self) -> Iterator[Outcome]:
        """Wait for one answer, or for the first time-out."""
        until = min(each.until for each in self._out.values())
        try:
            id_, heard = self._heard.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            now = time.monotonic()
            for late in [id_ for id_, each in self._out.items() if each.until <= now]:
                undo = self._out.pop(late).undo
                self._silences[undo.participant] = self._silences.get(undo.participant, 0) + 1
                yield Outcome(undo, UNANSWERED, f"no answer within {self.seconds:g} s")
            return
        out = self._out.pop(id_, None)
        if out is None:
            return  # it came too late, or twice
        if isinstance(heard, KasagaError):
            yield Outcome(out.undo, UNANSWERED, heard.message)
            return
        self._answered.add(out.undo.participant)
        yield self._judged(out.undo, heard)

    def _judged(self, undo: Undo, record: Record) -> Outcome:
        outcome = ReplyEnvelope.parse(record.headers).outcome
        if outcome == "undone":
            return Outcome(undo, WORKS)
        try:
            value = self.sealer.open(record_place(record.headers), record.value or b"")
            body = errors_codec.decode(value, self._schemas)
            said = f"{body.type}: {body.message}"
        except KasagaError:
            said = outcome
        left_out = outcome == "refused"
        return Outcome(undo, LEFT_OUT if left_out else UNANSWERED if outcome == "expired" else FAILS, said)

    def _on_record(self, record: Record) -> None:
        """Called in the link's thread."""
        try:
            command_id = ReplyEnvelope.parse(record.headers).command_id
        except KasagaError:
            return
        if command_id.startswith(f"{self._id}."):
            self._heard.put((command_id, record))
