"""What the inbox keeps of a command, an undo or a void, and what it needs to know to judge one.

Station: shared by the algorithm, the sessions that carry it out, and the memory inbox. Imports nothing of
ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """What a record on a command topic asks for."""

    COMMAND = "command"
    UNDO = "undo"
    VOID = "void"


CLAIMED = "claimed"
"""A row whose transaction hasn't ended. Never committed: a trigger checks it."""
DONE = "done"
REFUSED = "refused"
UNDONE = "undone"
NOTHING = "nothing"
LOST = "lost"
VOIDED = "voided"
EXECUTED = "executed"
EXPIRED = "expired"
FAILED = "failed"
CONFLICT = "conflict"
UNDECODABLE = "undecodable"

DEFERRED = "deferred"
"""A command whose handler has run and whose answer comes later: the only committed row that may change."""

TOMBSTONE = "void"
"""The fence, and knowledge: the command didn't run before, and won't."""
BLIND_TOMBSTONE = "unknown"
"""The fence alone, for a command so old that its row may be purged: it won't run from now on."""


@dataclass(frozen=True, slots=True)
class Original:
    """The command that an undo or a void is about, from the headers alone.

    Attributes:
        id: its command id, the key of its row.
        type: its `ce_type`.
        done: whether the orchestrator knows that it was done; False: it doesn't know.
        sent: when it was sent last, seconds since 1970.
    """

    id: str
    type: str
    done: bool
    sent: float


@dataclass(slots=True)
class Work:
    """One record to judge: what the algorithm reads of it.

    Attributes:
        id: the command id, the key of its row.
        type: its `ce_type`.
        kind: command, undo or void.
        sent: when this attempt was sent, seconds since 1970.
        input_hash: SHA-256 of a command's payload; None for an undo or a void, whose text may differ per
        attempt. original: what an undo or a void is about, else None. call: what the session hands to the
        caller's `invoke`; the algorithm never looks at it.
    """

    id: str
    type: str
    kind: Kind
    sent: float
    input_hash: bytes | None
    original: Original | None
    call: object

    def ids(self) -> tuple[str, ...]:
        """The keys of all rows that this record touches."""
        return (self.id,) if self.original is None else (self.id, self.original.id)


@dataclass(frozen=True, slots=True)
class NewRow:
    """A row to be claimed, unless there is one already."""

    id: str
    type: str
    input_hash: bytes | None
    outcome: str


@dataclass(frozen=True, slots=True)
class StoredRow:
    """A row that was there before.

    `stale`: it wasn't used for so long that its date of purging has to be moved.
    """

    id: str
    type: str
    input_hash: bytes | None
    outcome: str
    payload: bytes | None
    stale: bool


@dataclass(frozen=True, slots=True)
class ExaminedRow:
    """A row as an audit is told of it: `input_hash` and `result_hash` are SHA-256 of payloads."""

    id: str
    type: str
    outcome: str
    input_hash: bytes | None
    result_hash: bytes | None


@dataclass(frozen=True, slots=True)
class Later:
    """What is kept of a command that is answered later, so that anybody can answer it.

    Attributes:
        payload: of the reply that says so.
        heartbeat: seconds within which a heartbeat must come; None: none is asked for.
        participant: the contract's name.
        attempt: the one whose handler has run.
        reply_to: `topic/partition`; empty where nobody waits for the answer.
        saga_id, traceparent, tracestate: what the replies carry.
    """

    payload: bytes
    heartbeat: float | None
    participant: str
    attempt: int
    reply_to: str
    saga_id: str
    traceparent: str | None = None
    tracestate: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be replied.

    Attributes:
        outcome: the reply's.
        payload: the reply's, encoded; None: an Avro null.
        error: what the payload tells, for the log.
        duplicate: the answer was in the inbox already.
        ran: the handler ran for it.
    """

    outcome: str
    payload: bytes | None = None
    error: BaseException | None = None
    duplicate: bool = False
    ran: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """How old is too old. All in seconds.

    Attributes:
        max_age: what is sent longer ago is not executed for the first time.
        retention: how long a row stays after its last use; at least twice `max_age`.
        remembers: False where there is no inbox: the absence of a row proves nothing then.
    """

    max_age: float
    retention: float
    remembers: bool = True

    def __post_init__(self) -> None:
        """Refuse a memory that is shorter than the fence needs."""
        if self.max_age <= 0 or self.retention < 2 * self.max_age:
            raise ValueError("retention must be at least twice max_age, and max_age positive")

    @property
    def horizon(self) -> float:
        """How long ago a command may have been sent so that its absence proves that it didn't run.

        A row stays for `retention`, and the clocks of two machines and the attempts of one command may differ
        by up to `max_age`: what is left is certain.
        """
        return self.retention - self.max_age

    def too_old(self, sent: float, now: float) -> bool:
        """Whether a record may no longer be executed for the first time."""
        return now - sent > self.max_age

    def forgotten(self, original: Original, now: float) -> bool:
        """Whether the absence of this command's row proves nothing."""
        return not self.remembers or now - original.sent > self.horizon
