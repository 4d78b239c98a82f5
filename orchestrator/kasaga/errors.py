"""Errors of sagas and of the engine, as authors and operators meet them.

KasagaError                      every error with a stable code and a remedy
├── SagaCodeError                the saga's code is wrong: the saga is STUCK, not undone
│   ├── NotAwaitable             awaited something that isn't the context's
│   ├── Nondeterminism           replay asked for something else than history holds
│   ├── MissingVersion           this process has no such saga or version
│   ├── UnknownContract          `ctx.use` of a participant the App doesn't list
│   ├── PayloadTooLarge          one value is over the limit
│   ├── SagaHangs                the saga's code didn't come back to an await in time
│   ├── BugInSaga                the saga raised what is neither an outcome nor on purpose
│   ├── Unreadable               today's model can't read a recorded value
│   ├── KilledProcess            stepping the saga ended its process
│   ├── RefusedByStore           the database refused what the saga wrote
│   ├── EngineBug                Kasaga itself failed
│   ├── ForgottenAwait           the saga returned, and a step it called was never awaited
│   ├── BranchesWait             branches of the saga wait for each other
│   ├── EarlyPivot               `ctx.pivot` while a part of the saga may still be undone by itself
│   ├── PivotPassed              the saga asks to be undone after its pivot
│   ├── TooManySteps             the saga asks for more steps than one may have
│   ├── OpenEnds                 `ctx.continue_as_new` while something of the run is open
│   ├── HistoryTooLong           the run's history is over the limit
│   ├── BadKey                   what the saga asks to lock can't be a key, or is too many of them
│   └── WrongAttributes          a search attribute that the saga sets can't be kept
├── HistoryUnreadable            a history row isn't what this release can read
├── StillWaiting                 STUCK that comes from participants, not from the saga's code
│   ├── UndoFails                a compensation keeps failing, and is still being retried
│   ├── CannotUndo               it happened, or nobody can know, and nothing undoes it
│   ├── StepFails                a step after the pivot keeps failing, and isn't given up
│   └── StepConflict             a participant knows the command's id as another command
├── BadQuery                     a text isn't in the language that sagas are searched by
├── SearchTooSlow                a search took longer than the database is given
├── NotApplicable                an operator's action doesn't fit the saga's state
│   ├── SagaOver                 a signal or an update for a saga whose code has ended
│   ├── SignalRefused            a signal that the saga doesn't declare, or of another type
│   ├── MailboxFull              a signal or an update is over a limit
│   ├── UpdateRefused            the saga refuses an update; authors raise it as well
│   ├── QueryFailed              the saga can't answer a query
│   └── NoReceiver               a signal or an update for a saga that never began
├── StartRefused                 a start whose id is another saga's
├── EventUnusable                a record that a saga listens to can't be read, or isn't what it declares
└── SagaOutcome                  the business outcome is no: the saga compensates
    ├── SagaFailed               raised by the author on purpose
    ├── DeadlinePassed           the saga's own timeout is over
    ├── SagaCancelled            somebody cancelled it
    ├── SagaTerminated           somebody ended it as it was, without undoing it
    ├── TimedOut                 the time of a `ctx.timeout` is over
    │   └── SignalTimeout        no signal came in time
    ├── BranchEnded              a spawned branch was ended together with the one that spawned it
    └── StepError                a step's outcome
        ├── StepRefused          the participant refused for good
        │   └── LockRefused          another saga holds the lock; with Deadlock in deadlocks.py
        └── StepFailed           retries are used up; what happened is unknown
            └── StepTimeout      no answer in time; what happened is unknown

Interrupt(BaseException)         the engine's control flow; `except Exception` can't swallow it
├── CancelInterrupt              the saga is being cancelled
├── BranchInterrupt              this branch is ended: another one failed, or won
└── Evicted                      the coroutine is closed; its saga goes on elsewhere
"""

from __future__ import annotations

from kasaga_wire.errors import KasagaError


class SagaCodeError(KasagaError):
    """The saga's code can't go on as it is. The saga becomes STUCK and is retried with new code."""

    code = "KSG-200"
    default_remedy = "Mend the saga's code and deploy it: it is retried by itself; or cancel it to undo it."
    step = ""
    """Path of the step at which a replay met it; empty elsewhere."""
    line = ""
    """The line at which the code then stood, if it stood at one."""


