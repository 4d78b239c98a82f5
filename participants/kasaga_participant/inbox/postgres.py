"""The inbox in Postgres: async, and sync in a thread. The two differ in how they wait, in nothing else.

Station: driven by `drive.py`; a session lives as long as its connection, and the pool hands it out.

Statements of one effect go out in one flush (pipeline mode), so that a batch costs two round trips besides
its handlers' own. Handlers run outside of it: in pipeline mode a cursor's `rowcount` is unknown until the
next synchronisation, and `if cursor.rowcount == 0: raise Refused(…)` would never refuse.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import AsyncCursor, Cursor
from psycopg.rows import TupleRow, tuple_row

from kasaga_wire.sealing import PLAIN, Sealer, place

from .algorithm import Close, Guard, Invoke, Outcome, Retreat
from .connections import (
    AnyConnection,
    HandlerConnection,
    SyncHandlerConnection,
    after_handler,
    is_content,
    is_lost,
    wants_another,
)
from .drive import AsyncInvoke, InboxAway, InboxError, RowEffect, SyncInvoke
from .memory import is_cancelled
from .rows import Later
from .statements import Limits, Script, Statement, script


class PostgresSession:
    """One async connection's view of the inbox."""

    def __init__(self, connection: HandlerConnection, limits: Limits, sealer: Sealer = PLAIN) -> None:
        """Take over the connection; it must be in autocommit mode."""
        self._sealer = sealer
        self.connection = connection
        self._limits = limits
        self._cursor = connection.cursor(row_factory=tuple_row)
        """For the statement whose rows are wanted."""
        self._rest = connection.cursor(row_factory=tuple_row)
        self._guarded_at = 0
        """`connection.asked` after the inbox's last statement: has a handler asked anything since?"""

    async def rows(self, effect: RowEffect) -> Any:
        """Carry out one effect. Raises InboxAway and InboxError."""
        if isinstance(effect, (Guard, Retreat)) and self.connection.asked == self._guarded_at:
            return None  # the handlers since the last savepoint have asked the database nothing
        sent = script(_sealed(effect, self._sealer), self._limits)
        try:
            rows = await self._execute(sent)
        except psycopg.Error as error:
            if not is_lost(self.connection):
                await self._roll_back()
            raise blame(self.connection, error) from error
        self._guarded_at = self.connection.asked
        return rows

    async def _execute(self, sent: Script) -> Any:
        if len(sent.statements) == 1:
            await self._send(self._cursor, sent.statements[0])
        else:
            async with self.connection.pipeline():
                for number, each in enumerate(sent.statements):
                    await self._send(self._cursor if number == sent.of else self._rest, each)
        return sent.result(await self._cursor.fetchall()) if sent.result is not None else None

    async def _send(self, cursor: AsyncCursor[TupleRow], each: Statement) -> None:
        await cursor.execute(each.sql, each.parameters, prepare=each.prepare)

    async def _roll_back(self) -> None:
        try:
            await self._cursor.execute("ROLLBACK")
        except psycopg.Error:
            await self.connection.close()

    async def handler(self, effect: Invoke, invoke: AsyncInvoke[HandlerConnection]) -> bytes | Later | None:
        """Run one handler and check what it left behind. Raises HandlerRaised and InboxAway."""
        failure: BaseException | None = None
        result: bytes | Later | None = None
        try:
            result = await invoke(effect.work, effect.stored, self.connection)
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            failure = error
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a handler may raise anything)
            failure = error
        after_handler(self.connection, effect.work, failure)
        return result


class SyncPostgresSession:
    """One sync connection's view of the inbox, for a thread."""

    def __init__(self, connection: SyncHandlerConnection, limits: Limits, sealer: Sealer = PLAIN) -> None:
        """Take over the connection; it must be in autocommit mode."""
        self._sealer = sealer
        self.connection = connection
        self._limits = limits
        self._cursor = connection.cursor(row_factory=tuple_row)
        """For the statement whose rows are wanted."""
        self._rest = connection.cursor(row_factory=tuple_row)
        self._guarded_at = 0
        """`connection.asked` after the inbox's last statement: has a handler asked anything since?"""

    def rows(self, effect: RowEffect) -> Any:
        """Carry out one effect. Raises InboxAway and InboxError."""
        if isinstance(effect, (Guard, Retreat)) and self.connection.asked == self._guarded_at:
            return None  # the handlers since the last savepoint have asked the database nothing
        sent = script(_sealed(effect, self._sealer), self._limits)
        try:
            rows = self._execute(sent)
        except psycopg.Error as error:
            if not is_lost(self.connection):
                self._roll_back()
            raise blame(self.connection, error) from error
        self._guarded_at = self.connection.asked
        return rows

    def _execute(self, sent: Script) -> Any:
        if len(sent.statements) == 1:
            self._send(self._cursor, sent.statements[0])
        else:
            with self.connection.pipeline():
                for number, each in enumerate(sent.statements):
                    self._send(self._cursor if number == sent.of else self._rest, each)
        return sent.result(self._cursor.fetchall()) if sent.result is not None else None

    def _send(self, cursor: Cursor[TupleRow], each: Statement) -> None:
        cursor.execute(each.sql, each.parameters, prepare=each.prepare)

    def _roll_back(self) -> None:
        try:
            self._cursor.execute("ROLLBACK")
        except psycopg.Error:
            self.connection.close()

    def handler(self, effect: Invoke, invoke: SyncInvoke[SyncHandlerConnection]) -> bytes | Later | None:
        """Run one handler and check what it left behind. Raises HandlerRaised and InboxAway."""
        failure: BaseException | None = None
        result: bytes | Later | None = None
        try:
            result = invoke(effect.work, effect.stored, self.connection)
        except (Exception, SystemExit) as error:  # noqa: BLE001 (a handler may raise anything)
            failure = error
        after_handler(self.connection, effect.work, failure)
        return result


def _sealed(effect: RowEffect, sealer: Sealer) -> RowEffect:
    """With the payloads as the table keeps them; they are sent as they are, and opened for an undo."""
    if sealer is PLAIN or not isinstance(effect, Close):
        return effect
    outcomes = (
        each if each.payload is None else Outcome(each.id, each.outcome, _seal(sealer, each))
        for each in effect.outcomes
    )
    return replace(effect, outcomes=tuple(outcomes))


def _seal(sealer: Sealer, outcome: Outcome) -> bytes | None:
    return sealer.seal(place("reply", outcome.id), outcome.payload or b"")


def blame(connection: AnyConnection, error: psycopg.Error) -> InboxAway | InboxError:
    """Whose fault a failed statement is: the connection's, the content's, or the database's."""
    if is_lost(connection) or wants_another(error):
        return InboxAway(error)
    return InboxError(error, content=is_content(error))
