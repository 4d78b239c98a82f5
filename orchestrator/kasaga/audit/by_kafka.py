"""Inboxes asked over Kafka: questions on the participants' command topics, answers on the namespace's.

Station: the command line opens one `Line` for all participants. Blocks; its callbacks run in the link's
threads.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import AUDIT, CommandEnvelope, ReplyEnvelope, ReplyTo
from kasaga_wire.errors import KafkaFailure, KasagaError, UnknownSchema
from kasaga_wire.kafka import Admin, KafkaSettings, Record, partition_for
from kasaga_wire.records import Audit, Audited, audit_codec, audited_codec, errors_codec
from kasaga_wire.sealing import PLAIN, Sealer, place, record_place
from kasaga_wire.topics import Topics

from ..client.link import KafkaLink, Link, Outgoing
from .inboxes import InboxRow, Memory, Seen, TooOld, Unanswered

ANSWER_SECONDS = 20.0
"""How long one answer may take: a participant works off first what lies before the question."""

TRIES = 2
"""The second goes to another partition, which may be another process's."""

Partitions = Callable[[str], int]


class Line:
    """The questions of one audit."""

    def __init__(
        self,
        link: Link,
        topics: Topics,
        partitions: Partitions,
        *,
        seconds: float = ANSWER_SECONDS,
        sealer: Sealer = PLAIN,
    ) -> None:
        """`partitions`: how many a topic has, 0 if there is none. `seconds`: for one answer."""
        self._sealer = sealer
        self._link = link
        self._topics = topics
        self._partitions = partitions
        self._seconds = seconds
        self._id = str(uuid4())
        self._asked = 0
        self._heard: dict[str, queue.SimpleQueue[Record | KasagaError]] = {}
        self._schemas = Schemas()
        self._schemas.add(audited_codec.schema)
        self._schemas.add(errors_codec.schema)
        self._reply_to: ReplyTo | None = None

    def ask(self, participant: str, question: Audit) -> Audited:
        """Ask, and wait for the answer. Raises Unanswered and TooOld."""
        topic = self._topics.commands(participant)
        try:
            to, count = self._open(), self._partitions(topic)
        except KafkaFailure as error:
            raise Unanswered(f"{participant} wasn't asked: {error.message}") from None
        if not count:
            raise Unanswered(f"{participant} wasn't asked: there is no topic {topic}")
        said = ""
        for _ in range(TRIES):
            answer = self._try(topic, self._asked % count, question, to)
            if isinstance(answer, KasagaError):
                said = answer.message
                continue
            envelope = ReplyEnvelope.parse(answer.headers)
            if envelope.outcome == "done":
                return self._decoded(participant, answer)
            try:
                body = errors_codec.decode(self._opened(answer), self._schemas)
            except KasagaError as error:
                said = f"it answered {envelope.outcome}, and why can't be read: {error.message}"
                continue
            if body.type == "UnknownCommand":
                raise TooOld(f"{participant} runs a release that knows no audits")
            said = f"it answered {envelope.outcome}: {body.message}"
        raise Unanswered(f"{participant}: {said}")

    def _try(self, topic: str, partition: int, question: Audit, to: ReplyTo) -> Record | KasagaError:
        self._asked += 1
        now = datetime.now(UTC)
        envelope = CommandEnvelope(
            command_id=f"{self._id}.{self._asked}",
            attempt=1,
            source="/kasaga/audit",
            type=AUDIT,
            time=now,
            saga_id=self._id,
            saga="kasaga.audit",
            reply_to=to,
            deadline=now + timedelta(seconds=self._seconds),
        )
        heard: queue.SimpleQueue[Record | KasagaError] = queue.SimpleQueue()
        self._heard[envelope.command_id] = heard
        try:
            value = self._sealer.seal(place("command", envelope.command_id), audit_codec.encode(question))
            self._send(topic, partition, self._id, value, envelope.to_headers(), heard)
            return heard.get(timeout=self._seconds)
        except queue.Empty:
            return KafkaFailure(f"no answer within {self._seconds:g} s")
        finally:
            del self._heard[envelope.command_id]

    def _send(
        self,
        topic: str,
        partition: int,
        key: str,
        value: bytes,
        headers: list[tuple[str, bytes]],
        failed: queue.SimpleQueue[Record | KasagaError],
    ) -> None:
        def done(error: KasagaError | None) -> None:
            if error is not None:
                failed.put(error)

        self._link.send(Outgoing(topic, partition, key.encode(), value, headers, done))

    def _opened(self, answer: Record) -> bytes:
        """Its payload. Raises CannotOpen and DecodeError."""
        return self._sealer.open(record_place(answer.headers), answer.value or b"")

    def _decoded(self, participant: str, answer: Record) -> Audited:
        try:
            value = self._opened(answer)
            try:
                return audited_codec.decode(value, self._schemas)
            except UnknownSchema:
                for text in self._link.schemas():
                    self._schemas.add(text)
                return audited_codec.decode(value, self._schemas)
        except KasagaError as error:
            raise Unanswered(f"the answer of {participant} can't be read: {error.message}") from None

    def _open(self) -> ReplyTo:
        """Begin to listen, and make the question's schema known. Raises KafkaFailure."""
        if self._reply_to is None:
            _, answers = self._link.open()
            partition = partition_for(self._id.encode(), answers)
            self._link.listen(partition, self._on_record)
            told: queue.SimpleQueue[KasagaError | None] = queue.SimpleQueue()
            schema = audit_codec.schema
            record = Outgoing(
                self._topics.schemas, 0, str(schema.id).encode(), schema.json.encode(), [], told.put
            )
            self._link.send(record)
            try:
                error = told.get(timeout=self._seconds)
            except queue.Empty:
                error = KafkaFailure(f"no acknowledgement within {self._seconds:g} s")
            if error is not None:
                raise KafkaFailure(f"the question's schema can't be published: {error.message}")
            self._reply_to = ReplyTo(self._topics.answers, partition)
        return self._reply_to

    def _on_record(self, record: Record) -> None:
        """Called in the link's thread: what isn't ours goes no further."""
        try:
            heard = self._heard.get(ReplyEnvelope.parse(record.headers).command_id)
        except KasagaError:
            return
        if heard is not None:
            heard.put(record)

    def close(self) -> None:
        """Let go of Kafka."""
        self._link.close()


