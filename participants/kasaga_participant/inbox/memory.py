"""The inbox in memory: for tests of services, and for participants that have no database.

Station: driven like a Postgres session, by the same algorithm. `MemorySession` behaves as Postgres does at
READ COMMITTED, in one event loop: a claim waits for the open transaction that has claimed the same row.
`PlainSession` remembers nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .algorithm import Abort, Close, Guard, HandlerRaised, Hold, Invoke, Open, Read, Retreat
from .drive import AsyncInvoke, RowEffect
from .rows import DEFERRED, DONE, ExaminedRow, Later, NewRow, StoredRow

if TYPE_CHECKING:
    from .late import LateReply

C = TypeVar("C")


@dataclass(slots=True)
class _Kept:
    row: StoredRow
    used_at: float


class MemoryInbox:
    """The rows. Belongs to one event loop."""

    def __init__(self, *, retention: float = float("inf"), clock: Callable[[], float] = time.time) -> None:
        """`retention` in seconds; `clock` gives seconds since 1970."""
        self._kept: dict[str, _Kept] = {}
        self._claims: dict[str, asyncio.Event] = {}
        self._retention = retention
        self._clock = clock
        self.deferrals: dict[str, Later] = {}
        """Commands that wait for their answer."""
        self.beats: dict[str, tuple[int, float]] = {}
        """Their heartbeats, and when the orchestrator was told last."""
        self.late: list[LateReply] = []
        """Their answers and heartbeats, to be sent."""
        self.key = secrets.token_bytes(32)
        self.waiting = 0
        """How many transactions wait for another's claim."""

    def row(self, id_: str) -> StoredRow | None:
        """One row, for assertions."""
        kept = self._kept.get(id_)
        return None if kept is None else kept.row

    def examine(self, runs: Sequence[str], after: str, limit: int) -> list[ExaminedRow]:
        """What an audit is told, see `store.Store.examine`."""
        wanted = set(runs)
        ids = sorted(id_ for id_ in self._kept if id_.partition(".")[0] in wanted and id_ > after)
        return [_examined(self._kept[id_].row) for id_ in ids[:limit]]

    def purge(self) -> int:
        """Forget the rows that weren't used for the retention; gives their number."""
        oldest = self._clock() - self._retention
        old = [
            id_ for id_, kept in self._kept.items() if kept.used_at < oldest and kept.row.outcome != DEFERRED
        ]
        for id_ in old:
            del self._kept[id_]
        return len(old)

    async def claim(self, row: NewRow, mine: asyncio.Event) -> bool:
        """Take the row for a transaction, unless it exists; waits for another that has taken it."""
        await self._free(row.id)
        if row.id in self._kept:
            return False
        self._claims[row.id] = mine
        return True

    async def hold(self, id_: str, mine: asyncio.Event) -> None:
        """Lock an old row for a transaction."""
        await self._free(id_)
        self._claims[id_] = mine

    async def _free(self, id_: str) -> None:
        while (other := self._claims.get(id_)) is not None:
            self.waiting += 1
            await other.wait()
            self.waiting -= 1

    async def locked(self, id_: str) -> StoredRow | None:
        """A row for somebody who changes it before he waits for anything."""
        await self._free(id_)
        return self.row(id_)

    def put(self, id_: str, outcome: str, payload: bytes | None) -> None:
        """Change a row."""
        self._kept[id_] = _Kept(replace(self._kept[id_].row, outcome=outcome, payload=payload), self._clock())

    def remove(self, id_: str) -> None:
        """Forget a row."""
        del self._kept[id_]

    def now(self) -> float:
        """Seconds since 1970."""
        return self._clock()

    def forget_deferral(self, id_: str) -> None:
        """A command waits for its answer no more."""
        self.deferrals.pop(id_, None)
        self.beats.pop(id_, None)

    def end(self, claimed: Iterable[str], written: dict[str, StoredRow], mine: asyncio.Event) -> None:
        """Make a transaction's rows visible and let the others go on."""
        now = self._clock()
        for id_, row in written.items():
            self._kept[id_] = _Kept(row, now)
        for id_ in claimed:
            del self._claims[id_]
        mine.set()

    def read(self, id_: str) -> StoredRow | None:
        """A committed row as the algorithm reads it."""
        kept = self._kept.get(id_)
        if kept is None:
            return None
        stale = self._clock() - kept.used_at > self._retention / 8
        row = kept.row
        return StoredRow(row.id, row.type, row.input_hash, row.outcome, row.payload, stale)

    def touch(self, id_: str) -> None:
        """A row was used again."""
        if id_ in self._kept:
            self._kept[id_].used_at = self._clock()


