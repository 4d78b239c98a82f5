"""A tiny OTLP collector: takes spans over HTTP, decodes the protobuf, and keeps them."""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

INTERNAL, PRODUCER, CONSUMER = 1, 4, 5
"""Kinds of spans on the wire."""

ERROR = 2
"""A span's status on the wire."""


@dataclass(frozen=True)
class Seen:
    """One span."""

    service: str
    instance: str
    name: str
    kind: int
    trace: str
    parent: str
    id: str
    start: int
    end: int
    status: int
    message: str
    state: str
    attributes: dict[str, Any]
    events: list[str] = field(default_factory=list[str])


class Collector:
    """Listens on a port of its own; a `with` ends it."""

    def __init__(self) -> None:
        self._spans: list[Seen] = []
        self.headers: list[dict[str, str]] = []
        """Of each request, their names in lower case."""
        self._lock = threading.Lock()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.append({name.lower(): value for name, value in self.headers.items()})
                collector.take(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, body: bytes) -> None:
        request: Any = ExportTraceServiceRequest.FromString(body)
        found: list[Seen] = []
        for part in request.resource_spans:
            resource = _plain(part.resource.attributes)
            for scope in part.scope_spans:
                found += [_seen(span, resource) for span in scope.spans]
        with self._lock:
            self._spans += found

    @property
    def spans(self) -> list[Seen]:
        with self._lock:
            return list(self._spans)

    def of(self, saga_id: str, service: str = "") -> list[Seen]:
        """Spans of one saga, by their starts; of one service alone where it is named."""
        found = [span for span in self.spans if span.attributes.get("kasaga.saga_id") == saga_id]
        return sorted((each for each in found if service in ("", each.service)), key=lambda each: each.start)


def _seen(span: Any, resource: dict[str, Any]) -> Seen:
    return Seen(
        service=str(resource.get("service.name", "")),
        instance=str(resource.get("service.instance.id", "")),
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        parent=span.parent_span_id.hex(),
        id=span.span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status=span.status.code,
        message=span.status.message,
        state=span.trace_state,
        attributes=_plain(span.attributes),
        events=[event.name for event in span.events],
    )


def _plain(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
