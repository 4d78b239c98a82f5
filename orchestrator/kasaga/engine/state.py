"""What is known of one saga: the fold of its records.

`Turn` (turn.py) adds each decision through `State.apply` as it makes it, and `fold` applies the
recorded ones in the same order, so a live state and a rebuilt one can't differ. Nothing here runs
code of the saga's author; `replay` finds here all that it needs to do so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from kasaga_wire.attributes import Stored

from ..errors import HistoryUnreadable
from . import attempts, attributes, late, leaving, lifecycle, mail, renewing, stand
from .attributes import SetAttributes
from .deferrals import Defer
from .keylocks import Lock
from .kinship import Parent, Recall, Report, recall
from .mail import Mail
from .model import (
    MESSAGES,
    TAKES_ROW,
    Accept,
    Alarm,
    Answered,
    Asked,
    Clear,
    Deadline,
    Decision,
    Drop,
    Emit,
    Enter,
    Event,
    Fence,
    Hold,
    Leave,
    Listen,
    Move,
    Pivot,
    Postpone,
    Record,
    Release,
    Resume,
    Return,
    RunLocal,
    Send,
    Settle,
    Sleep,
    Started,
    Take,
    Tell,
    Unblock,
)
from .notes import EndedFields, Mark, Watcher
from .renewals import Continue, Swell
from .resets import Reset
from .stand import Paused
from .step import RESOLVED, SKIPPED, STEP_EVENTS, Step, StepEvent
from .versions import Adopt, Await, Patch

__all__ = ["MAX_REASON", "RESOLVED", "SKIPPED", "STEP_EVENTS", "State", "Step", "StepEvent", "extend", "fold"]

MAX_REASON = 4_000
"""Characters of a reason."""

MAX_MARKS = 100
"""Marks kept of one saga; a saga that is stuck again and again has its first ones."""


_NOTHING: dict[str, None] = {}
"""Never written to: most sagas have no actions."""


class State:
    """One saga as its history tells it."""

    __slots__ = (
        "actions",
        "at",
        "attributes",
        "await_row",
        "base",
        "before",
        "begun_at",
        "begun_seq",
        "blocked",
        "closes",
        "code",
        "deadline_due",
        "deadline_row",
        "emitted",
        "emitted_before",
        "ended",
        "event",
        "fed",
        "fingerprint",
        "first_row",
        "freed",
        "held",
        "input",
        "jumps",
        "leaves",
        "locks",
        "lost",
        "mail",
        "marks",
        "name",
        "next_seq",
        "number",
        "offset",
        "opens",
        "order",
        "parent",
        "parked",
        "patches",
        "paused",
        "pauses",
        "pending",
        "phase",
        "pivot",
        "raised",
        "reason",
        "recalled",
        "remedy",
        "renews",
        "resetting",
        "returned",
        "row",
        "run_at",
        "run_id",
        "saga_id",
        "size",
        "start_hash",
        "started_at",
        "state",
        "steps",
        "stuck_step",
        "swollen",
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

    returned: bytes | None
    attributes: dict[str, Stored] | None
    """What the saga can be searched by; most sagas have nothing."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.next_seq = 1
        self.at = self.first_row = self.row = 0
        self.begin_run()
        self.event: Event | None = None
        """Of the record at hand, as the next three."""
        self._open_record()

    def begin_run(self) -> None:
        """Be as of a saga that nothing is known of, but for its id and the number of its next record."""
        self.version, self.input, self.start_hash = 0, b"", b""
        """`start_hash`: SHA-256 of the first run's input, empty in that run."""
        self.base = self.number = 1
        """The first record that the run needs; which of the saga's runs it is."""
        self.size = 0
        """Bytes of the run's history, which the shell counts."""
        self.offset = self.emitted_before = self.begun_seq = 0
        """The last number of a step, and how many events were published, before this run."""
        self.before: dict[str, Step] | None = None
        """Steps of runs that the record at hand has ended."""
        self.swollen: tuple[int, Swell] | None = None
        """At which of the code's outcomes its history was first known to be long; 0: at its start."""
        self.started_at = self.run_at = self.deadline_row = self.deadline_due = self.await_row = 0
        """`started_at`: of the first run; `await_row`: of a saga that waits for its version."""
        self.saga_id = self.name = self.traceparent = self.tracestate = ""
        self.state = self.phase = self.code = self.reason = self.remedy = self.stuck_step = ""
        """`phase`: the state under STUCK and PAUSED, what the saga is doing."""
        self.undo_code = self.undo_reason = self.undo_step = self.fingerprint = ""
        self.parked = self.held = self.raised = self.with_exceptions = self.renews = False
        """Its code can't go on; nothing of it is decided now, because of that or of a pause; its code has
        ended by asking to be undone; somebody skipped or resolved a step; `returned` is a new run's input."""
        self.paused: Paused | None = None
        self.pauses: list[tuple[int, int]] | None = None  # from when to when; most sagas never were paused
        self.begun_at = self.undos_open = self.recalled = 0
        """When the saga's code was started, 0: it wasn't; how many undos are out; the attempt of
        its parent's undo."""
        self._begin_steps()

    def _begin_steps(self) -> None:
        """Know of no step, and of nothing that came for one."""
        self.returned = self.attributes = None
        self.unfed, self.fed = list[Step](), list[Step]()
        """`unfed`: settled steps whose outcome the saga's code hasn't been given, in order of settling.
        `fed`: those that it has been given, in order: with `order`, all that a replay needs."""
        self.leaves: list[tuple[int, Leave]] | None = None
        """What the saga's code waits no more for, each behind how many of `fed`; for a replay as well."""
        self.pivot: tuple[int, int, int] | None = None
        """The pivot: how many of `fed` and of `order` stand before it, and when it was."""
        self.parent: Parent | None = None
        self.patches: frozenset[str] = frozenset()
        """Patches that its code stands behind, for a replay; the others that it asked for it hasn't."""
        self.emitted: list[tuple[int, str, str]] | None = None
        """Events: behind how many of `fed` each was published, its topic and type; for a replay as well."""
        self.lost: list[list[Step]] | None = None
        """Steps to be undone though the saga goes on: leaving.py. Shortened as a short cut."""
        self.resetting = ""
        self.jumps: dict[int, int] | None = None
        """The step that the saga is set back to, while what came after it is undone; behind how many of `fed`
        the numbers of steps go on behind which one, for a replay. Most sagas have neither."""
        self.undo_cursor = -1
        """Steps from this index on need no undo; -1 before the undoing begins. Only a short cut."""
        self.steps: dict[str, Step] = {}
        self.order: list[Step] = []
        self.blocked: dict[str, Step] = {}
        """Steps that make the saga STUCK, oldest first."""
        self.pending: tuple[StepEvent, ...] = ()
        """What came while the saga was held."""
        self.actions: dict[str, None] = _NOTHING
        self.watchers: tuple[Watcher, ...] = ()
        """A tuple, as most sagas have none."""
        self.marks: list[Mark] = []
        self.mail: Mail | None = None
        """Signals and updates; most sagas have none."""
        self.locks: dict[str, None] | None = None  # the keys that it holds; None: it asked for none

    def _open_record(self) -> None:
        self.opens: list[tuple[int, Decision]] = []
        self.closes: list[int] = []
        self.ended: list[EndedFields] = []
        self.freed: tuple[str, ...] = ()

    @property
    def final(self) -> bool:
        """The saga has ended."""
        return self.state in lifecycle.FINAL

    @property
    def known_steps(self) -> dict[str, Step]:
        """Steps by their paths, with those of runs that the record at hand has ended."""
        return self.steps if self.before is None else {**self.before, **self.steps}

    def begin(self, event: Event, at: int, row: int) -> None:
        """Open a record: note the event itself; decisions follow through `apply`."""
        self.event, self.at, self.before = event, at, None
        self.first_row = self.row = row
        self._open_record()
        if isinstance(event, Started):
            self.saga_id, self.name, self.version = event.saga_id, event.name, event.version
            self.input, self.started_at, self.run_at = event.input, at, at
            self.traceparent, self.tracestate = event.traceparent, event.tracestate
            self.parent = event.parent
            if event.attributes:
                attributes.change(self, event.attributes)
            if event.reply_to:
                self.watchers = (Watcher(event.reply_to, self.run_id, event.traceparent, event.tracestate),)
        elif isinstance(event, Asked):
            self.actions = {**self.actions, event.action_id: None}
            if event.action != "watch":
                self.mark(event.action, event.by, event.reason, event.step)
            elif event.reply_to:
                asker = Watcher(event.reply_to, event.action_id, event.traceparent, event.tracestate)
                self.watchers += (asker,)
        elif self.held and isinstance(event, STEP_EVENTS):
            self.pending += (event,)
        elif isinstance(event, MESSAGES):
            mail.note(self, event)

    def apply(self, decision: Decision) -> None:
        """Take one decision into the state."""
        kind = type(decision)
        row = 0
        if kind in TAKES_ROW:
            row = self.row
            self.row = row + 1
            self.opens.append((row, decision))
        _APPLY[kind](self, decision, row)

    def end(self) -> None:
        """Close the record."""
        self.next_seq += 1

    def close_row(self, row: int) -> None:
        """Note that an outbox row is not needed any more; one of this very record is never opened."""
        if row >= self.first_row:
            self.opens = [opened for opened in self.opens if opened[0] != row]
        else:
            self.closes.append(row)

    def end_attempt(self, step: Step) -> None:
        """Close what is open of a step itself."""
        if step.row:
            if step.row < self.first_row and step.last_at <= self.at:
                self.ended.append((step.path, step.kind, step.attempt, step.last_at))
            # else: it never went out
            self.close_row(step.row)
            step.row = 0

    def end_undo(self, step: Step) -> None:
        """Close what is open of a step's undo or void."""
        if step.undo_row:
            if step.undo_row < self.first_row and step.undo_at <= self.at:
                self.ended.append((step.path, step.undo_form, step.undo_attempt, step.undo_at))
            self.close_row(step.undo_row)
            step.undo_row = 0

    def mark(self, what: str, by: str, reason: str, step: str) -> None:
        """Keep something for whoever tells the saga's story when it ends."""
        if len(self.marks) < MAX_MARKS:
            self.marks.append(Mark(self.at, what, by, reason, step))

    def unblock(self, step: Step) -> None:
        """The step is no cause for STUCK any more."""
        if step.blocked is not None:
            step.blocked = None
            del self.blocked[step.path]


