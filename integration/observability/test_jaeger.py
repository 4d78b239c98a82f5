"""One saga is one trace in a real Jaeger: its shape in good times and bad, by either protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from signal import SIGKILL, SIGTERM

import pytest

from eventually import eventually
from examples.jaeger import JaegerServer, Span
from kasaga.orchestrator.traceids import hashed_trace_id, span_id
from observability.watch import PATIENCE, Watch, a_span

ORCHESTRATOR, GOODS = "kasaga-orchestrator", "goods"

Shape = list[tuple[str, str, list[str]]]
"""Under the saga's own span, by their starts: the name, the outcome, and who handled it under that."""

HANDLED = [f"{GOODS}: process"]

PURCHASE: Shape = [
    ("goods.take", "done", HANDLED),
    ("look_up", "done", []),
    ("sleep", "done", []),
    ("goods.pay", "done", HANDLED),
]


def exporting(jaeger: JaegerServer, protocol: str = "http/protobuf", delay: int = 20) -> dict[str, str]:
    endpoint = jaeger.grpc_endpoint if protocol == "grpc" else jaeger.http_endpoint
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": str(delay),
    }


def shown(jaeger: JaegerServer, trace_id: str, enough: Callable[[list[Span]], bool]) -> list[Span]:
    """The trace, as soon as there is enough of it; each span in it is there once and has a parent there."""

    spans: list[Span] = []

    def found() -> bool:
        nonlocal spans
        spans = jaeger.trace(trace_id)
        assert enough(spans), "\n".join(map(str, spans))
        return True

    eventually(found, timeout=PATIENCE)
    assert max(Counter(span.id for span in spans).values()) == 1, "no span twice"
    assert [warning for span in spans for warning in span.warnings if "skew" not in warning] == []
    return spans


def root_of(spans: Sequence[Span]) -> Span:
    (root,) = [span for span in spans if span.name == "purchase"]
    return root


def shape(spans: Sequence[Span], run_id: str) -> Shape:
    """Left out is only what was read again after a kill, and answered again from the inbox."""
    under: dict[str, list[Span]] = {}
    for span in spans:
        under.setdefault(span.parent, []).append(span)
    mine = under.get(span_id(run_id), [])
    assert {span.service for span in mine} <= {ORCHESTRATOR}
    described: Shape = []
    for span in mine:
        below = under.get(span.id, [])
        first = [each for each in below if "kasaga.duplicate" not in each.tags] or below[:1]
        handlers = [f"{each.service}: {each.name.split()[0]}" for each in first]
        described.append((span.name.rpartition(":")[2], str(span.tags.get("kasaga.outcome")), handlers))
    everywhere = {span.id for span in spans} | {span_id(run_id)}
    hanging = [span for span in spans if span.parent not in everywhere and span.id != span_id(run_id)]
    assert hanging == [], "nothing hangs in the air"
    return described


def has(*shapes: Shape, run_id: str, whole: bool = True) -> Callable[[list[Span]], bool]:
    """The trace has one of these shapes, and its root if it is to be whole."""

    def enough(spans: list[Span]) -> bool:
        rooted = any(span.id == span_id(run_id) for span in spans)
        return rooted == whole and shape(spans, run_id) in shapes

    return enough


