"""A log line is one object that a machine can read, says which saga it is about, and never a secret."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import math
import sys
import threading
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry import trace

from kasaga_wire.errors import EnvelopeError, KasagaError, LogSettingsError
from kasaga_wire.kafka import KafkaSettings
from kasaga_wire.logs import (
    MAX_TEXT,
    JsonLines,
    KasagaHandler,
    Lines,
    LogFormat,
    TextLines,
    about,
    configure_logs,
    here,
)
from kasaga_wire.redaction import Secrets

log = logging.getLogger("kasaga.test")


def test_a_muted_thread_is_not_heard_and_others_are() -> None:
    stream = io.StringIO()
    written(stream)
    here.muted = True
    try:
        log.error("misleading")
        other = threading.Thread(target=log.error, args=("from elsewhere",))
        other.start()
        other.join()
    finally:
        here.muted = False
    log.info("again")
    assert [json.loads(line)["message"] for line in stream.getvalue().splitlines()] == [
        "from elsewhere",
        "again",
    ]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, hooks = logging.getLogger(), (sys.excepthook, threading.excepthook)
    level = root.level
    yield
    for handler in [each for each in root.handlers if isinstance(each, KasagaHandler)]:
        root.removeHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks


def written(
    stream: io.StringIO, log_format: LogFormat = "json", secrets: Secrets | None = None, **env: str
) -> None:
    configure_logs(log_format, "debug", stream=stream, environment=env, secrets=secrets or Secrets())


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    return log.makeRecord(log.name, logging.WARNING, "f.py", 1, message, args, None, extra=extra)


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonLines(Secrets()).format(made)
    assert "\n" not in text
    assert text.isascii()
    return json.loads(text)  # type: ignore[no-any-return]


# --- what a line says


def test_a_line_is_an_object_with_time_level_logger_message_and_every_extra() -> None:
    made = record("shard %d taken", 3, shard=3, run_id="r", open_rows=None)
    made.created = datetime(2026, 7, 1, 12, 0, 0, 1500, tzinfo=UTC).timestamp()
    assert as_json(made) == {
        "time": "2026-07-01T12:00:00.001500Z",
        "level": "warning",
        "logger": "kasaga.test",
        "message": "shard 3 taken",
        "shard": 3,
        "run_id": "r",
        "open_rows": None,
    }


def test_fields_under_one_name_stand_for_themselves_whatever_they_are_called() -> None:
    line = as_json(record("x", kasaga={"name": "a", "args": 1, "level": "high"}))
    assert (line["name"], line["args"], line["level"], line["field_level"]) == ("a", 1, "warning", "high")


def test_an_error_comes_with_type_message_code_and_stack() -> None:
    made = record("bad")
    try:
        try:
            raise ValueError("inner")
        except ValueError as inner:
            raise EnvelopeError("ce_id", "missing") from inner
    except KasagaError:
        made.exc_info = sys.exc_info()
    line = as_json(made)
    assert line["code"] == "KSG-120"
    assert line["exception"]["type"] == "kasaga_wire.errors.EnvelopeError"
    assert line["exception"]["message"] == "KSG-120: header ce_id: missing."
    assert "ValueError: inner" in line["exception"]["stack"]
    assert "test_an_error_comes_with" in line["exception"]["stack"]


def test_whatever_is_logged_can_be_written() -> None:
    class Bad:
        def __str__(self) -> str:
            raise RuntimeError

    circle: list[object] = []
    circle.append(circle)
    when, some = datetime(2026, 1, 2, tzinfo=UTC), uuid.uuid4()
    made = record(
        "%d %s",
        "x",
        bad=Bad(),
        circle=circle,
        nan=math.nan,
        when=when,
        id=some,
        raw=b"\xff",
        odd="\ud800\0é\n",
    )
    line = as_json(made)
    assert line["message"].startswith("%d %s")
    assert "Bad" in line["bad"]
    assert (line["nan"], line["when"], line["id"]) == ("nan", str(when), str(some))
    assert line["odd"] == "\ud800\0é\n"


def test_a_line_is_bounded() -> None:
    line = as_json(record("x" * (MAX_TEXT + 5), many=list(range(1000)), deep={"a": ["y" * 10**6]}))
    assert len(line["message"]) < MAX_TEXT + 100
    assert line["message"].endswith(f"({MAX_TEXT + 5} characters)")
    assert len(line["many"]) == 100
    assert len(line["deep"]["a"][0]) < MAX_TEXT + 100


# --- what a line is about


def test_what_is_bound_to_a_block_stands_in_its_lines_and_the_calls_own_words_win() -> None:
    with about(saga_id="o-1", run_id="r-1"):
        with about(command_id="r-1.2", run_id="r-2"):
            inner = as_json(record("x", saga_id="other"))
        outer = as_json(record("x"))
    assert (inner["saga_id"], inner["run_id"], inner["command_id"]) == ("other", "r-2", "r-1.2")
    assert (outer["saga_id"], outer["run_id"]) == ("o-1", "r-1")
    assert "command_id" not in outer
    assert "saga_id" not in as_json(record("x"))


def test_what_is_bound_to_a_task_stays_in_that_task() -> None:
    async def handler(name: str) -> dict[str, Any]:
        with about(saga_id=name):
            await asyncio.sleep(0)
            return as_json(record("x"))

    async def main() -> list[dict[str, Any]]:
        return list(await asyncio.gather(handler("a"), handler("b")))

    assert [line["saga_id"] for line in asyncio.run(main())] == ["a", "b"]


def test_a_threads_subject_is_described_only_for_a_line_that_is_written() -> None:
    asked: list[str] = []

    def describe(subject: str) -> dict[str, object]:
        asked.append(subject)
        return {"saga_id": subject}

    here.describe, here.subject = describe, "o-7"
    try:
        logging.getLogger("kasaga.quiet").debug("nothing hears this")
        assert asked == []
        assert as_json(record("x"))["saga_id"] == "o-7"
        here.subject = 1 / 2
        here.describe = lambda _: 1 / 0  # type: ignore[assignment]
        assert as_json(record("x"))["log_error"] == "ZeroDivisionError"
    finally:
        here.describe = here.subject = None
    assert "saga_id" not in as_json(record("x"))


def test_a_line_inside_of_a_span_names_it() -> None:
    span = trace.NonRecordingSpan(trace.SpanContext(0xABC, 0xDEF, is_remote=False))
    with trace.use_span(span):
        line = as_json(record("x"))
        other = as_json(record("x", trace_id="f" * 32))
    assert (line["trace_id"], line["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert other["trace_id"] == "f" * 32
    assert "span_id" not in other


# --- setting up


def test_the_format_and_level_come_from_the_environment() -> None:
    pipe = io.StringIO()
    configure_logs(stream=pipe, environment={"KASAGA_LOG_LEVEL": "WARNING"}, secrets=Secrets())
    log.info("no")
    log.warning("yes")
    assert [line["message"] for line in lines(pipe)] == ["yes"]
    text = io.StringIO()
    configure_logs(stream=text, environment={"KASAGA_LOG_FORMAT": "text"}, secrets=Secrets())
    log.info("shard taken", extra={"shard": 3})
    assert text.getvalue().rstrip().endswith("info     kasaga.test: shard taken  shard=3")
    assert pipe.getvalue().count("\n") == 1, "the second call takes the place of the first"


def test_people_at_a_terminal_get_text_with_colours_unless_they_want_none() -> None:
    shown, plain = Tty(), Tty()
    configure_logs(stream=shown, environment={}, secrets=Secrets())
    log.warning("x")
    configure_logs(stream=plain, environment={"NO_COLOR": "1"}, secrets=Secrets())
    log.warning("x")
    assert "\x1b[33mwarning" in shown.getvalue()
    assert plain.getvalue().endswith("warning  kasaga.test: x\n")


@pytest.mark.parametrize(
    ("env", "word"),
    [({"KASAGA_LOG_FORMAT": "xml"}, "xml"), ({"KASAGA_LOG_LEVEL": "loud"}, "loud")],
)
def test_what_cannot_be_is_refused_by_name(env: dict[str, str], word: str) -> None:
    with pytest.raises(LogSettingsError, match=word):
        configure_logs(environment=env, secrets=Secrets())


def test_a_program_with_logging_of_its_own_is_left_alone() -> None:
    stream, handler, root = io.StringIO(), logging.NullHandler(), logging.getLogger()
    root.addHandler(handler)
    try:
        configure_logs(stream=stream, yielding=True, environment={}, secrets=Secrets())
    finally:
        root.removeHandler(handler)
    log.error("x")
    assert stream.getvalue() == ""


def test_uncaught_errors_and_warnings_are_lines_too() -> None:
    stream = io.StringIO()
    written(stream)
    try:
        raise ValueError("x")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    thread = threading.Thread(target=lambda: 1 / 0, name="worker")
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    first, second, third = lines(stream)
    assert (first["level"], first["exception"]["type"]) == ("critical", "ValueError")
    assert (second["thread_name"], second["exception"]["type"]) == ("worker", "ZeroDivisionError")
    assert "old" in third["message"]


def test_a_text_line_is_one_line_whatever_the_message_holds() -> None:
    text = TextLines(Secrets()).format(record("a\nb\x1b[2J", name_="c\rd"))
    assert len(text.splitlines()) == 1
    assert text.endswith(r"a\nb\x1b[2J  name_=c\rd")


# --- secrets

PASSWORD = "s3cr&t/p@ss: wörd"
ENCODED = "s3cr%26t%2Fp%40ss%3A%20w%C3%B6rd"


def formatters(secrets: Secrets) -> list[Lines]:
    return [JsonLines(secrets), TextLines(secrets)]


def shows(text: str) -> bool:
    """The password in any way of writing it."""
    with contextlib.suppress(ValueError):
        text += str(json.loads(text))
    return any(each in text for each in (PASSWORD, ENCODED, "s3cr", "p@ss", "p%40ss"))


@pytest.mark.parametrize(
    "variable",
    [
        ("KASAGA_DATABASE_URL", f"postgresql://kasaga:{ENCODED}@db:5432/kasaga?sslmode=require"),
        ("KASAGA_DATABASE_URL", f"postgresql://kasaga@db/kasaga?password={ENCODED}"),
        ("KASAGA_DATABASE_URL", f"host=db user=kasaga password='{PASSWORD}' dbname=kasaga"),
        ("KASAGA_KAFKA_SASL_PASSWORD", PASSWORD),
        ("PGPASSWORD", PASSWORD),
        ("OTEL_EXPORTER_OTLP_HEADERS", f"x=y,authorization={ENCODED}"),
    ],
)
def test_no_secret_of_the_environment_is_ever_shown(variable: tuple[str, str]) -> None:
    secrets = Secrets()
    secrets.hide_environment(dict([variable]))
    for formatter in formatters(secrets):
        for text in (PASSWORD, ENCODED, repr(PASSWORD), variable[1]):
            made = record(
                f"connecting with {text}", url=variable[1], nested={"a": [text]}, error=OSError(text)
            )
            try:
                raise OSError(f"cannot connect to {text}")
            except OSError:
                made.exc_info = sys.exc_info()
            line = formatter.format(made)
            assert not shows(line), line
            assert "connecting with" in line


def test_passwords_nobody_named_are_found_by_where_they_stand() -> None:
    for text in (
        "postgresql://kasaga:hunter2@db/kasaga",
        "could not parse host=db password=hunter2 dbname=x",
        "host=db password = 'hunter2' dbname=x",
        "{'sasl.password': 'hunter2'}",
        '{"ssl.key.password": "hunter2"}',
        "client_secret=hunter2&x=y",
    ):
        for formatter in formatters(Secrets()):
            assert "hunter2" not in formatter.format(record(text))
    for formatter in formatters(Secrets()):
        line = formatter.format(record("x", db_password="hunter2", a={"client_secret": "hunter2"}))
        assert "hunter2" not in line


def test_what_is_no_secret_stays_readable() -> None:
    text = 'password authentication failed for user "kasaga" at http://host:9092/a?b=c'
    secrets = Secrets()
    secrets.hide("", None, "ab")
    assert secrets.redact(text) == text
    assert secrets.redact("cab") == "cab", "too short to be looked for"


def test_a_private_key_is_hidden_line_by_line() -> None:
    secrets = Secrets()
    secrets.hide(
        "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQ\nEFAASCBKcwggSjAgEAAoIBAQ\n-----END"
    )
    assert "EFAASCBKcwggSjAgEAAoIBAQ" not in secrets.redact("bad line EFAASCBKcwggSjAgEAAoIBAQ in key")


def test_kafkas_settings_say_what_is_secret_of_them() -> None:
    settings = KafkaSettings("a:9092", {"sasl.password": "x1234", "client.id": "me", "ssl.key.pem": "k"})
    assert sorted(settings.secrets) == ["k", "x1234"]


def test_a_long_text_is_not_cut_through_a_secret() -> None:
    secrets = Secrets()
    secrets.hide("hunter2hunter2")
    text = "x" * (MAX_TEXT - 5) + "hunter2hunter2"
    assert "hunte" not in JsonLines(secrets).format(record(text))
