"""The engine's time: the database's clock, carried on by this machine's monotonic one."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Return microseconds since 1970, exactly."""
    return (moment - EPOCH) // MICROSECOND


@lru_cache(maxsize=4096)  # a batch has few different times, and many rows with them
def to_datetime(micros: int) -> datetime:
    """Return an aware UTC datetime, exactly."""
    return EPOCH + timedelta(microseconds=micros)


class Clock:
    """Microseconds by the database's clock. Never goes back, whatever this machine's clock does.

    Also the one door to this machine's own time and to waiting: a test gives another.
    """

    def __init__(self) -> None:
        self._base = 0
        self._since = self.ticks()
        self._last = 0

    def ticks(self) -> int:
        """Return this machine's monotonic nanoseconds."""
        return time.monotonic_ns()

    def seconds(self) -> float:
        """Return this machine's monotonic seconds."""
        return self.ticks() / 1e9

    def wait(self, until: threading.Event, seconds: float) -> None:
        """Wait for `seconds`, or until the event."""
        until.wait(seconds)

    def sync(self, database_now: datetime) -> None:
        """Take over the time that the database has just answered."""
        self._base = to_micros(database_now)
        self._since = self.ticks()

    def now(self) -> int:
        """Return the time in microseconds, at least that of the call before."""
        self._last = max(self._last, self._base + (self.ticks() - self._since) // 1000)
        return self._last
