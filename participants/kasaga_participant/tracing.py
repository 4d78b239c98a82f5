"""Going on with the saga's trace: a span for each run of a handler, if the service has set up OpenTelemetry.

Station: around the handler's call in `calls.py`. Without an SDK nothing is built, and the reply carries on
the headers that came.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from .errors import Refused
from .jobs import Job


class Tracing(Protocol):
    """Puts a span around the run of a handler."""

    def span(self, job: Job, /) -> AbstractContextManager[None]:
        """The span of one run; it also becomes the parent that the reply names."""
        ...


class NoTracing:
    """No SDK is set up: no spans, no cost."""

    _nothing = nullcontext()

    def span(self, job: Job, /) -> AbstractContextManager[None]:
        """Nothing."""
        return self._nothing


class OpenTelemetry:
    """Spans of kind CONSUMER, children of the command's, by the messaging conventions."""

    def __init__(self) -> None:
        """Use the provider that is set globally."""
        self._tracer = trace.get_tracer("kasaga.participant")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def span(self, job: Job, /) -> Generator[None]:
        """The span of one run. A handler's own spans nest in it."""
        envelope, record = job.envelope, job.record
        carrier = {
            name: value
            for name, value in (("traceparent", envelope.traceparent), ("tracestate", envelope.tracestate))
            if value is not None
        }
        span = self._tracer.start_span(
            f"process {record.topic}",
            context=self._propagator.extract(carrier),
            kind=trace.SpanKind.CONSUMER,
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": record.topic,
                "messaging.destination.partition.id": str(record.partition),
                "messaging.kafka.offset": record.offset,
                "messaging.message.id": envelope.id,
                "kasaga.command": envelope.type,
                "kasaga.command_id": envelope.command_id,
                "kasaga.attempt": envelope.attempt,
                "kasaga.saga_id": envelope.saga_id,
            },
        )
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            own = span.get_span_context()
            if own.is_valid:
                envelope.traceparent = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
            try:
                yield
            except BaseException as error:
                span.record_exception(error)
                if not isinstance(error, Refused):
                    span.set_status(trace.Status(trace.StatusCode.ERROR, type(error).__name__))
                raise


def tracing() -> Tracing:
    """What to use: spans only where somebody has set up a provider."""
    provider = trace.get_tracer_provider()
    unset = isinstance(provider, (trace.ProxyTracerProvider, trace.NoOpTracerProvider))
    return NoTracing() if unset else OpenTelemetry()
