"""From a record to a job: what its headers ask for, before anybody looks at the payload.

Station: called by the runtime for each record that the reader brings; jobs go on to the dispatcher.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from kasaga_wire.contracts import CompensationSpec
from kasaga_wire.envelope import AUDIT, DRILL, CommandEnvelope
from kasaga_wire.errors import CodecError, EnvelopeError, KasagaError
from kasaga_wire.headers import MAX_ID_CHARACTERS, Fields, split_command_id
from kasaga_wire.kafka import Record
from kasaga_wire.sealing import PLAIN, Sealer, place

from .errors import ReplyNotAllowed, UnknownCommand
from .handlers import Behaviour, Handler, Registry
from .inbox.rows import Kind, Original, Work
from .progress import Progress

KINDS = {kind.value: kind for kind in Kind}


class Lane(Enum):
    """Who can run it: only jobs of one lane share a batch."""

    ASYNC = "async"
    ASYNC_ALONE = "async, alone"
    SYNC = "sync"
    SYNC_ALONE = "sync, alone"

    @property
    def is_sync(self) -> bool:
        """Whether it runs in a thread."""
        return self in (Lane.SYNC, Lane.SYNC_ALONE)

    @property
    def is_alone(self) -> bool:
        """Whether a batch of it holds one job."""
        return self in (Lane.ASYNC_ALONE, Lane.SYNC_ALONE)


@dataclass(slots=True, eq=False)
class Job:
    """One record in hand.

    Attributes:
        record: as it came.
        envelope: its headers.
        work: what the inbox reads of it.
        registry: the contract it is for.
        handler: what runs for it; None for a void.
        behaviour: the handler's, or that of voids.
        lane: who can run it.
        progress: the partition it came from.
        received: when, by the monotonic clock, in seconds.
        twins: records of the same command that came while this one was in hand.
        arguments: what the handler is called with, once the payload is decoded.
        reason, failed_step: of an undo, once it is decoded.
        value: the payload, opened; None where there is none, or it can't be.
        sealed: why it can't be opened.
        fault: why the payload can't be decoded.
        kills: how often the connection was lost while its handler ran.
        drills: in drill mode, the id of the command that would be undone; else None.
    """

    record: Record
    envelope: CommandEnvelope
    work: Work
    registry: Registry
    handler: Handler | None
    behaviour: Behaviour
    lane: Lane
    progress: Progress
    received: float
    twins: list[Job] = field(default_factory=list["Job"])
    arguments: tuple[object, ...] | None = None
    reason: str | None = None
    failed_step: str | None = None
    value: bytes | None = None
    sealed: CodecError | None = None
    fault: KasagaError | None = None
    kills: int = 0
    drills: str | None = None

    @property
    def key(self) -> tuple[str, bytes]:
        """Jobs of one key run one after the other, in the order of their records."""
        return (self.record.topic, self.record.key or self.envelope.saga_id.encode())

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.record.key or b"") + len(self.record.value or b"")


class Rejected(Exception):
    """A record that can't be answered: its place is the dead letters' topic. `error`: why."""

    def __init__(self, error: KasagaError) -> None:
        super().__init__(str(error))
        self.error = error


class Question(Exception):
    """A record that is an audit's, and no command: see `examiner.py`. `envelope`: its headers."""

    def __init__(self, envelope: CommandEnvelope) -> None:
        super().__init__(envelope.command_id)
        self.envelope = envelope


class Intake:
    """Reads the records of one contract's topic."""

    def __init__(
        self,
        registry: Registry,
        allowed: Callable[[str], bool],
        *,
        drill: bool = False,
        sealer: Sealer = PLAIN,
    ) -> None:
        """`allowed`: whether a reply may go to a topic. `drill`: see `drill.py`."""
        self._sealer = sealer
        self._drill = drill
        self._registry = registry
        self._allowed = allowed
        only_sync = all(handler.is_sync for handler in registry.handlers.values())
        self._void_lane = Lane.SYNC if only_sync else Lane.ASYNC
        self._voids = Behaviour(seconds=0.0001)

    def job(self, record: Record, progress: Progress, fetched: bytes | CodecError | None = None) -> Job:
        """What to do for a record. Raises Rejected, and Question for what is no command.

        `fetched`: of a record whose payload is an object, that, or why it can't be had.
        """
        try:
            envelope = CommandEnvelope.parse(record.headers)
        except EnvelopeError as error:
            raise Rejected(error) from error
        if envelope.reply_to is not None and not self._allowed(envelope.reply_to.topic):
            raise Rejected(ReplyNotAllowed(f"{envelope.command_id} asks for {envelope.reply_to.topic}"))
        if envelope.type == AUDIT:
            raise Question(envelope)
        kind = KINDS[envelope.kind]
        handler = self._registry.handlers.get(envelope.type)
        value, sealed = self._opened(record.value if fetched is None else fetched, envelope)
        job = Job(
            record=record,
            envelope=envelope,
            work=_work(value, envelope, kind),
            registry=self._registry,
            handler=handler,
            behaviour=self._voids if handler is None else handler.behaviour,
            lane=self._void_lane if handler is None else _lane(handler),
            progress=progress,
            received=time.monotonic(),
            value=value,
            sealed=sealed,
        )
        job.work.call = job
        if self._drill:
            job.drills = _drilled(record)
        job.fault = _unknown(envelope, kind, handler)
        return job

    def _opened(
        self, value: bytes | CodecError | None, envelope: CommandEnvelope
    ) -> tuple[bytes | None, CodecError | None]:
        """The payload, or why it can't be opened."""
        if value is None:
            return None, None
        if isinstance(value, CodecError):
            return None, value
        try:
            return self._sealer.open(place("command", envelope.command_id), value), None
        except CodecError as error:
            return None, error


def _drilled(record: Record) -> str:
    """The command that a drill's undo stands for. Raises Rejected: without one it is meant for no drill."""
    try:
        command = Fields(record.headers).need(DRILL, MAX_ID_CHARACTERS)
        split_command_id(command)
    except EnvelopeError as error:
        raise Rejected(error) from error
    return command


def _lane(handler: Handler) -> Lane:
    if handler.is_sync:
        return Lane.SYNC_ALONE if handler.alone else Lane.SYNC
    return Lane.ASYNC_ALONE if handler.alone else Lane.ASYNC


def _work(value: bytes | None, envelope: CommandEnvelope, kind: Kind) -> Work:
    undoes = envelope.undoes
    if undoes is None:
        digest = hashlib.sha256(value or b"").digest()
        return Work(envelope.command_id, envelope.type, kind, envelope.time.timestamp(), digest, None, None)
    done, last = undoes.knowledge == "done", undoes.last_sent.timestamp()
    original = Original(envelope.original_id, undoes.type, done, last)
    return Work(envelope.command_id, envelope.type, kind, envelope.time.timestamp(), None, original, None)


def _unknown(envelope: CommandEnvelope, kind: Kind, handler: Handler | None) -> KasagaError | None:
    """Why no handler can run for it, whatever the inbox says."""
    if kind is Kind.VOID:
        return None
    if handler is None:
        return UnknownCommand(f"{envelope.type} is no command here")
    if isinstance(handler.spec, CompensationSpec) is not (kind is Kind.UNDO):
        return UnknownCommand(f"{envelope.type} was sent as {kind.value}, and is none")
    return None