def check_times(spans: Sequence[Span]) -> None:
    """A span begins in its parent, and each of the orchestrator's ends in it. To the microsecond."""
    known = {span.id: span for span in spans}
    for span in spans:
        parent = known.get(span.parent)
        if parent is not None:
            assert parent.start <= span.start, (parent, span)
            assert span.service != ORCHESTRATOR or span.end <= parent.end, (parent, span)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_completed_saga_with_a_retry(watch: Watch, jaeger: JaegerServer, protocol: str) -> None:
    watch.orchestrator(**exporting(jaeger, protocol))
    watch.service(**exporting(jaeger, protocol))
    run_id = watch.start("o-1", "retry")
    assert watch.wait("o-1") == "shelf of o-1"
    failed = [("goods.take", "failed", HANDLED)]
    spans = shown(jaeger, hashed_trace_id(run_id), has(failed + PURCHASE, run_id=run_id))
    root = root_of(spans)
    assert (root.service, root.kind, root.parent) == (ORCHESTRATOR, "consumer", "")
    assert (root.tags["kasaga.state"], root.error) == ("COMPLETED", "")
    check_times(spans)
    attempts = [span for span in spans if span.name == "goods.take"]
    assert [span.tags["kasaga.attempt"] for span in attempts] == [1, 2]
    assert [span.error for span in attempts] == ["failed: the shelf is jammed", ""]
    assert {span.kind for span in attempts} == {"producer"}
    handled = [span for span in spans if span.service == GOODS]
    assert {span.kind for span in handled} == {"consumer"}
    assert [span.error for span in handled] == ["RuntimeError", "", ""]
    assert {span.tags["messaging.destination.name"] for span in (*attempts, *handled)} == {
        f"{watch.prefix}goods.commands"
    }


def test_a_compensated_saga_in_its_starters_trace(watch: Watch, jaeger: JaegerServer) -> None:
    watch.orchestrator(**exporting(jaeger))
    watch.service(**exporting(jaeger))
    run_id = watch.start("o-1", "refuse", a_span())
    assert watch.wait("o-1") == "SagaCompensated"
    undone: Shape = [
        *PURCHASE[:3],
        ("goods.pay", "refused", HANDLED),
        ("goods.give_back", "undone", HANDLED),
    ]
    spans = shown(jaeger, f"{a_span().trace_id:032x}", has(undone, run_id=run_id))
    root = root_of(spans)
    assert root.parent == f"{a_span().span_id:016x}"
    assert (root.tags["kasaga.state"], root.events) == ("COMPENSATED", ("saga compensating",))
    assert "the card is blocked" in root.error
    check_times(spans)
    refused = next(span for span in spans if span.name == "goods.pay")
    assert refused.error == "refused: the card is blocked"
    (handler,) = [span for span in spans if span.parent == refused.id]
    assert handler.error == "", "the service wanted to say it"


def test_a_trace_is_shown_while_its_saga_runs_and_outlives_its_processes(
    watch: Watch, jaeger: JaegerServer
) -> None:
    """Both are killed in the middle of a payment: who has sent it, and who is at it."""
    traced = exporting(jaeger)
    first = watch.orchestrator(**traced)
    service = watch.service(**traced)
    watch.closed.touch()
    run_id = watch.start("o-1")
    trace_id = hashed_trace_id(run_id)
    running = shown(jaeger, trace_id, has(PURCHASE[:3], run_id=run_id, whole=False))
    first.stop(SIGKILL, PATIENCE)
    service.stop(SIGKILL, PATIENCE)
    watch.closed.unlink()
    watch.orchestrator("two", **traced)
    watch.service(**traced)
    assert watch.wait("o-1") == "shelf of o-1"
    spans = shown(jaeger, trace_id, has(PURCHASE, run_id=run_id))
    check_times(spans)
    by_id = {span.id: replace(span, warnings=()) for span in spans}
    assert [by_id[span.id] for span in running] == [replace(span, warnings=()) for span in running]
    mine = {span.name.rpartition(":")[2]: span.instance for span in spans if span.service == ORCHESTRATOR}
    assert mine["goods.take"] == mine["look_up"] == mine["sleep"] != mine["goods.pay"] == mine["purchase"]
    pay = next(span for span in spans if span.name == "goods.pay")
    sleep = next(span for span in spans if span.name == "sleep")
    assert pay.start == sleep.end, "sent by the first one"


