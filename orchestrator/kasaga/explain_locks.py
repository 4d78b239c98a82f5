"""The locks of one saga, in words: what it holds, and behind whom it waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from uuid import UUID

from .engine.keylocks import LOCK
from .store.locks import LockRow
from .waits import Wait
from .wording import counted, listed


@dataclass(frozen=True, slots=True)
class KeyView:
    """One key that a saga has locked, or waits for."""

    key: str
    holder: str
    """The id of the saga that holds it."""
    before: int
    """How many sagas come before this one; 0: it holds the key."""
    behind: int
    """How many wait behind it."""


def key_views(queues: Iterable[LockRow], run_id: UUID) -> list[KeyView]:
    """Say how a saga stands in the queues that it is in."""
    made: list[KeyView] = []
    for key, found in groupby(queues, key=attrgetter("key")):
        queue = list(found)
        own = next((row.place for row in queue if row.run_id == run_id), None)
        if own is not None:
            made.append(KeyView(key, queue[0].saga_id, own, len(queue) - own - 1))
    return made


def holds_text(locks: Iterable[KeyView]) -> str:
    """Name what a saga holds, and how many want it."""
    return listed([_held(each) for each in locks if not each.before])


def _held(key: KeyView) -> str:
    return f"{key.key} ({counted(key.behind, 'waits', 'wait')} for it)" if key.behind else key.key


def tell_waits(
    waits: Sequence[Wait], wanted: Sequence[tuple[str, Sequence[str]]], locks: list[KeyView]
) -> None:
    """Say of what a saga waits for who holds it; `wanted`: the keys of its steps."""
    keys = dict(wanted)
    for wait in waits:
        if wait.kind == LOCK:
            away = [each for each in locks if each.before and each.key in keys.get(wait.step, ())]
            wait.text += "".join(
                f"; {each.key} is held by saga {each.holder}"
                + (
                    f", and {counted(each.before - 1, 'other comes', 'others come')} first"
                    * (each.before > 1)
                )
                for each in away
            )
