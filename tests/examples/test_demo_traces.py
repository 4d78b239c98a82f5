"""What the demo says of traces: it finds each kind of hole, and draws what is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from examples.jaeger import Span
from examples.traces import ORCHESTRATOR, faults
from kasaga.orchestrator.traceids import span_id

RUN = "r"


def made(name: str, parent: str, service: str = ORCHESTRATOR, **tags: Any) -> Span:
    tags = {f"kasaga.{key}": value for key, value in tags.items() if key != "kind"} | {
        "span.kind": tags.get("kind", "consumer")
    }
    own = span_id(RUN) if name == "payment" else name
    return Span("t", own, parent, service, "p-1", name, 10, 20, tags, {}, (), ())


def sent(name: str, step: str, outcome: str) -> Span:
    return made(name, span_id(RUN), step=step, outcome=outcome, kind="producer")


WHOLE = [
    made("payment", "", state="COMPENSATED", steps=2),
    sent("reserve", "1", "done"),
    made("process 1", "reserve", "inventory"),
    sent("charge", "2", "refused"),
    made("process 2", "charge", "payments"),
    sent("release", "1", "undone"),
    made("process 3", "release", "inventory"),
]


def without(name: str) -> Callable[[Sequence[Span]], list[Span]]:
    return lambda spans: [span for span in spans if span.name != name]


def doubled(spans: Sequence[Span]) -> list[Span]:
    return [*spans, spans[1]]


def unsaid(spans: Sequence[Span]) -> list[Span]:
    return [replace(spans[0], tags={"kasaga.steps": 2}), *spans[1:]]


def test_a_whole_trace_has_no_faults() -> None:
    assert faults(WHOLE, RUN, "COMPENSATED") == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (without("payment"), "it has no root"),
        (without("charge"), "1 of its 2 steps are there"),
        (without("charge"), "process 2 hangs in the air"),
        (without("release"), "nothing undoes reserve"),
        (without("process 2"), "nobody handled charge"),
        (doubled, "a span is there twice"),
        (unsaid, "its root says None"),
    ],
)
def test_each_hole_is_found(change: Callable[[Sequence[Span]], list[Span]], fault: str) -> None:
    assert any(fault in each for each in faults(change(WHOLE), RUN, "COMPENSATED"))