class NotAwaitable(SagaCodeError):
    """A saga awaited something that its context didn't make."""

    code = "KSG-201"
    default_remedy = (
        "A saga awaits only what its context gives it. Do I/O in `await ctx.run(function)`, wait with "
        "`await ctx.sleep(seconds)`, call services by `ctx.use(Contract)`."
    )


class Nondeterminism(SagaCodeError):
    """Replaying the history, the saga asked for something else than it did before."""

    code = "KSG-202"
    default_remedy = (
        "Deploy code that takes the same steps as before for running sagas, or give the changed saga a new "
        "version. Time, chance and I/O belong into ctx.now, ctx.uuid, ctx.random and ctx.run."
    )


class MissingVersion(SagaCodeError):
    """The process that owns the saga's shard has no such saga, or not this version of it."""

    code = "KSG-203"
    default_remedy = (
        "It goes on by itself when a process owns it whose App lists this saga and version. Deploy one, "
        "or if its name was misspelled, cancel it."
    )


class UnknownContract(SagaCodeError):
    """A saga uses a participant's contract that its App doesn't list."""

    code = "KSG-204"
    default_remedy = "Add the contract to App(participants=[...])."


class PayloadTooLarge(SagaCodeError):
    """A value is over the size limit of one record."""

    code = "KSG-205"
    default_remedy = (
        "Send a reference to the data instead of the data, or raise the limit together with the topics'."
    )


class SagaHangs(SagaCodeError):
    """The saga's code ran too long between two awaits."""

    code = "KSG-206"
    default_remedy = (
        "Put long or blocking work into `await ctx.run(function)`; look for an endless loop at the line."
    )


class BugInSaga(SagaCodeError):
    """The saga raised an exception that is neither a step's outcome nor raised on purpose."""

    code = "KSG-207"
    default_remedy = (
        "Mend the line and deploy: the saga is retried by itself. To let such an error undo the saga, raise "
        "SagaFailed or name its type in @saga(fails_on=...). To undo this saga now, cancel it."
    )


class Unreadable(SagaCodeError):
    """A recorded value can't be read with today's model."""

    code = "KSG-208"
    default_remedy = "Make the model read it again (a default for a new field, the old type), and deploy."


class KilledProcess(SagaCodeError):
    """Stepping this saga ended its process more than once."""

    code = "KSG-209"
    default_remedy = "Look for what ends the process (memory, C extensions, os._exit); deploy a mended saga."


class RefusedByStore(SagaCodeError):
    """The database refused what this saga wrote."""

    code = "KSG-210"
    default_remedy = "The reason is the database's own message; mend the saga's data or code, then retry it."


class EngineBug(SagaCodeError):
    """Kasaga itself failed while it decided for this saga."""

    code = "KSG-212"
    default_remedy = "Please report it with the log's traceback; the saga is retried with the next release."


class ForgottenAwait(SagaCodeError):
    """The saga returned, and a step that it called was never awaited, so it was never sent."""

    code = "KSG-213"
    default_remedy = "Put `await` in front of the call, or don't call it: a step is sent when it is awaited."


class TooManySteps(SagaCodeError):
    """The saga asked for more steps than one saga may have."""

    code = "KSG-214"
    default_remedy = (
        "Look for a loop without an end; cut long work into several sagas, one started after the other."
    )


class OpenEnds(SagaCodeError):
    """A saga would go on as a new run while something of this one is open, or before it has waited."""

    code = "KSG-224"
    default_remedy = (
        "Await branches, steps and children first, leave scopes, and call ctx.continue_as_new in the saga's "
        "own function, after it has waited for something."
    )


class HistoryTooLong(SagaCodeError):
    """The history of the saga's run is over the limit: its code isn't given anything any more."""

    code = "KSG-225"
    default_remedy = (
        "Cancel it; or raise KASAGA_HISTORY_EVENTS or KASAGA_HISTORY_BYTES, and `kasaga retry` it. In its "
        "code go on as a new run when ctx.should_continue says so: `await ctx.continue_as_new(input)`."
    )


