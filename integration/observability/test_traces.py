"""One saga is one trace, from whoever starts it to the last handler, whatever dies on the way."""

from __future__ import annotations

import json
from collections import Counter
from signal import SIGKILL

import pytest

from eventually import eventually
from kasaga.orchestrator.traceids import hashed_trace_id, span_id
from observability.collector import CONSUMER, ERROR, PRODUCER, Collector, Seen
from observability.watch import PATIENCE, Watch, a_span

ORCHESTRATOR, GOODS = "kasaga-orchestrator", "goods"


def tracing(collector: Collector) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20"}


def names(spans: list[Seen]) -> list[str]:
    return [span.name.rpartition(":")[2] for span in spans]


def wait_for(collector: Collector, saga_id: str, name: str = "purchase") -> Seen:
    def found() -> Seen | None:
        return next((span for span in collector.of(saga_id) if span.name == name), None)

    span = eventually(found, timeout=PATIENCE)
    assert span is not None
    return span


def test_both_ends_join_in_the_starters_trace(watch: Watch, collector: Collector) -> None:
    watch.orchestrator(**tracing(collector))
    watch.service(**tracing(collector))
    starter = a_span()
    run_id = watch.start("o-1", "retry", starter)
    assert watch.wait("o-1") == "shelf of o-1"
    root = wait_for(collector, "o-1")
    mine = [span for span in collector.of("o-1", ORCHESTRATOR) if span is not root]
    assert names(mine) == ["goods.take", "goods.take", "look_up", "sleep", "goods.pay"]
    assert {span.trace for span in collector.of("o-1")} == {f"{starter.trace_id:032x}"}
    assert {span.state for span in collector.of("o-1")} == {"vendor=x"}

    assert (root.parent, root.id, root.kind) == (f"{starter.span_id:016x}", span_id(run_id), CONSUMER)
    assert {span.parent for span in mine} == {root.id}
    attempts = ("1.1", "1.2", "2.1", "3.1", "4.1")
    assert [span.id for span in mine] == [span_id(f"{run_id}.{attempt}") for attempt in attempts]
    assert all(root.start <= span.start <= span.end <= root.end for span in mine)
    assert (mine[0].status, mine[0].message) == (ERROR, "failed: the shelf is jammed")
    assert [span.kind for span in mine[:2]] == [PRODUCER] * 2
    assert mine[1].attributes["messaging.destination.name"] == f"{watch.prefix}goods.commands"
    assert (root.attributes["kasaga.state"], root.attributes["kasaga.saga_version"]) == ("COMPLETED", 3)

    handled = eventually(lambda: each if len(each := collector.of("o-1", GOODS)) == 3 else None)
    assert handled is not None
    assert {span.kind for span in handled} == {CONSUMER}
    sent = {span.attributes["messaging.message.id"]: span.id for span in mine if span.kind == PRODUCER}
    assert {span.attributes["messaging.message.id"]: span.parent for span in handled} == sent


def test_a_refusal_and_its_undo_are_seen_on_both_sides(watch: Watch, collector: Collector) -> None:
    watch.orchestrator(**tracing(collector))
    watch.service(**tracing(collector))
    run_id = watch.start("o-1", "refuse")
    assert watch.wait("o-1") == "SagaCompensated"
    root = wait_for(collector, "o-1")
    assert (root.trace, root.parent, root.status) == (hashed_trace_id(run_id), "", ERROR)
    assert root.events == ["saga compensating"]
    spans = collector.of("o-1", ORCHESTRATOR)
    outcomes = {span.name: span.attributes.get("kasaga.outcome") for span in spans}
    assert outcomes["goods.pay"] == "refused"
    assert outcomes["goods.give_back"] == "undone"
    handled = eventually(lambda: each if len(each := collector.of("o-1", GOODS)) == 3 else None)
    assert {span.trace for span in handled or []} == {root.trace}


def test_what_its_starter_does_not_sample_nobody_traces(watch: Watch, collector: Collector) -> None:
    watch.orchestrator(**tracing(collector))
    watch.service(**tracing(collector))
    watch.start("quiet", parent=a_span(sampled=False))
    assert watch.wait("quiet") == "shelf of quiet"
    watch.start("loud", parent=a_span())
    assert watch.wait("loud") == "shelf of loud"
    wait_for(collector, "loud")
    assert collector.of("quiet") == []


def test_a_stuck_saga_is_seen_while_it_is_stuck(watch: Watch, collector: Collector) -> None:
    watch.orchestrator(**tracing(collector))
    watch.service(**tracing(collector))
    watch.broken.touch()
    run_id = watch.start("o-1", "refuse")
    stuck = wait_for(collector, "o-1", "saga stuck")
    assert (stuck.start, stuck.parent, stuck.status) == (stuck.end, span_id(run_id), ERROR)
    assert "goods.give_back" in stuck.message
    assert not [span for span in collector.of("o-1") if span.name == "purchase"]
    line = next(line for line in watch.lines("one") if line["message"] == "saga stuck")
    assert (line["saga_id"], line["run_id"], line["trace_id"]) == ("o-1", run_id, stuck.trace)
    assert line["reason"] == stuck.message
    assert line["remedy"]
    eventually(lambda: 'kasaga_sagas{saga="purchase",state="STUCK"} 1.0' in watch.probe("one", "/metrics")[1])
    watch.broken.unlink()
    assert watch.wait("o-1") == "SagaCompensated"
    assert "saga stuck" in wait_for(collector, "o-1").events


