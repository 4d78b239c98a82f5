"""What was sent to one saga and not taken yet: part of its state.

Signals lie here in the order in which they came, by name, from their event to the decision `Take`, which
gives the oldest to the step that has waited longest. Who decides that is signals.py.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from .model import DONE, UPDATE, Accept, Alarm, Answered, Drop, Message, Signalled, Take, Updated
from .step import Step

if TYPE_CHECKING:
    from .state import State

JSON = "json"
"""In `Step.details` of an update whose payload is JSON text."""


class Mail:
    """Signals and updates of one saga."""

    __slots__ = ("came", "count", "dropped", "ids", "listening", "size", "updated", "updates", "waiting")

    def __init__(self) -> None:
        self.ids: dict[str, None] = {}
        """Of all signals that came, in order; of those that earlier runs took the last: each counts once."""
        self.waiting: dict[str, deque[Signalled]] = {}
        """Undelivered ones, by name, oldest first; no name has none."""
        self.count = self.size = self.dropped = self.came = self.updated = 0
        """How many are undelivered, their bytes, how many nobody could read; how many signals and updates
        came in this run, and how many updates ever."""
        self.listening: dict[str, dict[str, Step]] = {}
        """By the name of a signal the steps that wait for one, in the order in which they were asked for."""
        self.updates: dict[str, Step] = {}
        """By their ids, in the order in which they came."""

    def listen(self, step: Step) -> None:
        """A step waits for a signal."""
        self.listening.setdefault(step.type, {})[step.path] = step

    def silence(self, step: Step) -> None:
        """A step waits no more."""
        steps = self.listening[step.type]
        del steps[step.path]
        if not steps:
            del self.listening[step.type]

    def remove(self, name: str, signal_id: str) -> Signalled:
        """Take the oldest signal of a name out. Raises ValueError if it is another one."""
        signals = self.waiting[name]
        found = signals[0]
        if found.signal_id != signal_id:
            raise ValueError(f"signal {signal_id} is not the oldest {name}")
        signals.popleft()
        if not signals:
            del self.waiting[name]
        self.count -= 1
        self.size -= len(found.payload)
        return found


def of(state: State) -> Mail:
    """The saga's mail, begun if there was none."""
    if state.mail is None:
        state.mail = Mail()
    return state.mail


def note(state: State, event: Message) -> None:
    """Keep a signal. An update is kept by its Accept."""
    mail = of(state)
    if isinstance(event, Signalled):
        mail.ids[event.signal_id] = None
        mail.came += 1
        mail.waiting.setdefault(event.name, deque()).append(event)
        mail.count += 1
        mail.size += len(event.payload)


def alarm(state: State, decision: Alarm, row: int) -> None:
    """Apply an Alarm."""
    step = state.steps[decision.step]
    step.due_at, step.row = decision.due_at, row


def take(state: State, decision: Take, row: int) -> None:
    """Apply a Take: the step has its outcome."""
    mail, step = of(state), state.steps[decision.step]
    signal = mail.remove(step.type, decision.signal_id)
    mail.silence(step)
    step.outcome = DONE
    step.result = decision.payload or signal.payload
    step.details = decision.signal_id
    if not step.row and step.first_at < state.at:
        state.ended.append((step.path, step.kind, 1, step.first_at))
    state.end_attempt(step)
    state.unfed.append(step)


def drop(state: State, decision: Drop, row: int) -> None:
    """Apply a Drop."""
    mail = of(state)
    mail.remove(decision.name, decision.signal_id)
    mail.dropped += 1


def accept(state: State, decision: Accept, row: int) -> None:
    """Apply an Accept: the update of this record is fed to the code in its turn."""
    event = state.event
    if not isinstance(event, Updated) or decision.step in state.steps:
        raise ValueError(f"{decision.step} is no new update")
    step = Step(decision.step, UPDATE, state.at)
    step.type, step.payload, step.outcome = event.name, event.payload, DONE
    step.details = JSON if event.json else ""
    state.steps[step.path] = step
    mail = of(state)
    mail.updates[event.update_id] = step
    mail.came, mail.updated = mail.came + 1, mail.updated + 1
    state.unfed.append(step)


def answered(state: State, decision: Answered, row: int) -> None:
    """Apply an Answered."""
    step = state.steps[decision.step]
    step.result, step.error = decision.result, decision.error
