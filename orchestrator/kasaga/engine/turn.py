"""One event of one saga: from coming in until nothing is ready any more.

Every event is handled in two parts: first it is *noted* (a step settles, an undo is cleared, a
retry is planned), then the saga *advances*: outcomes are fed to the code, compensations go out one
after the other, the end is reached. Unparking and cancelling note many events and then advance
once; nothing needs a special path.
"""

from __future__ import annotations

from collections.abc import Iterable

from kasaga_wire.codec import schema_id
from kasaga_wire.errors import DecodeError
from kasaga_wire.nodes import clean_text

from ..errors import (
    DeadlinePassed,
    MissingVersion,
    OpenEnds,
    PayloadTooLarge,
    SagaCancelled,
    SagaCodeError,
    StepConflict,
    StepFails,
    TooManySteps,
)
from . import asking, awaited, halt, kinship, late, lifecycle, locks, renewing, signals, undo
from .attributes import SetAttributes, too_many
from .backoff import backoff
from .decisions import Decisions, stuck_by
from .deferrals import Deferred
from .driver import TIMED_OUT, WAITS, Broken, Driver, Left, Raised, Renewed, Returned
from .keylocks import Barred, Granted
from .model import (
    DEADLINE,
    DONE,
    MESSAGES,
    MISSED,
    REFUSED,
    SIGNAL,
    SLEEP,
    UNDO_FORMS,
    UNKNOWN,
    UPDATE,
    Answered,
    CodeArrived,
    Deadline,
    Emit,
    Event,
    Faulted,
    Fired,
    Move,
    Pivot,
    Ran,
    Replied,
    Resume,
    Return,
    Settle,
    Started,
    Tell,
    Undeliverable,
)
from .relevance import CONFLICT, stale
from .requests import Call, Request
from .resets import RESET
from .state import MAX_REASON, STEP_EVENTS, Step, StepEvent
from .versions import Adopt, Patch

CANCELLED = "kasaga.Cancelled"
UNDELIVERABLE = "kasaga.Undeliverable"
UNKNOWN_SCHEMA = "kasaga.UnknownSchema"
LOST_RACE = undo.LOST_RACE
"""Error types that the engine itself gives to steps; `driver.TIMED_OUT` is another."""


_ENDS = (Raised, Returned, Renewed)