class KafkaInbox:
    """One participant's inbox, asked over a line."""

    def __init__(self, line: Line, participant: str) -> None:
        self._line = line
        self._participant = participant

    def read(self, runs: Sequence[str]) -> Seen:
        """See `Inbox.read`."""
        seen: Seen | None = None
        after = ""
        while True:
            answer = self._line.ask(self._participant, Audit(runs=list(runs), after=after))
            if seen is None:
                seen = Seen(Memory(answer.remembers, answer.retention - answer.max_age))
            for row in answer.rows:
                seen.add(InboxRow(row.id, row.type, row.outcome, row.input, row.result))
            if not answer.more:
                return seen
            if not answer.rows or answer.rows[-1].id <= after:
                raise Unanswered(f"{self._participant} says that there is more, and doesn't go on")
            after = answer.rows[-1].id

    def close(self) -> None:
        """The line is everybody's."""


def open_line(
    settings: KafkaSettings, topics: Topics, *, seconds: float = ANSWER_SECONDS, sealer: Sealer = PLAIN
) -> Line:
    """A line over real brokers; connects at the first question."""
    known: dict[str, tuple[float, int]] = {}

    def partitions(topic: str) -> int:
        at, count = known.get(topic, (0.0, 0))
        if not count or time.monotonic() - at > 60:
            admin = Admin(settings)
            try:
                count = admin.partitions([topic]).get(topic, 0)
            finally:
                admin.close()
            known[topic] = (time.monotonic(), count)
        return count

    link = KafkaLink(settings, topics, f"audit-{uuid4()}")
    return Line(link, topics, partitions, seconds=seconds, sealer=sealer)
