"""Postgres, both sides: the orchestrator's, and the one that participants share with their inbox.

Station: in front of `MemoryStore` and `MemoryInbox`, which pass the contract suites of the real ones. Here is
what goes wrong between a process and its database: calls that are slow, lost before or after they were
carried out, or carried out when the caller has long given up; and a database that goes back in time.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from kasaga.store.base import Batch, LostShards, Store, StoreUnavailable
from kasaga.store.errors import StoreError
from kasaga.store.memory import MemoryStore
from kasaga_participant.calls import Calls
from kasaga_participant.inbox.algorithm import Abort, Close, Guard, Invoke, Open, Plan, Retreat
from kasaga_participant.inbox.drive import AsyncInvoke, InboxAway, RowEffect, drive_async
from kasaga_participant.inbox.memory import MemoryInbox, MemorySession
from kasaga_participant.inbox.rows import Answer, ExaminedRow, Later, NewRow, StoredRow
from simulator.machine import SECOND, Process

if TYPE_CHECKING:
    from simulator.world import World

READS = frozenset(
    {"namespace", "open_rows", "timers", "find", "find_runs", "load", "parked", "touched", "histories"}
)
SLOW = frozenset({"commit", "claim", "heartbeat", "release"})


class Connection:
    """`kasaga.store.base.Store` as one orchestrator process reaches it."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self._process = world, process

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._world.store, name)

        def call(*arguments: Any, **named: Any) -> Any:
            return self._call(name, lambda: method(*arguments, **named), arguments)

        return call

    def _call(self, name: str, carry_out: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        world, process = self._world, self._process
        chance, machine = world.chance, world.machine
        where = f"{process.name}/{name}"
        machine.check()
        machine.sleep(chance.whole(chance.next(f"query/{where}"), 50, 800))
        if world.away(process, "store"):
            machine.sleep(SECOND // 10)
            raise StoreUnavailable("Postgres is away")
        if name in SLOW and chance.strikes("slow_commit", where):
            machine.sleep(chance.whole(chance.next(f"slow/{where}"), SECOND // 5, 5 * SECOND))
        if chance.strikes("store", where):
            raise StoreUnavailable(f"no connection for {name}")
        if name not in READS and chance.strikes("straggler", where):
            self._later(name, carry_out, arguments, where)
            raise StoreUnavailable(f"no answer to {name}, which is carried out later")
        world.crash_point(f"store.{name}.before")
        found = self._carry_out(name, carry_out, arguments)
        world.crash_point(f"store.{name}.after")
        if name not in READS and chance.strikes("unknown_commit", where):
            raise StoreUnavailable(f"no answer to {name}, which was carried out")
        return found

    def _carry_out(self, name: str, carry_out: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
        world = self._world
        try:
            found = carry_out()
        except LostShards as lost:
            batch = cast("Batch", arguments[0])
            world.tracer.fenced(self._process, batch, lost)
            world.book.refused(batch, lost, self._process.name)
            raise
        world.tracer.stored(self._process, name, arguments, found)
        if name == "claim" and found is not None:
            world.book.claimed(found)
        elif name == "release":
            world.book.released(list(arguments[0]))
        elif name == "commit":
            world.book.committed(arguments[0], self._process.name)
        return found

    def _later(self, name: str, carry_out: Callable[[], Any], arguments: tuple[Any, ...], where: str) -> None:
        """The server is at it yet: what the caller sends again comes before or after."""
        world = self._world
        if name == "commit":
            batch, replace = copy.deepcopy(cast("Batch", arguments[0])), arguments[1]
            arguments = (batch, replace)
            carry_out = lambda: world.store.commit(batch, replace)  # noqa: E731

        def late() -> None:
            with contextlib.suppress(LostShards, StoreError):
                self._carry_out(name, carry_out, arguments)

        micros = world.chance.whole(world.chance.next(f"straggler/{where}"), 1000, 2 * SECOND)
        world.machine.after(micros, late)


def as_store(connection: Connection) -> Store:
    """It has all its methods by delegation."""
    return cast("Store", connection)


class Snapshot(NamedTuple):
    """What a database was."""

    at: int
    state: Any


def snapshot(store: MemoryStore) -> Any:
    """All rows of the orchestrator's database."""
    return copy.deepcopy((store._tables, store._shards))  # pyright: ignore[reportPrivateUsage]


def restore(store: MemoryStore, state: Any) -> None:
    """The database goes back in time."""
    store._tables, store._shards = copy.deepcopy(state)  # pyright: ignore[reportPrivateUsage]


def hold_leases(store: MemoryStore, micros: int, awake: frozenset[str]) -> None:
    """Nothing happens for so long but the heartbeats of those who are awake: leave them out."""
    passed = timedelta(microseconds=micros)
    for shard in store._shards.values():  # pyright: ignore[reportPrivateUsage]
        if shard.until is not None and shard.owner in awake:
            shard.until += passed
    store._processes.outlast(awake, passed)  # pyright: ignore[reportPrivateUsage]


# --- the participants' side


@dataclass(frozen=True, slots=True)
class Effect:
    """What a handler has written: committed with the inbox's rows, or not at all."""

    command_id: str
    type: str
    attempt: int
    process: str
    at: int


@dataclass
class Transaction:
    """What handlers find as `tx.connection`."""

    effects: list[Effect] = field(default_factory=list[Effect])


class Inbox(MemoryInbox):
    """The rows, as a database that can be restored."""

    def rows(self) -> dict[str, StoredRow]:
        return {id_: kept.row for id_, kept in self._kept.items()}

    def snapshot(self) -> Any:
        return copy.deepcopy(self._kept)

    def restore(self, state: Any) -> None:
        self._kept = copy.deepcopy(state)

    def forget_all(self) -> set[str]:
        """Purge everything, however young."""
        gone, self._kept = set(self._kept), {}
        return gone


class Database:
    """The database of one contract's participants."""

    def __init__(self, world: World, name: str, retention: float) -> None:
        self.world, self.name = world, name
        self.inbox = Inbox(retention=retention, clock=lambda: world.clocks.true_time().timestamp())
        self.effects: list[Effect] = []
        self.open: list[Session] = []

    def crash(self) -> None:
        """Every open transaction is rolled back, every connection lost."""
        for session in list(self.open):
            session.lose()

    def snapshot(self) -> Any:
        return self.inbox.snapshot(), list(self.effects)

    def restore(self, state: Any) -> set[str]:
        """Go back in time; gives the ids of the rows that are lost or changed."""
        self.crash()
        before = self.inbox.rows()
        rows, effects = state
        self.inbox.restore(rows)
        self.effects[:] = effects
        after = self.inbox.rows()
        return {id_ for id_, row in before.items() if after.get(id_) != row}


class Session(MemorySession[Transaction]):
    """One connection of a participant, for one plan."""

    def __init__(self, database: Database, process: Process) -> None:
        self._own = Transaction()
        super().__init__(database.inbox, self._own)
        self._database, self._world, self.process = database, database.world, process
        self._savepoint = 0
        self._lost = False
        database.open.append(self)

    def lose(self) -> None:
        """The server rolls back, and the connection is gone."""
        if self in self._database.open:
            self._database.open.remove(self)
            self._lost = True
            self._own.effects.clear()
            self._release()

    def _release(self) -> None:
        claimed = (*self._claimed, *self._held)
        self._claimed, self._held = dict[str, NewRow](), ()
        if claimed:
            self._inbox.end(claimed, {}, self._mine)

    async def _travel(self, name: str) -> None:
        world, chance = self._world, self._world.chance
        where = f"{self.process.name}/{name}"
        world.machine.check()
        await world.pause(chance.whole(chance.next(f"query/{where}"), 50, 700))
        world.machine.check()
        if world.away(self.process, "inbox") or chance.strikes("inbox_lost", where):
            self.lose()
        if self._lost:
            raise InboxAway(ConnectionError(f"the connection is lost at {name}"))

    async def rows(self, effect: RowEffect) -> Any:
        await self._travel(type(effect).__name__)
        if isinstance(effect, Close):
            return await self._close_it(effect)
        if isinstance(effect, Guard | Open):
            self._savepoint = len(self._own.effects)
        elif isinstance(effect, Retreat):
            del self._own.effects[self._savepoint :]
        found = await super().rows(effect)
        if isinstance(effect, Abort):
            self._own.effects.clear()
            self._claimed = {}
        elif isinstance(effect, Open):
            if self._lost:
                self._release()
                raise InboxAway(ConnectionError("the connection was lost while it waited for a claim"))
            self._world.tracer.claimed(self.process, effect, found)
        return found

    async def _close_it(self, effect: Close) -> None:
        world, chance, where = self._world, self._world.chance, f"{self.process.name}/Close"
        if chance.strikes("slow_commit", where):
            await world.pause(chance.whole(chance.next(f"slow/{where}"), SECOND // 5, 5 * SECOND))
            world.machine.check()
            if self._lost:
                raise InboxAway(ConnectionError("the connection is lost at the commit"))
        claimed = dict(self._claimed)
        await super().rows(effect)
        self._database.effects += self._own.effects
        world.tracer.inbox_committed(self.process, effect, claimed, self._own.effects)
        self._own.effects.clear()
        self._claimed = {}
        if chance.strikes("inbox_unknown", where):
            self._lost = True
            if self in self._database.open:
                self._database.open.remove(self)
            raise InboxAway(ConnectionError("the answer to the commit is lost"))

    async def handler(self, effect: Invoke, invoke: AsyncInvoke[Transaction]) -> bytes | Later | None:
        if self._lost:
            raise InboxAway(ConnectionError("the connection is lost"), effect.work)
        result = await super().handler(effect, invoke)
        if self._lost:
            raise InboxAway(ConnectionError("the connection was lost under the handler"), effect.work)
        return result

    def end(self) -> None:
        """Whatever is open is rolled back."""
        if not self._lost and self in self._database.open:
            self._database.open.remove(self)
            self._release()


class Participants:
    """`kasaga_participant.store.Store` of one process and one database."""

    remembers = True

    def __init__(self, database: Database, process: Process) -> None:
        self._database, self._process = database, process

    async def settle(
        self, plans: Callable[[], Plan[list[Answer]]], calls: Calls, *, sync: bool
    ) -> list[Answer]:
        session = Session(self._database, self._process)
        self._process.on_end.append(session.lose)
        try:
            return await drive_async(plans(), session, cast("Any", calls.call))
        finally:
            session.end()
            if session.lose in self._process.on_end:
                self._process.on_end.remove(session.lose)

    async def prepare(self) -> list[str]:
        if self._database.world.away(self._process, "inbox"):
            raise ConnectionError("the database is away")
        return []

    async def purge(self, retention: float) -> int:
        return self._database.inbox.purge()

    async def examine(self, runs: Sequence[str], after: str, limit: int) -> list[ExaminedRow]:
        return self._database.inbox.examine(runs, after, limit)

    async def close(self) -> None:
        """Nothing is open between two plans."""
