"""What the store keeps, and the one face that the loop, the CLI and the API see of it.

The loop decides with the engine, turns each decision into rows (`SagaWrite`), gathers them in a `Batch` and
hands it to `Store.commit`, the only method that writes sagas. Two stores implement the face:
`memory.MemoryStore` and `postgres.PostgresStore`; one contract suite tests both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Protocol
from uuid import UUID

from kasaga.search.conditions import Condition
from kasaga.store.errors import LostShards, NotMigrated, StoreUnavailable
from kasaga.store.hearing import Hearing
from kasaga.store.locks import Locks
from kasaga.store.purging import Purging
from kasaga.store.scheduling import Scheduling
from kasaga.store.shards import Membership, Offsets, ShardLease, ShardRow, Suspect, Tokens
from kasaga_wire.attributes import Changes, Stored

__all__ = [
    "FINAL_STATES",
    "REPLACEMENT_TRIES",
    "Attention",
    "Batch",
    "Committed",
    "DefinitionRow",
    "HistoryRow",
    "LostShards",
    "Membership",
    "Namespace",
    "NotMigrated",
    "Offsets",
    "OpenCalls",
    "OutboxRow",
    "Pulse",
    "Replace",
    "RowKind",
    "SagaFilter",
    "SagaRow",
    "SagaState",
    "SagaWrite",
    "ShardLease",
    "ShardRow",
    "ShardWrite",
    "Store",
    "StoreUnavailable",
    "Suspect",
    "Tokens",
]


class SagaState(StrEnum):
    """Where a saga stands. COMPLETED, COMPENSATED and TERMINATED are final."""

    RUNNING = "RUNNING"
    COMPENSATING = "COMPENSATING"
    CANCELLING = "CANCELLING"
    STUCK = "STUCK"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    COMPENSATED = "COMPENSATED"
    TERMINATED = "TERMINATED"


FINAL_STATES = frozenset({SagaState.COMPLETED, SagaState.COMPENSATED, SagaState.TERMINATED})


class RowKind(IntEnum):
    """What an outbox row is for, which also says who deletes it."""

    COMMAND = 1
    """A command, undo or void: lives from its scheduling to its answer; produced to `topic`."""
    RECORD = 2
    """An event, answer or dead letter: produced to `topic`, deleted when acknowledged."""
    TIMER = 3
    """A durable sleep or a saga's deadline: never produced; fires at `due_at`."""
    LOCAL = 4
    """A `ctx.run` step: never produced; run by the shard's owner until it is answered."""


@dataclass(slots=True)
class OutboxRow:
    """One thing that the shard's owner still has to do or to wait for.

    `seq` grows within the shard and is never used again. `send_at` is set only where sending is
    delayed (back-off of a retry). `due_at` is when the owner acts by itself (time-out, timer).
    """

    shard: int
    seq: int
    kind: RowKind
    run_id: UUID | None
    step: str
    topic: str
    partition: int | None
    key: bytes | None
    headers: list[tuple[str, bytes]]
    payload: bytes | None
    attempt: int
    send_at: datetime | None
    due_at: datetime | None


RENEWED = "Continue"
"""Kind of the row of history with which a saga's later run begins, whatever has happened then."""


@dataclass(slots=True)
class HistoryRow:
    """One decision of one saga: the event that came in and what followed, encoded in `body`.

    `kind` and `step` repeat what a person filters on; `body` is `kasaga.engine.codec`'s.
    """

    seq: int
    at: datetime
    kind: str
    step: str
    body: bytes


@dataclass(slots=True)
class SagaRow:
    """The summary of one saga: written at its start, at a change of state and at its end."""

    shard: int
    run_id: UUID
    saga_id: str
    name: str
    version: int
    state: SagaState
    input_hash: bytes
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    step: str = ""
    """The step that the state is about (the failed, the stuck one), or empty."""
    code: str = ""
    """The KSG code of the reason, or empty."""
    reason: str = ""
    remedy: str = ""
    with_exceptions: bool = False
    """COMPENSATED, but an operator skipped or resolved something on the way."""
    parked_code: str = ""
    """Fingerprint of the code that parked it (STUCK by the saga's own code): other code retries."""
    result: bytes | None = None
    base: int = 1
    """The first row of history that its run needs: those before it are of earlier runs."""
    attributes: Mapping[str, Stored] = field(default_factory=dict[str, Stored])
    """What it can be searched by. Filled where people read: `saga`, `list_sagas`."""


