"""What the engine speaks of: events come in, decisions go out, a record holds both.

A saga's history is a list of records. `State` (state.py) is the fold of the records; nothing in it
comes from the saga's code, so a saga can be listed, explained and undone without running any.
Everything here is a flat tuple, because each is written to history once per step. Fields are only
ever added at the end, with a default: histories outlive releases.

Times are integers: microseconds since 1970, UTC.
"""

from __future__ import annotations

from typing import NamedTuple

from .attributes import SetAttributes
from .deferrals import Defer, Deferred
from .keylocks import Barred, Granted, Lock
from .kinship import Parent, Recall, Recalled, Report
from .renewals import Continue, Swell
from .resets import Reset
from .versions import Adopt, Await, Patch

COMMAND, UNDO, VOID, SLEEP, LOCAL, DEADLINE = "command", "undo", "void", "sleep", "local", "deadline"
"""Forms of an open row: what is out for a step. The undo of a local step has the form UNDO as well."""

SIGNAL, UPDATE, SCOPE = "signal", "update", "scope"
"""The code waits for a signal, and the row is the time-out; an update was sent, and a scope was begun, which
have no row."""

UNDO_FORMS = frozenset({UNDO, VOID})

DONE, REFUSED, UNKNOWN = "done", "refused", "unknown"
"""What is known of a settled step. Unknown: it may have happened, or may happen yet."""

LEFT = "left"
"""Outcome of a sleep or a time-out that the saga's code doesn't wait for any more; of a scope that ended
well, or whose branch was ended in it."""

UNDONE = "undone"
"""Outcome of a scope that an exception has left, when everything that was done in it is undone."""

MISSED = "missed"
"""Outcome of a wait for a signal: none came in time."""

DRAINED, CUT_OFF, LOST, SCOPED = "drained", "cut off", "lost", "scoped"
"""Why the saga's code waits no more for a step: another branch of its gather failed, and its attempt in
flight is its last; the time of its block is over; its branch lost a race; an exception has left its scope.
The last three are undone."""


class Policy(NamedTuple):
    """How a command is retried, as recorded with its first attempt. Times in microseconds."""

    timeout: int
    """One attempt, from sent to answered; of a local function, from begun to ended, 0 for no limit."""
    schedule_to_close: int
    """All attempts together; 0 for no limit."""
    initial_interval: int
    backoff_coefficient: float
    maximum_interval: int
    maximum_attempts: int
    """0 for no limit. Of an undo: attempts after which the saga is STUCK while they go on."""
    non_retryable: tuple[str, ...] = ()


# --- events -----------------------------------------------------------------------------------------


class Started(NamedTuple):
    """The start record was read."""

    saga_id: str
    name: str
    version: int
    input: bytes
    traceparent: str
    tracestate: str
    reply_to: str
    """`topic/partition` to tell the end to, or empty."""
    source: str
    parent: Parent | None = None
    """The saga whose step this one is."""
    attributes: bytes = b""  # search attributes, as JSON text


class Replied(NamedTuple):
    """A participant answered a command, an undo or a void."""

    step: str
    form: str
    attempt: int
    outcome: str
    payload: bytes
    error_type: str = ""
    error: str = ""
    details: str = ""
    retryable: bool = True


class Fired(NamedTuple):
    """The due time of an open row has come, and every earlier reply has been read."""

    step: str
    form: str


class Ran(NamedTuple):
    """A local step (`ctx.run`) or its undo ended."""

    step: str
    form: str
    attempt: int
    ok: bool
    payload: bytes
    error_type: str = ""
    error: str = ""


class Undeliverable(NamedTuple):
    """Kafka refuses a command for good: no such topic, no permission, too large."""

    step: str
    form: str
    attempt: int
    error: str


class Asked(NamedTuple):
    """An operator's or a client's action, one of operator.py's ACTIONS."""

    action_id: str
    action: str
    by: str
    reason: str
    step: str
    value: str
    """JSON text, for resolve and move."""
    reply_to: str
    traceparent: str = ""
    """The asker's, which the answer carries; empty if it has none."""
    tracestate: str = ""


