"""Where a saga stands, why, what it waits for, and what a person can do about it.

    explain(row, state, open_rows, now=…) -> Explanation -> as_json or as_text

Pure. Stands between the store and whatever shows a saga: `kasaga describe`, the demo, a page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from kasaga_wire.attributes import as_json as attributes_json

from .engine import lifecycle
from .engine.deferrals import Deferred
from .engine.leftovers import Leftover, leftovers
from .engine.leftovers import told as told_leftovers
from .engine.model import COMMAND, DONE, LOCAL, REFUSED, SCOPE, SCOPED, UNKNOWN, Fired
from .engine.resets import RESET
from .engine.stand import Paused
from .engine.state import State
from .engine.step import NO_EFFECT
from .explain_locks import KeyView, holds_text
from .explain_steps import RunView, StepView, run_view, step_name, step_view
from .remedies import Remedy, can_cancel, remedies, terminating
from .store.base import OutboxRow, SagaRow, ShardLease
from .timeline_data import Decode
from .waits import Wait, waits_of
from .wording import (
    PLAIN,
    Paint,
    attributes_text,
    counted,
    length,
    listed,
    moment,
    printable,
    rfc3339,
    sentence,
    shortened,
    stamp,
    table,
)

STEPS_SHOWN, STEPS_AT_END = 50, 10
"""Of a saga with more steps, those are shown that aren't plainly done, and the last ones."""

WAITS_SHOWN = 20
"""Of a saga that waits for more things, so many are told as text; all of them as data."""

OPEN_SHOWN = 5
"""Of many open steps, so many are named where it stands."""

AT_WORK = frozenset({"undoing", "retrying", "stuck"})

NO_ANSWER = (Fired, Deferred)
"""News of a step that don't answer it."""

ERROR_SHOWN = 100
"""Characters of a step's error in the table of steps; the whole of it is in the history."""


@dataclass(slots=True)
class Explanation:
    """All that a person asks about one saga."""

    row: SagaRow
    now: datetime
    steps: list[StepView] = field(default_factory=list[StepView])
    waits: list[Wait] = field(default_factory=list[Wait])
    remedies: list[Remedy] = field(default_factory=list[Remedy])
    owner: str = ""
    """The process that has the saga's shard; empty where nobody has."""
    input: bytes = b""
    progress: str = ""
    """Where it stands, in one sentence."""
    can_cancel: bool = False
    """Whether the saga's owner would take a cancel."""
    paused: Paused | None = None
    """Since when, by whom and why, while it is paused."""
    halting: list[Remedy] = field(default_factory=list[Remedy])
    """The last resort, while the saga lives and its history can be read."""
    leaves: list[Leftover] = field(default_factory=list[Leftover])
    """What a saga that was terminated left behind."""
    parent: str = ""
    """The id of the saga whose step this one is."""
    run: RunView | None = None
    """Its last run, where the history can be read."""
    locks: list[KeyView] = field(default_factory=list[KeyView])
    """What it has locked, or waits to lock."""


def explain(
    row: SagaRow,
    state: State,
    open_rows: Iterable[OutboxRow],
    *,
    now: datetime,
    lease: ShardLease | None = None,
    sent: Mapping[tuple[str, bool], int] | None = None,
) -> Explanation:
    """Explain one saga: `state` is folded from its history, `open_rows` are `Store.waits`.

    `now` is the database's time, or near it: all lengths of time are counted from it. `sent` is the history's
    `attempts_sent`; without it the last attempts' numbers are shown.
    """
    rows = {each.seq: each for each in open_rows}
    made = Explanation(row, now, input=state.input)
    made.owner = lease.owner or "" if lease is not None and not lease.expired else ""
    made.steps = [step_view(step, now, sent or {}) for step in state.order]
    if not state.final:
        made.waits = waits_of(state, rows, now)
        if lease is not None and not made.owner:
            text = f"for an orchestrator: nobody owns shard {row.shard}, so nothing of this saga moves"
            made.waits.insert(0, Wait(text, "owner"))
        made.remedies = remedies(row.saga_id, state)
        made.can_cancel = can_cancel(state)
        made.halting = [terminating(row.saga_id, state)]
    made.paused = state.paused
    if state.paused is not None:
        _hold(made, state)
    if state.state == lifecycle.TERMINATED:
        made.leaves = leftovers(state)
    made.progress = _progress(state) + _untaken(state)
    made.parent = state.parent.saga_id if state.parent is not None else ""
    made.run = run_view(state)
    return made