# --- crashes


def whole(run_id: str) -> dict[str, str]:
    """The names of all spans of a purchase that goes well, by id."""
    attempts = {"1.1": "goods.take", "2.1": "look_up", "3.1": "sleep", "4.1": "goods.pay"}
    made = {span_id(f"{run_id}.{attempt}"): name for attempt, name in attempts.items()}
    return {**made, span_id(run_id): "purchase"}


def test_a_trace_outlives_the_process_that_began_it(watch: Watch, collector: Collector) -> None:
    """Killed while a payment is out: the next process ends its attempt, from the time it was really sent."""
    first = watch.orchestrator(**tracing(collector))
    watch.service(**tracing(collector))
    watch.closed.touch()
    run_id = watch.start("o-1")
    eventually(lambda: len(collector.of("o-1", ORCHESTRATOR)) == 3, timeout=PATIENCE)
    first.stop(SIGKILL, PATIENCE)
    watch.orchestrator("two", **tracing(collector))
    watch.closed.unlink()
    assert watch.wait("o-1") == "shelf of o-1"
    root = wait_for(collector, "o-1")
    spans = collector.of("o-1", ORCHESTRATOR)
    assert dict(zip([span.id for span in spans], names(spans), strict=True)) == whole(run_id)
    assert {span.trace for span in spans} == {hashed_trace_id(run_id)}
    pay = next(span for span in spans if span.name == "goods.pay")
    sleep = next(span for span in spans if span.name == "sleep")
    assert pay.start == sleep.end, "sent by the first process"
    assert (pay.instance, root.instance) != (sleep.instance, sleep.instance)
    assert pay.instance == root.instance


@pytest.mark.parametrize(
    "crash_at",
    [
        "orchestrator.before_commit:2",
        "orchestrator.before_commit:4",
        "orchestrator.after_commit:2",
        "orchestrator.after_commit:4",
        "orchestrator.after_commit:6",
        "orchestrator.after_produce:2",
    ],
)
def test_what_a_dead_process_had_not_exported_its_heir_exports(
    watch: Watch, collector: Collector, crash_at: str
) -> None:
    """It exports once a minute, so that it dies with all that it has ended; nothing is lost or said twice."""
    seldom = {**tracing(collector), "OTEL_BSP_SCHEDULE_DELAY": "60000"}
    first = watch.orchestrator(**seldom, KASAGA_CRASH_AT=crash_at)
    watch.service(**tracing(collector))
    run_id = watch.start("o-1")
    eventually(lambda: first.ended() is not None, timeout=PATIENCE)
    assert collector.of("o-1", ORCHESTRATOR) == []
    watch.orchestrator("two", **tracing(collector))
    assert watch.wait("o-1") == "shelf of o-1"
    wait_for(collector, "o-1")
    eventually(lambda: len(collector.of("o-1", ORCHESTRATOR)) >= 5)
    found = Counter((span.id, span.name.rpartition(":")[2]) for span in collector.of("o-1", ORCHESTRATOR))
    assert found == Counter(whole(run_id).items())


def test_a_collector_that_is_away_holds_nothing_up(watch: Watch, collector: Collector) -> None:
    away = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    watch.orchestrator(**away, OTEL_BSP_SCHEDULE_DELAY="20")
    watch.service(**away, OTEL_BSP_SCHEDULE_DELAY="20")
    for number in range(3):
        watch.start(f"o-{number}")
        assert watch.wait(f"o-{number}") == f"shelf of o-{number}"
    assert watch.probe("one", "/ready")[0] == watch.probe("service", "/ready")[0] == 200
    eventually(lambda: 'kasaga_spans_total{result="failed"} 15.0' in watch.probe("one", "/metrics")[1])
    lost = 'kasaga_participant_spans_total{result="failed"} 6.0'
    eventually(lambda: lost in watch.probe("service", "/metrics")[1])
    for name in ("one", "service"):
        lines = [each for each in watch.lines(name) if "export" in json.dumps(each)]
        (line,) = [each for each in lines if each["level"] != "info"]
        assert (line["logger"], line["message"]) == ("kasaga.tracing", "spans are not exported")
        assert "Failed to export" in line["error"]


def test_headers_of_the_environment_go_with_the_spans_and_into_no_log(
    watch: Watch, collector: Collector
) -> None:
    secret = {
        **tracing(collector),
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20s3cr3t,x-tenant=shop",
    }
    watch.orchestrator(**secret)
    watch.service(**secret)
    watch.start("o-1")
    assert watch.wait("o-1") == "shelf of o-1"
    wait_for(collector, "o-1")
    eventually(lambda: collector.of("o-1", GOODS))
    assert {(each["authorization"], each["x-tenant"]) for each in collector.headers} == {
        ("Bearer s3cr3t", "shop")
    }
    assert "s3cr3t" not in watch.text("one") + watch.text("service")
