"""Plays a saga by hand and keeps the spans that its commits would export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from engine.harness import Play
from engine.shop import ANSWERS, ORDER, app_of
from kasaga import Saga
from kasaga.engine.decide import Ignored
from kasaga.engine.model import Event, Record, Started
from kasaga.errors import NotApplicable
from kasaga.orchestrator.spans import Builder
from kasaga.orchestrator.tracing import Job, jobs
from kasaga.orchestrator.work import Happened

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

BUILD = Builder("shop", "p-1", "test.", {})


class Traced(Play):
    """A play that takes notes."""

    def __init__(self, declared: Saga[Any, Any], **options: Any) -> None:
        super().__init__(app_of(declared), declared.name, ANSWERS, **options)
        self.happened: list[Happened] = []

    def begin(self, traceparent: str = "", tracestate: str = "") -> Traced:
        data = self.app.sagas[self.name, self.version].input.encode(ORDER)
        self.event(
            Started("s-1", self.name, self.version, data, traceparent, tracestate, "", "/test"),
        )
        return self

    def event(self, event: Event) -> Record | Ignored | NotApplicable:
        made = super().event(event)
        if isinstance(made, Record):
            self.happened.append(
                Happened(0, self.run, made, self.run.state.ended, self.run.state.known_steps)
            )
        return made

    @property
    def jobs(self) -> list[Job]:
        return [
            job
            for _, run, record, ended, steps in self.happened
            for job in jobs(run.state, record, ended, steps)
        ]

    @property
    def spans(self) -> list[ReadableSpan]:
        return [BUILD(job) for job in self.jobs]


def named(spans: Sequence[ReadableSpan]) -> dict[str, ReadableSpan]:
    """By name; each name once."""
    found = {span.name: span for span in spans}
    assert len(found) == len(spans), [span.name for span in spans]
    return found


def attributes(span: ReadableSpan) -> Mapping[str, Any]:
    return span.attributes or {}


def outcomes(spans: Sequence[ReadableSpan]) -> list[tuple[str, object]]:
    """Names and outcomes of what has ended, in order."""
    return [(span.name, attributes(span).get("kasaga.outcome")) for span in spans]


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Trace, parent and own id."""
    own = span.get_span_context()
    assert own is not None
    return (
        f"{own.trace_id:032x}",
        f"{span.parent.span_id:016x}" if span.parent is not None else "",
        f"{own.span_id:016x}",
    )
