"""(saga, event) -> record: the whole logic of a saga, without I/O, clock or chance.

Every event is handled in two parts: first it is *noted* (a step settles, an undo is cleared, a
retry is planned), then the saga *advances* until nothing is ready: outcomes are fed to the code,
compensations go out one after the other, the end is reached. Unparking and cancelling note many
events and then advance once; nothing needs a special path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import Contract

from . import lifecycle, undo
from ..errors import MissingVersion, NotApplicable, SagaCodeError, StepConflict
from .backoff import backoff
from .driver import TIMED_OUT, Broken, Definition, Driver, Guard, Host, Progress, Raised, Wants, unguarded
from .model import (
    COMMAND,
    DEADLINE,
    DONE,
    LOCAL,
    REFUSED,
    SLEEP,
    UNKNOWN,
    Asked,
    CodeArrived,
    Deadline,
    Decision,
    Event,
    Faulted,
    Fired,
    Move,
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
from .operator import refuses
from .operator import note as note_action
from .replay import replay
from .requests import Call, LocalCall, Pause, Request
from .state import State, Step, fold

CANCELLED = "kasaga.Cancelled"
UNDELIVERABLE = "kasaga.Undeliverable"


class Definitions(NamedTuple):
    """All that the engine knows of the authors' code."""

    sagas: Mapping[tuple[str, int], Definition]
    contracts: Mapping[str, Contract]
    schemas: Schemas
    fingerprint: str
    """Changes when the code does: parked sagas are then tried again."""
    max_payload: int = 900_000
    """Bytes of one value."""
    events: frozenset[str] = frozenset({lifecycle.STUCK, lifecycle.COMPENSATED})
    """The states that are told on the events topic; coming out of STUCK is always told."""


class Run:
    """One saga in memory: its state and, while its code is wanted, its live coroutine."""

    __slots__ = ("driver", "records", "state")

    def __init__(self, run_id: str, records: Sequence[Record] = ()) -> None:
        self.state = fold(run_id, records)
        self.records: Sequence[Record] = records
        """Kept until the driver is rebuilt from them."""
        self.driver: Driver | None = None

    def evict(self) -> None:
        """Close the coroutine; the run must not be used afterwards."""
        if self.driver is not None:
            self.driver.evict()
            self.driver = None


class Ignored(NamedTuple):
    """The event changes nothing: a duplicate, a late or an unknown one. Not recorded, counted."""

    why: str


