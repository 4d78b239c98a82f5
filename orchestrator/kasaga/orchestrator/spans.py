"""What a span says: names, kinds, attributes, by OpenTelemetry's conventions for messaging where they apply.

Station: called by the tracer's thread, one job at a time; the only file here that imports the SDK. The spans
are plain values made from the history: no tracer of the SDK's starts or ends them, since the process that
started an attempt need not be the one that ends it.
"""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from kasaga_wire import __version__
from kasaga_wire.topics import Topics

from ..engine.awaited import parts
from ..engine.keylocks import LOCK
from ..engine.kinship import CHILDREN
from ..engine.lifecycle import COMPLETED
from ..engine.model import LOCAL, SIGNAL, SLEEP, VOID
from ..engine.notes import Mark
from .rows import step_name
from .traceids import HEADER_CHARACTERS, hashed_trace_id, span_id
from .tracing import Attempt, Job, Root, Saga, Stuck

GOOD = frozenset(
    {
        "done",
        "undone",
        "nothing",
        "lost",
        "voided",
        "cancelled",
        "left",
        "missed",
        "superseded",
        "skipped",
        "resolved",
    }
)
"""Ends of an attempt that are no errors. A refusal is one, as a 4xx is to the client; the participant's own
span of it isn't."""

Attributes = dict[str, str | int | bool]


_NAMES = {SIGNAL: "signal {}", LOCK: "lock {}", VOID: "void {}"}


class Builder:
    """Makes the spans of one process."""

    def __init__(self, namespace: str, process: str, prefix: str, environment: Mapping[str, str]) -> None:
        self._topics = Topics(namespace, prefix)
        own = {"service.instance.id": process, "kasaga.namespace": namespace}
        named = environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
        if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in named:
            own["service.name"] = "kasaga-orchestrator"
        if "service.instance.id=" in named:
            del own["service.instance.id"]
        self._own, self._resources = own, dict[str, Resource]()
        self._resource = self._of("")
        self._scope = InstrumentationScope("kasaga.orchestrator", __version__)

    def _of(self, process: str) -> Resource:
        """Of this process, or of another of the same service that died before it could export."""
        known = self._resources.get(process)
        if known is None:
            own = self._own
            if process and "service.instance.id" in own:
                own = {**own, "service.instance.id": process}
            known = self._resources[process] = Resource.create(own)
        return known

    def __call__(self, job: Job) -> ReadableSpan:
        """The span of one job."""
        if isinstance(job, Attempt):
            return self._attempt(job)
        return self._stuck(job) if isinstance(job, Stuck) else self._root(job)

    def _attempt(self, job: Attempt) -> ReadableSpan:
        form = job.ended.form
        name = step_name(job.ended.step, form)
        command_id = f"{job.saga.run_id}.{name}"
        message_id = f"{command_id}.{job.ended.attempt}"
        attributes = _about(job.saga)
        attributes["kasaga.step"] = job.ended.step
        attributes["kasaga.outcome"] = job.outcome
        if form not in (SLEEP, SIGNAL, LOCK):
            attributes["kasaga.attempt"] = job.ended.attempt
        if form not in (SLEEP, LOCAL) and job.participant not in ("", CHILDREN):
            attributes |= {
                "messaging.system": "kafka",
                "messaging.operation.name": "send",
                "messaging.operation.type": "send",
                "messaging.destination.name": self._topics.commands(job.participant),
                "messaging.message.id": message_id,
                "messaging.message.conversation_id": job.saga.saga_id,
                "kasaga.command": job.type,
                "kasaga.command_id": command_id,
            }
        if job.answered:
            attributes["kasaga.answered_attempt"] = job.answered
        failed = job.outcome not in GOOD and not (form == VOID and job.outcome == "refused")
        if failed:
            attributes["error.type"] = job.error_type or job.outcome
        description = f"{job.outcome}: {job.error}" if job.error else job.outcome
        return self._span(
            job.saga,
            _NAMES.get(form, "{}").format(parts(job.type)[0] if form == SIGNAL else job.type) or form,
            message_id,
            start=job.ended.since,
            end=job.at,
            kind=SpanKind.PRODUCER if "messaging.system" in attributes else SpanKind.INTERNAL,
            attributes=attributes,
            status=Status(StatusCode.ERROR, description) if failed else Status(),
        )

    def _stuck(self, job: Stuck) -> ReadableSpan:
        attributes = _about(job.saga) | {"kasaga.state": job.move.state}
        for name in ("code", "reason", "remedy", "step"):
            if text := getattr(job.move, name):
                attributes[f"kasaga.{name}"] = text
        return self._span(
            job.saga,
            "saga stuck",
            f"{job.saga.run_id}.stuck.{job.seq}",
            start=job.at,
            end=job.at,
            kind=SpanKind.INTERNAL,
            attributes=attributes,
            status=Status(StatusCode.ERROR, job.move.reason),
        )

    def _root(self, job: Root) -> ReadableSpan:
        attributes = _about(job.saga) | {
            "kasaga.saga_version": job.saga.version,
            "kasaga.state": job.state,
            "kasaga.steps": job.steps,
        }
        if job.with_exceptions:
            attributes["kasaga.with_exceptions"] = True
        if job.code:
            attributes["kasaga.code"] = attributes["error.type"] = job.code
        well = job.state == COMPLETED
        return self._span(
            job.saga,
            job.saga.name,
            "",
            start=job.started_at,
            end=job.at,
            kind=SpanKind.CONSUMER,
            attributes=attributes,
            status=Status(StatusCode.OK) if well else Status(StatusCode.ERROR, job.reason or job.state),
            marks=job.marks,
        )

    def _span(
        self,
        saga: Saga,
        name: str,
        id_of: str,
        *,
        start: int,
        end: int,
        kind: SpanKind,
        attributes: Attributes,
        status: Status,
        marks: tuple[Mark, ...] = (),
    ) -> ReadableSpan:
        """`id_of` names the span; empty: the root. Times in microseconds."""
        starter = saga.traceparent if len(saga.traceparent) == HEADER_CHARACTERS else ""
        trace = int(starter[3:35] if starter else hashed_trace_id(saga.run_id), 16)
        state = TraceState.from_header([saga.tracestate]) if saga.tracestate else None
        root = SpanContext(trace, int(span_id(saga.run_id), 16), False, TraceFlags(TraceFlags.SAMPLED), state)
        if id_of:
            parent: SpanContext | None = root
            own = SpanContext(trace, int(span_id(id_of), 16), False, root.trace_flags, state)
        else:
            own, parent = root, None
            if starter:
                parent = SpanContext(trace, int(starter[36:52], 16), True, root.trace_flags, state)
        return ReadableSpan(
            name,
            context=own,
            parent=parent,
            resource=self._of(saga.by) if saga.by else self._resource,
            attributes=attributes,
            events=[_event(mark) for mark in marks],
            kind=kind,
            status=status,
            start_time=start * 1000,
            end_time=max(start, end) * 1000,
            instrumentation_scope=self._scope,
        )


def _about(saga: Saga) -> Attributes:
    return {"kasaga.saga": saga.name, "kasaga.saga_id": saga.saga_id, "kasaga.run_id": saga.run_id}


def _event(mark: Mark) -> Event:
    attributes: Attributes = {}
    for name in ("by", "reason", "step"):
        if text := getattr(mark, name):
            attributes[f"kasaga.{name}"] = text
    return Event(f"saga {mark.what.lower()}", attributes, mark.at * 1000)
