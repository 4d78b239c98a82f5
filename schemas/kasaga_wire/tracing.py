"""Exporting spans as OpenTelemetry's variables say: one thread, a bounded queue, never in the way.

Station: the orchestrator's tracer and the participants' put what has ended into a `SpanExport`; its thread
makes spans of it and hands them to the exporters. Whoever must not forget what isn't exported yet (an
orchestrator its shard's mark, a participant its offsets) asks how far it has come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Generic, TypeVar

from .errors import TracingSettingsError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

T = TypeVar("T")

QUEUE_SPANS, BATCH_SPANS, DELAY_MS = 10_000, 512, 1_000
"""Defaults of OTEL_BSP_MAX_QUEUE_SIZE, …_MAX_EXPORT_BATCH_SIZE, …_SCHEDULE_DELAY. The queue is larger than
OpenTelemetry's: a thousand sagas a second end thousands of spans while one export waits for its answer. The
delay is shorter: what isn't exported when its process dies has to be found and exported once more."""

CLOSE_SECONDS = 5.0
"""For which the end of the process waits for the last export."""

COMPLAIN_SECONDS = 600.0
"""Between two log lines while nothing can be exported; its beginning and its end have one each."""

MAX_REASONS = 3
"""Lines of an exporter about one batch that ours repeats: it says more of its second try than of the last."""

EXPORTERS_LOGGER = "opentelemetry.exporter"
"""Whose lines, one for each try of each batch, are kept out of the log: ours says the last one's reason."""


class SpanExport(Generic[T]):
    """The thread of one process that exports. `put` may be called by any thread, and never waits."""

    def __init__(
        self,
        exporters: Sequence[SpanExporter],
        build: Callable[[T], ReadableSpan],
        log: logging.Logger,
        *,
        queue: int = QUEUE_SPANS,
        batch: int = BATCH_SPANS,
        delay: float = DELAY_MS / 1000,
    ) -> None:
        """`build` makes the span of what was put, in the exporting thread; `delay`: seconds between looks."""
        self.exported = self.failed = self.dropped = 0
        self.accepted = self.disposed = 0
        """How many were put, and how many of those are exported or given up, in the same order."""
        self.failing = False
        """The last export failed: whoever would wait for the next one needn't."""
        self.spare: Callable[[], bool] | None = None
        """Asked by the thread when there is nothing else to do; says whether there is more of it."""
        self._exporters, self._build, self._log = exporters, build, log
        self._room, self._batch, self._delay = queue, min(batch, queue), delay
        self._queue: deque[T] = deque()
        self._lock = threading.Lock()
        self._progress = threading.Condition()
        self._wake = threading.Event()
        self._until: float | None = None
        self._complained = 0.0
        self._lost = 0
        self._reason = _Reason()
        self._thread = threading.Thread(target=self._run, name="kasaga-tracer", daemon=True)

    def start(self) -> SpanExport[T]:
        """Begin to export."""
        self._thread.start()
        return self

    def put(self, item: T) -> bool:
        """Take what has ended; gives whether there was room for it."""
        with self._lock:
            if len(self._queue) >= self._room:
                self.dropped += 1
                return False
            self._queue.append(item)
            self.accepted += 1
            full = len(self._queue) >= self._batch
        if full:
            self._wake.set()
        return True

    def wake(self) -> None:
        """Don't wait for the delay to pass."""
        self._wake.set()

    def flush(self, seconds: float) -> bool:
        """Wait until what was put before is exported or given up; gives whether it is.

        Returns at once while exports fail: then it would always take all of `seconds`.
        """
        goal = self.accepted
        if self.disposed >= goal:
            return True
        self._wake.set()
        with self._progress:
            self._progress.wait_for(lambda: self.disposed >= goal or self.failing, seconds)
        return self.disposed >= goal

    def close(self) -> None:
        """Export what is there, in a bounded time."""
        self._until = time.monotonic() + CLOSE_SECONDS
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_SECONDS)
        for exporter in self._exporters:
            exporter.shutdown()
        if self._thread.ident is not None:
            self._thread.join(1.0)
        self._reason.remove()

    def send(self, found: Sequence[T]) -> bool:
        """Export these now, in the thread that calls; gives whether all exporters took them."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            spans = [self._build(item) for item in found]
            results = [exporter.export(spans) for exporter in self._exporters]
            well = all(result is SpanExportResult.SUCCESS for result in results)
            why = self._reason.take() or "the exporter says no"
        except Exception as error:  # noqa: BLE001 - whatever an exporter raises, sagas go on
            well, why = False, f"{type(error).__name__}: {error}"
        if well:
            self.exported += len(found)
        else:
            self.failed += len(found)
        self._tell(well, len(found), why)
        return well

    def _tell(self, well: bool, spans: int, why: str) -> None:
        """Say it once when exports begin to fail, now and then while they do, and once when they don't."""
        if well:
            if self.failing:
                self._log.info("spans are exported again", extra={"lost": self._lost})
            self.failing, self._lost = False, 0
            return
        self._lost += spans
        now = time.monotonic()
        if not self.failing or now - self._complained > COMPLAIN_SECONDS:
            self._complained = now
            self._log.warning("spans are not exported", extra={"lost": self._lost, "error": why})
        self.failing = True

    def _run(self) -> None:
        from opentelemetry import context

        # Else an instrumented HTTP client would trace the export of traces.
        quiet = context._SUPPRESS_INSTRUMENTATION_KEY  # pyright: ignore[reportPrivateUsage]
        context.attach(context.set_value(quiet, True))
        more = False
        while not self._ended(more):
            self._wake.wait(0 if more or self._until is not None else self._delay)
            self._wake.clear()
            more = self.turn()

    def turn(self) -> bool:
        """Export what is there, as the thread does; says whether there is more to do at once."""
        while self._queue:
            found = [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]
            self.send(found)
            with self._progress:
                self.disposed += len(found)
                self._progress.notify_all()
        return self.spare is not None and self.spare()

    def _ended(self, more: bool) -> bool:
        if self._until is None:
            return False
        return time.monotonic() > self._until or not (self._queue or more)