def _hold(made: Explanation, state: State) -> None:
    """Say of each step what the pause keeps: an attempt that doesn't go out, an answer that isn't decided."""
    news = {(event.step, event.form) for event in state.pending if not isinstance(event, NO_ANSWER)}
    for step, view in zip(state.order, made.steps, strict=True):
        if not step.outcome and (step.path, step.kind) in news:
            view.state = "answered"
        elif not step.outcome and not step.row and step.kind in (COMMAND, LOCAL) and step.blocked is None:
            view.state, view.next_at = "held", None
        if step.undo_open and (step.path, step.undo_form) in news:
            view.undo_state = "answered"
        elif step.undo_open and not step.undo_row and view.undo_state == "retrying":
            view.undo_state, view.next_at = "held", None


# --- where it stands


def _untaken(state: State) -> str:
    """Signals that nobody has taken, if there are any."""
    if state.mail is None or not state.mail.count:
        return ""
    names = listed(sorted(state.mail.waiting))
    word = "was never taken" if state.mail.count == 1 else "were never taken"
    said = word if state.final or state.phase in lifecycle.UNDOING else "not taken yet"
    return f"; {counted(state.mail.count, 'signal')} {said} ({names})"


def _progress(state: State) -> str:
    order = [step for step in state.order if step.kind != SCOPE]
    done = sum(1 for step in order if step.outcome == DONE and not step.undo_how)
    if state.state == lifecycle.COMPLETED:
        return f"All {done} steps are done" if done != 1 else "Its step is done"
    if state.state == lifecycle.COMPENSATED:
        return "What was done is undone" + (
            ", except what an operator skipped or resolved" if state.with_exceptions else ""
        )
    if state.state == lifecycle.TERMINATED:
        return f"Ended as it was; {told_leftovers(leftovers(state))}"
    open_steps = [f"{step.path} ({step_name(step)})" for step in order if not step.outcome]
    if len(open_steps) > OPEN_SHOWN:
        open_steps = [*open_steps[: OPEN_SHOWN - 1], f"{len(open_steps) - OPEN_SHOWN + 1} others"]
    if state.phase in lifecycle.UNDOING:
        left = [step for step in order if step.undo_open or step.to_undo]
        undone = sum(1 for step in order if step.undo_how)
        return f"Undoing: {undone} of {undone + len(left)} steps cleared"
    if state.resetting:
        gone = [step for step in order if step.left == RESET]
        todo = sum(1 for step in gone if step.undo_open or step.to_undo)
        return f"Set back to step {state.resetting}: {todo} of {len(gone)} steps after it are to be undone"
    order = [step for step in order if step.left != RESET]
    done = sum(1 for step in order if step.outcome == DONE and not step.undo_how)
    at = f", at step {listed(open_steps)}" if open_steps else ""
    if not order:
        return "No step has been taken yet"
    only = ", past its pivot: it only goes forward" if state.pivot is not None else ""
    return f"{done} of {len(order)} steps so far are done{at}{_scopes(state)}{only}"


def _scopes(state: State) -> str:
    """The scopes that the saga's code is in, if it is in one."""
    scopes = [step for step in state.order if step.kind == SCOPE and not step.outcome]
    names = [f"{step_name(step)} (step {step.path})" for step in scopes if step.left != SCOPED]
    undoing = [f"{step_name(step)} (step {step.path})" for step in scopes if step.left == SCOPED]
    inside = f", in {listed(names)}" if names else ""
    return f"{inside}, undoing {listed(undoing)}" if undoing else inside


# --- data ---------------------------------------------------------------------------------------------