class WrongAttributes(SagaCodeError):
    """A search attribute that the saga's code sets can't be kept, or is one too many."""

    code = "KSG-240"


class BadKey(SagaCodeError):
    """What the saga asks to lock can't be a key: no text, empty, too long; or it is too many of them."""

    code = "KSG-264"


class BranchesWait(SagaCodeError):
    """Branches of the saga wait for each other, and nothing is out that could end it."""

    code = "KSG-215"
    default_remedy = "Look for branches that await each other, and let one of them go on without the other."


class EarlyPivot(SagaCodeError):
    """The saga passes its pivot while a part of it may still be undone by itself."""

    code = "KSG-216"
    default_remedy = (
        "Await the other branches first, and call ctx.pivot in the saga's own function, not in a branch."
    )


class PivotPassed(SagaCodeError):
    """The saga asks to be undone after its pivot, from where it only goes forward."""

    code = "KSG-217"
    default_remedy = (
        "Catch the outcome at the line, do something else instead, and deploy: the saga goes on from there "
        "by itself."
    )


class HistoryUnreadable(KasagaError):
    """A history row isn't what this release can read."""

    code = "KSG-211"
    default_remedy = (
        "It was written by a newer release, or damaged: run the newer release, or restore the row and retry."
    )


class StillWaiting(KasagaError):
    """Codes of STUCK that come from participants, not from the saga's code; never raised itself."""

    code = "KSG-219"


class UndoFails(StillWaiting):
    """A compensation keeps failing; it is still being retried."""

    code = "KSG-220"
    default_remedy = (
        "Mend the participant: the next retry goes through by itself. Or undo it by hand and say so with "
        "`kasaga resolve`, or leave it with `kasaga skip --reason`."
    )


class CannotUndo(StillWaiting):
    """A step of unknown outcome was executed, or may have been, and nothing can undo it."""

    code = "KSG-221"
    default_remedy = (
        "Undo its effect by hand and say so with `kasaga resolve`, or accept it with `kasaga skip --reason`."
    )


class StepConflict(StillWaiting):
    """A participant knows the command's id with another type or input."""

    code = "KSG-222"
    default_remedy = (
        "The participant or the orchestrator was restored from an older backup, or the step was decided "
        "differently. Find out what was executed, then `kasaga resolve` with the result, or cancel the saga."
    )


class StepFails(StillWaiting):
    """A step after the saga's pivot keeps failing, and isn't given up."""

    code = "KSG-223"
    default_remedy = (
        "Mend the participant: the next attempt goes through by itself, or after `kasaga retry` where the "
        "participant said that trying again is of no use. Or do it by hand, and say so with `kasaga resolve`."
    )


class BadQuery(KasagaError):
    """A text isn't in the language that sagas are searched by; the message says what is wrong, and where."""

    code = "KSG-241"
    default_remedy = (
        'Write it as in saga = "payment" and attr.customer = "c-7"; orchestrator/searching.md has all of it'
    )

    def __init__(self, message: str, *, remedy: str = "", position: int = 0) -> None:
        """`position`: of the character that is wrong, from 1; 0 where it is the whole."""
        super().__init__(message, remedy=remedy)
        self.position = position


class SearchTooSlow(KasagaError):
    """The database has ended a search that took too long."""

    code = "KSG-242"
    default_remedy = (
        "Add a test that few sagas pass, such as an attribute, an id or a recent `started`, and ask again"
    )


class NotApplicable(KasagaError):
    """An operator's action doesn't fit the saga's state."""

    code = "KSG-230"
    default_remedy = "See `kasaga describe` for the state and what may be done in it."


class SagaOver(NotApplicable):
    """A signal or an update came for a saga whose code takes nothing any more."""

    code = "KSG-232"
    default_remedy = "See `kasaga describe` for how the saga ended. Start another one, or leave it at that."


class SignalRefused(NotApplicable):
    """A signal isn't one that the saga declares, or its value can't be read as the declared type."""

    code = "KSG-233"
    default_remedy = "Look at the signal's name and value: what the saga takes stands in its code."