class _Reason(logging.Handler):
    """Keeps what the exporters say of the batch at hand, instead of the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._said: list[str] = []
        self._logger = logging.getLogger(EXPORTERS_LOGGER)
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if len(self._said) < MAX_REASONS and text not in self._said:
            self._said.append(text)

    def take(self) -> str:
        """Return it, and begin anew."""
        said, self._said = self._said, []
        return "; ".join(said)

    def remove(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True


# --- setting up


def is_disabled(environment: Mapping[str, str]) -> bool:
    """Whether OTEL_SDK_DISABLED switches everything off."""
    return environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def exporter_names(environment: Mapping[str, str]) -> list[str]:
    """Which exporters are wanted, by their entry points' names; none where nothing is configured.

    Raises TracingSettingsError for a protocol that there isn't.
    """
    if is_disabled(environment):
        return []
    endpoint = any(environment.get(f"OTEL_EXPORTER_OTLP_{each}ENDPOINT") for each in ("", "TRACES_"))
    wanted = environment.get("OTEL_TRACES_EXPORTER", "").strip() or ("otlp" if endpoint else "none")
    names = [name.strip() for name in wanted.split(",")]
    protocol = (
        environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    otlp = {"grpc": "otlp_proto_grpc", "http/protobuf": "otlp_proto_http"}.get(protocol)
    if "otlp" in names and otlp is None:
        raise TracingSettingsError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} isn't known", remedy="Use http/protobuf or grpc"
        )
    return [(otlp or "") if name == "otlp" else name for name in names if name and name != "none"]


def exporter_of(name: str) -> SpanExporter:
    """Make an exporter by its entry point's name; it reads OTEL_EXPORTER_… from the environment itself.

    Raises TracingSettingsError where it isn't installed, or doesn't like its settings.
    """
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found:
        package = f"opentelemetry-exporter-{name.replace('_', '-')}"
        raise TracingSettingsError(
            f"OTEL_TRACES_EXPORTER: {name} isn't installed", remedy=f"pip install {package}"
        )
    try:
        make: Callable[[], SpanExporter] = found[0].load()
        return make()
    except Exception as error:  # whatever an exporter thinks of its settings
        raise TracingSettingsError(
            f"the exporter {name} can't be set up: {type(error).__name__}: {error}",
            remedy="Look at the OTEL_EXPORTER_… variables",
        ) from error


def export_from(
    environment: Mapping[str, str],
    exporters: Sequence[SpanExporter],
    build: Callable[[T], ReadableSpan],
    log: logging.Logger,
) -> SpanExport[T]:
    """Make the export with the sizes that OTEL_BSP_… say. Raises TracingSettingsError naming the variable."""
    return SpanExport(
        exporters,
        build,
        log,
        queue=_number(environment, "OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS),
        batch=_number(environment, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS),
        delay=_number(environment, "OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000,
    )


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable, "").strip() or str(default)
    if not (text.isascii() and text.isdecimal() and int(text) >= 1):
        raise TracingSettingsError(f"{variable}: {text!r} is no number above 0")
    return int(text)
