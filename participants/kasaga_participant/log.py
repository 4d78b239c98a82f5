"""The log of a participant: the logger `kasaga.participant`, and a line of JSON for each record.

Station: used by everything here. Lines about a command carry its saga, command and trace in fields of their
own.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .jobs import Job

logger = logging.getLogger("kasaga.participant")

FIELDS = "kasaga"
"""The attribute of a log record that holds our fields."""


def about(job: Job, **more: object) -> dict[str, object]:
    """The `extra` of a line about a command."""
    envelope = job.envelope
    fields: dict[str, object] = {
        "participant": job.registry.contract.name,
        "command": envelope.type,
        "command_id": envelope.command_id,
        "attempt": envelope.attempt,
        "saga_id": envelope.saga_id,
    }
    if envelope.traceparent is not None:
        fields["trace_id"] = envelope.traceparent[3:35]
    return {FIELDS: {**fields, **more}}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, our fields, the exception's text."""

    def format(self, record: logging.LogRecord) -> str:
        """Never fails: what JSON can't hold becomes text."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update(getattr(record, FIELDS, {}))
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def set_up() -> None:
    """Write JSON lines to standard error, unless the service has set up logging of its own."""
    root = logging.getLogger()
    if root.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    root.addHandler(handler)
    root.setLevel(logging.INFO)


class Throttle:
    """Says the same thing at most once in some seconds."""

    def __init__(self, seconds: float = 10.0) -> None:
        """The time between two lines with the same key."""
        self._seconds = seconds
        self._said: dict[str, float] = {}

    def due(self, key: str) -> bool:
        """Whether to say it now."""
        now = time.monotonic()
        if now - self._said.get(key, -self._seconds) < self._seconds:
            return False
        self._said[key] = now
        return True