class MailboxFull(NotApplicable):
    """A signal or an update is over one of the limits of a saga's mail."""

    code = "KSG-234"
    default_remedy = "Send less, or references to data; `kasaga describe` says why the saga takes nothing."


class UpdateRefused(NotApplicable):
    """The saga refuses an update. Raise it in a validator or in a handler; the message is told."""

    code = "KSG-235"
    default_remedy = "The saga's own code says no: send another value, or at another time."


class QueryFailed(NotApplicable):
    """The saga's code can't answer a query."""

    code = "KSG-236"
    default_remedy = "Look at the query's name, and with `kasaga describe` at what the saga does."


class NoReceiver(NotApplicable):
    """A signal or an update came for a saga that never began."""

    code = "KSG-237"
    default_remedy = (
        "Look at the saga's id and the namespace. Start the saga and produce the record again, without its "
        "`kasaga_dlq_` headers."
    )


class StartRefused(KasagaError):
    """A start whose id is another saga's, or that saga's with another input."""

    code = "KSG-231"
    default_remedy = (
        "Use an id of its own for each saga. An event that begins a saga has one, if its id= gives different "
        "ones for different events, or is left out."
    )


class EventUnusable(KasagaError):
    """A record of a topic that a saga listens to is of no use to it, by the saga's own declaration."""

    code = "KSG-270"
    default_remedy = (
        "The dead letter names topic, partition and offset. Mend whoever wrote it, or what Event(...) "
        "declares; records that are none of the saga's are left out by `event_type` or `when`."
    )


class SagaOutcome(KasagaError):
    """The business outcome of a step or of the saga is no: uncaught, the saga is undone."""

    code = "KSG-250"
    default_remedy = "Nothing to mend: the finished steps are compensated."


class SagaFailed(SagaOutcome):
    """Raise it in a saga to undo what was done so far; the message is the reason."""

    code = "KSG-251"


class DeadlinePassed(SagaOutcome):
    """The saga took longer than its `@saga(timeout=...)`: it is undone."""

    code = "KSG-256"


class SagaCancelled(SagaOutcome):
    """Somebody cancelled the saga: it is undone."""

    code = "KSG-257"


class SagaTerminated(SagaOutcome):
    """Somebody ended the saga as it was: nothing is undone. Never raised: the code of why it ended."""

    code = "KSG-261"
    default_remedy = "Undo by hand what it left, if it mustn't stay: `kasaga describe` says what that is"


class TimedOut(SagaOutcome):
    """The time of a `ctx.timeout` is over. What was in flight in its block is being undone."""

    code = "KSG-258"


class SignalTimeout(TimedOut):
    """No signal came within the `timeout` of a `ctx.signal`. Nothing of it is to be undone."""

    code = "KSG-260"


class BranchEnded(SagaOutcome):
    """The branch that is awaited was ended: the one that spawned it lost a race, or failed."""

    code = "KSG-259"


class StepError(SagaOutcome):
    """A step did not end well. `step` is its path, `type` the error's type at the participant."""

    code = "KSG-252"

    def __init__(
        self,
        message: str,
        *,
        step: str = "",
        command: str = "",
        type: str = "",  # noqa: A002 - the wire's word
        details: str = "",
    ) -> None:
        super().__init__(message)
        self.step = step
        self.command = command
        self.type = type
        self.details = details


class StepRefused(StepError):
    """The participant refused: nothing was done there, and nothing is to be undone."""

    code = "KSG-253"


class StepFailed(StepError):
    """The step's retries are used up. Whether it happened is unknown; it is being voided."""

    code = "KSG-254"


class StepTimeout(StepFailed):
    """No answer came in time. Whether the step happened is unknown; it is being voided."""

    code = "KSG-255"


class Interrupt(BaseException):
    """The engine's control flow. Saga code must let it pass."""


class CancelInterrupt(Interrupt):
    """The saga is cancelled: clean up and let it pass; compensations run afterwards."""


class BranchInterrupt(Interrupt):
    """This branch is ended, since another one failed or won: clean up and let it pass."""


class Evicted(Interrupt):
    """This coroutine is being closed; the saga goes on from its history."""
