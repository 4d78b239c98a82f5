"""Traces: what each commit has ended becomes spans, built and exported by a thread of its own.

Station: the loop hands over what it has committed; only the few fields that spans need are put into a bounded
queue. Whoever ends an attempt exports its span with the true start: ids and times come from the saga's
history, so it doesn't matter which process sent it. What a process dies with, committed and not exported, the
shard's next owner finds by the mark that each commit leaves, and exports in its name: see `salvage.py`.

Configured by OpenTelemetry's own variables; without an endpoint nothing here is built, and `NoTracer` costs
one call a commit. `spans.py` makes the spans, `traceids.py` their ids.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kasaga_wire.errors import TracingSettingsError
from kasaga_wire.tracing import BATCH_SPANS, SpanExport, export_from, exporter_names, exporter_of, is_disabled

from ..engine.driver import TIMED_OUT
from ..engine.halt import TERMINATED
from ..engine.lifecycle import FINAL, STUCK
from ..engine.model import (
    COMMAND,
    DONE,
    LEFT,
    MISSED,
    SIGNAL,
    SLEEP,
    UNDO,
    UNDO_FORMS,
    Clear,
    Fired,
    Move,
    Ran,
    Record,
    Replied,
    Send,
    Settle,
    Take,
    Undeliverable,
)
from ..engine.notes import Ended, EndedFields, Mark
from ..engine.state import State
from ..engine.step import Step
from ..engine.turn import CANCELLED, LOST_RACE, UNDELIVERABLE
from ..store.base import StoreUnavailable
from .traceids import ALL, Sampling

if TYPE_CHECKING:
    from .salvage import Salvage
    from .work import Happened

log = logging.getLogger("kasaga.tracing")

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
    by: str = ""
    """The process that has ended it, where that is another one: it died before it could export."""


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

    exports: bool

    @property
    def totals(self) -> tuple[int, int, int]: ...  # noqa: D102

    def committed(self, records: Sequence[Happened]) -> None: ...  # noqa: D102

    def mark(self, shard: int, now: int) -> int | None: ...  # noqa: D102

    def inherit(self, salvage: Salvage) -> None: ...  # noqa: D102

    def flush(self, seconds: float) -> None: ...  # noqa: D102

    def close(self) -> None: ...  # noqa: D102


class NoTracer:
    """Traces are not configured."""

    exports = False
    totals = (0, 0, 0)

    def committed(self, records: Sequence[Happened]) -> None:
        """Nothing."""

    def mark(self, shard: int, now: int) -> int | None:
        """No mark is left."""
        return None

    def inherit(self, salvage: Salvage) -> None:
        """Nothing."""

    def flush(self, seconds: float) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


NO_TRACER = NoTracer()


class Tracer:
    """Of one process. The loop's thread calls all of it but `_spare`, which is the exporting thread's."""

    exports = True

    def __init__(self, export: SpanExport[Job], sampling: Sampling) -> None:
        """`export`: not started yet, or not to be."""
        self._export, self._sampling = export, sampling
        self._pending: deque[tuple[int, int]] = deque()
        """Of each commit that ended something: when, and how many spans were taken up to its last one."""
        self._salvages: deque[Salvage] = deque()
        export.spare = self._spare

    @property
    def totals(self) -> tuple[int, int, int]:
        """How many spans were exported, failed and dropped."""
        return self._export.exported, self._export.failed, self._export.dropped

    def committed(self, records: Sequence[Happened]) -> None:
        """Take what a commit has ended. Never waits; what the queue has no room for is dropped."""
        export, before, at = self._export, self._export.accepted, 0
        for _, run, record, ended, steps in records:
            if self._sampling.keeps(run.state):
                for job in jobs(run.state, record, ended, steps):
                    if export.put(job):
                        at = min(at or record.at, record.at)
        if export.accepted > before:
            self._pending.append((at, export.accepted))

    def mark(self, shard: int, now: int) -> int | None:
        """Say from when on a shard's history may hold what isn't exported, if this commit's is of `now`.

        Conservative: all shards of a process share one queue, and its oldest entry counts for each of them.
        """
        while self._pending and self._pending[0][1] <= self._export.disposed:
            self._pending.popleft()
        mark = min(now, self._pending[0][0]) if self._pending else now
        return min((each.since for each in tuple(self._salvages) if each.shard == shard), default=mark)

    def inherit(self, salvage: Salvage) -> None:
        """Export what a shard's dead owner couldn't, when there is time for it."""
        self._salvages.append(salvage)
        self._export.wake()

    def flush(self, seconds: float) -> None:
        """Wait a moment for what is there to be exported."""
        self._export.flush(seconds)

    def close(self) -> None:
        """Export what is there, in a bounded time."""
        self._export.close()

    def _spare(self) -> bool:
        """Go on with the first salvage; says whether there is more to do at once."""
        if not self._salvages:
            return False
        salvage = self._salvages[0]
        try:
            found = salvage.step(self._sampling)
        except StoreUnavailable as error:
            log.debug("what a dead owner left isn't read yet", extra={"error": str(error)})
            return False
        if found is None:
            self._salvages.popleft()
            return bool(self._salvages)
        for first in range(0, len(found), BATCH_SPANS):
            self._export.send(found[first : first + BATCH_SPANS])
        return True


# --- what a record has ended


def jobs(
    state: State, record: Record, ended: Sequence[EndedFields], steps: Mapping[str, Step], by: str = ""
) -> Iterable[Job]:
    """The spans that a record ends; `by`: the process that did, if it was another one.

    Of the state only what doesn't change any more is looked at.
    """
    moves = [
        each
        for each in record.decisions
        if type(each) is Move and (each.state == STUCK or each.state in FINAL)
    ]
    if not ended and not moves:
        return
    saga = Saga(
        state.run_id, state.saga_id, state.name, state.version, state.traceparent, state.tracestate, by
    )
    decided = _decided(record)
    for fields in ended:
        each = Ended(*fields)
        step = steps[each.step]
        outcome, error_type, error, answered = _outcome(record, decided, each)
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


def _decided(record: Record) -> dict[tuple[str, bool], Settle | Clear]:
    """By step, and whether it is about its undo, what the record says of it."""
    found: dict[tuple[str, bool], Settle | Clear] = {}
    for decision in record.decisions:
        if isinstance(decision, Take):
            decision = Settle(decision.step, DONE)
        if isinstance(decision, Settle | Clear):
            found.setdefault((decision.step, isinstance(decision, Clear)), decision)
    return found


def _outcome(
    record: Record, decided: Mapping[tuple[str, bool], Settle | Clear], ended: Ended
) -> tuple[str, str, str, int]:
    """What became of an attempt: a word, an error's type and text, and whose answer it was."""
    event = record.event
    if isinstance(event, Replied | Fired | Ran | Undeliverable) and (event.step, event.form) == ended[:2]:
        if isinstance(event, Replied):
            answered = event.attempt if event.attempt != ended.attempt else 0
            return _replied(record, event, ended), event.error_type, event.error, answered
        if isinstance(event, Fired):
            if ended.form == SIGNAL:
                return MISSED, "", "", 0
            asleep = ended.form == SLEEP
            return ("done", "", "", 0) if asleep else ("timed_out", TIMED_OUT, "no answer in time", 0)
        if isinstance(event, Undeliverable):
            return "undeliverable", UNDELIVERABLE, event.error, 0
        if event.ok:
            return "undone" if ended.form == UNDO else "done", "", "", 0
        return "refused" if event.error_type == "SagaFailed" else "failed", event.error_type, event.error, 0
    decision = decided.get((ended.step, ended.form in UNDO_FORMS))
    if isinstance(decision, Settle):
        word = _WORDS.get(decision.error_type, decision.outcome)
        return word, decision.error_type, decision.error, 0
    return ("superseded" if decision is None else decision.how), "", "", 0