class Turn:
    """One event of one saga, from coming in to quiescence."""

    __slots__ = ("at", "decisions", "defs", "guard", "run", "state")

    def __init__(self, defs: Definitions, run: Run, at: int, guard: Guard) -> None:
        self.defs = defs
        self.run = run
        self.state = run.state
        self.at = at
        self.guard = guard
        self.decisions: list[Decision] = []

    def add(self, decision: Decision) -> None:
        """Decide something: it is in the state at once."""
        self.decisions.append(decision)
        self.state.apply(decision)

    # --- noting ---

    def note(self, event: Event) -> None:
        """Take the event into account, without running any of the saga's code."""
        match event:
            case Started():
                self._started()
            case Asked():
                note_action(self, event)
            case Faulted():
                self.stuck(Move(lifecycle.STUCK, event.code, event.reason, event.remedy, "", True, event.fingerprint))
            case CodeArrived():
                self.unpark()
            case Replied() | Fired() | Ran() | Undeliverable():
                if not self.state.parked:
                    self.note_step(event)

    def note_step(self, event: Replied | Fired | Ran | Undeliverable) -> None:
        """Note what happened to one step or to its undo."""
        if isinstance(event, Fired) and event.form == DEADLINE:
            if self.state.phase == lifecycle.RUNNING:
                self.begin_undo(lifecycle.CANCELLING, "KSG-256", "the saga's deadline has passed", "")
            return
        step = self.state.steps[event.step]
        if event.form not in (COMMAND, LOCAL, SLEEP):
            undo.note(self, step, event)
        elif step.outcome:
            return  # settled meanwhile (several events noted at once)
        elif isinstance(event, Replied):
            self._replied(step, event)
        elif isinstance(event, Ran):
            self._ran(step, event)
        elif isinstance(event, Undeliverable):
            self._retry(step, event, UNDELIVERABLE, event.error)
        elif step.kind == SLEEP:
            self.add(Settle(step.path, DONE))
        else:
            self._retry(step, event, TIMED_OUT, f"no answer to attempt {step.attempt} in time")

    def _started(self) -> None:
        state = self.state
        definition = self.defs.sagas.get((state.name, state.version))
        if definition is None:
            error = MissingVersion(f"this process has no saga {state.name} version {state.version}")
            self.park(error)
            return
        self.add(Move(lifecycle.RUNNING))
        if definition.timeout:
            self.add(Deadline(self.at + definition.timeout))

    def _replied(self, step: Step, event: Replied) -> None:
        if event.outcome == DONE or event.outcome == REFUSED:
            self.settle(step, event.outcome, event)
        elif event.outcome == "conflict":
            error = StepConflict(f"{step.type} (step {step.path}): {event.error or 'another command has its id'}")
            self.stuck(Move(lifecycle.STUCK, error.code, error.message, error.remedy, step.path))
        elif event.attempt == step.attempt:
            self._retry(step, event, event.error_type, event.error, final=not event.retryable)

    def _ran(self, step: Step, event: Ran) -> None:
        if event.ok:
            self.settle(step, DONE, event)
        elif event.error_type == "SagaFailed":
            self.settle(step, REFUSED, event)
        else:
            self._retry(step, event, event.error_type, event.error)

    def settle(self, step: Step, outcome: str, event: Event, *, error_type: str = "", error: str = "") -> None:
        """Write down what is known of a step; of an event noted later its content goes along."""
        if error_type or event is self.state.event:
            self.add(Settle(step.path, outcome, b"", error_type, error))
        elif isinstance(event, Replied):
            self.add(Settle(step.path, outcome, event.payload, event.error_type, event.error, event.details))
        elif isinstance(event, Ran):
            self.add(Settle(step.path, outcome, event.payload, event.error_type, event.error))
        else:
            self.add(Settle(step.path, outcome))
        if outcome == UNKNOWN and step.to_undo and self.state.phase == lifecycle.RUNNING:
            undo.send(self, step, step.error or "its outcome is unknown", step.path)

    def _retry(self, step: Step, event: Event, error_type: str, error: str, *, final: bool = False) -> None:
        """Plan the next attempt of a step, or settle it as unknown when there is none."""
        policy = step.policy
        assert policy is not None
        wait = 0 if error_type == TIMED_OUT else backoff(policy, step.attempt, f"{self.state.run_id}.{step.path}")
        send_at = self.at + wait
        end = step.first_at + policy.schedule_to_close if policy.schedule_to_close else 0
        used_up = policy.maximum_attempts and step.attempt >= policy.maximum_attempts
        if final or used_up or error_type in policy.non_retryable or (end and send_at >= end):
            self.settle(step, UNKNOWN, event, error_type=error_type or "Error", error=error)
            return
        attempt, delayed = step.attempt + 1, send_at if wait else 0
        if step.kind == LOCAL:
            self.add(RunLocal(step.path, LOCAL, attempt, step.type, delayed))
        else:
            due = send_at + policy.timeout
            due = min(due, end) if end else due
            self.add(Send(step.path, COMMAND, attempt, step.type, step.participant, due, delayed, step.key))

    def park(self, error: SagaCodeError) -> None:
        """The saga's code can't go on: wait for other code or an operator."""
        self.stuck(Move(lifecycle.STUCK, error.code, error.message, error.remedy, "", True, self.defs.fingerprint))

    def stuck(self, move: Move) -> None:
        """Become STUCK, and tell everybody who wants to know."""
        if move.parked and self.run.driver is not None:
            self.run.evict()
        again = self.state.state == lifecycle.STUCK and self.state.reason == move.reason
        self.add(move)
        if not again:
            self.tell(lifecycle.STUCK)

    def unstuck(self) -> None:
        """Go on with what the saga was doing before it was STUCK."""
        state = self.state
        self.add(Move(state.phase, state.undo_code, state.undo_reason, "", state.undo_step))
        self.add(Tell("", state.phase))

    def unpark(self) -> None:
        """Decide what was recorded while the saga's code couldn't go on."""
        pending = list(self.state.pending)
        self.unstuck()
        for event in pending:
            self.note_step(event)

    def begin_undo(self, target: str, code: str, reason: str, step: str) -> None:
        """Stop the saga's code and start to undo."""
        if self.run.driver is not None:
            self.run.driver.cancel()
            self.run.driver = None
        pending = list(self.state.pending)
        self.add(Move(target, code, reason, "", step))
        for event in pending:
            self.note_step(event)
        for open_step in self.state.order:
            if not open_step.outcome:
                self.add(Settle(open_step.path, UNKNOWN, b"", CANCELLED, reason))

    def tell(self, state: str) -> None:
        """Tell the watchers and, if it is wanted, the events topic."""
        for reply_to, about in self.state.watchers:
            self.add(Tell(reply_to, state, about))
        if state in self.defs.events:
            self.add(Tell("", state))

    # --- advancing ---

    def advance(self) -> None:
        """Run until nothing is ready."""
        state = self.state
        while state.phase == lifecycle.RUNNING and not state.parked and (state.unfed or not state.begun):
            self._feed(state.unfed[0] if state.begun else None)
        if state.parked or state.final:
            return
        if state.phase in lifecycle.UNDOING:
            undo.advance(self)
        elif state.returned is not None and state.state == lifecycle.RUNNING:
            self._complete()

    def _complete(self) -> None:
        """End the saga that has returned, unless a step of unknown outcome isn't cleared yet."""
        for step in self.state.order:
            if step.outcome == UNKNOWN and step.to_undo:
                undo.send(self, step, step.error, step.path)
        if not self.state.undos_open and self.state.state == lifecycle.RUNNING:
            self.finish(lifecycle.COMPLETED)

    def finish(self, final: str) -> None:
        """End the saga."""
        state = self.state
        self.add(Move(final, state.undo_code, state.undo_reason, "", state.undo_step))
        self.tell(final)

    def _feed(self, step: Step | None) -> None:
        try:
            driver = self.driver()
        except SagaCodeError as error:
            self.park(error)
            return
        driver.host.now = self.at
        progress = driver.start(self.state.input) if step is None else driver.resume(step)
        if isinstance(progress, Broken):
            self.run.driver = None if driver.waiting is None else driver
            self.park(progress.error)
            return
        self.add(Resume(step.path if step else ""))
        self._follow(progress)

    def driver(self) -> Driver:
        """Return the live coroutine, rebuilt from history where there is none."""
        run, state = self.run, self.state
        if run.driver is None:
            definition = self.defs.sagas.get((state.name, state.version))
            if definition is None:
                raise MissingVersion(f"this process has no saga {state.name} version {state.version}")
            host = Host(state.run_id, state.saga_id, self.defs.max_payload)
            driver = Driver(definition, host, self.defs.schemas, self.guard)
            try:
                replay(driver, state, run.records, self.defs.schemas)
            except BaseException:
                driver.evict()
                raise
            run.driver, run.records = driver, ()
        return run.driver

    def _follow(self, progress: Progress) -> None:
        """Turn what the code wants into decisions."""
        if isinstance(progress, Wants):
            self._schedule(progress.request)
        elif isinstance(progress, Raised):
            self.run.driver = None
            self.begin_undo(lifecycle.COMPENSATING, progress.code, progress.reason, progress.step)
        elif not isinstance(progress, Broken):
            self.run.driver = None
            self.add(Return(progress.result))

    def _schedule(self, request: Request) -> None:
        path = str(len(self.state.order) + 1)
        match request:
            case Call(policy=policy):
                due = self.at + policy.timeout
                due = min(due, self.at + policy.schedule_to_close) if policy.schedule_to_close else due
                self.add(
                    Send(
                        path,
                        COMMAND,
                        1,
                        request.type,
                        request.participant,
                        due,
                        0,
                        request.key,
                        request.payload,
                        policy,
                        request.undo_policy,
                        request.compensation,
                    )
                )
            case Pause():
                self.add(Sleep(path, request.due_at))
            case LocalCall():
                self.add(RunLocal(path, LOCAL, 1, request.name, 0, request.undo, request.policy, request.undo_policy))
            case _:
                raise AssertionError(f"no such request: {request!r}")