def fold(run_id: str, records: Iterable[Record]) -> State:
    """Rebuild a saga's state from its history, without its code.

    Raises:
        HistoryUnreadable: a row is missing, or says what can't be.
    """
    state = State(run_id)
    for record in records:
        extend(state, record)
    return state


def extend(state: State, record: Record) -> None:
    """Fold one more record. Raises HistoryUnreadable as `fold` does; the state is of no use then."""
    if state.next_seq == 1 and record.seq > 1:
        _begin_later(state, record)
        return
    if record.seq != state.next_seq:
        raise HistoryUnreadable(f"row {record.seq} stands where row {state.next_seq} should be")
    if (record.seq == 1) != isinstance(record.event, Started):
        name = type(record.event).__name__
        raise HistoryUnreadable(f"row {record.seq} is a {name}; a history begins with its only Started")
    try:
        state.begin(record.event, record.at, record.row)
        for decision in record.decisions:
            state.apply(decision)
    except (KeyError, ValueError, TypeError, AttributeError, lifecycle.IllegalMove) as error:
        raise HistoryUnreadable(f"row {record.seq} can't be: {type(error).__name__}: {error}") from error
    state.end()


def _begin_later(state: State, record: Record) -> None:
    """Begin a fold with the record that began a later run; those before it may be deleted."""
    begins = renewing.beginning(record)
    if begins is None:
        raise HistoryUnreadable(f"row {record.seq} stands where row 1 should be")
    state.next_seq, state.at, state.event = record.seq, record.at, record.event
    state.first_row = state.row = begins.row
    try:
        for decision in begins.decisions:
            state.apply(decision)
    except (KeyError, ValueError, TypeError, AttributeError, lifecycle.IllegalMove) as error:
        raise HistoryUnreadable(f"row {record.seq} can't be: {type(error).__name__}: {error}") from error
    state.end()