def row_json(row: SagaRow) -> dict[str, Any]:
    """The summary of a saga as JSON-able values: what `kasaga list -o json` shows. Keys are stable."""
    made: dict[str, Any] = {
        "saga_id": row.saga_id,
        "run_id": str(row.run_id),
        "name": row.name,
        "version": row.version,
        "state": row.state.value,
        "shard": row.shard,
        "started_at": rfc3339(row.started_at),
        "updated_at": rfc3339(row.updated_at),
        "ended_at": rfc3339(row.ended_at) if row.ended_at else None,
    }
    for key in ("code", "reason", "remedy", "step"):
        made[key] = getattr(row, key) or None
    made["with_exceptions"] = row.with_exceptions
    made["attributes"] = attributes_json(row.attributes)
    return made


def as_json(told: Explanation, decode: Decode) -> dict[str, Any]:
    """An explanation as JSON-able values. Keys are stable; times are RFC 3339 in UTC."""
    made = row_json(told.row)
    made["owner"] = told.owner or None
    made["progress"] = told.progress
    made["input"] = decode(told.input) if told.input else None
    made["result"] = decode(told.row.result) if told.row.result else None
    made["steps"] = [_plain(step) for step in told.steps]
    made["waits_for"] = [_plain(wait) for wait in told.waits]
    made["remedies"] = [{"command": each.command, "effect": each.effect} for each in told.remedies]
    made["paused"] = _paused_json(told.paused) if told.paused is not None else None
    made["leaves"] = leaves_json(told.leaves)
    made["parent"] = told.parent or None
    made["run"] = _plain(told.run) if told.run is not None else None
    made["locks"] = [asdict(key) for key in told.locks]
    return made


def _paused_json(paused: Paused) -> dict[str, Any]:
    cancel = paused.cancel
    return {
        "since": rfc3339(moment(paused.at)),
        "by": paused.by,
        "reason": paused.said or None,
        "state": paused.beneath.state,
        "cancelled_by": cancel.by if cancel is not None else None,
    }


def leaves_json(left: Iterable[Leftover]) -> list[dict[str, Any]]:
    """What a saga leaves, or would leave, behind, as JSON-able values."""
    return [
        {
            "step": each.step,
            "name": each.name,
            "what": each.what,
            "compensation": each.compensation or None,
        }
        for each in left
    ]


def _plain(view: StepView | Wait | RunView) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name in view.__slots__:
        value = getattr(view, name)
        if isinstance(value, datetime):
            value = rfc3339(value)
        if value or name in ("attempts",):
            made[name] = value
    return made


# --- text ---------------------------------------------------------------------------------------------


def as_text(told: Explanation, decode: Decode, *, paint: Paint = PLAIN, width: int = 120) -> list[str]:
    """An explanation as lines."""
    row = told.row
    state = paint.state(row.state.value)
    if row.with_exceptions:
        state += " (with exceptions)"
    lines = [f"{paint('bold', f'{row.name} {printable(row.saga_id)}')} is {state}"]
    if row.reason:
        code = f"{row.code}: " if row.code else ""
        lines.append(f"  {printable(code + sentence(row.reason))}")
    if row.remedy and not lifecycle_final(row):
        lines.append(f"  {printable(sentence(row.remedy))}")
    lines += ["", *_facts(told, decode, width, paint)]
    if told.waits:
        lines.append("")
        lines += waits_text(told)
    if told.steps:
        lines += ["", *_steps_table(told, paint)]
    if told.remedies:
        lines += ["", "You can run"]
        wide = max(len(each.command) for each in told.remedies)
        lines += [f"  {paint('bold', each.command.ljust(wide))}  {each.effect}" for each in told.remedies]
    return lines


def waits_text(told: Explanation) -> list[str]:
    """What the saga waits for, a sentence each; of very many things the first ones."""
    lines = [f"It waits {printable(sentence(wait.text))}" for wait in told.waits[:WAITS_SHOWN]]
    if len(told.waits) > WAITS_SHOWN:
        lines.append(f"And it waits for {len(told.waits) - WAITS_SHOWN} things more.")
    return lines


def lifecycle_final(row: SagaRow) -> bool:
    """Whether the saga has ended."""
    return row.state.value in lifecycle.FINAL


