"""What every store does for locks: one queue of sagas for each key, in the order in which they came.

Station: a shard's owner asks (`orchestrator.locking`) for the sagas that wait; a commit takes those out that
have ended (`SagaWrite.frees`). Who is first in a key's queue holds it: nothing else says so, and nothing is
written when a key passes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

Tokens = Sequence[tuple[int, UUID]]
"""Shards and the tokens of their owner."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A saga wants to be first in the queues of all these keys."""

    shard: int
    run_id: UUID
    step: str
    keys: tuple[str, ...]
    """Sorted, each once."""
    wait: bool = True
    """Else it isn't to stand in any queue where it isn't the first."""


class Answer(StrEnum):
    """What becomes of a wish."""

    GRANTED = "granted"
    REFUSED = "refused"
    DEADLOCK = "deadlock"


@dataclass(frozen=True, slots=True)
class Behind:
    """A saga is in the queue of a key, behind another one."""

    saga_id: str
    key: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a wish. After any answer but GRANTED the saga stands in no queue because of it."""

    answer: Answer
    chain: tuple[Behind, ...] = ()
    """REFUSED: who holds which key. DEADLOCK: each is behind the next one, the last behind the first."""


@dataclass(frozen=True, slots=True)
class LockRow:
    """A saga's place in the queue of a key."""

    key: str
    place: int
    """0: it holds the key."""
    shard: int
    run_id: UUID
    saga_id: str


class Locks(Protocol):
    """A part of `base.Store`."""

    def contend(self, tokens: Tokens, wanted: Sequence[Wanted]) -> dict[Wanted, Reply]:
        """Put sagas into the queues of the keys that they want, and say what became of whom; the others wait.

        In one transaction, and the same however often it is asked: a saga that is in a queue stays where it
        is. Whose shard isn't held by its token any more is left out. One that would wait for itself, in
        whatever queues, is not put into them. For the loop's thread.
        """
        ...

    def moved(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """Return those that are first in all of their queues, or not in all of them: `contend` has news.

        Reads only. For the loop's thread.
        """
        ...

    def queues(self, keys: Sequence[str] = (), *, run_id: UUID | None = None) -> list[LockRow]:
        """Return the queues of these keys, and of all that a run is in: by key and place. For any thread."""
        ...

    def locks(self, prefix: str = "", *, after: str = "", limit: int = 100) -> list[tuple[LockRow, int]]:
        """Return who holds the keys that begin so, those behind `after`, by key, and how many wait for each.

        For any thread.
        """
        ...
