"""OpenTelemetry's SDK, set up as its variables say, for a service that hasn't done so itself.

Station: called once by `tracing.py`; the only file here that imports the SDK, which services install with the
extra `kasaga[traces]`. Sampler, resource and limits are the SDK's own; the spans are exported as the
orchestrator's are, so that the reader can wait for them before it commits an offset.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from uuid import uuid4

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider

from kasaga_wire.tracing import SpanExport, export_from, exporter_of

log = logging.getLogger("kasaga.tracing")


class Exporting(SpanProcessor):
    """Hands sampled spans to the exporting thread when they end."""

    def __init__(self, export: SpanExport[ReadableSpan]) -> None:
        """`export` is started already."""
        self._export = export

    @property
    def totals(self) -> tuple[int, int, int]:
        """How many spans were exported, failed and dropped."""
        return self._export.exported, self._export.failed, self._export.dropped

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: a span is of interest when it is over."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take it, if it is sampled."""
        context = span.get_span_context()
        if context is not None and context.trace_flags.sampled:
            self._export.put(span)

    def flush(self, seconds: float) -> bool:
        """Wait for what has ended; gives whether it is exported or given up."""
        return self._export.flush(seconds)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """As `flush`, as the SDK calls it."""
        return self.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Export what is there, in a bounded time; the SDK calls it at the end of the process."""
        self._export.close()


def set_up(names: Sequence[str], service: str, environment: Mapping[str, str]) -> Exporting:
    """Make a provider that exports to these, and set it globally. Raises TracingSettingsError."""
    exporters = [exporter_of(name) for name in names]
    export = export_from(environment, exporters, _as_it_is, log)
    made = Exporting(export)
    provider = TracerProvider(resource=_resource(service, environment))
    provider.add_span_processor(made)
    export.start()
    trace.set_tracer_provider(provider)
    log.info("traces are exported", extra={"exporters": list(names)})
    return made


def _as_it_is(span: ReadableSpan) -> ReadableSpan:
    return span


def _resource(service: str, environment: Mapping[str, str]) -> Resource:
    named = environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own: dict[str, str] = {}
    if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in named:
        own["service.name"] = service
    if "service.instance.id=" not in named:
        own["service.instance.id"] = f"{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:6]}"
    return Resource.create(own)
