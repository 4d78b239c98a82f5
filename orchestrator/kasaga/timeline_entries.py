"""The lines of a saga's story, and those of what was sent to it.

Pure. Part of `timeline`, which makes and tells them.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from .engine.awaited import said
from .engine.keylocks import LOCK, Lock
from .engine.model import (
    DONE,
    SIGNAL,
    Accept,
    Alarm,
    Answered,
    Drop,
    Listen,
    Message,
    Signalled,
    Take,
)
from .engine.renewals import Continue
from .wording import counted, length, moment, printable, shortened

RECEIVED, UPDATE, PATCH = "received", "update", "patch"
"""Kinds of entries: a signal that came, an update that came, a patch that the code stands behind."""


@dataclass(slots=True)
class Attempt:
    """One sending of a command, an undo or a void, or one call of a local function."""

    number: int
    at: datetime
    ended: datetime | None = None
    outcome: str = ""
    """What was answered to it; empty while it is out, and where a later one was sent instead."""
    error: str = ""


@dataclass(slots=True)
class Entry:
    """One line of the story. `outcome` is empty while it goes on."""

    at: datetime
    kind: str
    name: str
    step: str = ""
    ended: datetime | None = None
    outcome: str = ""
    code: str = ""
    reason: str = ""
    """Why: of a state its reason, of a step its error, of an action what its author said."""
    by: str = ""
    value: bytes = b""
    """What went in: the saga's input, a command's, an undo's."""
    result: bytes = b""
    attempts: list[Attempt] = field(default_factory=list[Attempt])
    deferred_at: datetime | None = None
    """When its participant said that the answer comes later."""
    heartbeats: int = 0
    progress: str = ""
    """JSON text, of the last heartbeat that had any."""


def heartbeats(entry: Entry) -> str:
    """` (3 heartbeats, the last: …)` of a command that is answered later; empty before the first."""
    if not entry.heartbeats:
        return ""
    last = f", the last: {shortened(printable(entry.progress), 100)}" if entry.progress else ""
    return f" ({counted(entry.heartbeats, 'heartbeat')}{last})"


def attempt_text(entry: Entry, attempt: Attempt, now: datetime) -> str:
    """What became of one attempt of an entry: `attempt 2 failed after 100 ms: try again`."""
    text = f"attempt {attempt.number}"
    if attempt.at > now:
        text += f" in {length(attempt.at - now)}"
    elif not attempt.outcome:
        text += " sent" if entry.ended is not None else f" sent {length(now - attempt.at)} ago"
    else:
        text += f" {attempt.outcome}"
        if attempt.ended is not None:
            text += f" after {length(attempt.ended - attempt.at)}"
    return f"{text}: {attempt.error}" if attempt.error and attempt.error != entry.reason else text


def attempt_lines(entry: Entry, now: datetime) -> list[str]:
    """The same of all attempts, a line each."""
    return [shortened(printable(attempt_text(entry, attempt, now)), 200) for attempt in entry.attempts]


def withdraw(entry: Entry, at: datetime) -> None:
    """Take back an attempt whose time hadn't come when something else was decided: it was never sent."""
    if entry.attempts and entry.attempts[-1].at > at and not entry.attempts[-1].outcome:
        del entry.attempts[-1]


def error_text(type_: str, message: str) -> str:
    """`Type: message`, without the types that are Kasaga's own."""
    if not type_ or type_.startswith("kasaga."):
        return message
    return f"{type_}: {message}" if message else type_


class Received:
    """Signals and updates of one story, from when they came until they were taken."""

    def __init__(self, entries: list[Entry], steps: dict[tuple[str, bool], Entry]) -> None:
        self._entries, self._steps = entries, steps
        self._waiting: dict[str, deque[Entry]] = {}
        self._listening: dict[str, str] = {}
        self._updates: dict[str, Entry] = {}

    def kept(self, decision: Continue, at: datetime) -> None:
        """A story begins with a later run: what that has been left by the runs before it."""
        for fields in decision.waiting:
            self.came(Signalled(*fields), at)

    def came(self, event: Message, at: datetime) -> None:
        """Somebody has sent something."""
        kind = RECEIVED if isinstance(event, Signalled) else UPDATE
        what = said(event.name) if kind == RECEIVED else f"update {event.name}"
        entry = Entry(at, kind, what, by=event.by, value=event.payload)
        self._entries.append(entry)
        if kind == RECEIVED:
            self._waiting.setdefault(event.name, deque()).append(entry)

    def decided(
        self, decision: Listen | Lock | Alarm | Take | Drop | Accept | Answered, at: datetime
    ) -> None:
        """Something became of it, or is waited for."""
        match decision:
            case Listen(step=step, name=name):
                entry = self._steps[step, False] = Entry(at, SIGNAL, said(name), step)
                self._listening[step] = name
                self._entries.append(entry)
            case Lock(step=step, keys=keys):
                entry = self._steps[step, False] = Entry(at, LOCK, f"lock {', '.join(keys)}", step)
                self._entries.append(entry)
            case Alarm(step=step, due_at=due):
                entry = self._steps[step, False]
                entry.name += f", {length(moment(due) - at)} at most" if due else ""
            case Take(step=step):
                self._taken(self._steps[step, False], at)
            case Drop():
                entry = self._waiting[decision.name].popleft()
                entry.ended, entry.outcome = at, "set aside"
                entry.code, entry.reason = decision.code, decision.reason
            case Accept(step=step):
                self._updates[step] = self._entries[-1]
            case Answered(step=step):
                entry = self._updates[step]
                entry.ended, entry.reason, entry.result = at, decision.error, decision.result
                entry.outcome = "refused" if decision.error else "answered"

    def _taken(self, step: Entry, at: datetime) -> None:
        signal = self._waiting[self._listening[step.step]].popleft()
        signal.ended, signal.outcome, signal.step = at, f"taken by step {step.step}", ""
        step.ended, step.outcome, step.by = at, DONE, signal.by
