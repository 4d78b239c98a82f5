"""The tracer: set up by OpenTelemetry's variables, bounded, never in the way, and whole in any story."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from engine.shop import payment
from eventually import eventually
from kasaga.engine.lifecycle import STUCK
from kasaga.engine.model import RunLocal, Send
from kasaga.orchestrator.spans import Builder
from kasaga.orchestrator.traceids import ALL, Sampling, hashed_trace_id, span_id
from kasaga.orchestrator.tracing import Job, NoTracer, Root, Tracer, sampling_from, tracer_from
from kasaga_wire.errors import TracingSettingsError
from kasaga_wire.tracing import SpanExport, exporter_names
from observability.traced import BUILD, TRACEPARENT, Traced, ids

EVERY = Sampling()

log = logging.getLogger("kasaga.tracing")


def tracer(exporter: SpanExporter, *, sampling: Sampling = EVERY, queue: int = 100) -> Tracer:
    export = SpanExport[Job]([exporter], BUILD, log, queue=queue, batch=10, delay=0.01)
    made = Tracer(export, sampling)
    export.start()
    return made


def completed(run_id: str = "run", traceparent: str = "") -> Traced:
    play = Traced(payment, run_id=run_id).begin(traceparent)
    for path in (1, 2, 3):
        play.done(path)
    return play


# --- exporting


def test_what_is_committed_is_exported_by_itself_and_the_rest_at_the_end() -> None:
    exporter = InMemorySpanExporter()
    traces = tracer(exporter)
    first, second = completed("a"), completed("b")
    traces.committed(first.happened)
    eventually(lambda: len(exporter.get_finished_spans()) == 4)
    traces.committed(second.happened)
    traces.close()
    assert traces.totals == (8, 0, 0)
    assert {ids(span)[0] for span in exporter.get_finished_spans()} == {
        hashed_trace_id("a"),
        hashed_trace_id("b"),
    }


class Held(SpanExporter):
    """Takes nothing in until it is let go."""

    def __init__(self, result: SpanExportResult = SpanExportResult.SUCCESS) -> None:
        self.entered, self.go, self.result = threading.Event(), threading.Event(), result

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.go.wait(30)
        return self.result

    def shutdown(self) -> None:
        self.go.set()


def test_a_slow_collector_costs_spans_not_sagas() -> None:
    exporter = Held()
    traces = tracer(exporter, queue=10)
    traces.committed(completed("a").happened)
    assert exporter.entered.wait(30)
    for number in range(10):
        traces.committed(completed(f"b{number}").happened)
    assert traces.totals[2] == 30
    exporter.go.set()
    traces.close()
    assert traces.totals[0] == 14


def test_a_collector_that_fails_or_raises_is_counted_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Raising(Held):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            raise OSError("no route")

    failing = Held(SpanExportResult.FAILURE)
    failing.go.set()
    for exporter in (failing, Raising()):
        caplog.clear()
        traces = tracer(exporter)
        traces.committed(completed().happened)
        traces.close()
        assert traces.totals == (0, 4, 0)
        assert [record.message for record in caplog.records] == ["spans are not exported"]


def test_only_sampled_sagas_are_exported() -> None:
    exporter = InMemorySpanExporter()
    half = Sampling(below=ALL // 2)
    traces = tracer(exporter, sampling=half, queue=1000)
    plays = [completed(f"r{number}") for number in range(40)]
    plays += [completed("yes", TRACEPARENT), completed("no", f"{TRACEPARENT[:-2]}00")]
    for play in plays:
        traces.committed(play.happened)
    traces.close()
    wanted = {play.state.run_id for play in plays if half.keeps(play.state)}
    assert {str((span.attributes or {})["kasaga.run_id"]) for span in exporter.get_finished_spans()} == wanted
    assert "yes" in wanted
    assert "no" not in wanted
    assert 5 < len(wanted) < 36


# --- the law


ACTS = (
    "done",
    "refused",
    "failed",
    "late",
    "fire",
    "undo",
    "undo_failed",
    "crash",
    "cancel",
    "retry",
    "wait",
)


def act(play: Traced, word: str, path: str) -> None:
    step = play.step(path)
    if word == "wait":
        play.now += 20_000_000
    elif word == "crash":
        play.crash()
    elif word in ("cancel", "retry"):
        play.ask(word)
    elif word == "fire":
        if step.row or step.undo_row:
            play.fire(path)
    elif word == "done":
        play.done(path)
    elif word == "late":
        play.done(path, attempt=1)
    elif word == "refused":
        play.refused(path)
    elif word == "failed":
        play.failed(path)
    elif step.undo_open:
        play.undo(path) if word == "undo" else play.answer(path, "failed", error="down")


@given(st.lists(st.tuples(st.sampled_from(ACTS), st.integers(0, 2)), max_size=25))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_each_attempt_has_one_span_from_its_sending_to_its_end(
    story: list[tuple[str, int]],
) -> None:
    play = Traced(payment, always_replay=False).begin()
    for word, number in story:
        if play.state.final:
            break
        act(play, word, play.state.order[min(number, len(play.state.order) - 1)].path)
    spans = play.spans
    mine = [ids(span) for span in spans]
    assert len({own for _, _, own in mine}) == len(spans), "no id twice"
    assert all((span.start_time or 0) <= (span.end_time or 0) for span in spans)
    assert all(parent in ("", span_id("run")) for _, parent, _ in mine)
    roots = [job for job in play.jobs if isinstance(job, Root)]
    assert len(roots) == play.state.final
    stuck = sum(span.name == "saga stuck" for span in spans)
    moves = sum(
        getattr(each, "state", "") == STUCK
        for happened in play.happened
        for each in happened.record.decisions
    )
    assert stuck == moves
    sent: Counter[str] = Counter()
    for happened in play.happened:
        for each in happened.record.decisions:
            if isinstance(each, Send | RunLocal):
                form = f"~{each.form}" if each.form in ("undo", "void") else ""
                sent[f"run.{each.step}{form}.{each.attempt}"] += 1
    known = {span_id(name) for name in sent}
    attempts = [own for _, parent, own in mine if parent and own in known]
    assert len(attempts) + stuck + len(roots) == len(spans)
    if play.state.final:
        delayed = len(known) - len(attempts)
        assert delayed <= sum(
            1
            for happened in play.happened
            for each in happened.record.decisions
            if getattr(each, "send_at", 0)
        ), "only what never went out has no span"


# --- setting up


def test_nothing_is_configured_by_default() -> None:
    assert isinstance(tracer_from({}, namespace="shop", process="p"), NoTracer)
    assert exporter_names({}) == []


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318/v1/traces"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ["otlp_proto_http"]),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_http", "console"]),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            ["otlp_proto_http"],
        ),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, []),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, []),
    ],
)
def test_open_telemetrys_variables_say_where_spans_go(env: dict[str, str], names: list[str]) -> None:
    assert exporter_names(env) == names


@pytest.mark.parametrize(
    ("env", "sampling"),
    [
        ({}, Sampling(True, ALL)),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, Sampling(True, 0)),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, Sampling(False, ALL)),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, Sampling(False, 0)),
        ({"OTEL_TRACES_SAMPLER": "traceidratio"}, Sampling(False, ALL)),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            Sampling(True, ALL // 4),
        ),
        ({"OTEL_SDK_DISABLED": "TRUE"}, Sampling(True, 0)),
    ],
)
def test_open_telemetrys_variables_say_what_is_sampled(env: dict[str, str], sampling: Sampling) -> None:
    assert sampling_from(env) == sampling


@pytest.mark.parametrize(
    ("env", "word"),
    [
        ({"OTEL_TRACES_SAMPLER": "jaeger_remote"}, "jaeger_remote"),
        ({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "5%"}, "OTEL_TRACES_SAMPLER_ARG"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "zipkin"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "http/json"),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_MAX_QUEUE_SIZE": "0"}, "OTEL_BSP_MAX_QUEUE_SIZE"),
    ],
)
def test_what_cannot_be_is_refused_by_the_variables_name(env: dict[str, str], word: str) -> None:
    with pytest.raises(TracingSettingsError, match=word):
        tracer_from(env, namespace="shop", process="p")


def test_the_exporters_of_the_environment_are_made() -> None:
    env = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "10"}
    made = tracer_from(env, namespace="shop", process="p")
    made.committed(completed().happened)
    made.close()
    assert made.totals == (4, 0, 0)


@pytest.mark.parametrize(
    ("env", "service", "instance"),
    [
        ({}, "kasaga-orchestrator", "p-1"),
        ({"OTEL_SERVICE_NAME": "sagas"}, "sagas", "p-1"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=sagas,service.instance.id=i"}, "sagas", "i"),
    ],
)
def test_spans_name_the_service_as_the_environment_does(
    env: dict[str, str], service: str, instance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    build = Builder("shop", "p-1", "", env)
    told = build(completed().jobs[0]).resource.attributes
    assert (told["service.name"], told["service.instance.id"]) == (service, instance)
    assert told["kasaga.namespace"] == "shop"
