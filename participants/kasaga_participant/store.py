"""Where a participant keeps its inbox, and the connections to it.

Station: the worker hands it a plan and gets the answers; it finds a session, async or in a thread, to carry
the plan out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, Protocol, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from kasaga_wire.sealing import PLAIN, Sealer

from .calls import Calls
from .courier import Whose
from .inbox.algorithm import Plan
from .inbox.connections import HandlerConnection, SyncHandlerConnection, is_lost
from .inbox.drive import AsyncSession, InboxAway, drive_async, drive_sync
from .inbox.late import LateReply
from .inbox.memory import MemoryInbox, MemorySession, PlainSession
from .inbox.postgres import PostgresSession, SyncPostgresSession
from .inbox.rows import Answer, ExaminedRow, Later, Work
from .inbox.statements import Limits, statements
from .inbox.upkeep import examine, migrate, pending, purge_slice

Plans = Callable[[], Plan[list[Answer]]]
S = TypeVar("S", PostgresSession, SyncPostgresSession)

# A server or a network that is gone is noticed in about half a minute, also while a statement waits.
DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}


class Store(Protocol):
    """Where the inbox is kept."""

    remembers: bool
    """False: there is no inbox."""

    async def settle(self, plans: Plans, calls: Calls, *, sync: bool) -> list[Answer]:
        """Carry out a new plan. `sync`: its handlers are plain functions, and run in a thread.

        Raises what the plan raises, InboxAway and InboxError.
        """
        ...

    async def prepare(self) -> list[str]:
        """Bring the tables up to date; gives what was applied. Raises psycopg.Error."""
        ...

    async def purge(self, retention: float) -> int:
        """Forget a slice of what wasn't used for `retention` seconds; gives how many rows."""
        ...

    async def examine(self, runs: Sequence[str], after: str, limit: int) -> list[ExaminedRow]:
        """For an audit: rows whose ids begin with one of `runs` and a dot, by id, those behind `after`.

        Writes nothing, and waits for nobody's lock. Raises psycopg.Error.
        """
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class _Idle(Generic[S]):
    """Sessions that nobody uses. The last one used is the first one taken: the others may grow old."""

    def __init__(self) -> None:
        self.free: list[S] = []
        self.all: set[S] = set()

    def take(self) -> S | None:
        while self.free:
            session = self.free.pop()
            if not is_lost(session.connection):
                return session
            self.all.discard(session)
        return None

    def add(self, session: S) -> S:
        self.all.add(session)
        return session

    def put(self, session: S) -> None:
        pgconn = session.connection.pgconn
        if not is_lost(session.connection) and pgconn.transaction_status != TransactionStatus.IDLE:
            pgconn.finish()  # whatever went wrong: nobody may go on in somebody else's transaction
        if is_lost(session.connection):
            self.all.discard(session)
        else:
            self.free.append(session)


