"""What is known of one saga: the fold of its records.

`decide` adds each decision through `State.apply` as it makes it, and `fold` applies the recorded
ones in the same order, so a live state and a rebuilt one can't differ. Nothing here runs code of
the saga's author.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from . import lifecycle
from .model import (
    COMMAND,
    DONE,
    LOCAL,
    SLEEP,
    TAKES_ROW,
    UNKNOWN,
    Asked,
    Clear,
    Deadline,
    Decision,
    Event,
    Fired,
    Move,
    Policy,
    Ran,
    Record,
    Replied,
    Resume,
    Return,
    RunLocal,
    Send,
    Settle,
    Sleep,
    Started,
    Tell,
    Undeliverable,
)

StepEvent = Replied | Fired | Ran | Undeliverable


class Step:
    """One step of a saga: a command, a sleep or a local function, and its undo."""

    __slots__ = (
        "attempt",
        "blocked",
        "compensation",
        "details",
        "due_at",
        "error",
        "error_type",
        "first_at",
        "key",
        "kind",
        "last_at",
        "outcome",
        "participant",
        "path",
        "payload",
        "policy",
        "result",
        "row",
        "type",
        "undo_attempt",
        "undo_due",
        "undo_error",
        "undo_form",
        "undo_how",
        "undo_payload",
        "undo_policy",
        "undo_row",
    )

    def __init__(self, path: str, kind: str, at: int) -> None:
        self.path = path
        self.kind = kind
        self.type = ""
        self.participant = ""
        self.key = b""
        self.payload = b""
        self.policy: Policy | None = None
        self.undo_policy: Policy | None = None
        self.compensation = ""
        self.attempt = 1
        self.first_at = at
        self.last_at = at
        self.due_at = 0
        self.row = 0
        self.outcome = ""
        self.result = b""
        self.error_type = ""
        self.error = ""
        self.details = ""
        self.undo_form = ""
        self.undo_attempt = 0
        self.undo_due = 0
        self.undo_row = 0
        self.undo_payload = b""
        self.undo_error = ""
        self.undo_how = ""
        self.blocked: Move | None = None
        """The STUCK that an answer to the undo or void forced; cleared with the step."""

    @property
    def undo_open(self) -> bool:
        """An undo or void is out and not answered."""
        return bool(self.undo_form) and not self.undo_how

    @property
    def to_undo(self) -> bool:
        """The saga may not end undone before this step is cleared, and nothing is out for it yet."""
        if self.undo_form or self.undo_how or self.kind == SLEEP:
            return False
        if self.outcome == DONE:
            return bool(self.compensation)
        if self.kind == LOCAL:
            return self.outcome == UNKNOWN and bool(self.compensation)
        return self.outcome == UNKNOWN


class State:
    """One saga as its history tells it."""

    __slots__ = (
        "actions",
        "at",
        "begun",
        "closes",
        "code",
        "deadline_row",
        "event",
        "fingerprint",
        "input",
        "name",
        "next_seq",
        "opens",
        "order",
        "parked",
        "pending",
        "phase",
        "reason",
        "remedy",
        "returned",
        "row",
        "run_id",
        "saga_id",
        "started_at",
        "state",
        "steps",
        "stuck_step",
        "traceparent",
        "tracestate",
        "undo_code",
        "undo_cursor",
        "undo_reason",
        "undo_step",
        "undos_open",
        "unfed",
        "version",
        "watchers",
        "with_exceptions",
    )

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.saga_id = ""
        self.name = ""
        self.version = 0
        self.input = b""
        self.traceparent = ""
        self.tracestate = ""
        self.started_at = 0
        self.at = 0
        self.next_seq = 1
        self.state = ""
        self.phase = ""
        """The state under STUCK and PAUSED: what the saga is doing."""
        self.code = ""
        self.reason = ""
        self.remedy = ""
        self.stuck_step = ""
        self.undo_code = ""
        self.undo_reason = ""
        self.undo_step = ""
        self.parked = False
        self.fingerprint = ""
        self.begun = False
        self.returned: bytes | None = None
        self.with_exceptions = False
        self.unfed: list[Step] = []
        """Settled steps whose outcome the saga's code hasn't been given, in order of settling."""
        self.undos_open = 0
        self.undo_cursor = -1
        """Index of the last step that may still need an undo; -1 before the undoing begins."""
        self.steps: dict[str, Step] = {}
        self.order: list[Step] = []
        self.pending: list[StepEvent] = []
        self.actions: set[str] = set()
        self.watchers: list[tuple[str, str]] = []
        self.deadline_row = 0
        # Of the record at hand:
        self.event: Event | None = None
        self.row = 0
        self.opens: list[tuple[int, Decision]] = []
        self.closes: list[int] = []

    @property
    def final(self) -> bool:
        """The saga has ended."""
        return self.state in lifecycle.FINAL

    def begin(self, event: Event, at: int, row: int) -> None:
        """Open a record: note the event itself; decisions follow through `apply`."""
        self.event, self.at, self.row = event, at, row
        self.opens, self.closes = [], []
        if isinstance(event, Started):
            self.saga_id, self.name, self.version = event.saga_id, event.name, event.version
            self.input, self.started_at = event.input, at
            self.traceparent, self.tracestate = event.traceparent, event.tracestate
            if event.reply_to:
                self.watchers.append((event.reply_to, self.run_id))
        elif isinstance(event, Asked):
            self.actions.add(event.action_id)
            if event.action == "watch":
                self.watchers.append((event.reply_to, event.action_id))
        elif self.parked and isinstance(event, StepEvent):
            self.pending.append(event)

    def apply(self, decision: Decision) -> None:
        """Take one decision into the state."""
        if isinstance(decision, TAKES_ROW):
            row = self.row
            self.row += 1
            self.opens.append((row, decision))
        else:
            row = 0
        _APPLY[type(decision)](self, decision, row)

    def end(self) -> None:
        """Close the record."""
        self.next_seq += 1

    def close_row(self, row: int) -> None:
        """Note that an outbox row is not needed any more."""
        if row:
            self.closes.append(row)


def fold(run_id: str, records: Iterable[Record]) -> State:
    """Rebuild a saga's state from its history, without its code."""
    state = State(run_id)
    for record in records:
        state.begin(record.event, record.at, record.row)
        for decision in record.decisions:
            state.apply(decision)
        state.end()
    return state


