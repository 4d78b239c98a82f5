"""Calling a handler: decode what it needs, give it its transaction, encode what it returns.

Station: the worker prepares a batch with it, and the inbox's sessions call it back for each handler that has
to run, async or in a thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

from psycopg import AsyncConnection, Connection
from psycopg.rows import TupleRow

from kasaga_wire.contracts import CommandSpec, CompensationSpec
from kasaga_wire.errors import CodecError, DecodeError, KasagaError
from kasaga_wire.logs import bind, unbind
from kasaga_wire.records import Deferral, clean_error, deferral_codec, errors_codec
from kasaga_wire.schema import Schemas
from kasaga_wire.sealing import PLAIN, Sealer
from kasaga_wire.sealing import place as place_of

from .deferred import Deferred
from .errors import CannotDefer, HandlerError, Refused, ResultTooLarge, UnknownCommand
from .handlers import Handler
from .inbox.algorithm import Undecodable
from .inbox.rows import Kind, Later, Work
from .jobs import Job
from .log import about, fields, logger
from .metrics import Metrics
from .settings import MAX_REPLY_BYTES, SLOW_HANDLER_SECONDS
from .tracing import Tracing
from .tx import CommandInfo, SyncTx, Tx

FINAL_ERRORS = frozenset({"Refused", "Voided", "IdClash", "Forgotten", "UnknownCommand"})
"""Errors that the same command would meet again."""


def encode_error(error: BaseException) -> bytes:
    """An error as a reply's payload: the type's name, the message, and what a handler put beside it."""
    code, details = None, None
    if isinstance(error, HandlerError):
        code, details = error.code, error.details
    elif isinstance(error, KasagaError):
        code = error.code
    name = type(error).__name__
    body = clean_error(
        name,
        str(error) or name,
        code=code,
        details=None if details is None else json.dumps(details, default=str),
        retryable=name not in FINAL_ERRORS and not isinstance(error, (Refused, DecodeError)),
    )
    return errors_codec.encode(body)


class Calls:
    """Prepares jobs and runs their handlers."""

    def __init__(self, schemas: Schemas, metrics: Metrics, tracing: Tracing, sealer: Sealer = PLAIN) -> None:
        """`schemas`: all that are known; grows while the process runs."""
        self.schemas = schemas
        self.sealer = sealer
        self.most = MAX_REPLY_BYTES
        """Bytes of a result; more where large ones are objects."""
        self.token: Callable[[str], str] | None = None
        """Makes the token of a command, once the inbox is there."""
        self._metrics = metrics
        self._tracing = tracing
        self._running: dict[Job, tuple[float, float]] = {}

    def prepare(self, job: Job) -> None:
        """Decode the payload. What goes wrong becomes the job's `fault`: an undo may not need it at all."""
        handler = job.handler
        if handler is None or job.arguments is not None or isinstance(job.fault, UnknownCommand):
            return
        job.fault = None
        try:
            if job.record.value is None:
                raise DecodeError(f"{job.envelope.type}: the record has no value")
            if job.value is None:
                raise job.sealed or DecodeError(f"{job.envelope.type} was never opened")
            if isinstance(handler.spec, CommandSpec):
                job.arguments = (handler.spec.input.decode(job.value, self.schemas),)
            else:
                undo = handler.spec.payload.decode(job.value, self.schemas)
                job.arguments = (undo.input, undo.result)
                job.reason, job.failed_step = undo.reason, undo.failed_step
        except CodecError as error:
            job.fault = error

    async def call(
        self, work: Work, stored: bytes | None, connection: AsyncConnection[TupleRow] | None
    ) -> bytes | Later | None:
        """Run an async handler. Raises what it raises, and Undecodable."""
        job, handler = _job(work)
        arguments = self._arguments(job, handler, stored)
        assert handler.call is not None
        tx = Tx(connection, _info(job), self._token(job))
        try:
            with self._run(job, handler):
                result = await handler.call(*arguments, tx)
        finally:
            tx.close()
        return _encoded(job, handler, result, self.most)

    def call_sync(
        self, work: Work, stored: bytes | None, connection: Connection[TupleRow] | None
    ) -> bytes | Later | None:
        """Run a plain function, in the thread it is called in."""
        job, handler = _job(work)
        arguments = self._arguments(job, handler, stored)
        assert handler.call_sync is not None
        tx = SyncTx(connection, _info(job), self._token(job))
        try:
            with self._run(job, handler):
                result = handler.call_sync(*arguments, tx)
        finally:
            tx.close()
        return _encoded(job, handler, result, self.most)

    def _token(self, job: Job) -> Callable[[str], str] | None:
        return self.token if job.registry.contract.inbox else None

    def _arguments(self, job: Job, handler: Handler, stored: bytes | None) -> tuple[object, ...]:
        """What the handler is called with: the stored result wins over the one that the undo carries."""
        if job.arguments is None:
            error = job.fault or DecodeError(f"{job.envelope.type} was never decoded")
            raise Undecodable(error) if isinstance(error, DecodeError) else error
        if stored is None or handler.undoes is None:
            return job.arguments
        try:
            stored = self.sealer.open(place_of("reply", job.envelope.original_id), stored)
            return (job.arguments[0], handler.undoes.result.decode(stored, self.schemas))
        except DecodeError as error:
            raise Undecodable(error) from error

    @contextmanager
    def _run(self, job: Job, handler: Handler) -> Generator[None]:
        """Measure a run, put its span around it, and let what it logs say what it is about."""
        started = time.monotonic()
        self._running[job] = (started, started + SLOW_HANDLER_SECONDS)
        failed = True
        token = bind(lambda: fields(job))
        try:
            with self._tracing.span(job):
                yield
            failed = False
        finally:
            unbind(token)
            del self._running[job]
            seconds = time.monotonic() - started
            handler.behaviour.ran(seconds, failed=failed)
            self._metrics.handled(handler.spec.participant, handler.spec.name, seconds)

    def warn_of_slow(self) -> None:
        """Name the handlers that run too long. Called now and then."""
        now = time.monotonic()
        for job, (started, due) in list(self._running.items()):
            if now >= due and job in self._running:
                text = "%s has been running for %.0f s"
                logger.warning(text, job.envelope.type, now - started, extra=about(job))
                self._running[job] = (started, now + SLOW_HANDLER_SECONDS)