class Faulted(NamedTuple):
    """The shell found that this saga can't be stepped: it hangs, kills, or the store refuses it."""

    code: str
    reason: str
    remedy: str
    fingerprint: str = ""


class CodeArrived(NamedTuple):
    """The shard's owner runs other code than what parked the saga."""

    fingerprint: str


class Signalled(NamedTuple):
    """Somebody sent a signal. It is kept until the saga's code takes it."""

    signal_id: str
    """Its idempotency key."""
    name: str
    payload: bytes
    by: str
    json: bool = False
    """The payload is JSON text and not Avro."""


class Updated(NamedTuple):
    """Somebody sent an update, and the saga's validator has let it pass."""

    update_id: str
    name: str
    payload: bytes
    by: str
    json: bool = False


Message = Signalled | Updated
MESSAGES = (Signalled, Updated)
"""The same for isinstance."""

Event = (
    Started
    | Replied
    | Deferred
    | Fired
    | Ran
    | Undeliverable
    | Asked
    | Faulted
    | CodeArrived
    | Message
    | Recalled
    | Granted
    | Barred
)


# --- decisions --------------------------------------------------------------------------------------


class Resume(NamedTuple):
    """The saga's coroutine was fed the outcome of `step` (empty: it was started).

    Replay feeds the coroutine where a Resume stands in the history, and nowhere else.
    """

    step: str


class Send(NamedTuple):
    """An attempt of a command, an undo or a void. Takes one outbox row."""

    step: str
    form: str
    attempt: int
    type: str
    participant: str
    due_at: int
    send_at: int = 0
    """0: at once."""
    key: bytes = b""
    payload: bytes = b""
    """Of the first attempt; the others send the same bytes."""
    policy: Policy | None = None
    """Of a command's first attempt, as the next three."""
    undo_policy: Policy | None = None
    compensation: str = ""
    """The command that undoes it, or empty."""
    child: str = ""
    """The step is another saga, whose id is the key: `await` or `leave`. Of the first attempt."""
    version: int = 0


class Sleep(NamedTuple):
    """A durable timer of the saga's code. Takes one outbox row."""

    step: str
    due_at: int
    name: str = ""
    """`timeout` for the time of a block; empty for a sleep."""


class Deadline(NamedTuple):
    """The saga's own deadline. Takes one outbox row."""

    due_at: int


class RunLocal(NamedTuple):
    """An attempt of `ctx.run`, or of its undo. Takes one outbox row."""

    step: str
    form: str
    attempt: int
    name: str
    send_at: int = 0
    undo: str = ""
    """`module:function` that undoes it, or empty; of the first attempt, as the next two."""
    policy: Policy | None = None
    undo_policy: Policy | None = None


class Settle(NamedTuple):
    """What is known of a step, now and for good. Closes its open row.

    The result or error is the one of the event in this record, unless given here.
    """

    step: str
    outcome: str
    payload: bytes = b""
    error_type: str = ""
    error: str = ""
    details: str = ""


class Clear(NamedTuple):
    """A step needs no undo any more: undone, nothing, lost, voided, refused, skipped, resolved."""

    step: str
    how: str


class Return(NamedTuple):
    """The saga's code returned; the end waits for open voids."""

    result: bytes
    renews: bool = False
    """It goes on as a new run, whose input the result is."""


class Move(NamedTuple):
    """The saga changes its state, with the reason.

    STUCK is one of two: `parked`, when its code can't go on and nothing of it moves; or at a `step`
    that waits for somebody while the rest of the saga goes on.
    """

    state: str
    code: str = ""
    reason: str = ""
    remedy: str = ""
    step: str = ""
    parked: bool = False
    fingerprint: str = ""
    """Of the code that the saga is stuck with: other code tries again."""
    halted: bool = False
    """With a step: only an operator gets it going again, so its open row is closed."""


class Unblock(NamedTuple):
    """An operator, or new code, lets the step try again that the saga was STUCK at."""

    step: str