@pytest.mark.parametrize("crash_at", ["orchestrator.after_commit:3", "orchestrator.before_commit:5"])
@pytest.mark.parametrize("delay", [20, 60_000])
def test_a_kill_of_the_orchestrator_makes_no_hole(
    watch: Watch, jaeger: JaegerServer, crash_at: str, delay: int
) -> None:
    """Whether it had just exported what it dies with, or nothing at all."""
    first = watch.orchestrator(**exporting(jaeger, delay=delay), KASAGA_CRASH_AT=crash_at)
    watch.service(**exporting(jaeger))
    run_id = watch.start("o-1")
    eventually(lambda: first.ended() is not None, timeout=PATIENCE)
    watch.orchestrator("two", **exporting(jaeger))
    assert watch.wait("o-1") == "shelf of o-1"
    spans = shown(jaeger, hashed_trace_id(run_id), has(PURCHASE, run_id=run_id))
    check_times(spans)


@pytest.mark.parametrize(
    "crash_at",
    [
        "participant.after_handler",
        "participant.after_commit",
        "participant.after_produce_before_ack",
        "participant.after_ack_before_offset",
    ],
)
def test_a_kill_of_a_participant_makes_no_hole(watch: Watch, jaeger: JaegerServer, crash_at: str) -> None:
    """It exports once a minute, or before it commits an offset; what is answered again is seen again."""
    answered_again = crash_at != "participant.after_handler"
    watch.orchestrator(**exporting(jaeger))
    service = watch.service(**exporting(jaeger, delay=60_000), KASAGA_CRASH_AT=crash_at)
    run_id = watch.start("o-1")
    eventually(lambda: service.ended() is not None, timeout=PATIENCE)
    watch.service(**exporting(jaeger, delay=60_000))
    assert watch.wait("o-1") == "shelf of o-1"

    def handled(spans: list[Span]) -> bool:
        """Every attempt was seen by the participant, once, or once more after the kill."""
        found = shape(spans, run_id)
        return (
            any(span.name == "purchase" for span in spans)
            and [(name, outcome) for name, outcome, _ in found] == [each[:2] for each in PURCHASE]
            and all(bool(handlers) == name.startswith("goods") for name, _, handlers in found)
            and any("kasaga.duplicate" in span.tags for span in spans) == answered_again
        )

    shown(jaeger, hashed_trace_id(run_id), handled)


def test_resources_and_samplers_are_those_of_the_environment(watch: Watch, jaeger: JaegerServer) -> None:
    named = {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test,service.version=7"}
    watch.orchestrator(**exporting(jaeger), **named, OTEL_SERVICE_NAME=f"sagas-{watch.prefix}")
    watch.service(**exporting(jaeger), **named, OTEL_SERVICE_NAME=f"shop-{watch.prefix}")
    run_id = watch.start("o-1")
    assert watch.wait("o-1") == "shelf of o-1"
    spans = shown(jaeger, hashed_trace_id(run_id), lambda spans: len(spans) == 7)
    assert {span.service for span in spans} == {f"sagas-{watch.prefix}", f"shop-{watch.prefix}"}
    assert {span.resource.get("deployment.environment.name") for span in spans} == {"test"}
    assert {span.resource.get("service.version") for span in spans} == {"7"}
    assert len({span.instance for span in spans}) == 2


@pytest.mark.parametrize(
    "quiet",
    [{"OTEL_SDK_DISABLED": "true"}, {"OTEL_TRACES_SAMPLER": "always_off"}, {"OTEL_TRACES_EXPORTER": "none"}],
)
def test_what_is_switched_off_is_off(watch: Watch, jaeger: JaegerServer, quiet: dict[str, str]) -> None:
    """By the orchestrator, or by both: a participant that exports does what the flag in its headers says."""
    watch.orchestrator(**exporting(jaeger), **quiet)
    silenced = "OTEL_TRACES_EXPORTER" not in quiet
    watch.service(**exporting(jaeger), **({} if silenced else quiet))
    run_id = watch.start("o-1")
    assert watch.wait("o-1") == "shelf of o-1"
    for name in ("one", "service"):
        watch.running[name].stop(SIGTERM, PATIENCE)
    assert jaeger.trace(hashed_trace_id(run_id)) == []