_WORDS = {CANCELLED: "cancelled", TERMINATED: "terminated", LOST_RACE: LEFT}
"""By the engine's own error types, what became of an attempt that nobody waits for any more."""


def _replied(record: Record, event: Replied, ended: Ended) -> str:
    """The answer's own word, unless it says `done` and nobody could read the result yet."""
    sent = [each for each in record.decisions if isinstance(each, Send) and each.form == COMMAND]
    again = any(each.step == ended.step for each in sent)
    return "unreadable" if event.outcome == DONE and event.form == COMMAND and again else event.outcome


# --- setting up


def sampling_from(environment: Mapping[str, str]) -> Sampling:
    """What OTEL_TRACES_SAMPLER says; whether spans are exported here at all is another question.

    The flag in the headers that participants get follows it, too: they decide by the flag.
    """
    if is_disabled(environment):
        return Sampling(parent_based=True, below=0)
    name = environment.get("OTEL_TRACES_SAMPLER", "").lower() or "parentbased_always_on"
    parent_based, kind = name.startswith("parentbased_"), name.removeprefix("parentbased_")
    if kind == "always_on":
        return Sampling(parent_based, ALL)
    if kind == "always_off":
        return Sampling(parent_based, 0)
    if kind == "traceidratio":
        return Sampling(parent_based, round(_ratio(environment.get("OTEL_TRACES_SAMPLER_ARG", "")) * ALL))
    raise TracingSettingsError(
        f"OTEL_TRACES_SAMPLER: no sampler {name!r}",
        remedy="Use always_on, always_off, traceidratio, or one of these with parentbased_ in front",
    )


def _ratio(text: str) -> float:
    try:
        ratio = float(text or "1")
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise TracingSettingsError(
            f"OTEL_TRACES_SAMPLER_ARG: {text!r} is no ratio", remedy="A number from 0 to 1, such as 0.05"
        )
    return ratio


def tracer_from(
    environment: Mapping[str, str] | None = None, *, namespace: str, process: str, prefix: str = ""
) -> Tracing:
    """Make the tracer that the environment asks for. Raises TracingSettingsError naming the variable.

    The exporters themselves read their endpoints, headers and certificates from the process' environment.
    """
    env = os.environ if environment is None else environment
    names, sampling = exporter_names(env), sampling_from(env)
    if not names or (sampling.below <= 0 and not sampling.parent_based):
        return NoTracer()
    try:
        from .spans import Builder
    except ImportError as error:
        raise TracingSettingsError(
            f"traces are configured, and {error.name} isn't installed",
            remedy="pip install kasaga[orchestrator]",
        ) from None
    exporters = [exporter_of(name) for name in names]
    ratio = {"parent_based": sampling.parent_based, "ratio": round(sampling.below / ALL, 6)}
    log.info("traces are exported", extra={"exporters": names, **ratio})
    export = export_from(env, exporters, Builder(namespace, process, prefix, env), log)
    tracer = Tracer(export, sampling)
    export.start()
    return tracer
