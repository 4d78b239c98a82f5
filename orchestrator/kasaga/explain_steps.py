"""How each step of a saga stands, in words. Pure. Part of `explain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from .engine.awaited import said
from .engine.keylocks import LOCK
from .engine.model import DONE, LEFT, LOCAL, MISSED, REFUSED, SCOPE, SCOPED, SIGNAL, SLEEP, UNDONE, VOID
from .engine.renewing import told
from .engine.state import State
from .engine.step import NO_EFFECT, Step
from .timeline_entries import error_text
from .wording import length, moment, printable, shortened

PROGRESS_SHOWN = 200
"""Characters of a participant's progress in a sentence; the data have all of it."""


@dataclass(slots=True)
class StepView:
    """One step, in words. `next_at` is when its next attempt, or the next of its undo, is due."""

    path: str
    name: str
    kind: str
    state: str
    """waiting, retrying, deferred, sleeping, running; done, refused, unknown; cut off, in time, missed; of a
    scope: open, undoing, undone, ended well."""
    attempts: int
    error: str = ""
    next_at: datetime | None = None
    undo: str = ""
    """The compensation's name, or `void`; empty where nothing undoes the step."""
    undo_state: str = ""
    """undoing, retrying, stuck; undone, nothing, lost, voided, refused, executed, skipped, resolved."""
    undo_attempts: int = 0
    undo_error: str = ""
    child: str = ""
    """The id of the saga that the step is."""


def step_view(step: Step, now: datetime, sent: Mapping[tuple[str, bool], int]) -> StepView:
    """Tell of one step; `sent` as for `explain`."""
    view = StepView(step.path, step_name(step), step.kind, _step_state(step, now), step.attempt)
    view.attempts = sent.get((step.path, False), step.attempt)
    if step.outcome != DONE:
        view.error = step.error or step.error_type
    if not step.outcome:
        view.error = error_text(step.error_type, step.error)
    if step.kind in NO_EFFECT:
        view.next_at = moment(step.due_at) if step.due_at and not step.outcome else None
    elif view.state == "retrying":
        view.next_at = moment(step.last_at)
    if step.undo_form or step.undo_how or step.compensation:
        view.undo = "void" if step.undo_form == VOID else step.compensation or "void"
    if step.undo_how:
        view.undo_state = step.undo_how
    elif step.undo_form:
        view.undo_state = _undo_state(step, now)
        if view.undo_state == "retrying":
            view.next_at = undo_sent(step)
    view.undo_attempts = sent.get((step.path, True), step.undo_attempt)
    view.undo_error = "" if step.undo_how else step.undo_error
    view.child = step.key.decode() if step.child else ""
    return view


def step_name(step: Step) -> str:
    """What a person calls a step."""
    if step.child:
        return f"{step.type} {step.key.decode()}"
    if step.kind == SIGNAL:
        return said(step.type)
    return f"{step.kind} {step.type}".rstrip() if step.kind in (SCOPE, LOCK) else step.type or step.kind


_LOCKED = {DONE: "locked", REFUSED: "refused"}


def _scope_state(step: Step) -> str:
    if step.left == SCOPED:
        return "undone" if step.outcome == UNDONE else "undoing"
    return "ended well" if step.outcome == step.left == LEFT else "cut off" if step.outcome else "open"


def _step_state(step: Step, now: datetime) -> str:
    if step.kind == SCOPE:
        return _scope_state(step)
    if step.kind == LOCK and step.outcome:
        return _LOCKED.get(step.outcome, "cut off")
    if step.kind in (SLEEP, SIGNAL) and step.outcome not in ("", DONE, MISSED):
        return "in time" if step.outcome == LEFT and step.type.startswith("timeout") else "cut off"
    if step.outcome:
        return step.outcome
    if step.kind == SLEEP:
        return "sleeping"
    if step.kind in (SIGNAL, LOCK):
        return "waiting"
    if step.attempt > 1 and moment(step.last_at) > now:
        return "retrying"
    if step.late is not None and step.late.run:
        return "deferred"
    return "running" if step.kind == LOCAL else "waiting"


def accepted(step: Step, now: datetime) -> str:
    """`for X, which its participant has accepted and answers later`, and how it goes, of a deferred step."""
    late = step.late
    assert late is not None, "only of a deferred step"
    if step.child:
        return f"for its child {step.key.decode()} ({step.type}, step {step.path}) to end"
    text = f"for {step.type} (step {step.path}), which its participant has accepted and answers later"
    if late.number:
        text += f"; last heartbeat {length(now - moment(late.at))} ago"
    if late.progress:
        text += f": {shortened(printable(late.progress), PROGRESS_SHOWN)}"
    if not step.due_at:
        return text
    left = moment(step.due_at) - now
    if moment(step.due_at) <= now:
        return f"{text}; its time is over, which is decided in a moment"
    beat = late.heartbeat and step.due_at == late.at + late.heartbeat
    return f"{text}; without {'a heartbeat' if beat else 'an answer'} it times out in {length(left)}"


def _undo_state(step: Step, now: datetime) -> str:
    if step.blocked is not None:
        return "stuck"
    sent = undo_sent(step)
    return "retrying" if sent is not None and sent > now else "undoing"


def undo_sent(step: Step) -> datetime | None:
    """When the undo's current attempt was, or will be, sent: its time-out less the time for one attempt."""
    if not step.undo_due or step.undo_policy is None:
        return None
    return moment(step.undo_due - step.undo_policy.timeout)


@dataclass(slots=True)
class RunView:
    """The run that a saga is in, of those that it has gone on as."""

    number: int
    began_at: datetime
    records: int
    """Of its history."""
    long: str = ""
    """That the history has become long, in words; empty while it hasn't."""

    def text(self, now: datetime) -> str:
        """Say what there is to be said of it; of a saga in its first run, whose history is short, nothing."""
        said = f"run {self.number}, begun {length(now - self.began_at)} ago" if self.number > 1 else ""
        if self.long:
            return f"{said}; {self.long}" if said else self.long
        return said


def run_view(state: State) -> RunView:
    """Describe a saga's run."""
    records = state.next_seq - state.base
    long = told(state.swollen[1]) if state.swollen is not None else ""
    return RunView(state.number, moment(state.run_at), records, long)
