"""What is told and decided about locks, and their limits; locks.py has the rules.

Part of model.py's unions.
"""

from __future__ import annotations

from typing import NamedTuple

LOCK = "lock"
"""Form of the open row, and kind of the step."""

MAX_KEYS = 100
"""Keys that one step may ask for: all their queues are held up while it joins them."""

MAX_KEY = 200
"""Characters of a key."""


class Granted(NamedTuple):
    """The saga is first in the queues of all keys that a step asks for."""

    step: str
    form: str = LOCK


class Barred(NamedTuple):
    """A step doesn't get its keys, and isn't in their queues."""

    step: str
    code: str
    """Of the error: refused, or a deadlock."""
    reason: str
    form: str = LOCK


class Lock(NamedTuple):
    """The saga's code asks for keys. Takes one outbox row, which stands until there is an answer."""

    step: str
    keys: tuple[str, ...]
    """Sorted, each once."""
    wait: bool = True
