"""Answers that come later: the event that says so, and what is decided of it. Part of model.py's unions."""

from __future__ import annotations

from typing import NamedTuple


class Deferred(NamedTuple):
    """A participant has accepted a command and answers later, or is still at it: a heartbeat."""

    step: str
    form: str
    attempt: int
    """The one that is answered by this."""
    run: int
    """The one whose handler has accepted it."""
    number: int
    """0, then counted with each heartbeat: what comes late or twice is known by it."""
    heartbeat: int = 0
    """Microseconds within which the next one comes; 0: none is promised."""
    progress: str = ""
    """JSON text, for people."""


class Defer(NamedTuple):
    """The step's answer comes later. Takes one outbox row in place of the command's.

    Only the participant's silence times the step out now.
    """

    step: str
    due_at: int
    """0: never."""
    run: int
    number: int
    heartbeat: int = 0
    progress: str = ""