class MemorySession(Generic[C]):
    """One transaction at a time over a MemoryInbox. `connection` is what handlers see as `tx.connection`."""

    def __init__(self, inbox: MemoryInbox, connection: C) -> None:
        """Several sessions over one inbox behave like several connections to one database."""
        self._inbox = inbox
        self._connection = connection
        self._mine = asyncio.Event()
        self._claimed: dict[str, NewRow] = {}
        self._held: tuple[str, ...] = ()

    async def rows(self, effect: RowEffect) -> Any:
        """Carry out one effect; never fails."""
        match effect:
            case Open():
                self._mine, self._claimed, self._held = asyncio.Event(), {}, ()
                for row in effect.rows:
                    if await self._inbox.claim(row, self._mine):
                        self._claimed[row.id] = row
                return frozenset(self._claimed)
            case Read():
                found = ((id_, self._inbox.read(id_)) for id_ in effect.ids)
                return {id_: row for id_, row in found if row is not None}
            case Hold():
                for id_ in effect.ids:
                    await self._inbox.hold(id_, self._mine)
                    self._held += (id_,)
                found = ((id_, self._inbox.read(id_)) for id_ in effect.ids)
                return {id_: row for id_, row in found if row is not None}
            case Close():
                self._close(effect)
            case Abort():
                self._end({})
            case Guard() | Retreat():
                pass  # handlers have no transaction here that could go back
        return None

    def _close(self, effect: Close) -> None:
        written = {id_: _stored(row, row.outcome, None) for id_, row in self._claimed.items()}
        for id_ in effect.released:
            del written[id_]
        for answer in effect.outcomes:
            if answer.id in self._claimed:
                written[answer.id] = _stored(self._claimed[answer.id], answer.outcome, answer.payload)
            else:
                self._inbox.put(answer.id, answer.outcome, answer.payload)
        for id_, later in effect.deferred:
            self._inbox.deferrals[id_], self._inbox.beats[id_] = later, (0, self._inbox.now())
        for id_ in effect.given_up:
            self._inbox.forget_deferral(id_)
        for id_ in effect.used:
            self._inbox.touch(id_)
        self._end(written)

    def _end(self, written: dict[str, StoredRow]) -> None:
        held, self._held = self._held, ()
        self._inbox.end((*self._claimed, *held), written, self._mine)

    async def handler(self, effect: Invoke, invoke: AsyncInvoke[C]) -> bytes | Later | None:
        """Run one handler. Raises HandlerRaised."""
        return await _run(effect, invoke, self._connection)


class PlainSession(Generic[C]):
    """No memory: every claim succeeds, nothing is stored."""

    def __init__(self, connection: C) -> None:
        """`connection` is what handlers see as `tx.connection`."""
        self._connection = connection

    async def rows(self, effect: RowEffect) -> Any:
        """Pretend; never fails."""
        match effect:
            case Open():
                return frozenset(row.id for row in effect.rows)
            case Read() | Hold():
                return {}
            case Guard() | Retreat() | Close() | Abort():
                return None

    async def handler(self, effect: Invoke, invoke: AsyncInvoke[C]) -> bytes | Later | None:
        """Run one handler. Raises HandlerRaised."""
        return await _run(effect, invoke, self._connection)


def _examined(row: StoredRow) -> ExaminedRow:
    told = row.outcome == DONE and row.payload is not None
    result = hashlib.sha256(row.payload or b"").digest() if told else None
    return ExaminedRow(row.id, row.type, row.outcome, row.input_hash, result)


def _stored(row: NewRow, outcome: str, payload: bytes | None) -> StoredRow:
    return StoredRow(row.id, row.type, row.input_hash, outcome, payload, stale=False)


async def _run(effect: Invoke, invoke: AsyncInvoke[C], connection: C) -> bytes | Later | None:
    try:
        return await invoke(effect.work, effect.stored, connection)
    except asyncio.CancelledError as error:
        if is_cancelled():
            raise
        raise HandlerRaised(error) from error
    except (Exception, SystemExit) as error:
        raise HandlerRaised(error) from error


def is_cancelled() -> bool:
    """Whether the running task itself is being cancelled, and not only something inside of a handler."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
