"""Replies and dead letters: what becomes of a job once it is settled, up to the offset.

Station: the worker's answers go through here to the sender; when Kafka has acknowledged, the record is
finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from kasaga_wire.dead_letters import dead_letter_headers
from kasaga_wire.envelope import CommandEnvelope, ReplyEnvelope
from kasaga_wire.errors import DeliveryError, KasagaError
from kasaga_wire.kafka import Record
from kasaga_wire.records import NULL_PAYLOAD
from kasaga_wire.sealing import PLAIN, Sealer, place

from .calls import encode_error
from .errors import Voided
from .handlers import Registry
from .inbox.rows import FAILED, UNDECODABLE, Answer
from .jobs import Job
from .log import about, logger
from .metrics import Metrics
from .porter import Porter, room_of
from .progress import Progress, Room
from .sender import NEVER, Outgoing, Sender
from .tracing import Tracing


class Answers:
    """Answers jobs, and counts their records out."""

    def __init__(
        self,
        sender: Sender,
        room: Room,
        metrics: Metrics,
        tracing: Tracing,
        dead_letters: Callable[[str], str],
        sealer: Sealer = PLAIN,
    ) -> None:
        """`dead_letters`: the topic for a participant's dead letters."""
        self._sender = sender
        self._room = room
        self._metrics = metrics
        self._tracing = tracing
        self._dead_letters = dead_letters
        self.sealer = sealer
        self.porter: Porter | None = None
        """Writes large results, where there is a store for them."""

    def answer(self, job: Job, answer: Answer) -> None:
        """Reply, as the attempt that asked wants it; a record that can't be read is a dead letter besides."""
        self._note(job, answer)
        if not answer.ran:
            self._tracing.settled(job, answer)
        if answer.outcome == UNDECODABLE and isinstance(answer.error, KasagaError):
            error = answer.error
            self._reply(job, answer, lambda: self.dead_letter(job.registry, job.record, job.progress, error))
        else:
            self._reply(job, answer, lambda: self._finish(job.record, job.progress))

    def _reply(self, job: Job, answer: Answer, done: Callable[[], None]) -> None:
        to = job.envelope.reply_to
        if to is None:  # nobody waits for it
            done()
            return
        source = f"/kasaga/participants/{job.registry.contract.name}"
        envelope = ReplyEnvelope.to(job.envelope, answer.outcome, source=source, time=datetime.now(UTC))

        def undeliverable(error: DeliveryError) -> None:
            logger.error("the reply can't be delivered to %s: %s", to, error, extra=about(job))
            self.dead_letter(job.registry, job.record, job.progress, error)

        def outgoing(envelope: ReplyEnvelope, payload: bytes) -> Outgoing:
            value = self.sealer.seal(place("reply", job.envelope.command_id), payload)
            key = job.envelope.saga_id.encode()
            return Outgoing(to.topic, to.partition, key, value, envelope.to_headers(), done, undeliverable)

        def unwritten(error: KasagaError) -> Outgoing:
            logger.warning("the result can't be written: %s", error, extra=about(job, outcome=FAILED))
            said = ReplyEnvelope.to(job.envelope, FAILED, source=source, time=datetime.now(UTC))
            return outgoing(said, encode_error(error))

        made = outgoing(envelope, NULL_PAYLOAD if answer.payload is None else answer.payload)
        if self.porter is not None and made.value and self.porter.covers(made.value):
            self.porter.send(made, job.envelope.command_id, unwritten)
        else:
            self._sender.send(made)
        self._metrics.answer.observe(time.monotonic() - job.received)

    def told(
        self,
        registry: Registry,
        record: Record,
        progress: Progress,
        envelope: CommandEnvelope,
        outcome: str,
        payload: bytes,
    ) -> None:
        """Reply to a record that was no job: an audit's question."""
        name = registry.contract.name
        self._metrics.answered(name, "audit", outcome)
        to = envelope.reply_to
        if to is None:
            self._finish(record, progress)
            return
        source = f"/kasaga/participants/{name}"
        headers = ReplyEnvelope.to(envelope, outcome, source=source, time=datetime.now(UTC)).to_headers()

        def done() -> None:
            self._finish(record, progress)

        def undeliverable(error: DeliveryError) -> None:
            # Whoever asked will ask again, or has gone: nothing is lost with it.
            logger.warning("an audit's answer can't be delivered to %s: %s", to, error)
            self._finish(record, progress)

        self._sender.send(
            Outgoing(
                to.topic,
                to.partition,
                envelope.saga_id.encode(),
                self.sealer.seal(place("reply", envelope.command_id), payload),
                headers,
                done,
                undeliverable,
            )
        )

    def dead_letter(self, registry: Registry, record: Record, progress: Progress, error: KasagaError) -> None:
        """Put the record on the dead letters' topic; it is finished when that is acknowledged."""
        contract = registry.contract
        self._metrics.dead_letters.labels(contract.name, error.code).inc()
        logger.error("dead letter: %s/%d offset %d: %s", record.topic, record.partition, record.offset, error)
        topic = self._dead_letters(contract.name)

        def headers(original: Record | None) -> list[tuple[str, bytes | None]]:
            return dead_letter_headers(
                original.headers if original is not None else None,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                code=error.code,
                reason=str(error),
                by=f"/kasaga/participants/{contract.name}",
                time=datetime.now(UTC),
            )

        def done() -> None:
            self._finish(record, progress)

        def too_large(refused: DeliveryError) -> None:
            # With our headers it is larger than the topic takes: what names its place is enough to find it.
            only_ours = headers(None) if refused.name in NEVER else headers(record)
            value = None if refused.name in NEVER else record.value
            self._sender.send(Outgoing(topic, 0, record.key, value, only_ours, done))

        self._sender.send(Outgoing(topic, 0, record.key, record.value, headers(record), done, too_large))

    def _finish(self, record: Record, progress: Progress) -> None:
        progress.finish(record.offset)
        self.release(record)

    def release(self, record: Record) -> None:
        """The record is in hand no more, whether it is finished or dropped."""
        more = 0 if self.porter is None else room_of(record.value)
        self._room.give(1, len(record.key or b"") + len(record.value or b"") + more)

    def _note(self, job: Job, answer: Answer) -> None:
        name = job.registry.contract.name
        known = job.handler.spec.name if job.handler is not None else "void" if job.fault is None else "?"
        self._metrics.answered(name, known, answer.outcome)
        if answer.duplicate:
            self._metrics.duplicates.labels(name).inc()
        if isinstance(answer.error, Voided):
            self._metrics.fence_refusals.labels(name).inc()
        if answer.error is not None and answer.outcome == FAILED:
            logger.warning(
                "%s failed: %s: %s",
                job.envelope.type,
                type(answer.error).__name__,
                answer.error,
                exc_info=answer.error if answer.ran else None,
                extra=about(job, outcome=answer.outcome),
            )
        elif answer.error is not None and answer.outcome != "refused":
            logger.warning(
                "%s: %s: %s",
                job.envelope.type,
                answer.outcome,
                answer.error,
                extra=about(job, outcome=answer.outcome),
            )