class PostgresStore:
    """In the service's own database. Opens as many connections as run at once, and keeps them."""

    remembers = True

    def __init__(
        self, url: str, limits: Limits, *, name: str, threads: int, prepare: bool, sealer: Sealer = PLAIN
    ) -> None:
        """`name` is shown in pg_stat_activity; `threads`: how many plans with plain functions run at once."""
        given = conninfo_to_dict(url)
        wanted = {"application_name": name, **DEFAULTS}
        self._url = make_conninfo(url, **{key: wanted[key] for key in wanted.keys() - given.keys()})
        self._limits = limits
        self._sealer = sealer
        self._options: dict[str, Any] = {} if prepare else {"prepare_threshold": None}
        self._async: _Idle[PostgresSession] = _Idle()
        self._sync: _Idle[SyncPostgresSession] = _Idle()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="kasaga-handler")
        self._late: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        """For late answers, which are looked for twice a second."""

    async def settle(self, plans: Plans, calls: Calls, *, sync: bool) -> list[Answer]:
        """Carry out a new plan."""
        if sync:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._settle_sync, plans, calls)
        session = self._async.take() or await self._open()
        try:
            answers = await drive_async(plans(), session, calls.call)
        except asyncio.CancelledError:
            await session.connection.close()  # in the middle of anything: its transaction is rolled back
            raise
        finally:
            self._async.put(session)
        return answers

    def _settle_sync(self, plans: Plans, calls: Calls) -> list[Answer]:
        session = self._sync.take() or self._open_sync()
        try:
            return drive_sync(plans(), session, calls.call_sync)
        finally:
            self._sync.put(session)

    async def _open(self) -> PostgresSession:
        try:
            connection = await HandlerConnection.connect(self._url, autocommit=True, **self._options)
        except psycopg.Error as error:
            raise InboxAway(error) from error
        return self._async.add(PostgresSession(connection, self._limits, self._sealer))

    def _open_sync(self) -> SyncPostgresSession:
        try:
            connection = SyncHandlerConnection.connect(self._url, autocommit=True, **self._options)
        except psycopg.Error as error:
            raise InboxAway(error) from error
        return self._sync.add(SyncPostgresSession(connection, self._limits, self._sealer))

    async def prepare(self) -> list[str]:
        """Bring the tables up to date."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            return await migrate(connection)

    async def lacks(self) -> list[str]:
        """Which migrations are missing. Raises psycopg.Error."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            return await pending(connection)

    async def purge(self, retention: float) -> int:
        """Forget a slice."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            return await purge_slice(connection, retention)

    async def examine(self, runs: Sequence[str], after: str, limit: int) -> list[ExaminedRow]:
        """Over a connection of its own: no handler waits for an audit."""
        async with await psycopg.AsyncConnection.connect(self._url) as connection:
            return await examine(connection, runs, after, limit, self._sealer)

    async def late_key(self) -> bytes | None:
        """Read the secret."""
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True) as connection:
            row = await (await connection.execute(statements()["late_secret"])).fetchone()
        return None if row is None else bytes(row[0])

    async def take_late(self, whose: Whose, seconds: float, limit: int) -> list[LateReply]:
        """Over a connection of its own, kept."""
        parameters = (seconds, list(whose.participants), list(whose.topics), limit)
        cursor = await (await self._for_late()).execute(statements()["late_take"], parameters, prepare=False)
        rows = await cursor.fetchall()
        return [LateReply(*row) for row in sorted(rows, key=lambda row: row[-1])]

    async def sent_late(self, seqs: Sequence[int]) -> None:
        """Forget them."""
        await (await self._for_late()).execute(statements()["late_sent"], (list(seqs),), prepare=False)

    async def _for_late(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        if self._late is None or self._late.closed:
            self._late = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
        return self._late

    async def close(self) -> None:
        """Close all connections; whatever still runs in a thread loses its own."""
        if self._late is not None:
            await self._late.close()
        for session in self._async.all:
            await session.connection.close()
        for in_thread in self._sync.all:
            in_thread.connection.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


class _LoopStore:
    """What the stores without a database share: every plan runs in the loop, plain functions in threads."""

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="kasaga-handler")

    async def settle(self, plans: Plans, calls: Calls, *, sync: bool) -> list[Answer]:
        """Carry out a new plan."""

        async def in_thread(work: Work, stored: bytes | None, _: None) -> bytes | Later | None:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, calls.call_sync, work, stored, None)

        return await drive_async(plans(), self._session(), in_thread if sync else calls.call)

    def _session(self) -> AsyncSession[None]:
        raise NotImplementedError

    async def prepare(self) -> list[str]:
        """Nothing to prepare."""
        return []

    async def late_key(self) -> bytes | None:
        """Nothing can be answered later: nobody would know of it."""
        return None

    async def take_late(self, whose: Whose, seconds: float, limit: int) -> list[LateReply]:
        """There are none."""
        return []

    async def sent_late(self, seqs: Sequence[int]) -> None:
        """There were none."""

    async def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class PlainStore(_LoopStore):
    """No inbox: every command runs, as often as it comes."""

    remembers = False

    def _session(self) -> AsyncSession[None]:
        return PlainSession(None)

    async def purge(self, retention: float) -> int:
        """Nothing to forget."""
        return 0

    async def examine(self, runs: Sequence[str], after: str, limit: int) -> list[ExaminedRow]:
        """Nothing is known."""
        return []


class MemoryStore(_LoopStore):
    """In memory, for tests: all that an inbox does, as long as the process lives."""

    remembers = True

    def __init__(self, inbox: MemoryInbox, threads: int = 4) -> None:
        """Several stores over one inbox behave like several processes over one database."""
        super().__init__(threads)
        self._inbox = inbox

    def _session(self) -> AsyncSession[None]:
        return MemorySession(self._inbox, None)

    async def late_key(self) -> bytes | None:
        """The inbox's."""
        return self._inbox.key

    async def take_late(self, whose: Whose, seconds: float, limit: int) -> list[LateReply]:
        """All there are; nobody else takes them."""
        late, self._inbox.late = self._inbox.late, []
        return late

    async def purge(self, retention: float) -> int:
        """Forget all that is old."""
        return self._inbox.purge()

    async def examine(self, runs: Sequence[str], after: str, limit: int) -> list[ExaminedRow]:
        """What there is."""
        return self._inbox.examine(runs, after, limit)
