"""Riding out a database that is away: a log line now and then, patience, and nothing new meanwhile.

Station: the workers report here; the runtime starts no batch while `away`, and the room for records is shut,
so that partitions are paused and no command is answered `failed` for a fault of our own.
"""

from __future__ import annotations

import asyncio
import random
import time

from .log import Throttle, logger
from .metrics import Metrics
from .progress import Room
from .settings import BACKOFF_CAP_SECONDS, BACKOFF_FIRST_SECONDS


class GivenUp(Exception):
    """The process stops, or has lost the partitions: what is in hand is for whoever reads it next."""


def delay(tries: int) -> float:
    """Seconds to wait after so many failures in a row: doubled up to a cap, and spread by half."""
    doubled = BACKOFF_FIRST_SECONDS * float(1 << min(tries, 16))
    return min(BACKOFF_CAP_SECONDS, doubled) * random.uniform(0.5, 1.0)


class Outage:
    """Whether the database is away, and since when."""

    def __init__(self, room: Room, metrics: Metrics) -> None:
        """`room` is shut while the database is away."""
        self._room = room
        self._metrics = metrics
        self._since: float | None = None
        self._changed = asyncio.Event()
        self._throttle = Throttle()
        self._stopping = False

    @property
    def away(self) -> bool:
        """Whether the last thing heard of the database was that it can't be reached."""
        return self._since is not None

    def stop(self) -> None:
        """The process stops: whoever waits here gives up."""
        self._stopping = True
        self._changed.set()

    async def ride_out(self, error: BaseException, tries: int) -> None:
        """Wait before the next try; shorter, when somebody else has reached the database. Raises GivenUp."""
        if self._since is None:
            self._since = time.monotonic()
            self._changed.clear()
            self._room.shut(True)
            self._metrics.inbox_away.set(1)
        if self._stopping:
            raise GivenUp
        if self._throttle.due(type(error).__name__):
            text = "the inbox's database is away, commands wait: %s: %s"
            logger.warning(text, type(error).__name__, str(error).strip())
        try:
            await asyncio.wait_for(self._changed.wait(), delay(tries))
        except TimeoutError:
            return
        if self._stopping:
            raise GivenUp

    def over(self) -> None:
        """The database has answered."""
        if self._since is None:
            return
        logger.info("the inbox's database is back after %.1f s", time.monotonic() - self._since)
        self._since = None
        self._changed.set()
        self._room.shut(False)
        self._metrics.inbox_away.set(0)
