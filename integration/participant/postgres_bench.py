"""The inbox in a real Postgres, async and in threads, for the suites."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import psycopg

from kasaga_participant.courier import Whose
from kasaga_participant.inbox.algorithm import settle
from kasaga_participant.inbox.connections import HandlerConnection, SyncHandlerConnection
from kasaga_participant.inbox.drive import drive_async, drive_sync
from kasaga_participant.inbox.late import (
    LateReply,
    Plan,
    drive_late,
    drive_late_sync,
)
from kasaga_participant.inbox.postgres import PostgresSession, SyncPostgresSession
from kasaga_participant.inbox.rows import Answer, Later, StoredRow, Work
from kasaga_participant.inbox.statements import Limits
from kasaga_participant.inbox.upkeep import migrate, purge_slice
from kasaga_participant.store import PostgresStore
from participant.inbox_bench import (
    NOW,
    RULES,
    Handler,
    encode_error,
)

Result = bytes | Later | None
LIMITS = Limits(retention=RULES.retention, idle_in_transaction=60)
EFFECT = "INSERT INTO effect (command) VALUES (%s)"


class AsyncRunner:
    def __init__(self, connection: HandlerConnection, session: PostgresSession | None = None) -> None:
        self.connection = connection
        self.session = session or PostgresSession(connection, LIMITS)

    async def settle(
        self, works: Sequence[Work], handler: Handler, now: float = NOW, *, guarded: bool = False
    ) -> list[Answer]:
        async def invoke(work: Work, stored: bytes | None, connection: HandlerConnection) -> Result:
            await connection.execute(EFFECT, (work.id,))
            return await handler(work, stored)

        return await drive_async(
            settle(works, RULES, lambda: now, encode_error, guarded=guarded), self.session, invoke
        )


class ThreadRunner:
    def __init__(self, connection: SyncHandlerConnection) -> None:
        self.session = SyncPostgresSession(connection, LIMITS)

    async def settle(
        self, works: Sequence[Work], handler: Handler, now: float = NOW, *, guarded: bool = False
    ) -> list[Answer]:
        loop = asyncio.get_running_loop()

        async def run(work: Work, stored: bytes | None) -> Result:
            return await handler(work, stored)

        def invoke(work: Work, stored: bytes | None, connection: SyncHandlerConnection) -> Result:
            connection.execute(EFFECT, (work.id,))
            return asyncio.run_coroutine_threadsafe(run(work, stored), loop).result()

        plan = settle(works, RULES, lambda: now, encode_error, guarded=guarded)
        return await asyncio.to_thread(drive_sync, plan, self.session, invoke)


class PostgresBench:
    def __init__(self, url: str) -> None:
        self.url = url
        self.opened: list[HandlerConnection | SyncHandlerConnection] = []
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("CREATE TABLE effect (command text NOT NULL)")
        asyncio.run(self._migrate())

    async def _migrate(self) -> None:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            await migrate(connection)

    async def connect(self) -> HandlerConnection:
        connection = await HandlerConnection.connect(self.url, autocommit=True)
        self.opened.append(connection)
        return connection

    async def close(self) -> None:
        for connection in self.opened:
            if isinstance(connection, HandlerConnection):
                await connection.close()
            else:
                connection.close()

    async def runner(self) -> AsyncRunner:
        return AsyncRunner(await self.connect())

    async def ask(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            cursor = await connection.execute(sql.encode(), parameters)
            return await cursor.fetchall() if cursor.description else []

    async def row(self, id_: str) -> StoredRow | None:
        sql = "SELECT id, type, input_hash, outcome, payload, false FROM kasaga_inbox.inbox WHERE id = %s"
        rows = await self.ask(sql, id_)
        return StoredRow(*rows[0]) if rows else None

    async def effects(self) -> list[str]:
        return [row[0] for row in await self.ask("SELECT command FROM effect ORDER BY ctid")]

    async def waiting(self) -> int:
        [[number]] = await self.ask(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(number)

    async def forget(self, id_: str) -> None:
        await self.ask(
            "UPDATE kasaga_inbox.inbox SET used_at = now() - interval '20 days' WHERE id = %s", id_
        )
        async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as connection:
            assert await purge_slice(connection, RULES.retention) == 1

    async def key(self) -> bytes:
        [[key]] = await self.ask("SELECT key FROM kasaga_inbox.secret")
        return bytes(key)

    async def late(self, plan: Plan) -> None:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await drive_late(plan, connection)

    async def replies(self) -> list[LateReply]:
        store = PostgresStore(self.url, LIMITS, name="test", threads=1, prepare=True)
        try:
            taken = await store.take_late(Whose(["shop"], ["shop.replies"]), 60.0, 100)
            await store.sent_late([reply.seq for reply in taken])
        finally:
            await store.close()
        return taken


class ThreadBench(PostgresBench):
    async def late(self, plan: Plan) -> None:
        def run() -> None:
            with psycopg.connect(self.url) as connection:
                drive_late_sync(plan, connection)

        await asyncio.to_thread(run)

    async def runner(self) -> Any:
        connection = await asyncio.to_thread(SyncHandlerConnection.connect, self.url, autocommit=True)
        self.opened.append(connection)
        return ThreadRunner(connection)
