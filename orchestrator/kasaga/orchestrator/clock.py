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


JUMP = 2_000_000
"""Microseconds by which the database's clock may differ from what it was expected to say, and be believed."""

BELIEVED_AFTER = 10.0
"""Seconds after which a larger difference is believed, if the database has said the same since."""


class Clock:
    """Microseconds by the database's clock. Never goes back, whatever this machine's clock does.

    Where the database's clock jumps, this one follows when the jump has lasted, and only then may it go back:
    an hour that is there for a moment must neither fire timers early, nor stop time for an hour after it.

    Also the one door to this machine's own time and to waiting: a test gives another.
    """

    def __init__(self) -> None:
        self._base = 0
        self._since = self.ticks()
        self._last = 0
        self._doubted = 0
        """By how much the database differs; 0: it doesn't."""
        self._doubted_since = 0

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
        """Take over the time that the database has just answered, unless it is one to be doubted."""
        told, ticks = to_micros(database_now), self.ticks()
        off = told - self._carried_on(ticks)
        if self._base and abs(off) > JUMP and not self._believed(off, ticks):
            return
        self._base, self._since, self._doubted = told, ticks, 0
        if off < -JUMP:
            self._last = told

    def _believed(self, off: int, ticks: int) -> bool:
        if not self._doubted or abs(off - self._doubted) > JUMP:
            self._doubted, self._doubted_since = off, ticks
        return ticks - self._doubted_since > BELIEVED_AFTER * 1e9

    def _carried_on(self, ticks: int) -> int:
        return self._base + (ticks - self._since) // 1000

    def now(self) -> int:
        """Return the time in microseconds, at least that of the call before, unless a jump is followed."""
        self._last = max(self._last, self._carried_on(self.ticks()))
        return self._last
