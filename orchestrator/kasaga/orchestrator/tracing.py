"""Traces: what each commit has ended becomes spans, built and exported by a thread of its own.

Station: the loop hands over what it has committed; only the few fields that spans need are put into a bounded
queue. Whoever ends an attempt exports its span with the true start: ids and times come from the saga's
history, so it doesn't matter which process sent it. What a process dies with, committed and not exported,
is missing from the trace; nothing else is, and nothing has two ids.

Configured by OpenTelemetry's own variables; without an endpoint nothing here is built, and `NoTracer` costs
one call a commit. `spans.py` makes the spans, `traceids.py` their ids.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ..engine.driver import TIMED_OUT
from ..engine.lifecycle import FINAL, STUCK
from ..engine.model import (
    COMMAND,
    DONE,
    SLEEP,
    UNDO,
    UNDO_FORMS,
    Clear,
    Ended,
    EndedFields,
    Fired,
    Mark,
    Move,
    Ran,
    Record,
    Replied,
    Send,
    Settle,
    Undeliverable,
)
from ..engine.state import State
from ..engine.turn import CANCELLED, UNDELIVERABLE
from ..settings import SettingsInvalid
from .traceids import ALL, Sampling

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from .work import Happened

log = logging.getLogger("kasaga.tracing")

QUEUE_SPANS, BATCH_SPANS, DELAY_MS = 10_000, 512, 1_000
"""Defaults of OTEL_BSP_MAX_QUEUE_SIZE, …_MAX_EXPORT_BATCH_SIZE, …_SCHEDULE_DELAY. The queue is larger than
OpenTelemetry's: a thousand sagas a second end thousands of spans while one export waits for its answer. The
delay is shorter: what isn't exported is lost with its process."""

CLOSE_SECONDS = 5.0
"""For which the end of the process waits for the last export."""

COMPLAIN_SECONDS = 30.0
"""Between two log lines about exports that fail."""

MAX_TEXT = 1_000
"""Characters of a reason or an error in a span."""


class Saga(NamedTuple):
    """What all spans of a saga say."""

    run_id: str
    saga_id: str
    name: str
    version: int
    traceparent: str
    tracestate: str


class Attempt(NamedTuple):
    """An attempt, a sleep, a local step or an undo that is over."""

    saga: Saga
    ended: Ended
    at: int
    type: str
    participant: str
    outcome: str
    error_type: str
    error: str
    answered: int
    """The attempt whose answer ended this one, where it was an earlier one's; 0: its own."""


class Stuck(NamedTuple):
    """A saga needs somebody."""

    saga: Saga
    seq: int
    at: int
    move: Move


class Root(NamedTuple):
    """A saga has ended."""

    saga: Saga
    started_at: int
    at: int
    state: str
    steps: int
    with_exceptions: bool
    code: str
    reason: str
    marks: tuple[Mark, ...]


Job = Attempt | Stuck | Root


