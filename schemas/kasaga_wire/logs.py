"""Structured logs, the same for the orchestrator, the participants and `kasaga dev`.

Station: `configure_logs` is called once by whoever owns the process; everybody else takes a logger and gives
what a line is about as `extra`. JSON lines for machines, one object each; text for people at a terminal.

What is known of the saga at hand needn't be repeated in each call: `about` binds it for a block of code
(`async` too), `bind` does so without asking before a line is really written, and `here.subject` does for
all that a thread runs, in whatever context.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from itertools import islice
from types import TracebackType
from typing import Any, Literal, TextIO, cast

from opentelemetry import trace

from .errors import KasagaError, LogSettingsError
from .redaction import PROCESS, SHOWN, Secrets

LogFormat = Literal["auto", "json", "text"]

LEVELS = ("debug", "info", "warning", "error", "critical")

MAX_TEXT = 16_000
"""Characters of one text in a line; a collector that gets larger ones drops them."""
MAX_STACK = 64_000
"""Characters of a stack."""
MAX_ITEMS = 100
"""Entries of a list or mapping in a line."""
MAX_DEPTH = 5

FIELDS = "kasaga"
"""An `extra` of this name that is a mapping stands for its entries; their names can be any."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", FIELDS}
_OURS = frozenset({"time", "level", "logger", "message", "exception", "stack"})
_SECRET_FIELDS = ("password", "secret")

Describe = Callable[[], Mapping[str, object]]

_bound: ContextVar[Describe] = ContextVar("kasaga_log_about", default=dict)


class _Here(threading.local):
    """What this thread is busy with: `describe(subject)` gives the fields, if a line is written."""

    subject: Any = None
    describe: Callable[[Any], Mapping[str, object]] | None = None
    muted: bool = False
    """What is logged now would mislead: it is left out, whoever logs it."""


here = _Here()