def _resume(state: State, decision: Resume, row: int) -> None:
    if decision.step:
        state.unfed.remove(state.steps[decision.step])
    else:
        state.begun = True


def _send(state: State, decision: Send, row: int) -> None:
    at = decision.send_at or state.at
    if decision.form == COMMAND:
        if decision.attempt == 1:
            step = Step(decision.step, COMMAND, state.at)
            step.type, step.participant = decision.type, decision.participant
            step.key, step.payload = decision.key, decision.payload
            step.policy, step.undo_policy = decision.policy, decision.undo_policy
            step.compensation = decision.compensation
            state.steps[step.path] = step
            state.order.append(step)
        else:
            step = state.steps[decision.step]
            state.close_row(step.row)
        step.attempt, step.last_at, step.due_at, step.row = decision.attempt, at, decision.due_at, row
        return
    _open_undo(state, decision.step, decision.form, decision.attempt, row)
    state.steps[decision.step].undo_due = decision.due_at
    if decision.payload:
        state.steps[decision.step].undo_payload = decision.payload


def _open_undo(state: State, path: str, form: str, attempt: int, row: int) -> None:
    step = state.steps[path]
    state.close_row(step.undo_row)
    if attempt > 1 and isinstance(state.event, Replied | Ran):
        step.undo_error = state.event.error
    if not step.undo_form:
        state.undos_open += 1
    step.undo_form, step.undo_attempt, step.undo_row = form, attempt, row
    step.blocked = None


def _sleep(state: State, decision: Sleep, row: int) -> None:
    step = Step(decision.step, SLEEP, state.at)
    step.due_at, step.row = decision.due_at, row
    state.steps[step.path] = step
    state.order.append(step)


def _deadline(state: State, decision: Deadline, row: int) -> None:
    state.deadline_row = row


def _run_local(state: State, decision: RunLocal, row: int) -> None:
    if decision.form != LOCAL:
        _open_undo(state, decision.step, decision.form, decision.attempt, row)
        return
    if decision.attempt == 1:
        step = Step(decision.step, LOCAL, state.at)
        step.type, step.compensation = decision.name, decision.undo
        step.policy, step.undo_policy = decision.policy, decision.undo_policy
        state.steps[step.path] = step
        state.order.append(step)
    else:
        step = state.steps[decision.step]
        state.close_row(step.row)
    step.attempt, step.last_at, step.row = decision.attempt, decision.send_at or state.at, row


def _settle(state: State, decision: Settle, row: int) -> None:
    step = state.steps[decision.step]
    event = state.event
    step.outcome = decision.outcome
    step.result, step.error_type = decision.payload, decision.error_type
    step.error, step.details = decision.error, decision.details
    if isinstance(event, Replied | Ran) and event.step == decision.step and not decision.error_type:
        step.result = step.result or event.payload
        step.error_type, step.error = event.error_type, event.error
        step.details = event.details if isinstance(event, Replied) else ""
    state.close_row(step.row)
    step.row = 0
    step.blocked = None
    state.unfed.append(step)
    if isinstance(event, Asked) and event.action == "resolve":
        state.with_exceptions = True


def _clear(state: State, decision: Clear, row: int) -> None:
    step = state.steps[decision.step]
    if step.undo_open:
        state.undos_open -= 1
    step.undo_how = decision.how
    step.blocked = None
    state.close_row(step.undo_row)
    step.undo_row = 0
    if decision.how in ("skipped", "resolved"):
        state.with_exceptions = True


def _return(state: State, decision: Return, row: int) -> None:
    state.returned = decision.result


def _move(state: State, decision: Move, row: int) -> None:
    lifecycle.check_move(state.state, decision.state)
    state.state = decision.state
    state.code, state.reason, state.remedy = decision.code, decision.reason, decision.remedy
    state.stuck_step = decision.step
    state.fingerprint = decision.fingerprint
    if state.parked and not decision.parked:
        state.pending = []
    state.parked = decision.parked
    if decision.state in lifecycle.UNDOING and state.phase not in lifecycle.UNDOING:
        state.undo_code, state.undo_reason, state.undo_step = decision.code, decision.reason, decision.step
    if decision.state == lifecycle.STUCK and not decision.parked and decision.step:
        state.steps[decision.step].blocked = decision
    if decision.state not in (lifecycle.STUCK, lifecycle.PAUSED):
        state.phase = decision.state
    elif not state.phase:
        state.phase = lifecycle.RUNNING
    if decision.state in lifecycle.FINAL or decision.state in lifecycle.UNDOING:
        state.close_row(state.deadline_row)
        state.deadline_row = 0


def _tell(state: State, decision: Tell, row: int) -> None:
    """Only a row: the state knows nothing of it."""


_APPLY: dict[type, Callable[..., None]] = {
    Resume: _resume,
    Send: _send,
    Sleep: _sleep,
    Deadline: _deadline,
    RunLocal: _run_local,
    Settle: _settle,
    Clear: _clear,
    Return: _return,
    Move: _move,
    Tell: _tell,
}
