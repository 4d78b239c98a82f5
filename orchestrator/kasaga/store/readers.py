"""Connections for people's reads, of any thread: kept for the next one, or made for one alone.

Station: below `postgres`. A command of the command line makes one connection a read; the HTTP API keeps as
many as it has threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from kasaga.store.errors import StoreUnavailable
from kasaga.store.session import Row, Session
from kasaga.store.statements import Call


class Readers:
    """Idle sessions, the last used first."""

    def __init__(self, make: Callable[[], Session], keep: int) -> None:
        """`keep`: so many idle connections at most; none by default."""
        self._make = make
        self._keep = keep
        self._idle: list[Session] = []
        self._lock = threading.Lock()

    def query(self, call: Call) -> list[Row]:
        """Run one statement, as `Session.query`.

        A connection that had died while it was idle says nothing about the server: then it is asked again,
        once, over a new one.
        """
        session = self._take()
        if session is not None:
            try:
                rows = session.query(call)
            except StoreUnavailable:
                if session.connected:
                    self._give(session)
                    raise
                self.close()  # the others are as old
            except BaseException:
                self._give(session)
                raise
            else:
                self._give(session)
                return rows
        session = self._make()
        try:
            return session.query(call)
        finally:
            self._give(session)

    def _take(self) -> Session | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _give(self, session: Session) -> None:
        with self._lock:
            if session.connected and len(self._idle) < self._keep:
                self._idle.append(session)
                return
        session.close()

    def close(self) -> None:
        """Close the idle ones; the next read would open another."""
        with self._lock:
            idle, self._idle = self._idle, []
        for session in idle:
            session.close()