def decide(
    defs: Definitions, run: Run, event: Event, *, at: int, row: int, guard: Guard = unguarded
) -> Record | Ignored | NotApplicable:
    """Let one event happen to one saga.

    `at` is the engine's time in microseconds, `row` the first outbox sequence number to take.
    Returns the record to commit (already in `run.state`), Ignored, or, for an operator's action
    that doesn't fit, NotApplicable; of the last two nothing is recorded. An exception is a bug of
    the engine: the run must be dropped and reloaded.
    """
    state = run.state
    why = _irrelevant(state, event, at)
    if why:
        return Ignored(why)
    if isinstance(event, Asked):
        refused = refuses(state, event, defs)
        if refused:
            return NotApplicable(refused)
    at = max(at, state.at)
    state.begin(event, at, row)
    turn = Turn(defs, run, at, guard)
    turn.note(event)
    turn.advance()
    state.end()
    return Record(state.next_seq - 1, at, row, event, tuple(turn.decisions))


def record_parked(
    defs: Definitions, run: Run, events: Sequence[Event], fault: Faulted, *, at: int, row: int
) -> list[Record]:
    """Record events undecided, and why the saga is parked: for one that can't be stepped at all.

    `run` is as committed before the events. The events are decided when the saga is unparked.
    """
    state, records = run.state, list[Record]()
    queue: list[Event] = list(events)
    if not (queue and isinstance(queue[0], Started)):
        queue.insert(0, fault)
    for event in queue:
        if _irrelevant(state, event, at):
            continue
        state.begin(event, at, row)
        turn = Turn(defs, run, at, unguarded)
        if isinstance(event, Started | Faulted):
            turn.note(fault)
        state.end()
        records.append(Record(state.next_seq - 1, at, row, event, tuple(turn.decisions)))
        row = state.row
    return records


