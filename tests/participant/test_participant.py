"""Declaring a participant: what is refused at once, what the environment says, and the small parts."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

import kasaga_participant
from kasaga_participant import KafkaSettings, Participant, Refused, Tx, errors
from kasaga_participant.calls import encode_error
from kasaga_participant.errors import ParticipantError, RegistrationError, StartError
from kasaga_participant.http import HttpServer
from kasaga_participant.log import Throttle
from kasaga_participant.metrics import Metrics, metrics_of
from kasaga_participant.testing import Harness
from kasaga_wire import command, participant
from kasaga_wire.errors import SettingsError
from kasaga_wire.records import errors_codec
from kasaga_wire.schema import Schemas
from participant.services import Inventory, Notes, Order, Reservation, async_app, service_of

KAFKA = KafkaSettings("localhost:9092")
ROOT = Path(__file__).resolve().parents[2]


def test_the_public_face_is_small() -> None:
    assert sorted(kasaga_participant.__all__) == [
        "AlreadyAnswered",
        "BadToken",
        "CannotDefer",
        "CommandInfo",
        "Deferred",
        "GivenUp",
        "HandlerError",
        "KafkaSettings",
        "Late",
        "NotDeferred",
        "Participant",
        "ParticipantError",
        "Refused",
        "RetryableError",
        "SyncLate",
        "SyncTx",
        "Tx",
    ]


# --- handlers


class Half(Inventory):
    def __init__(self, tx: Tx) -> None: ...

    async def reserve(self, order: Order) -> Reservation:
        return Reservation(number=1)


class Plain(Inventory):
    def __init__(self, tx: Tx) -> None: ...

    def reserve(self, order: Order) -> Reservation:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return Reservation(number=1)


@pytest.mark.parametrize(
    ("service", "message"),
    [(Half, "Half doesn't implement count, release"), (Plain, "Plain.reserve is no async def")],
)
def test_a_service_that_lacks_a_command_is_refused(service: Callable[[Tx], Inventory], message: str) -> None:
    with pytest.raises(RegistrationError, match=message):
        Participant().serve(Inventory, service)


def test_a_factory_is_found_out_when_it_is_called() -> None:
    def factory(tx: Tx) -> Inventory:
        return Half(tx)  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]

    async def main() -> None:
        app = Participant(database_url=None)
        app.serve(Inventory, factory)
        async with Harness(app) as harness:
            done = await harness.send(Inventory.reserve, Order(id="o"))
            failed = await harness.send(Inventory.count, Order(id="o"))
        assert failed.error is not None
        assert (done.outcome, failed.outcome, failed.error.type) == ("done", "failed", "RegistrationError")

    asyncio.run(main())


def test_functions_are_checked_when_they_are_registered() -> None:
    app = Participant()

    def one_argument(order: Order) -> Reservation:
        return Reservation(number=1)

    with pytest.raises(RegistrationError, match=r"can't handle inventory\.reserve.*the input and tx"):
        app.handle(Inventory.reserve)(one_argument)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]

    with pytest.raises(RegistrationError, match=r"no handler for inventory\.reserve, .*inventory\.release"):
        _ = app.registries


def test_nothing_is_handled_twice() -> None:
    app = async_app(Notes())
    with pytest.raises(RegistrationError, match="has a handler already"):
        app.serve(Inventory, service_of(Notes()))


def test_nothing_to_serve_is_an_error() -> None:
    with pytest.raises(RegistrationError, match="nothing to serve"):
        _ = Participant().registries


def test_two_contracts_of_one_name_are_refused() -> None:
    @participant("inventory")
    class Other(Protocol):
        @command
        async def reserve(self, order: Order) -> Reservation: ...

    class Service(Other):
        def __init__(self, tx: Tx) -> None: ...

        async def reserve(self, order: Order) -> Reservation:
            return Reservation(number=1)

    app = async_app(Notes())
    with pytest.raises(RegistrationError, match="two contracts are called inventory"):
        app.serve(Other, Service)


# --- settings


def test_everything_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    secret = tmp_path / "url"
    secret.write_text("postgresql://secret\n")
    for name, value in {
        "KASAGA_DATABASE_URL_FILE": str(secret),
        "KASAGA_KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "KASAGA_NAMESPACES": "shop, other,",
        "KASAGA_TOPIC_PREFIX": "test.",
        "KASAGA_HTTP_PORT": "9100",
    }.items():
        monkeypatch.setenv(name, value)

    settings = async_app_with(database_url=None).settings()
    assert settings.database_url is None  # said so: no inbox

    settings = Participant("inventory").settings()
    assert (settings.database_url, settings.kafka.bootstrap) == ("postgresql://secret", "kafka:9092")
    assert (settings.namespaces, settings.topic_prefix, settings.http_port) == (
        ("shop", "other"),
        "test.",
        9100,
    )
    assert (settings.max_age, settings.retention) == (timedelta(days=7), timedelta(days=14))


def async_app_with(**options: Any) -> Participant:
    return Participant("inventory", **options)


def test_to_run_without_a_database_must_be_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KASAGA_DATABASE_URL", raising=False)
    with pytest.raises(StartError, match="no database is named"):
        Participant(kafka=KAFKA).settings()
    monkeypatch.setenv("KASAGA_DATABASE_URL_FILE", "/nowhere")
    with pytest.raises(StartError, match="No such file"):
        Participant(kafka=KAFKA).settings()


def test_brokers_must_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KASAGA_KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with pytest.raises(SettingsError):
        Participant(database_url=None).settings()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"retention": timedelta(days=13)}, "at least twice max_age"),
        ({"batch": 0}, "batch must be at least 1"),
        ({"concurrency": 0}, "concurrency must be at least 1"),
        ({"namespaces": ()}, "no namespace"),
        ({"max_age": timedelta(0)}, "at least twice max_age"),
    ],
)
def test_settings_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(StartError, match=message):
        Participant(database_url=None, kafka=KAFKA, **options).settings()


def test_a_port_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KASAGA_HTTP_PORT", "http")
    with pytest.raises(StartError, match="is no port"):
        Participant(database_url=None, kafka=KAFKA).settings()


# --- errors


def test_every_error_has_a_code_of_its_own() -> None:
    kinds = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, ParticipantError)
    ]
    codes = [kind.code for kind in kinds]
    assert len(codes) == len(set(codes)) > 10
    assert all(code.startswith("KSG-4") for code in codes)
    tree = errors.__doc__ or ""
    assert all(kind.__name__ in tree and kind.code in tree for kind in kinds)


def test_errors_travel_as_data() -> None:
    def read(error: BaseException) -> Any:
        return errors_codec.decode(encode_error(error), Schemas())

    refused = read(Refused("no\x00 \ud800", code="NO", details={"left": 0, "when": timedelta(1)}))
    assert (refused.type, refused.code, refused.retryable) == ("Refused", "NO", False)
    assert json.loads(refused.details) == {"left": 0, "when": "1 day, 0:00:00"}
    assert "\x00" not in refused.message
    bug = read(ZeroDivisionError())
    assert (bug.type, bug.message, bug.retryable) == ("ZeroDivisionError", "ZeroDivisionError", True)
    ours = read(errors.HandlerKilled("three times"))
    assert (ours.code, ours.retryable) == ("KSG-416", True)


# --- around it


def test_a_throttle_says_each_thing_now_and_then() -> None:
    throttle = Throttle(60)
    assert [throttle.due(key) for key in ("a", "a", "b", "a")] == [True, False, True, False]


def test_metrics_are_counted_by_outcome() -> None:
    registry = CollectorRegistry()
    metrics = metrics_of(registry)
    assert metrics_of(registry) is metrics
    metrics.answered("inventory", "reserve", "done")
    metrics.answered("inventory", "reserve", "done")
    metrics.handled("inventory", "reserve", 0.1)
    labels = {"participant": "inventory", "command": "reserve"}
    counted = registry.get_sample_value("kasaga_participant_commands_total", {**labels, "outcome": "done"})
    assert counted == 2
    assert registry.get_sample_value("kasaga_participant_handler_seconds_count", labels) == 1


def test_probes_and_metrics_are_served() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    reason: list[str | None] = ["starting", None]

    async def get(port: int, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer

    async def main() -> list[bytes]:
        server = HttpServer(registry, lambda: reason.pop(0))
        port = await server.start("127.0.0.1", 0)
        paths = [b"/ready", b"/ready", b"/live?x=1", b"/metrics", b"/secret"]
        answers = [await get(port, b"GET %b HTTP/1.1\r\n\r\n" % path) for path in paths]
        answers.append(await get(port, b"POST /live HTTP/1.1\r\n\r\n"))
        answers.append(await get(port, b"x" * 20_000))
        await server.close()
        return answers

    answers = asyncio.run(main())
    assert [answer[9:12] for answer in answers] == [b"503", b"200", b"200", b"200", b"404", b"405", b""]
    assert answers[0].endswith(b"starting\n")
    assert b"kasaga_participant_inbox_rows_purged_total" in answers[3]


def test_the_trace_goes_on_through_the_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
    notes = Notes()
    notes.behaviour = [KeyError("bug")]

    async def main() -> list[str | None]:
        async with Harness(async_app(notes)) as harness:
            harness.traceparent = parent
            first = await harness.send(Inventory.reserve, Order(id="o"))
            second = await harness.send(Inventory.reserve, Order(id="o"), id=first.id, attempt=2)
            refused = await harness.send(Inventory.reserve, Order(id="o", sku="rare"))
        return [reply.envelope.traceparent for reply in (first, second, refused)]

    replies = asyncio.run(main())
    spans: list[ReadableSpan] = list(exporter.get_finished_spans())
    contexts = [span.context for span in spans if span.context is not None]
    assert [f"00-{each.trace_id:032x}-{each.span_id:016x}-01" for each in contexts] == replies
    assert {f"{each.trace_id:032x}" for each in contexts} == {"0123456789abcdef0123456789abcdef"}
    assert [span.name for span in spans] == ["process inventory.commands"] * 3
    assert [span.status.is_ok or span.status.is_unset for span in spans] == [False, True, True]
    assert (spans[0].attributes or {})["kasaga.command"] == "inventory.reserve"


def test_without_an_sdk_the_reply_carries_the_commands_trace_on() -> None:
    parent = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"

    async def main() -> str | None:
        async with Harness(async_app(Notes())) as harness:
            harness.traceparent = parent
            return (await harness.send(Inventory.reserve, Order(id="o"))).envelope.traceparent

    assert asyncio.run(main()) == parent


# --- crash points


@pytest.mark.parametrize(("setting", "passed"), [("here", 0), ("here:3", 2), ("elsewhere", 5), ("", 5)])
def test_a_crash_point_kills_at_its_passage(setting: str, passed: int) -> None:
    program = (
        "from kasaga_wire.crashpoints import crash_point\n"
        "for n in range(5):\n"
        "    crash_point('here'); print(n, flush=True)\n"
    )
    environment = {**os.environ, "KASAGA_CRASH_AT": setting, "PYTHONPATH": str(ROOT / "schemas")}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.stdout.split() == [str(n) for n in range(passed)]
    assert ran.returncode == (0 if passed == 5 else -signal.SIGKILL)


def test_a_crash_point_that_cannot_be_read_is_an_error() -> None:
    environment = {**os.environ, "KASAGA_CRASH_AT": "here:0", "PYTHONPATH": str(ROOT / "schemas")}
    ran = subprocess.run(
        [sys.executable, "-c", "import kasaga_wire.crashpoints"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    assert "passages are counted from 1" in ran.stderr


def test_every_error_has_its_section() -> None:
    page = (ROOT / "orchestrator" / "errors.md").read_text()
    sections = dict(re.findall(r"^## (KSG-4\d\d) (\w+)$", page, re.MULTILINE))
    kinds = [each for each in vars(errors).values() if isinstance(each, type)]
    ours = {each.code: each.__name__ for each in kinds if issubclass(each, ParticipantError)}
    assert ours == sections
