"""The log of a participant: the logger `kasaga.participant`, and what its lines say of a command.

Station: used by everything here; how lines look is `kasaga_wire.logs`. Lines about a command carry its saga,
command and trace in fields of their own, and so do those that its handler writes.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from kasaga_wire.logs import FIELDS

if TYPE_CHECKING:
    from .jobs import Job

logger = logging.getLogger("kasaga.participant")


def about(job: Job, **more: object) -> dict[str, object]:
    """The `extra` of a line about a command."""
    return {FIELDS: {**fields(job), **more}}


def fields(job: Job) -> dict[str, object]:
    """What a line about a command says of it."""
    envelope = job.envelope
    said: dict[str, object] = {
        "participant": job.registry.contract.name,
        "command": envelope.type,
        "command_id": envelope.command_id,
        "attempt": envelope.attempt,
        "saga_id": envelope.saga_id,
        "run_id": envelope.command_id.partition(".")[0],
    }
    if envelope.traceparent is not None:
        said["trace_id"] = envelope.traceparent[3:35]
    return said


LEADERLESS_SECONDS = 5.0
"""So long the partitions of a topic that was just made may have no leader before it is worth a line."""


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