class Turn(Decisions):
    """One event's way through a saga: noted first, then advanced."""

    __slots__ = ()

    def driver(self) -> Driver:
        """Return the live coroutine; raises SagaCodeError."""
        return self.run.live(self.defs, self.guard)

    # --- noting ---

    def note(self, event: Event) -> None:
        """Take the event into account, without running any of the saga's code."""
        if isinstance(event, STEP_EVENTS):
            if not self.state.held:
                self.note_step(event)
        elif isinstance(event, Started):
            self.add(Move(lifecycle.RUNNING))
            self.publish(lifecycle.RUNNING)
            if event.parent is not None:
                kinship.begun(self)
                if event.parent.fence:
                    self.begin_undo(lifecycle.CANCELLING, SagaCancelled.code, event.parent.reason)
        elif isinstance(event, kinship.Recalled):
            halt.take_back(self, event)
        elif isinstance(event, Faulted):
            self.fault(event)
        elif isinstance(event, MESSAGES):
            signals.note(self, event)
        else:
            assert isinstance(event, CodeArrived), f"not to be noted here: {event!r}"
            self._new_code(event)

    def note_step(self, event: StepEvent) -> None:
        """Note what happened to one step or to its undo; it isn't stale."""
        if event.form == DEADLINE:
            if self.state.phase == lifecycle.RUNNING:  # pragma: no branch - relevance.py drops it afterwards
                self.begin_undo(lifecycle.CANCELLING, DeadlinePassed.code, "the saga's deadline has passed")
            return
        step = self.state.steps[event.step]
        if event.form in UNDO_FORMS:
            undo.note(self, step, event)
        elif isinstance(event, Replied):
            self._replied(step, event)
        elif isinstance(event, Ran):
            self._ran(step, event)
        elif isinstance(event, Undeliverable):
            self._retry(step, UNDELIVERABLE, event.error)
        elif isinstance(event, Deferred):
            late.note(self, step, event)
        elif isinstance(event, Granted | Barred):
            locks.note(self, step, event)
        elif step.kind == SLEEP:
            self.settle(step, DONE, event)
        elif step.kind == SIGNAL:
            self.add(Settle(step.path, MISSED, b"", TIMED_OUT, f"no {awaited.said(step.type)} came in time"))
        else:
            said = late.silence(self, step)
            if said != late.WAITS_ON:
                text = said or f"no answer to attempt {step.attempt} in time"
                self._retry(step, TIMED_OUT, text, silent=bool(said))

    def _replied(self, step: Step, event: Replied) -> None:
        outcome = event.outcome
        if outcome == DONE:
            unknown = self._unknown_schema(event.payload)
            if not unknown:
                self.settle(step, DONE, event)
            elif event.attempt == step.attempt:
                self._retry(step, UNKNOWN_SCHEMA, f"the answer's schema {unknown} isn't published yet")
        elif outcome == REFUSED:
            self.settle(step, REFUSED, event)
        elif outcome == CONFLICT:
            said = event.error or "another command has its id"
            self.block(step, StepConflict(f"{step.type} (step {step.path}): {said}"), halted=True)
        else:
            self._retry(step, event.error_type, event.error or outcome, final=not event.retryable)

    def _unknown_schema(self, payload: bytes) -> int:
        """The id of a schema that nobody has published yet, or 0. Its writer will answer again."""
        try:
            writer = schema_id(payload)
        except DecodeError:
            return 0
        return 0 if self.defs.schemas.get(writer) is not None else writer

    def _ran(self, step: Step, event: Ran) -> None:
        if event.ok:
            self.settle(step, DONE, event)
        elif event.error_type == "SagaFailed":
            self.settle(step, REFUSED, event)
        else:
            self._retry(step, event.error_type, event.error)

    def settle(self, step: Step, outcome: str, event: Event) -> None:
        """Write down what an event tells of a step; of one noted later its content goes along."""
        if event is self.state.event or isinstance(event, (Fired, Undeliverable)):
            self.add(Settle(step.path, outcome))
        elif isinstance(event, Replied):
            self.add(Settle(step.path, outcome, event.payload, event.error_type, event.error, event.details))
        else:
            assert isinstance(event, Ran), f"this settles no step: {event!r}"
            self.add(Settle(step.path, outcome, event.payload, event.error_type, event.error))

    def _retry(
        self, step: Step, error_type: str, error: str, *, final: bool = False, silent: bool = False
    ) -> None:
        """Plan the next attempt of a step, or settle it as unknown when there is none.

        `silent`: whoever has accepted it says nothing any more, and wouldn't take it a second time.
        """
        policy, state = step.policy, self.state
        assert policy is not None
        wait = 0 if error_type == TIMED_OUT else backoff(policy, step.attempt, f"{state.run_id}.{step.path}")
        send_at = self.at + wait
        end = self.close_at(step)
        used_up = policy.maximum_attempts and step.attempt >= policy.maximum_attempts
        over = (
            silent
            or final
            or used_up
            or error_type in policy.non_retryable
            or (end and send_at >= end)
            or step.left
        )
        if not over and state.phase == lifecycle.RUNNING:
            self.send_again(step, send_at, end)
        elif state.pivot is not None and not step.left:
            self._insist(step, send_at, error, final=final or error_type in policy.non_retryable)
        else:
            self.give_up(step, error_type or "Error", error)

    def _insist(self, step: Step, send_at: int, error: str, *, final: bool) -> None:
        """After the pivot a step isn't given up: the saga is STUCK at it, and its attempts go on.

        `final`: another attempt would end as this one, so the next is an operator's.
        """
        if step.blocked is None:
            times = "once" if step.attempt == 1 else f"{step.attempt} times"
            said = f"{step.type} (step {step.path}), which comes after the pivot, has failed {times}: {error}"
            self.block(step, StepFails(said), halted=final)
        if not final:
            self.send_again(step, send_at, 0)

    def give_up(self, step: Step, error_type: str, error: str) -> None:
        """Settle a step as unknown: it is undone, whatever became of it."""
        state = self.state
        self.add(Settle(step.path, UNKNOWN, b"", error_type or "Error", error))
        if step.to_undo and state.phase == lifecycle.RUNNING and step.left != RESET:
            undo.send(self, step, error or "its outcome is unknown", step.path)

    # --- being STUCK ---

    def park(self, error: SagaCodeError) -> None:
        """The saga's code can't go on: wait for other code or an operator."""
        if self.lacks_version():
            self.wait_for_version(error)
            return
        self.become_stuck(stuck_by(error, parked=True, fingerprint=self.defs.fingerprint))

    def fault(self, event: Faulted) -> None:
        """The shell can't step this saga: park it, until other code comes if nothing else is said."""
        if event.code == MissingVersion.code and self.lacks_version():
            self.wait_for_version(MissingVersion(event.reason))
            return
        code = event.fingerprint or self.defs.fingerprint
        reason = clean_text(event.reason, MAX_REASON)
        self.become_stuck(Move(lifecycle.STUCK, event.code, reason, event.remedy, "", True, code))

    def unstuck(self) -> None:
        """Go on with what the saga was doing before it was STUCK, or waited for its version."""
        state, told = self.state, not self.state.await_row
        self.add(Move(state.phase, state.undo_code, state.undo_reason, "", state.undo_step))
        if told:
            self.add(Tell("", state.phase))

    def _new_code(self, event: CodeArrived) -> None:
        if self.state.paused is not None:  # what it does goes on when it is released
            self.add(Move(self.state.phase, self.state.undo_code, self.state.undo_reason))
            return
        self.wake(event.fingerprint)

    def wake(self, fingerprint: str) -> None:
        """Try again with other code what the saga is STUCK at because of its code."""
        if self.state.parked:
            self.unpark()
        for step in list(self.state.blocked.values()):
            if step.blocked is not None and step.blocked.fingerprint not in ("", fingerprint):
                undo.go_on(self, step)

    def unpark(self) -> None:
        """Decide what was recorded while the saga's code couldn't go on."""
        state, pending = self.state, self.state.pending
        self.unstuck()
        if not state.version and (version := self.defs.newest(state.name)):
            self.add(Adopt(version))
        self.catch_up(pending)

    def catch_up(self, pending: Iterable[StepEvent]) -> None:
        """Decide what came while the saga was held: answers first, then signals, then timers."""
        self.note_pending(event for event in pending if not isinstance(event, Fired))
        while self.state.mail is not None and signals.take(self):
            pass  # a signal that is there wins over the time-out of its wait
        self.note_pending(event for event in pending if isinstance(event, Fired))

    def note_pending(self, events: Iterable[StepEvent]) -> None:
        """Note what came while the saga was held, as far as it isn't old by now."""
        for event in events:
            if not stale(self.state, event, self.at):
                self.note_step(event)

    def begin_undo(
        self, target: str, code: str, reason: str, step: str = "", held: tuple[StepEvent, ...] = ()
    ) -> None:
        """Stop the saga's code and start to undo; what came while it was held still counts."""
        assert self.state.pivot is None, "a saga isn't undone after its pivot"
        driver, self.run.driver = self.run.driver, None
        if driver is not None:
            driver.cancel()
        state, reason = self.state, clean_text(reason, MAX_REASON)
        pending = state.pending or held
        self.add(Move(target, code, reason, "", step))
        self.publish(target)
        self.note_pending(event for event in pending if not isinstance(event, Fired))
        self.settle_open(CANCELLED, reason)

    def settle_open(self, error_type: str, reason: str) -> None:
        """Give up what has no outcome yet: nobody waits for it any more."""
        for step in self.state.order:
            if not step.outcome:
                self.add(Settle(step.path, UNKNOWN, b"", error_type, reason))

    # --- advancing ---

    def advance(self) -> None:
        """Run until nothing is ready."""
        while self._advance():
            pass  # another run has begun

    def _advance(self) -> bool:
        """Run until nothing is ready in this run; say whether the saga goes on as a new one."""
        state = self.state
        if state.held:
            return False
        while state.phase == lifecycle.RUNNING and not state.parked and state.returned is None:
            if state.resetting and not undo.advance_lost(self):
                break
            if not state.begun_at:
                self._feed(None)
            elif state.unfed:
                self._feed(state.unfed[0])
            elif (state.mail is None or not signals.take(self)) and not self._scope_over():
                break
        if state.held or state.final:
            return False
        if state.phase in lifecycle.UNDOING:
            over = undo.advance(self)
        else:
            cleared = state.lost is None or undo.advance_lost(self)
            over = cleared and state.returned is not None and not state.undos_open
        self._reflect()
        if not over or state.state == lifecycle.STUCK:
            return False
        renews = state.renews and state.phase == lifecycle.RUNNING
        if renews:
            renewing.go_on(self)
        else:
            self._finish(lifecycle.COMPENSATED if state.phase in lifecycle.UNDOING else lifecycle.COMPLETED)
        return renews

    def _scope_over(self) -> bool:
        """Go on undoing what the code lives on from; say whether that ends a scope that it waits for."""
        state = self.state
        if state.lost is None or state.parked:
            return False
        undo.advance_lost(self)
        return bool(state.unfed)

    def _reflect(self) -> None:
        """Be STUCK exactly while a step waits for somebody, and name one that does."""
        state = self.state
        if state.state == lifecycle.STUCK and state.stuck_step in state.blocked:
            return
        if state.blocked:
            blocked = next(iter(state.blocked.values())).blocked
            assert blocked is not None
            self.become_stuck(blocked)
        elif state.state == lifecycle.STUCK:
            self.unstuck()

    def _finish(self, final: str) -> None:
        state = self.state
        self.add(Move(final, state.undo_code, state.undo_reason, "", state.undo_step))
        self.tell(final)

    def _feed(self, step: Step | None) -> None:
        """Give the code one outcome, or start it, and decide what it asks for."""
        state = self.state
        try:
            driver = self.driver()
        except SagaCodeError as error:
            self.park(error)
            return
        if (too_long := renewing.swells(self)) is not None:
            self.park(too_long)
            return
        host = driver.host
        host.now, host.length = self.at, renewing.length(state, state.next_seq)
        host.long = state.swollen is not None
        progress = driver.start(state.input) if step is None else driver.resume(step)
        if len(driver.effects) > 1 or driver.named or len(state.order) >= self.defs.max_steps:
            progress = self._too_many(driver) or progress
        if step is None and progress is not WAITS and isinstance(progress, Renewed):
            progress = Broken(OpenEnds("ctx.continue_as_new in a run that has waited for nothing"))
        if progress is not WAITS and isinstance(progress, Broken):
            self.park(progress.error)
            return
        if step is None and driver.definition.timeout:
            self.add(Deadline(state.run_at + driver.definition.timeout))
        self.add(Resume(step.path if step else ""))
        if step is not None and step.kind == UPDATE:
            self.add(Answered(step.path, *driver.answer))
        for effect in driver.effects:
            if isinstance(effect, Left):
                asking.left(self, effect)
            elif isinstance(effect, Pivot | Emit | SetAttributes | Patch):
                self.add(effect)
            else:
                asking.schedule(self, effect)
        if progress is not WAITS and isinstance(progress, _ENDS):
            self._follow(progress)

    def _too_many(self, driver: Driver) -> Broken | None:
        """Say what is too much of all that the code asks for at once."""
        asked = [effect for effect in driver.effects if isinstance(effect, Request | Emit)]
        if asked and len(self.state.order) + len(asked) > self.defs.max_steps:
            return Broken(TooManySteps(f"the saga has {len(self.state.order)} steps and asks for more"))
        named = [effect for effect in driver.effects if isinstance(effect, SetAttributes)]
        if named and (error := too_many(self.state, named)) is not None:
            return Broken(error)
        size = sum(len(request.payload) for request in asked if isinstance(request, Call | Emit))
        size += sum(len(each.changes) for each in named)
        if size <= self.defs.max_together:
            return None
        most = f"{len(asked)} steps and events at once have {size} bytes, over {self.defs.max_together}"
        return Broken(PayloadTooLarge(most, remedy="Gather fewer of them at a time, or send references."))

    def _follow(self, progress: Returned | Renewed | Raised) -> None:
        """Turn the end of the code into decisions."""
        if isinstance(progress, Renewed):
            self.run.evict()  # it is suspended for good
            self.add(Return(progress.input, renews=True))
            return
        self.run.driver = None
        if isinstance(progress, Raised):
            self.begin_undo(lifecycle.COMPENSATING, progress.code, progress.reason, progress.step)
        else:
            self.add(Return(progress.result))
