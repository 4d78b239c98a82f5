"""What every store does for events that sagas await by a key.

Station: the listener's thread calls `hear`, the loop asks for what has `arrived`. Who waits for what is in
the outbox: the row of a wait has the name of its signal as its key (engine/awaited.py). Each of the two
writes first and looks afterwards, in a transaction of its own: a record is kept, then the waits are looked
at; a wait is committed, then what is kept is looked at. So one of them sees the other, and where both do, it
is one signal, since its id is the record's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol
from uuid import UUID


class Kept(NamedTuple):
    """A record whose event may be awaited."""

    event: str
    """The event's name."""
    name: str
    """Of the signal: the event's name and the key."""
    position: str
    """The signal's id, made of the record's position."""
    source: str
    payload: bytes
    seconds: float
    """For which it is kept."""


class Waiter(NamedTuple):
    """A saga that waits for a signal of this name."""

    name: str
    saga_id: str


class Arrived(NamedTuple):
    """A record that was kept, and a saga that waits for it."""

    seq: int
    """Of the wait's row."""
    run_id: UUID
    saga_id: str
    name: str
    position: str
    source: str
    payload: bytes


MOST_OF_WAIT = 1_000
"""Records that one wait is given; so many signals a mailbox holds."""


class Hearing(Protocol):
    """A part of `base.Store`."""

    def hear(self, kept: Sequence[Kept]) -> list[Waiter]:
        """Keep these records, each once; then return who waits for one of them. For the listener's thread."""
        ...

    def arrived(self, shard: int, seqs: Sequence[int]) -> list[Arrived]:
        """Return what is kept for these open rows of a shard, in the order in which it came. For the loop."""
        ...

    def awaited(self, shard: int) -> list[int]:
        """Return the open rows of a shard that something is kept for, by number. For the loop."""
        ...

    def unhear(self, most: Mapping[str, int]) -> int:
        """Forget records whose time is over, and of each event those above a number, the oldest first.

        Returns how many were forgotten. For the listener's thread.
        """
        ...