def _return(state: State, decision: Return, row: int) -> None:
    state.returned, state.renews = decision.result, decision.renews


def _emit(state: State, decision: Emit, row: int) -> None:
    state.emitted = state.emitted or []
    state.emitted.append((len(state.fed), decision.topic, decision.type))


def _patch(state: State, decision: Patch, row: int) -> None:
    state.patches |= {decision.id}


def _unblock(state: State, decision: Unblock, row: int) -> None:
    state.unblock(state.steps[decision.step])


def _tell(state: State, decision: Tell, row: int) -> None:
    """Only a row: the state knows nothing of it."""


_APPLY: dict[type, Callable[..., None]] = {
    Resume: attempts.resume,
    Send: attempts.send,
    Sleep: attempts.sleep,
    Deadline: attempts.deadline,
    RunLocal: attempts.run_local,
    Settle: attempts.settle,
    Clear: attempts.clear,
    Return: _return,
    Move: stand.move,
    Tell: _tell,
    Unblock: _unblock,
    Leave: leaving.leave,
    Enter: leaving.enter,
    Listen: attempts.listen,
    Lock: attempts.lock,
    Alarm: mail.alarm,
    Take: mail.take,
    Drop: mail.drop,
    Accept: mail.accept,
    Answered: mail.answered,
    Pivot: leaving.pivot,
    Hold: stand.hold,
    Release: stand.release,
    Postpone: stand.postpone,
    Fence: _tell,
    Defer: late.defer,
    Emit: _emit,
    Report: _tell,
    Recall: recall,
    SetAttributes: attributes.apply,
    Await: stand.await_version,
    Adopt: stand.adopt,
    Patch: _patch,
    Continue: renewing.apply,
    Swell: renewing.swell,
    Reset: leaving.reset,
}