def _job(work: Work) -> tuple[Job, Handler]:
    job = cast(Job, work.call)
    assert job.handler is not None, "only what has a handler is run"
    return job, job.handler


def _info(job: Job) -> CommandInfo:
    envelope = job.envelope
    return CommandInfo(
        id=envelope.command_id,
        attempt=envelope.attempt,
        type=envelope.type,
        participant=job.registry.contract.name,
        saga_id=envelope.saga_id,
        saga=envelope.saga,
        saga_version=envelope.saga_version,
        sent=envelope.time,
        deadline=envelope.deadline,
        undoes=(job.drills or envelope.original_id) if job.work.kind is Kind.UNDO else None,
        reason=job.reason,
        failed_step=job.failed_step,
        drill=job.drills is not None,
    )


def _encoded(job: Job, handler: Handler, result: Any, most: int) -> bytes | Later | None:
    """A command's result, or that it comes later; of a compensation nothing is asked."""
    spec = handler.spec
    if isinstance(result, Deferred):
        return _later(job, result)
    if isinstance(spec, CompensationSpec):
        return None
    return encode_result(spec, result, most)


def _later(job: Job, deferred: Deferred) -> Later:
    """What is kept of a command that is answered later."""
    envelope = job.envelope
    if deferred.command_id != envelope.command_id:
        raise CannotDefer(f"{envelope.command_id} can't be answered by the token of {deferred.command_id}")
    seconds = deferred.heartbeat.total_seconds() if deferred.heartbeat is not None else None
    return Later(
        deferral_codec.encode(Deferral(attempt=envelope.attempt, heartbeat=seconds)),
        seconds,
        job.registry.contract.name,
        envelope.attempt,
        str(envelope.reply_to) if envelope.reply_to is not None else "",
        envelope.saga_id,
        envelope.traceparent,
        envelope.tracestate,
    )


def encode_result(spec: CommandSpec, result: Any, most: int = MAX_REPLY_BYTES) -> bytes:
    """A command's result as a reply's payload. Raises EncodeError and ResultTooLarge."""
    payload = spec.result.encode(result)
    if len(payload) > most:
        raise ResultTooLarge(f"the result of {spec.type} has {len(payload)} bytes; {most} fit")
    return payload
