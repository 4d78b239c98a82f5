"""What Jaeger shows of the demo's sagas: whether each trace is whole, and one of them as a tree.

Called by `demo.py` when every saga has ended; asks Jaeger's query API, as anybody could.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from uuid import UUID

import psycopg

from examples.audit import COMPENSATED
from examples.jaeger import JaegerServer, Span
from kasaga.orchestrator.traceids import hashed_trace_id, span_id

ORCHESTRATOR = "kasaga-orchestrator"

ENDED = "SELECT saga_id, run_id, state FROM kasaga.saga WHERE ended_at IS NOT NULL ORDER BY run_id"

WAIT_SECONDS = 30.0
"""How long the last spans may take: they are exported once a second."""

LOOK_SECONDS = 0.2

UNDONE = frozenset({"undone", "nothing", "lost"})
"""Answers after which nothing of a step is left."""

BAR = 32
"""Characters of the line on which a span's time is drawn."""


def faults(spans: Sequence[Span], run_id: str, state: str) -> list[str]:
    """Says what a saga's trace lacks. Nothing: it is whole."""
    root = next((span for span in spans if span.id == span_id(run_id)), None)
    if root is None:
        return ["it has no root"]
    found: list[str] = []
    if root.tags.get("kasaga.state") != state:
        found.append(f"its root says {root.tags.get('kasaga.state')}, not {state}")
    mine = [span for span in spans if span.parent == root.id]
    steps = {span.tags.get("kasaga.step") for span in mine}
    if len(steps) != root.tags.get("kasaga.steps"):
        found.append(f"{len(steps)} of its {root.tags.get('kasaga.steps')} steps are there")
    undone = {span.tags["kasaga.step"] for span in mine if span.tags.get("kasaga.outcome") in UNDONE}
    done = [span for span in mine if span.tags.get("kasaga.outcome") == "done"]
    if state == COMPENSATED:
        left = [span.name for span in done if span.tags["kasaga.step"] not in undone]
        found += [f"nothing undoes {name}" for name in left]
    handled = {span.parent for span in spans if span.service != ORCHESTRATOR}
    sent = [span for span in mine if span.kind == "producer"]
    found += [f"nobody handled {span.name}" for span in sent if span.id not in handled]
    ids = {span.id for span in spans}
    found += [f"{span.name} hangs in the air" for span in spans if span.parent and span.parent not in ids]
    if len(ids) != len(spans):
        found.append("a span is there twice")
    return found


class Traces:
    """The traces of all sagas that a database has."""

    def __init__(self, jaeger: JaegerServer, database_url: str) -> None:
        self._jaeger = jaeger
        with psycopg.connect(database_url) as connection:
            rows: list[tuple[str, UUID, str]] = connection.execute(ENDED).fetchall()
        self._sagas = {saga_id: (str(run_id), state) for saga_id, run_id, state in rows}

    def check(self) -> tuple[int, dict[str, list[str]]]:
        """Looks at each trace until it is whole or time is up: how many spans, and faults by saga's id."""
        deadline = time.monotonic() + WAIT_SECONDS
        spans, lacking = 0, dict[str, list[str]]()
        for saga_id, (run_id, state) in self._sagas.items():
            found = self._jaeger.trace(hashed_trace_id(run_id))
            while (said := faults(found, run_id, state)) and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
                found = self._jaeger.trace(hashed_trace_id(run_id))
            spans += len(found)
            if said:
                lacking[saga_id] = said
        return spans, lacking

    def tree(self, saga_id: str) -> Iterator[str]:
        """Draws one trace, after its address."""
        trace_id = hashed_trace_id(self._sagas[saga_id][0])
        yield f"trace of {saga_id}: {self._jaeger.address(trace_id)}"
        spans = self._jaeger.trace(trace_id)
        known = {span.id for span in spans}
        began, ended = min(span.start for span in spans), max(span.end for span in spans)
        for span, depth in _in_order([span for span in spans if span.parent not in known], spans, 0):
            name = f"{'  ' * depth}{span.name}"
            outcome = span.tags.get("kasaga.outcome") or span.tags.get("kasaga.state") or ""
            milliseconds = (span.end - span.start) / 1000
            drawn = _bar(span, began, max(ended - began, 1))
            yield f"  {name:<36.36} {span.service:<20.20} {outcome:<12} {drawn} {milliseconds:9.1f} ms"


def _in_order(some: Sequence[Span], spans: Sequence[Span], depth: int) -> Iterator[tuple[Span, int]]:
    for span in some:
        yield span, depth
        yield from _in_order([each for each in spans if each.parent == span.id], spans, depth + 1)


def _bar(span: Span, began: int, whole: int) -> str:
    first = min(BAR - 1, (span.start - began) * BAR // whole)
    length = max(1, round((span.end - span.start) * BAR / whole))
    return f"{' ' * first}{'━' * length}"[:BAR].ljust(BAR)
