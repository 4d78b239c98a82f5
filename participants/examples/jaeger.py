"""A real Jaeger on loopback, with its traces in memory: what takes the spans, and what shows them.

Used by the demo and by the integration tests. `.ci/jaeger` builds it, once, and says where it is.
"""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from kasaga.dev.ports import free_port
from kasaga.dev.process import Process, ServerError
from kasaga.dev.server import Progress, Server, silent

BUILDER = Path(__file__).parents[2] / ".ci" / "jaeger"

ASK_SECONDS = 10.0
"""How long one question to Jaeger may take."""

QUEUE_SPANS = 100_000
"""How many it takes in before it has stored them; beyond that it drops some."""

PORTS = {
    "query.http-server": "its API and page",
    "query.grpc-server": "the same for programs; not used here",
    "collector.otlp.grpc": "spans by OTLP over gRPC",
    "collector.otlp.http": "spans by OTLP over HTTP",
    "collector.grpc-server": "Jaeger's own protocol; not used here",
    "collector.http-server": "the same over HTTP; not used here",
    "admin.http": "its health",
}
"""Everything that it listens on, by its options' names; none of them can be switched off."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span, as Jaeger's API gives it. Times in microseconds since 1970."""

    trace: str
    id: str
    parent: str
    """Of the same trace; empty: none."""
    service: str
    instance: str
    """The process that ended it: `service.instance.id`."""
    name: str
    start: int
    end: int
    tags: dict[str, Any]
    resource: dict[str, Any]
    events: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def kind(self) -> str:
        """producer, consumer or internal."""
        return str(self.tags.get("span.kind", "internal"))

    @property
    def error(self) -> str:
        """What its status says went wrong, or an empty text."""
        return str(self.tags.get("otel.status_description", "?")) if self.tags.get("error") else ""


class JaegerServer(Server):
    """A Jaeger that forgets everything when it ends."""

    name: ClassVar[str] = "Jaeger"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    port_taken: ClassVar[str] = "address already in use"

    def __init__(self, directory: Path, *, progress: Progress = silent) -> None:
        """`directory` gets its log; all its ports are on loopback."""
        super().__init__(directory, None, progress)
        self._binary = ""
        self._ports: dict[str, int] = {}
        self._move()

    @property
    def http_endpoint(self) -> str:
        """Gives what OTEL_EXPORTER_OTLP_ENDPOINT is for http/protobuf."""
        return f"http://127.0.0.1:{self._ports['collector.otlp.http']}"

    @property
    def grpc_endpoint(self) -> str:
        """Gives the same for grpc."""
        return f"http://127.0.0.1:{self._ports['collector.otlp.grpc']}"

    @property
    def environment(self) -> dict[str, str]:
        """Gives the variables that have a process export its spans to it."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        }

    def address(self, trace_id: str) -> str:
        """Gives the address of a trace: JSON, since what Go modules bring has a placeholder for a page."""
        return f"http://127.0.0.1:{self.port}/api/traces/{trace_id}?prettyPrint=true"

    def trace(self, trace_id: str) -> list[Span]:
        """Asks for the spans of a trace, by their starts; none if Jaeger doesn't know it yet."""
        try:
            answer = self._get(f"/api/traces/{trace_id}")
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return []
                raise
        spans = [_span(span, each["processes"]) for each in answer["data"] for span in each["spans"]]
        return sorted(spans, key=lambda span: (span.start, span.end))

    def services(self) -> set[str]:
        """Asks who has sent spans."""
        return set(self._get("/api/services")["data"] or ())

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=ASK_SECONDS) as answer:
            return json.load(answer)

    def _prepare(self) -> None:
        """Has it built, or found where it was."""
        self._progress("Jaeger: looking for it, or building it (two to five minutes, once)")
        made = subprocess.run([BUILDER], check=False, capture_output=True, text=True)
        if made.returncode != 0:
            raise ServerError(
                f"Jaeger can't be built: {made.stderr.strip()}", remedy="`make jaeger` says more."
            )
        self._binary = made.stdout.strip()

    def _launch(self) -> Process:
        options = [f"--{name}.host-port=127.0.0.1:{port}" for name, port in self._ports.items()]
        options.append(f"--collector.queue-size={QUEUE_SPANS}")
        return Process([self._binary, *options], log=self.log, cwd=self.directory, env={})

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self._ports['admin.http']}/", timeout=ASK_SECONDS
            ) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _move(self) -> None:
        self._ports = {}
        while len(set(self._ports.values())) < len(PORTS):
            self._ports = {name: free_port() for name in PORTS}
        self.port = self._ports["query.http-server"]


def _span(span: dict[str, Any], processes: dict[str, Any]) -> Span:
    process = processes[span["processID"]]
    resource = _tags(process["tags"])
    parents = [each["spanID"] for each in span["references"] if each["traceID"] == span["traceID"]]
    return Span(
        trace=span["traceID"],
        id=span["spanID"],
        parent=parents[0] if parents else "",
        service=process["serviceName"],
        instance=str(resource.get("service.instance.id", "")),
        name=span["operationName"],
        start=span["startTime"],
        end=span["startTime"] + span["duration"],
        tags=_tags(span["tags"]),
        resource=resource,
        events=tuple(str(_tags(entry["fields"]).get("event", "")) for entry in span["logs"] or ()),
        warnings=tuple(span.get("warnings") or ()),
    )


def _tags(found: list[dict[str, Any]]) -> dict[str, Any]:
    return {each["key"]: each["value"] for each in found}
