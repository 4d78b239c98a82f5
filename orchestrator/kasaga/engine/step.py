"""One step of a saga as its history tells it, and what can happen to it."""

from __future__ import annotations

from typing import NamedTuple

from .deferrals import Deferred
from .keylocks import LOCK, Barred, Granted
from .model import (
    DONE,
    LOCAL,
    SCOPE,
    SIGNAL,
    SLEEP,
    UNKNOWN,
    VOID,
    Fired,
    Move,
    Policy,
    Ran,
    Replied,
    Undeliverable,
)

StepEvent = Replied | Deferred | Fired | Ran | Undeliverable | Granted | Barred
NO_EFFECT = (SLEEP, SIGNAL, SCOPE, LOCK)
"""Kinds of steps that do nothing that could be undone, and have one attempt."""

STEP_EVENTS = (Replied, Fired, Ran, Undeliverable, Deferred, Granted, Barred)
"""The same for isinstance, which takes a tuple five times as fast."""

SKIPPED, RESOLVED = "skipped", "resolved"
"""What an operator can make of a step that can't be undone; the end is then `with exceptions`."""


class Late(NamedTuple):
    """A step's answer that comes later, or did: see late.py."""

    run: int = 0
    """The attempt that is open at the participant; 0: none is."""
    number: int = 0
    heartbeat: int = 0
    progress: str = ""
    at: int = 0
    """When it was heard of last."""
    failed: int = 0
    """The last attempt that is known to be over without a result."""


class Step:
    """One step of a saga, and its undo: a command, a sleep, a function, a scope, or a wait.

    An update is one as well, as far as its outcome is fed to the code; it stands in no order.
    """

    __slots__ = (
        "asked",
        "attempt",
        "blocked",
        "child",
        "compensation",
        "details",
        "due_at",
        "error",
        "error_type",
        "fed_at",
        "fed_seq",
        "first_at",
        "key",
        "kind",
        "last_at",
        "late",
        "left",
        "outcome",
        "participant",
        "path",
        "payload",
        "policy",
        "result",
        "row",
        "type",
        "undo_at",
        "undo_attempt",
        "undo_due",
        "undo_error",
        "undo_form",
        "undo_how",
        "undo_payload",
        "undo_policy",
        "undo_row",
        "version",
    )

    def __init__(self, path: str, kind: str, at: int) -> None:
        self.path = path
        self.kind = kind
        self.first_at = self.last_at = at
        self.type = self.participant = self.compensation = ""
        self.key = self.payload = self.result = b""
        self.child = ""
        """The step is another saga, whose id is the key: whether its end is awaited."""
        self.version = 0
        self.policy: Policy | None = None
        self.undo_policy: Policy | None = None
        self.attempt = 1
        self.due_at = self.row = 0
        self.outcome = self.error_type = self.error = self.details = ""
        self.fed_at = self.fed_seq = 0
        """When the saga's code was given the outcome, and by which record."""
        self.asked = 0
        """How many steps the saga had then."""
        self.left = ""
        """Why the saga's code waits no more for it; empty while it does, and for what it was told of."""
        self.undo_form = self.undo_error = self.undo_how = ""
        self.undo_attempt = self.undo_at = self.undo_due = self.undo_row = 0
        self.undo_payload = b""
        self.late: Late | None = None
        """What is known of an answer that comes later; few steps have one."""
        self.blocked: Move | None = None
        """The STUCK that this step is the cause of, until it is cleared, settled or unblocked."""

    @property
    def undo_open(self) -> bool:
        """An undo or void is out and not answered."""
        return bool(self.undo_form) and not self.undo_how

    @property
    def skipping(self) -> bool:
        """An operator has given its undo up, and the void in its place isn't answered yet."""
        return self.undo_form == VOID and bool(self.compensation)

    @property
    def to_undo(self) -> bool:
        """The saga may not end undone before this step is cleared, and nothing is out for it yet."""
        if self.undo_form or self.undo_how or self.kind in NO_EFFECT:
            return False
        if self.outcome == DONE or self.kind == LOCAL:
            return bool(self.compensation) and self.outcome in (DONE, UNKNOWN)
        return self.outcome == UNKNOWN