def _facts(told: Explanation, decode: Decode, width: int, paint: Paint) -> list[str]:
    row = told.row
    owner = f"owned by {told.owner}" if told.owner else "owned by nobody"
    where = f"shard {row.shard}" + ("" if lifecycle_final(row) else f", {owner}")
    facts = [
        ("run", f"{row.run_id} (version {row.version}, {where})"),
        ("started", f"{stamp(row.started_at)} UTC, {length(told.now - row.started_at)} ago"),
    ]
    if row.ended_at is not None:
        facts.append(("ended", f"{stamp(row.ended_at)} UTC, after {length(row.ended_at - row.started_at)}"))
    else:
        facts.append(("changed", f"{stamp(row.updated_at)} UTC, {length(told.now - row.updated_at)} ago"))
    if told.run is not None and (said := told.run.text(told.now)):
        facts.append(("history", said))
    if told.parent:
        facts.append(("child of", printable(told.parent)))
    facts.append(("progress", told.progress))
    if said := holds_text(told.locks):
        facts.append(("holds", shortened(printable(said), max(40, width - 12))))
    if row.attributes:
        text = attributes_text(row.attributes)
        facts.append(("found by", shortened(printable(text), max(40, width - 12))))
    for name, data in (("input", told.input), ("result", row.result)):
        value = decode(data) if data else None
        if value is not None:
            facts.append((name, shortened(printable(_compact(value)), max(40, width - 12))))
    return [f"  {paint('dim', name.ljust(8))}  {text}" for name, text in facts]


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _steps_table(told: Explanation, paint: Paint) -> list[str]:
    steps = told.steps
    if len(steps) > STEPS_SHOWN:
        telling = [step for step in steps[:-STEPS_AT_END] if step.state != DONE or step.undo_state in AT_WORK]
        steps = telling[: STEPS_SHOWN - STEPS_AT_END] + steps[-STEPS_AT_END:]
    rows = [_step_cells(step, told.now) for step in steps]
    lines = table(("STEP", "NAME", "STATE", "ATTEMPTS", "UNDO"), rows, paint=paint)
    if len(steps) < len(told.steps):
        lines.append(
            f"({counted(len(told.steps) - len(steps), 'step')} not shown; `kasaga history` has them)"
        )
    return lines


def _step_cells(step: StepView, now: datetime) -> tuple[str, str, str, str, str]:
    state = step.state
    if state in (REFUSED, UNKNOWN, "retrying", "undoing", "undone") and step.error:
        state += f": {shortened(printable(step.error), ERROR_SHOWN)}"
    next_in = f", next in {length(step.next_at - now)}" if step.next_at and step.next_at > now else ""
    if not step.undo_state:
        state += next_in
    undo = f"by {step.undo}" if step.undo and step.state != REFUSED else ""
    if step.undo_state:
        names = {
            "nothing": "nothing to undo",
            "lost": "nothing left to undo",
            "executed": "it had happened, and nothing undoes it",
        }
        undo = f"{step.undo}: {names.get(step.undo_state, step.undo_state)}" if step.undo else step.undo_state
        if step.undo_attempts > 1:
            undo += f", {step.undo_attempts} attempts"
        undo += next_in
        if step.undo_error:
            undo += f": {shortened(printable(step.undo_error), ERROR_SHOWN)}"
    attempts = "" if step.kind in NO_EFFECT else str(step.attempts)
    return (step.path, printable(step.name), state, attempts, undo)


def headline(row: SagaRow) -> str:
    """One line that says how a saga stands, for `start --wait` and scripts."""
    reason = f": {row.reason}" if row.reason else ""
    return f"{row.name} {row.saga_id} is {row.state.value}{reason}"


def list_rows(rows: Sequence[SagaRow], now: datetime) -> list[tuple[str, ...]]:
    """The cells of `kasaga list`."""
    made: list[tuple[str, ...]] = []
    for row in rows:
        took = (row.ended_at or now) - row.started_at
        why = f"{row.code} {row.reason}".strip() if row.reason else ""
        made.append(
            (
                printable(row.saga_id),
                row.name,
                row.state.value + ("*" if row.with_exceptions else ""),
                stamp(row.started_at),
                length(took),
                shortened(printable(why), ERROR_SHOWN),
            )
        )
    return made
