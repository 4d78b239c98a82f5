"""How far a partition is answered, and how much the process has in hand.

Station: the reader counts records in, the worker's answers count them out once Kafka has acknowledged them.
"""

from __future__ import annotations

import threading
from collections import deque

Place = tuple[str, int]
"""A topic and the number of a partition."""


class Progress:
    """One partition, from its assignment to its loss.

    The offset to commit is the lowest one among the delivered records that are unfinished: never a sum, since
    offsets have gaps where transactions end. Used by the event loop; other threads may read `position` and
    `active`.
    """

    __slots__ = ("_finished", "_open", "active", "place", "position")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.active = True
        """False after the partition is taken away: whatever still runs may finish, and counts no more."""
        self.position: int | None = None
        """The next offset to read, for whoever reads the partition next. None: nothing is finished yet."""
        self._open: deque[int] = deque()
        self._finished: set[int] = set()

    def __len__(self) -> int:
        """How many records are delivered and unfinished."""
        return len(self._open)

    def begin(self, offset: int) -> None:
        """A record was delivered."""
        self._open.append(offset)

    def finish(self, offset: int) -> None:
        """A record is answered, and the answer acknowledged (or it is a dead letter, and that is)."""
        self._finished.add(offset)
        last = -1
        while self._open and self._open[0] in self._finished:
            last = self._open.popleft()
            self._finished.discard(last)
        if last >= 0:
            self.position = self._open[0] if self._open else last + 1


REOPEN = 0.25
"""Which part of the room must be free again before anything more is read."""


class Room:
    """How many records and bytes are in hand, against how many may be. Safe to use from several threads."""

    def __init__(self, records: int, size: int) -> None:
        """`records` and `size` (bytes) are what there is room for."""
        self._records_left = records
        self._bytes_left = size
        self._enough = (records * REOPEN, size * REOPEN)
        self._was_full = False
        self._changed = threading.Condition()
        self._closed = False

    def take(self, records: int, size: int) -> None:
        """Count in what was read. May go below zero: what was read is there."""
        with self._changed:
            self._records_left -= records
            self._bytes_left -= size

    def give(self, records: int, size: int) -> None:
        """Count out what is done."""
        with self._changed:
            full = self._full
            self._records_left += records
            self._bytes_left += size
            if full and not self._full:
                self._changed.notify_all()

    def shut(self, closed: bool) -> None:
        """Take nothing more in for now: the database is away, or the process stops."""
        with self._changed:
            self._closed = closed
            self._changed.notify_all()

    @property
    def _full(self) -> bool:
        """Once full, it stays so until a good part is free: reading one by one would make batches of one."""
        records, size = self._enough if self._was_full else (0, 0)
        self._was_full = self._records_left <= records or self._bytes_left <= size
        return self._closed or self._was_full

    def wait(self, timeout: float) -> int:
        """Wait for room, `timeout` seconds at most; gives how many records there is room for, 0 if none."""
        with self._changed:
            self._changed.wait_for(lambda: not self._full, timeout)
            return 0 if self._full else self._records_left