class Tracing(Protocol):
    """What the loop and the metrics see."""

    exported: int
    failed: int
    dropped: int

    def committed(self, records: Sequence[Happened]) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class NoTracer:
    """Traces are not configured."""

    exported = failed = dropped = 0

    def committed(self, records: Sequence[Happened]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Tracer:
    """Of one process. `committed` is called by the loop's thread, the rest happens in the tracer's."""

    def __init__(
        self,
        exporters: Sequence[SpanExporter],
        build: Callable[[Job], ReadableSpan],
        sampling: Sampling,
        *,
        queue: int = QUEUE_SPANS,
        batch: int = BATCH_SPANS,
        delay: float = DELAY_MS / 1000,
    ) -> None:
        self.exported = self.failed = self.dropped = 0
        self._exporters, self._build, self._sampling = exporters, build, sampling
        self._room, self._batch, self._delay = queue, min(batch, queue), delay
        self._queue: deque[Job] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._complained = -COMPLAIN_SECONDS
        self._thread = threading.Thread(target=self._run, name="kasaga-tracer", daemon=True)
        self._thread.start()

    def committed(self, records: Sequence[Happened]) -> None:
        """Take what a commit has ended. Never waits; what the queue has no room for is dropped."""
        queue = self._queue
        for _, run, record, ended in records:
            if self._sampling.keeps(run.state):
                for job in jobs(run.state, record, ended):
                    if len(queue) < self._room:
                        queue.append(job)
                    else:
                        self.dropped += 1
        if len(queue) >= self._batch:
            self._wake.set()

    def close(self) -> None:
        """Export what is there, in a bounded time."""
        self._closing = True
        self._wake.set()
        self._thread.join(CLOSE_SECONDS)
        for exporter in self._exporters:
            exporter.shutdown()
        self._thread.join(1.0)

    def _run(self) -> None:
        from opentelemetry import context

        # Else an instrumented HTTP client would trace the export of traces.
        quiet = context._SUPPRESS_INSTRUMENTATION_KEY  # pyright: ignore[reportPrivateUsage]
        context.attach(context.set_value(quiet, True))
        while not self._closing or self._queue:
            self._wake.wait(0 if self._closing else self._delay)
            self._wake.clear()
            while self._queue:
                self._export([self._queue.popleft() for _ in range(min(len(self._queue), self._batch))])

    def _export(self, found: Sequence[Job]) -> None:
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            spans = [self._build(job) for job in found]
            results = [exporter.export(spans) for exporter in self._exporters]
        except Exception as error:  # noqa: BLE001 - whatever an exporter raises, sagas go on
            results, why = [SpanExportResult.FAILURE], f"{type(error).__name__}: {error}"
        else:
            why = "the exporter says no"
        if all(result is SpanExportResult.SUCCESS for result in results):
            self.exported += len(found)
            return
        self.failed += len(found)
        if time.monotonic() - self._complained > COMPLAIN_SECONDS:
            self._complained = time.monotonic()
            log.warning("spans are not exported", extra={"spans": self.failed, "error": why})


# --- what a record has ended


def jobs(state: State, record: Record, ended: Sequence[EndedFields]) -> Iterable[Job]:
    """The spans that a record ends. Of the state only what doesn't change any more is looked at."""
    moves = [
        each
        for each in record.decisions
        if type(each) is Move and (each.state == STUCK or each.state in FINAL)
    ]
    if not ended and not moves:
        return
    saga = Saga(state.run_id, state.saga_id, state.name, state.version, state.traceparent, state.tracestate)
    for fields in ended:
        each = Ended(*fields)
        step = state.steps[each.step]
        outcome, error_type, error, answered = _outcome(record, each)
        name = step.compensation if each.form == UNDO else step.type
        yield Attempt(
            saga, each, record.at, name, step.participant, outcome, error_type, error[:MAX_TEXT], answered
        )
    for move in moves:
        if move.state == STUCK:
            yield Stuck(saga, record.seq, record.at, move)
        else:
            yield _root(saga, state, record, move)


def _root(saga: Saga, state: State, record: Record, end: Move) -> Root:
    steps, reason = len(state.order), end.reason[:MAX_TEXT]
    return Root(
        saga,
        state.started_at,
        record.at,
        end.state,
        steps,
        state.with_exceptions,
        end.code,
        reason,
        tuple(state.marks),
    )


def _outcome(record: Record, ended: Ended) -> tuple[str, str, str, int]:
    """What became of an attempt: a word, an error's type and text, and whose answer it was."""
    event = record.event
    if isinstance(event, Replied | Fired | Ran | Undeliverable) and (event.step, event.form) == ended[:2]:
        if isinstance(event, Replied):
            answered = event.attempt if event.attempt != ended.attempt else 0
            return _replied(record, event, ended), event.error_type, event.error, answered
        if isinstance(event, Fired):
            asleep = ended.form == SLEEP
            return ("done", "", "", 0) if asleep else ("timed_out", TIMED_OUT, "no answer in time", 0)
        if isinstance(event, Undeliverable):
            return "undeliverable", UNDELIVERABLE, event.error, 0
        if event.ok:
            return "undone" if ended.form == UNDO else "done", "", "", 0
        return "refused" if event.error_type == "SagaFailed" else "failed", event.error_type, event.error, 0
    for decision in record.decisions:
        if isinstance(decision, Settle) and decision.step == ended.step and ended.form not in UNDO_FORMS:
            word = "cancelled" if decision.error_type == CANCELLED else decision.outcome
            return word, decision.error_type, decision.error, 0
        if isinstance(decision, Clear) and decision.step == ended.step and ended.form in UNDO_FORMS:
            return decision.how, "", "", 0
    return "superseded", "", "", 0


def _replied(record: Record, event: Replied, ended: Ended) -> str:
    """The answer's own word, unless it says `done` and nobody could read the result yet."""
    again = any(isinstance(each, Send) and each.step == ended.step for each in record.decisions)
    return "unreadable" if event.outcome == DONE and event.form == COMMAND and again else event.outcome


# --- setting up


def sampling_from(environment: Mapping[str, str]) -> Sampling:
    """What OTEL_TRACES_SAMPLER says; whether spans are exported here at all is another question.

    The flag in the headers that participants get follows it, too: they decide by the flag.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Sampling(parent_based=True, below=0)
    name = environment.get("OTEL_TRACES_SAMPLER", "").lower() or "parentbased_always_on"
    parent_based, kind = name.startswith("parentbased_"), name.removeprefix("parentbased_")
    if kind == "always_on":
        return Sampling(parent_based, ALL)
    if kind == "always_off":
        return Sampling(parent_based, 0)
    if kind == "traceidratio":
        return Sampling(parent_based, round(_ratio(environment.get("OTEL_TRACES_SAMPLER_ARG", "")) * ALL))
    raise SettingsInvalid(
        f"OTEL_TRACES_SAMPLER: no sampler {name!r}",
        remedy="Use always_on, always_off, traceidratio, or one of these with parentbased_ in front",
    )


def _ratio(text: str) -> float:
    try:
        ratio = float(text or "1")
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise SettingsInvalid(
            f"OTEL_TRACES_SAMPLER_ARG: {text!r} is no ratio", remedy="A number from 0 to 1, such as 0.05"
        )
    return ratio


def exporter_names(environment: Mapping[str, str]) -> list[str]:
    """Which exporters are wanted, by their entry points' names; none where nothing is configured."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
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
        raise SettingsInvalid(
            f"OTEL_EXPORTER_OTLP_PROTOCOL: {protocol!r} isn't known", remedy="Use http/protobuf or grpc"
        )
    return [(otlp or "") if name == "otlp" else name for name in names if name and name != "none"]


def tracer_from(
    environment: Mapping[str, str] | None = None, *, namespace: str, process: str, prefix: str = ""
) -> Tracing:
    """Make the tracer that the environment asks for. Raises SettingsInvalid naming the variable.

    The exporters themselves read their endpoints, headers and certificates from the process' environment.
    """
    env = os.environ if environment is None else environment
    names, sampling = exporter_names(env), sampling_from(env)
    if not names or (sampling.below <= 0 and not sampling.parent_based):
        return NoTracer()
    try:
        from .spans import Builder
    except ImportError as error:
        raise SettingsInvalid(
            f"traces are configured, and {error.name} isn't installed",
            remedy="pip install kasaga[orchestrator]",
        ) from None
    exporters = [_exporter(name) for name in names]
    ratio = {"parent_based": sampling.parent_based, "ratio": round(sampling.below / ALL, 6)}
    log.info("traces are exported", extra={"exporters": names, **ratio})
    return Tracer(
        exporters,
        Builder(namespace, process, prefix, env),
        sampling,
        queue=_number(env, "OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SPANS),
        batch=_number(env, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH_SPANS),
        delay=_number(env, "OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000,
    )


def _exporter(name: str) -> SpanExporter:
    found = list(entry_points(group="opentelemetry_traces_exporter", name=name))
    if not found:
        package = f"opentelemetry-exporter-{name.replace('_', '-')}"
        raise SettingsInvalid(
            f"OTEL_TRACES_EXPORTER: {name} isn't installed", remedy=f"pip install {package}"
        )
    try:
        make: Callable[[], SpanExporter] = found[0].load()
        return make()
    except Exception as error:  # whatever an exporter thinks of its settings
        raise SettingsInvalid(
            f"the exporter {name} can't be set up: {type(error).__name__}: {error}",
            remedy="Look at the OTEL_EXPORTER_… variables",
        ) from error


def _number(environment: Mapping[str, str], variable: str, default: int) -> int:
    text = environment.get(variable, "").strip() or str(default)
    if not text.isdecimal() or int(text) < 1:
        raise SettingsInvalid(f"{variable}: {text!r} is no number above 0")
    return int(text)