@dataclass(slots=True)
class SagaWrite:
    """All that one batch writes for one saga; it commits whole or is replaced whole."""

    shard: int
    run_id: UUID
    history: list[HistoryRow] = field(default_factory=list[HistoryRow])
    saga: SagaRow | None = None
    """Inserted when `new`, otherwise updated by (run_id, shard)."""
    new: bool = False
    opens: list[OutboxRow] = field(default_factory=list[OutboxRow])
    closes: list[int] = field(default_factory=list[int])
    """Sequence numbers of this shard's outbox rows to delete."""
    attributes: Changes | None = None
    """Search attributes to set, and with None to take away."""
    frees: list[str] = field(default_factory=list[str])
    """Keys in whose queues the saga is no more."""


@dataclass(slots=True)
class ShardWrite:
    """What a batch says of one shard; the fence checks it before anything is written."""

    shard: int
    token: UUID
    commit_seq: int
    """The number of this commit: the stored one plus one. Equal to the stored one: this very
    batch was committed before and its answer was lost."""
    offsets: Offsets
    acked_seq: int
    """All outbox rows up to this one have been acknowledged by Kafka."""
    next_seq: int
    """The first outbox sequence number not used yet."""
    now: datetime
    """The engine's time of this batch; never goes back."""
    suspect: Suspect | None = None
    """In suspect mode: the saga about to be stepped; the next commit takes the mark back."""
    acquitted: UUID | None = None
    """The saga whose deaths are forgotten: this commit parks it for them."""
    traced: datetime | None = None
    """What was decided before this is exported as spans, or given up. None: the process exports none."""


@dataclass(slots=True)
class Batch:
    """One transaction: every shard and every saga that one turn of the loop touched."""

    shards: list[ShardWrite]
    sagas: list[SagaWrite] = field(default_factory=list[SagaWrite])
    loose: list[OutboxRow] = field(default_factory=list[OutboxRow])
    """Records that belong to no saga (dead letters, answers to duplicates)."""
    acked: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    """(shard, seq) of acknowledged RECORD rows to delete."""


@dataclass(slots=True)
class Committed:
    """A commit's answer."""

    now: datetime
    """The database's clock at the commit."""
    replaced: dict[UUID, str]
    """Sagas whose rows the store refused (SQLSTATE class 22, 23 or 54), with the database's message;
    their replacement was committed instead."""
    dropped: list[tuple[OutboxRow, str]] = field(default_factory=list[tuple[OutboxRow, str]])
    """Loose rows that the store refused, with its message: they were left out."""


REPLACEMENT_TRIES = 3

Replace = Callable[[SagaWrite, str, int], SagaWrite]
"""Gives the fixed-shape write that parks a refused saga: (refused write, database's message, try
number from 1); each try is asked to be smaller than the one before, REPLACEMENT_TRIES are made."""


@dataclass(slots=True)
class SagaFilter:
    """What `list_sagas` and bulk actions select; empty fields select all."""

    states: Sequence[SagaState] = ()
    name: str = ""
    saga_id: str = ""
    saga_id_prefix: str = ""
    code: str = ""
    started_after: datetime | None = None
    started_before: datetime | None = None
    updated_after: datetime | None = None
    updated_before: datetime | None = None
    where: Condition | None = None
    """What `kasaga.search.parse` has made of a query; the fields above are short for parts of one."""


@dataclass(frozen=True, slots=True)
class DefinitionRow:
    """A saga that can be started: what whoever starts it without the author's code must know."""

    name: str
    version: int
    input: bytes
    """The hash of its input's schema."""
    result: bytes
    form: str = ""
    """The input as a JSON Schema, which knows the author's bounds; empty where it has none."""


