"""Traces of a participant: every command, undo and void has a span, and who sets up the SDK."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Generator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from kasaga_participant.testing import Harness
from kasaga_participant.tracing import NoTracing, OpenTelemetry, tracing_from
from kasaga_wire.errors import TracingSettingsError
from observability.conventions import current
from participant.services import Inventory, Notes, Order, async_app

TRACE = "0123456789abcdef0123456789abcdef"
PARENT = f"00-{TRACE}-0123456789abcdef-01"


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> Generator[InMemorySpanExporter]:
    """What a provider exports that the service has set up."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter
    provider.shutdown()


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_what_is_answered_without_a_handler_has_a_span_as_well(exported: InMemorySpanExporter) -> None:
    async def main() -> list[str | None]:
        async with Harness(async_app(Notes())) as harness:
            harness.traceparent = PARENT
            done = await harness.send(Inventory.reserve, Order(id="o"))
            again = await harness.send(Inventory.reserve, Order(id="o"), id=done.id, attempt=2)
            undone = await harness.undo(Inventory.release, done)
            voided = await harness.void(Inventory.reserve, id="r.9")
            late = await harness.send(Inventory.reserve, Order(id="o"), id="r.9")
            other = await harness.send(Inventory.reserve, Order(id="other"), id=done.id)
        return [each.envelope.traceparent for each in (done, again, undone, voided, late, other)]

    replies = asyncio.run(main())
    spans = list(exported.get_finished_spans())
    told = [
        (
            attributes(span).get("kasaga.outcome"),
            attributes(span).get("kasaga.duplicate"),
            span.status.status_code,
        )
        for span in spans
    ]
    fine, bad = StatusCode.UNSET, StatusCode.ERROR
    assert told == [
        (None, None, fine),
        ("done", True, fine),
        (None, None, fine),
        ("voided", None, fine),
        ("refused", True, fine),
        ("conflict", None, bad),
    ]
    assert attributes(spans[1])["kasaga.attempt"] == 2
    assert attributes(spans[5])["error.type"] == "IdClash"
    for span, reply in zip(spans, replies, strict=True):
        own = span.get_span_context()
        assert own is not None
        assert reply == f"00-{own.trace_id:032x}-{own.span_id:016x}-01", "the reply goes on from it"
        assert (span.kind, f"{own.trace_id:032x}") == (SpanKind.CONSUMER, TRACE)
        assert (span.start_time or 0) <= (span.end_time or 0)


def test_the_messaging_attributes_are_those_of_todays_conventions(exported: InMemorySpanExporter) -> None:
    async def main() -> None:
        async with Harness(async_app(Notes())) as harness:
            await harness.send(Inventory.reserve, Order(id="o"))

    asyncio.run(main())
    (span,) = exported.get_finished_spans()
    found = {name for name in attributes(span) if name.startswith("messaging.")}
    assert found <= current("messaging")
    assert len(found) >= 8
    assert span.name == f"process {attributes(span)['messaging.destination.name']}"


# --- who sets it up


def test_nothing_is_built_where_nobody_asks_for_it() -> None:
    assert isinstance(tracing_from("goods", {}), NoTracing)
    disabled = {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "console"}
    assert isinstance(tracing_from("goods", disabled), NoTracing)


def test_without_the_sdk_a_service_serves_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "kasaga_participant.otel", None)
    assert isinstance(tracing_from("goods", {"OTEL_TRACES_EXPORTER": "console"}), NoTracing)
    assert "pip install 'kasaga[traces]'" in caplog.text


def test_what_can_not_be_followed_is_named() -> None:
    with pytest.raises(TracingSettingsError, match="http/json"):
        tracing_from("goods", {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"})
    with pytest.raises(TracingSettingsError, match="zipkin"):
        tracing_from("goods", {"OTEL_TRACES_EXPORTER": "zipkin"})


def test_the_services_own_provider_is_used_and_left_alone(exported: InMemorySpanExporter) -> None:
    made = tracing_from("goods", {"OTEL_TRACES_EXPORTER": "console"})
    assert isinstance(made, OpenTelemetry)
    made.flush(0)


PROGRAM = """
import os
from opentelemetry import trace
from kasaga_participant.tracing import tracing_from
made = tracing_from("goods")
assert made is tracing_from("goods"), "once for each process"
with trace.get_tracer("mine").start_as_current_span("the service's own"):
    pass
made.flush(30)
print("flushed", flush=True)
if os.environ.get("DIES"):
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("dies", ["", "1"])
def test_where_there_is_none_the_variables_make_one(dies: str) -> None:
    """Of its own process: a provider is set once and for all."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    wanted = {"OTEL_TRACES_EXPORTER": "console", "OTEL_BSP_SCHEDULE_DELAY": "60000", "DIES": dies}
    wanted |= {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**own, **wanted}, capture_output=True, text=True, check=False
    )
    assert ran.returncode == (-9 if dies else 0), ran.stderr
    before, _, _ = ran.stdout.partition("flushed")
    for told in ("the service's own", '"service.name": "goods"', '"deployment.environment.name": "test"'):
        assert told in before, ran.stdout + ran.stderr


def test_an_unsampled_service_exports_nothing() -> None:
    wanted = {"OTEL_TRACES_EXPORTER": "console", "OTEL_TRACES_SAMPLER": "always_off"}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **wanted},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == "flushed\n"
