"""The exporting thread: bounded, never in the way, and it says how far it has come."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from eventually import eventually
from kasaga_wire import tracing
from kasaga_wire.errors import TracingSettingsError
from kasaga_wire.tracing import COMPLAIN_SECONDS, SpanExport, export_from, exporter_of

log = logging.getLogger("kasaga.tracing")


class Gate(SpanExporter):
    """Takes nothing in until it is opened; says yes or no then."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self.well = True
        self.taken: list[str] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.entered.set()
        self.opened.wait(30)
        if not self.well:
            logging.getLogger("opentelemetry.exporter.otlp.x").error("Failed to export: %s", "no route")
            return SpanExportResult.FAILURE
        self.taken += [span.name for span in spans]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.opened.set()


def made(gate: Gate, *, queue: int = 100, delay: float = 0.01) -> SpanExport[str]:
    return SpanExport([gate], ReadableSpan, log, queue=queue, batch=4, delay=delay)


def test_what_there_is_no_room_for_is_dropped_and_nobody_waits() -> None:
    gate = Gate()
    export = made(gate, queue=5).start()
    export.put("first")
    assert gate.entered.wait(30)
    assert [export.put(str(number)) for number in range(7)] == [True] * 5 + [False] * 2
    assert (export.accepted, export.disposed, export.dropped) == (6, 0, 2)
    gate.opened.set()
    export.close()
    assert (export.exported, export.disposed) == (6, 6)
    assert gate.taken == ["first", "0", "1", "2", "3", "4"]


def test_a_flush_waits_for_what_was_put_before_it() -> None:
    gate = Gate()
    gate.opened.set()
    export = made(gate, delay=3600).start()
    assert export.flush(0)
    export.put("a")
    assert export.flush(30)
    assert gate.taken == ["a"]
    export.close()


def test_a_flush_gives_up_after_its_time_and_at_once_where_exports_fail() -> None:
    gate = Gate()
    export = made(gate).start()
    export.put("a")
    assert not export.flush(0.05)
    gate.well = False
    gate.opened.set()
    eventually(lambda: export.failing)
    gate.opened.clear()
    export.put("b")
    began = time.monotonic()
    assert not export.flush(3600)
    assert time.monotonic() - began < 60
    gate.opened.set()
    export.close()


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Without what threads of other tests may still say."""
    return [record for record in caplog.records if record.name == log.name]


def test_an_outage_is_one_line_and_its_end_another(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    gate = Gate()
    gate.well = False
    gate.opened.set()
    export = made(gate)
    for name in "abc":
        export.put(name)
        export.turn()
    assert [record.getMessage() for record in ours(caplog)] == ["spans are not exported"]
    assert vars(ours(caplog)[0])["error"] == "Failed to export: no route"
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + COMPLAIN_SECONDS + 1)
    export.put("d")
    export.turn()
    gate.well = True
    export.put("e")
    export.turn()
    said = [record.getMessage() for record in ours(caplog)]
    assert said == ["spans are not exported"] * 2 + ["spans are exported again"]
    assert [vars(record)["lost"] for record in ours(caplog)] == [1, 4, 4]
    export.close()
    logging.getLogger("opentelemetry.exporter.otlp.x").error("as before")
    assert caplog.messages[-1] == "as before"


def test_what_can_not_become_a_span_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    gate.opened.set()

    def build(name: str) -> ReadableSpan:
        if name == "odd":
            raise ValueError("odd")
        return ReadableSpan(name)

    export = SpanExport([gate], build, log, batch=1)
    for name in ("odd", "even"):
        export.put(name)
    export.turn()
    assert gate.taken == ["even"]
    assert (export.failed, export.exported, export.disposed) == (1, 1, 2)
    assert vars(caplog.records[0])["error"] == "ValueError: odd"
    export.close()


def test_what_there_is_time_for_comes_last_and_ends_with_the_process() -> None:
    gate = Gate()
    gate.opened.set()
    export = made(gate, delay=3600)
    left = ["x", "y", "z"]

    def spare() -> bool:
        if left:
            export.send([left.pop(0)])
        return bool(left)

    export.spare = spare
    export.put("a")
    export.start()
    export.close()
    assert gate.taken == ["a", "x", "y", "z"]


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5", "²"])
def test_sizes_are_numbers_above_0(number: str) -> None:
    env = {"OTEL_BSP_SCHEDULE_DELAY": number}
    with pytest.raises(TracingSettingsError, match="OTEL_BSP_SCHEDULE_DELAY"):
        export_from(env, [], ReadableSpan, log)


def test_an_exporter_that_does_not_like_its_settings_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Choosy:
        def load(self) -> type[SpanExporter]:
            raise ValueError("no such certificate")

    def found(**_: str) -> list[Choosy]:
        return [Choosy()]

    monkeypatch.setattr(tracing, "entry_points", found)
    with pytest.raises(TracingSettingsError, match=r"otlp_proto_http can't be set up.*no such certificate"):
        exporter_of("otlp_proto_http")
