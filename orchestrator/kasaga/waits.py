"""What a saga waits for, in sentences.

Pure. Part of `explain`, which says the rest of a saga.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from .engine import lifecycle
from .engine.deferrals import Deferred
from .engine.keylocks import LOCK
from .engine.model import COMMAND, LOCAL, SIGNAL, SLEEP, VOID
from .engine.stand import Paused, paused_since
from .engine.state import State, Step
from .explain_steps import accepted, step_name, undo_sent
from .store.base import OutboxRow
from .wording import counted, length, moment, stamp


@dataclass(slots=True)
class Wait:
    """One thing that the saga waits for. `text` is the sentence."""

    text: str
    kind: str
    step: str = ""
    name: str = ""
    attempt: int = 0
    topic: str = ""
    sent_at: datetime | None = None
    until: datetime | None = None
    progress: str = ""
    """JSON text that a participant gave with its last heartbeat, of a command that it answers later."""


def waits_of(state: State, rows: Mapping[int, OutboxRow], now: datetime) -> list[Wait]:
    """Say what a saga waits for that hasn't ended; `rows` are its open ones by number."""
    found: list[Wait] = []
    paused = state.paused
    news = (
        {(event.step, event.form) for event in state.pending if not isinstance(event, Deferred)}
        if paused is not None
        else set[tuple[str, str]]()
    )
    for step in state.order:
        if (step.path, step.kind) not in news and not step.outcome and (step.row or step.kind == SIGNAL):
            so_long = paused_since(state, step.first_at)
            past = state.pivot is not None
            found.append(_waits_for_step(step, rows.get(step.row), now, so_long, after_pivot=past))
        if (step.path, step.undo_form) not in news and step.undo_row and step.undo_open:
            found.append(_waits_for_undo(step, rows.get(step.undo_row), now))
    _whole(state, found, now)
    if state.deadline_row:
        until = moment(state.deadline_due)
        left, when = length(until - now), stamp(until)
        text = f"for its own deadline too: in {left}, at {when} UTC, it is cancelled and undone"
        if paused is not None and until <= now:
            text = "for its own deadline no more, which has passed: it is undone when it is resumed"
        found.append(Wait(text, "deadline", until=until))
    return found


def _whole(state: State, found: list[Wait], now: datetime) -> None:
    """Add what the saga as a whole waits for."""
    paused = state.paused
    if paused is not None:
        for wait in found:
            if wait.topic:  # no other attempt goes out
                wait.text = wait.text.partition(";")[0] + "; its answer is kept"
        found.insert(0, _resume(paused, len(state.pending), now))
    elif state.await_row:
        which = f"{state.name} version {state.version}"
        found.insert(
            0, Wait(f"for a process that has {which} to own its shard; then it goes on by itself", "version")
        )
    elif state.parked:
        found.append(Wait("for mended code, with which it goes on by itself", "code"))
    elif state.state == lifecycle.STUCK and not any(wait.kind in ("undo", "void") for wait in found):
        found.append(Wait("for a decision of yours", "operator"))
    elif not found:
        found.append(Wait("for nothing but its turn, which comes in a moment", "turn"))


def _resume(paused: Paused, news: int, now: datetime) -> Wait:
    since = moment(paused.at)
    text = f"for `kasaga resume`: {paused.by} paused it {length(now - since)} ago, at {stamp(since)} UTC"
    if news:
        came = counted(news, "answer or timer", "answers or timers")
        text += f"; {came} came since, to be decided then"
    return Wait(text, "resume", sent_at=since)


def _waits_for_step(
    step: Step, row: OutboxRow | None, now: datetime, paused: int, *, after_pivot: bool
) -> Wait:
    if step.kind == SLEEP:
        until, name = moment(step.due_at), step.type or SLEEP
        what = f"step {step.path} is a {name}" + (", if its block takes so long" if step.type else "")
        text = f"until {stamp(until)} UTC, which is in {length(until - now)} ({what})"
        return Wait(text, SLEEP, step.path, name, until=until)
    if step.kind == LOCK:
        return Wait(f"for the {step_name(step)} (step {step.path})", LOCK, step.path, step.type)
    if step.kind == SIGNAL:
        wait = Wait(f"for a {step_name(step)} (step {step.path})", SIGNAL, step.path, step.type)
        if step.due_at:
            wait.until = moment(step.due_at)
            wait.text += f", until {stamp(wait.until)} UTC, which is in {length(wait.until - now)}"
        return wait
    sent = moment(step.last_at)
    if step.kind == LOCAL:
        wait = Wait("", LOCAL, step.path, step.type, step.attempt, sent_at=sent)
        what = f"for {step.type}, which runs in the orchestrator (step {step.path})"
        wait.text = f"{what}, {_attempt(step.attempt, sent, now, 'begun')}"
        return wait
    wait = Wait("", COMMAND, step.path, step.type, step.attempt, _topic(step, row), sent)
    wait.until = moment(step.due_at) if step.due_at else None
    if step.late is not None and step.late.run:
        wait.text, wait.progress = accepted(step, now), step.late.progress
        return wait
    wait.text = _sent(
        f"for {step.type} (step {step.path})", wait, now, last=_is_last(step, paused, after_pivot=after_pivot)
    )
    return wait


def _waits_for_undo(step: Step, row: OutboxRow | None, now: datetime) -> Wait:
    if step.child:
        how = "be undone" if step.undo_form != VOID else "say whether it has begun"
        what = f"for its child {step.key.decode()} (step {step.path}) to {how}"
    elif step.undo_form == VOID:
        what = (
            f"for {step.participant} to say that {step.type} (step {step.path}) did not happen and never will"
        )
    else:
        what = f"for {step.compensation}, which undoes step {step.path}"
    sent = undo_sent(step)
    wait = Wait("", step.undo_form, step.path, step.compensation, step.undo_attempt, sent_at=sent)
    if step.kind == LOCAL or sent is None:
        wait.text = f"{what}, attempt {step.undo_attempt}"
        return wait
    wait.topic, wait.until = _topic(step, row), moment(step.undo_due)
    wait.text = _sent(what, wait, now, last=False)
    return wait


def _topic(step: Step, row: OutboxRow | None) -> str:
    return row.topic if row is not None and row.topic else f"{step.participant}.commands"


def _attempt(number: int, sent: datetime, now: datetime, word: str) -> str:
    when = f"in {length(sent - now)}" if sent > now else f"{word} {length(now - sent)} ago"
    return when if number == 1 else f"attempt {number}, {when}"


def _sent(what: str, wait: Wait, now: datetime, *, last: bool) -> str:
    """`waits for X, attempt 3, sent 12 s ago to T; next attempt in 48 s`, without its first word."""
    sent, until = wait.sent_at, wait.until
    assert sent is not None
    assert until is not None
    if sent > now:
        return f"{what}: attempt {wait.attempt} goes to {wait.topic} in {length(sent - now)}"
    text = f"{what}, {_attempt(wait.attempt, sent, now, 'sent')} to {wait.topic}"
    if until <= now:
        return f"{text}; its time is over, which is decided in a moment"
    if last:
        return f"{text}; it is the last attempt, and has {length(until - now)} left"
    return f"{text}; next attempt in {length(until - now)}"


def _is_last(step: Step, paused: int, *, after_pivot: bool) -> bool:
    policy = step.policy
    if policy is None:
        return False
    end = step.first_at + policy.schedule_to_close + paused if policy.schedule_to_close else 0
    used_up = bool(policy.maximum_attempts) and step.attempt >= policy.maximum_attempts
    if after_pivot and not step.left:
        return False
    return bool(step.left) or used_up or bool(end and step.due_at >= end)
