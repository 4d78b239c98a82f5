"""Going on with the saga's trace: a span for each command, undo and void that is handled.

Station: around the handler's call in `calls.py`; what is answered without a handler (from the inbox, by the
fence, since nobody can read it) gets its span from `answers.py`. The reply carries on the span's headers.

The provider is the one that the service has set up. Where it has none, and OpenTelemetry's variables ask for
traces, `otel.py` sets one up, which exports the span of a command before the command's offset is committed:
after a kill its span is out, or the command is read again and gets one. Without either nothing is built.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Protocol

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kasaga_wire.tracing import exporter_names

from .errors import Refused
from .inbox.rows import CONFLICT, EXPIRED, FAILED, UNDECODABLE, Answer
from .jobs import Job

if TYPE_CHECKING:
    from .otel import Exporting

log = logging.getLogger("kasaga.tracing")

ERRORS = frozenset({FAILED, CONFLICT, EXPIRED, UNDECODABLE})
"""Answers without a handler that are errors. A refusal isn't one here: the service wanted to say it."""

Attributes = dict[str, str | int | bool]


class Tracing(Protocol):
    """Makes the spans of one process."""

    @property
    def totals(self) -> tuple[int, int, int]:
        """How many were exported, failed and dropped; none where somebody else exports."""
        ...

    def span(self, job: Job, /) -> AbstractContextManager[None]:
        """The span of one run of a handler; it also becomes the parent that the reply names."""
        ...

    def settled(self, job: Job, answer: Answer, /) -> None:
        """The span of what was answered without a handler."""
        ...

    def flush(self, seconds: float, /) -> None:
        """Wait a moment for what has ended to be exported; does nothing where somebody else exports."""
        ...


class NoTracing:
    """Nobody wants traces: no spans, no cost."""

    totals = (0, 0, 0)
    _nothing = nullcontext()

    def span(self, job: Job, /) -> AbstractContextManager[None]:
        """Nothing."""
        return self._nothing

    def settled(self, job: Job, answer: Answer, /) -> None:
        """Nothing."""

    def flush(self, seconds: float, /) -> None:
        """Nothing."""


class OpenTelemetry:
    """Spans of kind CONSUMER, children of the command's, by the messaging conventions."""

    def __init__(self, exporting: Exporting | None = None) -> None:
        """Use the provider that is set globally. `exporting`: what it exports by, if that is ours."""
        self._tracer = trace.get_tracer("kasaga.participant")
        self._propagator = TraceContextTextMapPropagator()
        self._exporting = exporting

    @property
    def totals(self) -> tuple[int, int, int]:
        """Of what is exported by us."""
        return self._exporting.totals if self._exporting is not None else (0, 0, 0)

    @contextmanager
    def span(self, job: Job, /) -> Generator[None]:
        """The span of one run. A handler's own spans nest in it."""
        span = self._start(job, {})
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except BaseException as error:
                span.record_exception(error)
                if not isinstance(error, Refused):
                    span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
                raise

    def settled(self, job: Job, answer: Answer, /) -> None:
        """The span of an answer that was known, from the command's coming until now."""
        waited = time.monotonic() - job.received
        about: Attributes = {"kasaga.outcome": answer.outcome}
        if answer.duplicate:
            about["kasaga.duplicate"] = True
        failed = answer.outcome in ERRORS
        if failed:
            about["error.type"] = type(answer.error).__name__ if answer.error is not None else answer.outcome
        span = self._start(job, about, time.time_ns() - int(waited * 1e9))
        if failed:
            span.set_status(trace.Status(trace.StatusCode.ERROR, str(answer.error or answer.outcome)))
        span.end()

    def flush(self, seconds: float, /) -> None:
        """Wait for the export, where it is ours."""
        if self._exporting is not None:
            self._exporting.flush(seconds)

    def _start(self, job: Job, about: Attributes, since: int | None = None) -> trace.Span:
        envelope = job.envelope
        carrier = {
            name: value
            for name, value in (("traceparent", envelope.traceparent), ("tracestate", envelope.tracestate))
            if value is not None
        }
        span = self._tracer.start_span(
            f"process {job.record.topic}",
            context=self._propagator.extract(carrier),
            kind=trace.SpanKind.CONSUMER,
            attributes=_attributes(job) | about,
            start_time=since,
        )
        own = span.get_span_context()
        if own.is_valid:
            envelope.traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        return span


def _attributes(job: Job) -> Attributes:
    envelope, record = job.envelope, job.record
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": record.topic,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.consumer.group.name": record.topic,
        "messaging.kafka.offset": record.offset,
        "messaging.message.id": envelope.id,
        "messaging.message.conversation_id": envelope.saga_id,
        "kasaga.command": envelope.type,
        "kasaga.command_id": envelope.command_id,
        "kasaga.attempt": envelope.attempt,
        "kasaga.saga_id": envelope.saga_id,
    }


def tracing() -> Tracing:
    """What to use: spans only where somebody has set up a provider."""
    return NoTracing() if _nobody_has() else OpenTelemetry()


def tracing_from(name: str, environment: Mapping[str, str] | None = None) -> Tracing:
    """The same, and where nobody has, what OpenTelemetry's variables ask for. `name`: the service's default.

    Raises TracingSettingsError naming the variable that can't be followed.
    """
    env = os.environ if environment is None else environment
    if not _nobody_has():
        return _ours[0] if _ours else OpenTelemetry()
    names = exporter_names(env)
    if not names:
        return NoTracing()
    try:
        from .otel import set_up
    except ImportError as error:
        # The variables may be the cluster's, for all its services: no reason not to serve.
        log.warning("traces are configured, and %s isn't installed: pip install 'kasaga[traces]'", error.name)
        return NoTracing()
    _ours.append(OpenTelemetry(set_up(names, name, env)))
    return _ours[0]


_ours: list[OpenTelemetry] = []
"""What this process has set up: a provider can be set only once."""


def _nobody_has() -> bool:
    return isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