class Leave(NamedTuple):
    """The saga's code waits no more for these steps, and why. Of a lost branch these are all its steps."""

    steps: tuple[str, ...]
    why: str = ""
    """DRAINED, CUT_OFF, LOST or SCOPED; empty for sleeps, time-outs and scopes alone. With SCOPED the first
    of the steps is the scope itself."""
    reason: str = ""
    """Why the scope was left, in words; as the next with SCOPED alone."""
    failed: str = ""
    """The step whose outcome has left the scope, if it was one's."""


class Enter(NamedTuple):
    """The saga's code has begun a scope: a step with nothing to undo, until an exception leaves it."""

    step: str
    name: str = ""


class Pivot(NamedTuple):
    """The saga's code has passed its point of no return: it can't be undone as a whole any more.

    No step that was asked for before is undone because of what comes after.
    """


class Hold(NamedTuple):
    """The saga is paused by the action of this record: nothing of it goes out until it is released.

    Attempts whose time to go out hasn't come are taken back. What comes is recorded undecided.
    """


class Release(NamedTuple):
    """The saga isn't paused any more: what came meanwhile is decided behind this."""


class Postpone(NamedTuple):
    """The action of this record, a cancel, is carried out when the saga is released."""


class Fence(NamedTuple):
    """A void that nobody waits for: the saga ends here, and the step had better not happen later.

    Takes one outbox row, which is deleted when Kafka has it.
    """

    step: str
    due_at: int


class Tell(NamedTuple):
    """A record for others: an event (empty `to`) or an answer to `to`. Takes one outbox row."""

    to: str
    what: str
    about: str = ""
    """The action's or the start's id that is answered."""


class Emit(NamedTuple):
    """The saga's code publishes an event for anybody. Takes one outbox row."""

    topic: str
    type: str
    payload: bytes
    """JSON text."""
    key: bytes = b""
    """Empty for the saga's id."""


class Listen(NamedTuple):
    """The saga's code waits for a signal: a step like any other, with nothing to undo."""

    step: str
    name: str


class Alarm(NamedTuple):
    """Until when a step waits for its signal. Takes one outbox row."""

    step: str
    due_at: int
    """0 for ever: the row only says what is awaited (awaited.py)."""


class Take(NamedTuple):
    """The oldest undelivered signal of its name is the outcome of a step."""

    step: str
    signal_id: str
    payload: bytes = b""
    """Of one that came as JSON: what the code reads."""


class Drop(NamedTuple):
    """The oldest undelivered signal of its name can't be read by the code that waits for it."""

    name: str
    signal_id: str
    code: str
    reason: str


class Accept(NamedTuple):
    """An update is to be handled by the saga's code, as if it were the outcome of a step: `u1`, `u2`."""

    step: str


class Answered(NamedTuple):
    """The saga's handler has dealt with an update."""

    step: str
    result: bytes
    """JSON text."""
    error: str = ""
    """Why the handler refused it; then there is no result."""


Decision = (
    Resume
    | Send
    | Sleep
    | Deadline
    | RunLocal
    | Settle
    | Clear
    | Return
    | Move
    | Tell
    | Unblock
    | Leave
    | Listen
    | Alarm
    | Take
    | Drop
    | Accept
    | Answered
    | Pivot
    | Emit
    | Enter
    | Hold
    | Release
    | Postpone
    | Fence
    | Defer
    | Report
    | Recall
    | SetAttributes
    | Await
    | Adopt
    | Patch
    | Continue
    | Swell
    | Lock
    | Reset
)

TAKES_ROW = frozenset({Send, Sleep, Deadline, RunLocal, Tell, Alarm, Fence, Defer, Emit, Report, Await, Lock})


class Record(NamedTuple):
    """One row of history: what came in and what followed.

    `row` is the sequence number of the first outbox row that the decisions take; the others follow
    in order, so that a replayed state knows which rows are open.
    """

    seq: int
    at: int
    row: int
    event: Event
    decisions: tuple[Decision, ...]