def _irrelevant(state: State, event: Event, at: int) -> str:
    """Say why an event changes nothing, or return an empty text."""
    if isinstance(event, Started):
        return "duplicate start" if state.saga_id else ""
    if state.final:
        return "saga has ended"
    if isinstance(event, Asked):
        return "duplicate action" if event.action_id in state.actions else ""
    if isinstance(event, CodeArrived):
        return "" if state.parked or (state.state == lifecycle.STUCK and state.fingerprint) else "not parked"
    if isinstance(event, Faulted):
        return ""
    if event.form == DEADLINE:
        return "" if state.deadline_row else "no deadline"
    step = state.steps.get(event.step)
    if step is None:
        return "unknown step"
    return _stale(state, step, event, at)


def _stale(state: State, step: Step, event: Replied | Fired | Ran | Undeliverable, at: int) -> str:
    undoing = event.form not in (COMMAND, LOCAL, SLEEP)
    if not (step.undo_open and step.undo_form == event.form if undoing else not step.outcome):
        return "late"
    if isinstance(event, Fired):
        return "not due" if (step.undo_due if undoing else step.due_at) > at else ""
    if state.parked and event in state.pending:
        return "duplicate"
    current = step.undo_attempt if undoing else step.attempt
    final = event.outcome not in undo.TRY_AGAIN if isinstance(event, Replied) else isinstance(event, Ran) and event.ok
    return "" if final or event.attempt == current else "old attempt"