@dataclass(slots=True)
class Attention:
    """Sagas of one name in one state that is neither RUNNING nor an end."""

    name: str
    state: SagaState
    sagas: int
    oldest: float
    """Seconds for which the first of them has been in it."""


@dataclass(slots=True)
class OpenCalls:
    """Open outbox rows of one kind to one topic: what many sagas wait for together."""

    kind: RowKind
    """COMMAND, TIMER or LOCAL."""
    topic: str
    """Empty but for commands."""
    rows: int
    again: int
    """Of these, the second and further attempts."""


@dataclass(slots=True)
class Pulse:
    """How sagas come and go, from reads that are bounded however many there are.

    Looked at are the newest sagas up to a limit, and open rows up to another. Where the newest don't reach
    `seconds` back, these are made fewer: figures are always about the whole of the time that they name.
    """

    now: datetime
    """By the database's clock."""
    seconds: float
    """The time that ends now and is told of."""
    started: list[int]
    """Sagas by when they started, in slices of equal length, the oldest first; so are the next two."""
    completed: list[int]
    """By when they ended."""
    compensated: list[int]
    latencies: tuple[float, float, float] | None
    """Seconds from start to end of those that were completed: median, 95th and 99th percentile."""
    open_sagas: int
    """Sagas with open rows: they wait for an answer, a timer or a function."""
    open_calls: list[OpenCalls]
    """By kind, then topic."""
    more_open: bool
    """There are more open rows than were looked at."""


@dataclass(slots=True)
class Namespace:
    """The one row that says what this database belongs to."""

    name: str
    shards: int