@contextmanager
def about(**fields: object) -> Generator[None]:
    """Give these fields to every line that is logged inside, by whomever."""
    outer = _bound.get()
    token = _bound.set(lambda: {**outer(), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def bind(describe: Describe) -> Token[Describe]:
    """As `about`, for where a microsecond counts: the fields are asked for if a line is written."""
    return _bound.set(describe)


def unbind(token: Token[Describe]) -> None:
    """Undo a `bind`, in the same task or thread."""
    _bound.reset(token)


def configure_logs(
    log_format: LogFormat | None = None,
    level: str | None = None,
    *,
    stream: TextIO | None = None,
    environment: Mapping[str, str] | None = None,
    yielding: bool = False,
    secrets: Secrets = PROCESS,
) -> None:
    """Send all logs of this process to standard error, uncaught errors and warnings included.

    Args:
        log_format: `auto` is text at a terminal and JSON elsewhere; by default KASAGA_LOG_FORMAT, else auto.
        level: by default KASAGA_LOG_LEVEL, else info.
        stream: where to, instead of standard error.
        environment: instead of the process' own.
        yielding: do nothing if the program has set up logging of its own.
        secrets: what is never shown.

    Raises:
        LogSettingsError: no such format or level.
    """
    env = os.environ if environment is None else environment
    secrets.hide_environment(env)
    root = logging.getLogger()
    if yielding and root.handlers:
        return
    chosen = (log_format or env.get("KASAGA_LOG_FORMAT") or "auto").lower()
    threshold = (level or env.get("KASAGA_LOG_LEVEL") or "info").lower()
    if chosen not in ("auto", "json", "text"):
        remedy = "KASAGA_LOG_FORMAT is json, text or auto"
        raise LogSettingsError(f"no log format {chosen!r}", remedy=remedy)
    if threshold not in LEVELS:
        raise LogSettingsError(
            f"no log level {threshold!r}", remedy=f"KASAGA_LOG_LEVEL is {', '.join(LEVELS)}"
        )
    handler = KasagaHandler(sys.stderr if stream is None else stream)
    people = chosen == "text" or (chosen == "auto" and handler.stream.isatty())
    if people:
        colours = handler.stream.isatty() and not env.get("NO_COLOR") and env.get("TERM") != "dumb"
        handler.setFormatter(TextLines(secrets, colours=colours))
    else:
        handler.setFormatter(JsonLines(secrets))
    for old in [each for each in root.handlers if isinstance(each, KasagaHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(threshold.upper())
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


class KasagaHandler(logging.StreamHandler[TextIO]):
    """The handler that `configure_logs` has put in place; a second call takes it away."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out what a muted thread says."""
        return not here.muted and bool(super().filter(record))


def _uncaught(kind: type[BaseException], error: BaseException, stack: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    logging.getLogger("kasaga").critical("uncaught: %s", kind.__name__, exc_info=(kind, error, stack))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread is not None else ""
        logging.getLogger("kasaga").critical(
            "uncaught in a thread: %s",
            args.exc_type.__name__,
            exc_info=(args.exc_type, args.exc_value, args.exc_traceback),
            extra={"thread_name": name},
        )


# --- what a line says


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What a line is about: its `extra`, then what is bound to the code or thread that wrote it."""
    fields: dict[str, object] = {}
    for name, value in vars(record).items():
        if name not in _STANDARD:
            fields[name] = value
    nested: object = getattr(record, FIELDS, None)
    if isinstance(nested, Mapping):
        for key, inner in cast("Mapping[object, object]", nested).items():
            fields[str(key)] = inner
    fields = {**_ambient(), **fields}
    span = trace.get_current_span().get_span_context()
    if span.is_valid and fields.setdefault("trace_id", f"{span.trace_id:032x}") == f"{span.trace_id:032x}":
        fields.setdefault("span_id", f"{span.span_id:016x}")
    return fields


def _ambient() -> Mapping[str, object]:
    try:
        describe, subject = here.describe, here.subject
        bound = _bound.get()()
        return bound if describe is None or subject is None else {**describe(subject), **bound}
    except Exception as error:  # noqa: BLE001 - a log line must never be the reason for a failure
        return {"log_error": type(error).__name__}


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - as above
        return f"<{type(value).__name__}: {type(error).__name__} in str()>"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - placeholders and arguments that don't fit
        return f"{_text(record.msg)} {_text(record.args)}"


class Lines(logging.Formatter):
    """What both formats share: nothing secret, nothing endless, and no way to fail."""

    def __init__(self, secrets: Secrets = PROCESS) -> None:
        super().__init__()
        self._redact = secrets.redact

    def clean(self, value: object, limit: int = MAX_TEXT) -> str:
        """Any value as a text that may be shown."""
        text = value if isinstance(value, str) else _text(value)
        # Cut before the search, which is not for free, and never through a secret.
        text = self._redact(text if len(text) <= 4 * limit else text[: 4 * limit])
        return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"

    def field(self, name: str, value: object, depth: int = MAX_DEPTH) -> object:
        """A field as JSON can hold it."""
        if any(word in name.lower() for word in _SECRET_FIELDS):
            return SHOWN
        return self._plain(value, depth)

    def _plain(self, value: object, depth: int) -> object:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if depth and isinstance(value, Mapping):
            pairs = islice(cast("Mapping[object, object]", value).items(), MAX_ITEMS)
            return {self.clean(key): self.field(self.clean(key), each, depth - 1) for key, each in pairs}
        if depth and isinstance(value, list | tuple | set | frozenset):
            items = islice(cast("Iterable[object]", value), MAX_ITEMS)
            return [self._plain(each, depth - 1) for each in items]
        return self.clean(value)

    def stack(self, record: logging.LogRecord) -> str:
        """The stack of a line's exception, or of the line itself; empty where there is none."""
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info))
        else:
            text = record.stack_info or ""
        return self.clean(text.rstrip("\n"), MAX_STACK)


class JsonLines(Lines):
    """One JSON object a line: time, level, logger, message, the fields, and the exception."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")[:26] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.clean(_message(record)),
        }
        for name, value in fields_of(record).items():
            line[f"field_{name}" if name in _OURS else name] = self.field(name, value)
        stack = self.stack(record)
        error = record.exc_info[1] if record.exc_info else None
        if error is not None:
            line["exception"] = {"type": _type_of(error), "message": self.clean(error), "stack": stack}
            if isinstance(error, KasagaError):
                line.setdefault("code", error.code)
        elif stack:
            line["stack"] = stack
        return json.dumps(line)


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


_COLOURS = {"debug": "2", "warning": "33", "error": "31", "critical": "1;31"}


class TextLines(Lines):
    """`10:00:00.123 warning kasaga.relay: message  name=value`, and stacks below."""

    def __init__(self, secrets: Secrets = PROCESS, *, colours: bool = False) -> None:
        super().__init__(secrets)
        self._colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        level = record.levelname.lower()
        shown = f"{level:8}"
        if self._colours and level in _COLOURS:
            shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
        fields = [
            f"{name}={_printable(self.clean(self.field(name, value)))}"
            for name, value in fields_of(record).items()
        ]
        message = _printable(self.clean(_message(record)))
        line = f"{at} {shown} {record.name}: {'  '.join([message, *fields])}"
        stack = "\n".join(map(_printable, self.stack(record).splitlines()))
        return f"{line}\n{stack}" if stack else line


def _printable(text: str) -> str:
    """Without what a terminal would obey: a line break in a message mustn't look like another line."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
