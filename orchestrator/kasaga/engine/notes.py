"""What a state keeps beside its steps, and what a record has ended: about records, never recorded."""

from __future__ import annotations

from typing import NamedTuple


class Ended(NamedTuple):
    """An attempt, a sleep or an undo that a record ended. What became of it, the record says."""

    step: str
    form: str
    attempt: int
    since: int
    """When it was sent or begun, whichever process did so."""


EndedFields = tuple[str, str, int, int]
"""The same as a plain tuple: almost every record makes one, and few are looked at."""


class Watcher(NamedTuple):
    """Somebody who waits for a saga's end."""

    reply_to: str
    """`topic/partition`."""
    about: str
    """The id of the start or action that is answered."""
    traceparent: str
    tracestate: str


class Mark(NamedTuple):
    """Something in a saga's life that isn't a step: it was stuck, somebody acted."""

    at: int
    what: str
    """A state, or an action."""
    by: str
    reason: str
    step: str