class Store(Purging, Locks, Hearing, Scheduling, Protocol):
    """The face of both stores. Methods block; the loop calls them from its one thread.

    Every method raises `StoreUnavailable` when the database can't be reached or answers with
    something that a later try can mend (SQLSTATE classes 08, 40, 53, 57); nothing else is retried.
    """

    def namespace(self) -> Namespace:
        """Return the namespace row; raises `NotMigrated` (with remedy) when there is none."""
        ...

    # leases
    def heartbeat(
        self, process: str, tokens: Tokens, *, ttl: float, leaving: bool = False, sagas: Sequence[str] = ()
    ) -> Membership:
        """Note that `process` lives, renew the leases whose token still holds, and list everybody.

        `ttl` is the lease's length in seconds, by the database's clock. Who is `leaving` is taken off the
        list of processes, so that others count it out, and keeps its shards; its commits aren't told.
        `sagas`: those that the process has, each as `name/version`, sorted; it is asked what others have.
        """
        ...

    def claim(self, shard: int, process: str, *, ttl: float) -> ShardRow | None:
        """Take a free or expired shard: new epoch, new random token, committed before it returns.

        None when somebody else holds it. Counts a death when another process let it expire instead of
        releasing it, also against the saga marked then; the mark is taken away whoever claims. A process may
        claim what it holds itself: after `LostShards.astray`, or when the answer to a claim was lost.
        `process` is unique per start of a process.
        """
        ...

    def release(self, tokens: Sequence[tuple[int, UUID]], process: str | None = None) -> None:
        """Give shards back (no owner, no token, no deaths, no suspects) where the token still holds.

        With `process` also take it off the list of processes.
        """
        ...

    def pardon(self, shard: int, token: UUID) -> None:
        """Forget the shard's deaths and its suspects: it has been quiet long enough."""
        ...

    # reading, for the loop
    def open_rows(self, shard: int, *, acked: int = 0, asleep: bool = True) -> list[OutboxRow]:
        """Return the outbox rows of a shard, by seq: all, or but those that `timers` returns.

        Of those that Kafka has, up to `acked`, without what was sent: topic, partition, key, headers and
        payload. Rows with a `send_at`, and those that aren't for Kafka, come whole.
        """
        ...

    def timers(self, shard: int, after: tuple[datetime, int] | None, limit: int) -> list[OutboxRow]:
        """Return a shard's rows of kind TIMER with a run and a `due_at`, by these and seq, at most `limit`.

        `after`: only those behind this `due_at` and seq.
        """
        ...

    def timers_behind(self, places: Sequence[tuple[int, datetime, int]]) -> int:
        """Count such rows of several shards, of each those behind a `due_at` and seq; any thread may ask."""
        ...

    def find(self, sagas: Sequence[tuple[int, str]]) -> dict[str, SagaRow]:
        """Return the rows of these (shard, saga id) that exist, by saga id."""
        ...

    def find_runs(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, SagaRow]:
        """Return the rows of these (shard, run id) that exist and aren't purged."""
        ...

    def load(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, list[HistoryRow]]:
        """Return histories, ordered by seq, of the sagas that exist: from their `base` on."""
        ...

    def parked(self, shard: int, code: str) -> list[UUID]:
        """Return STUCK sagas of a shard whose `parked_code` is set and is not `code`."""
        ...

    def touched(self, shard: int, since: datetime, until: datetime, *, limit: int) -> list[UUID]:
        """Return at most `limit` runs of a shard of which something was decided then, for any thread."""
        ...

    def histories(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, list[HistoryRow]]:
        """As `load`, for any thread, and of earlier runs as well."""
        ...

    # writing
    def commit(self, batch: Batch, replace: Replace) -> Committed:
        """Write one batch in one transaction, fenced by every shard's token.

        May be called again with the same batch after `StoreUnavailable`: a batch that had been
        committed is recognised by its `commit_seq` and not written twice. Raises `LostShards`
        naming the shards whose token was replaced; nothing was written then.
        """
        ...

    # schemas, by their full SHA-256
    def put_schemas(self, schemas: Mapping[bytes, str]) -> None:
        """Keep schema texts by hash; those already there are left as they are."""
        ...

    def schemas(self) -> dict[bytes, str]:
        """Return every schema kept."""
        ...

    # what can be started
    def fleet(self) -> dict[str, frozenset[str]]:
        """Return which sagas each process alive has, as `Membership.sagas`; those left out that don't say."""
        ...

    def announce(self, definitions: Sequence[DefinitionRow]) -> None:
        """Keep these definitions, and no others: they are of the image that was started last."""
        ...

    def definitions(self) -> list[DefinitionRow]:
        """Return the definitions, by name and version."""
        ...

    # reading, for people
    def list_sagas(self, where: SagaFilter, *, after: UUID | None = None, limit: int = 100) -> list[SagaRow]:
        """Return sagas newest first, those before run id `after` (keyset pagination).

        Raises SearchTooSlow.
        """
        ...

    def count(self, where: SagaFilter) -> dict[SagaState, int]:
        """Count sagas by state; raises SearchTooSlow."""
        ...

    def tally(self, where: SagaFilter) -> dict[tuple[str, SagaState], int]:
        """Count sagas by name and state; raises SearchTooSlow."""
        ...

    def attention(self, shards: Sequence[int]) -> list[Attention]:
        """Count these shards' sagas that are neither RUNNING nor ended, by name and state. Cheap."""
        ...

    def pulse(
        self, *, seconds: float = 300.0, slices: int = 60, newest: int = 10_000, rows: int = 50_000
    ) -> Pulse:
        """Say how sagas come and go, looking at so many of the newest and at so many open rows. Cheap."""
        ...

    def saga(self, saga_id: str) -> SagaRow | None:
        """Return one saga by its id, or None."""
        ...

    def history(self, row: SagaRow, *, since: int = 0) -> Iterable[HistoryRow]:
        """Return one saga's history in order, of all its runs; or the rows from number `since` on."""
        ...

    def waits(self, row: SagaRow) -> list[OutboxRow]:
        """Return one saga's open outbox rows: what it waits for."""
        ...

    def waiting(self, shard: int, *, after: int = 0, limit: int = 500) -> tuple[list[SagaRow], int | None]:
        """Return sagas of a shard that wait for something: an answer, a timer, a function.

        They are found by their open rows, the longest open first; one call looks at `limit` rows behind
        sequence number `after`. Returns also where the next page begins, None behind the last one. A saga
        with several open rows may come again in a later page.
        """
        ...

    def shards(self) -> list[ShardLease]:
        """Return who holds which shard."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...
