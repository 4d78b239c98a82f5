"""Looks after a server under `kasaga dev`: one that has ended by itself is told of, and started again.

Called by the command, several times a second; calls `server.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from kasaga.dev.process import ServerError
from kasaga.dev.server import Progress, Server

FIRST_WAIT, LONGEST_WAIT = 0.5, 8.0
"""Seconds until it is started again: doubled with each failure in a row, up to the longest."""

FAILURES = 5
"""So many failures in a row are enough: whatever it is, one more start doesn't mend it."""

WELL_SECONDS = 30.0
"""A server that has served for so long is well; what comes then is a first failure again."""


class Keeper:
    """Keeps one server running on its port and its data. `look` has to be called again and again.

    `meanwhile` is called many times while the server starts, which may take seconds.
    """

    def __init__(self, server: Server, say: Progress, meanwhile: Callable[[], None]) -> None:
        self._server = server
        self._say = say
        self._meanwhile = meanwhile
        self._failures = 0
        self._served_from = time.monotonic()
        self._again_at: float | None = None

    def look(self) -> None:
        """Starts the server again when it has ended. Raises ServerError after too many failures in a row."""
        name = self._server.name
        if self._again_at is None:
            status = self._server.ended()
            if status is not None:
                self._failed(f"{name} has ended with status {status}")
        elif time.monotonic() >= self._again_at:
            try:
                self._server.start(self._meanwhile)
            except ServerError as error:
                self._failed(error.message.rstrip("."))
                return
            self._again_at = None
            self._served_from = time.monotonic()
            self._say(f"{name} serves again on port {self._server.port}, with the same data")

    def _failed(self, what: str) -> None:
        now = time.monotonic()
        if self._again_at is None and now - self._served_from >= WELL_SECONDS:
            self._failures = 0
        self._failures += 1
        if self._failures >= FAILURES:
            raise ServerError(
                f"{what}, and has failed {self._failures} times in a row",
                remedy="Read its log. Is the machine out of memory or of disk, or its port taken?",
                log=self._server.telling_log,
            )
        wait = min(FIRST_WAIT * 2 ** (self._failures - 1), LONGEST_WAIT)
        self._again_at = now + wait
        self._say(f"{what}; it is started again in {wait:g} s. Its log: {self._server.telling_log}")
