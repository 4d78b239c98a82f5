"""Ids of traces and spans, and whether a saga is traced. Pure: every process finds the same, at any time.

Station: `rows.py` writes them into the headers of what is sent, `tracing.py` into spans, `about.py` into log
lines. Nothing of it is stored but the starter's own header, in the history.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from ..engine.state import State

ALL = 1 << 64
"""One more than the part of a trace id that a ratio is measured by."""

HEADER_CHARACTERS = 55
"""Of a traceparent: `00-<32>-<16>-<2>`. The wire has checked what is in it."""


class Sampling(NamedTuple):
    """Which sagas are traced, as OpenTelemetry's own samplers would say."""

    parent_based: bool = True
    """The starter has decided, where it sent a traceparent."""
    below: int = ALL
    """Otherwise those whose trace id's lower half is below this."""

    def keeps(self, state: State) -> bool:
        """Say whether this saga is traced."""
        if self.parent_based and len(state.traceparent) == HEADER_CHARACTERS:
            return state.traceparent[-1] in "13579bdf"
        return self.below >= ALL or (self.below > 0 and int(trace_id(state)[16:], 16) < self.below)


EVERY_SAGA = Sampling()


def trace_id(state: State) -> str:
    """The saga's trace: the starter's, or one made of the run's id."""
    if len(state.traceparent) == HEADER_CHARACTERS:
        return state.traceparent[3:35]
    return hashed_trace_id(state.run_id)


def hashed_trace_id(run_id: str) -> str:
    """The trace of a saga whose starter names none."""
    return hashlib.sha256(f"trace/{run_id}".encode()).hexdigest()[:32]


def parent_id(state: State) -> str:
    """The starter's span, or an empty text."""
    return state.traceparent[36:52] if len(state.traceparent) == HEADER_CHARACTERS else ""


def span_id(name: str) -> str:
    """The span of a run (by its id), or of an attempt (`<command id>.<attempt>`)."""
    return hashlib.sha256(f"span/{name}".encode()).hexdigest()[:16]


def traceparent(state: State, name: str, sampling: Sampling) -> str:
    """The header that goes with whatever the span `name` sends."""
    return f"00-{trace_id(state)}-{span_id(name)}-{'01' if sampling.keeps(state) else '00'}"


def context(state: State, name: str, sampling: Sampling) -> SpanContext:
    """The same for code of this process, such as a function of ctx.run."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampling.keeps(state) else TraceFlags.DEFAULT)
    starter = TraceState.from_header([state.tracestate]) if state.tracestate else None
    return SpanContext(int(trace_id(state), 16), int(span_id(name), 16), True, flags, starter)


def tracestate(state: State) -> str | None:
    """The starter's own, passed on as it came."""
    return state.tracestate or None
