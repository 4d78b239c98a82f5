"""Connections that only the inbox may commit, and what the state of one tells after a handler.

Station: made by the pool, used by the Postgres sessions, and seen by handlers as `tx.connection`.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.abc import PQGen
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from ..errors import TransactionAborted, TransactionEnded, TransactionOver, TransactionOwned
from .algorithm import HandlerRaised
from .drive import InboxAway
from .rows import Work

T = TypeVar("T")

CONTENT_CLASSES = ("22", "23", "54")
"""SQLSTATE classes that blame what is written: data exception, constraint, program limit."""
STATE_CLASSES = ("08", "25", "57", "58")
"""SQLSTATE classes after which another connection is worth trying: lost, failed over, shut down."""


def _owned(what: str) -> NoReturn:
    raise TransactionOwned(f"a handler called {what}()")


class HandlerConnection(AsyncConnection[TupleRow]):
    """An async connection whose transaction belongs to the inbox."""

    asked = 0
    """How often the database was asked something, by the inbox or by a handler."""

    async def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """Everything that psycopg asks the database goes through here."""
        self.asked += 1
        return await super().wait(gen, *args, **kwargs)

    async def __aenter__(self) -> NoReturn:
        """Always refused: `async with tx.connection` would commit and close it."""
        _owned("__aenter__")

    async def commit(self) -> None:
        """Always refused: the reply has to be committed with the handler's work."""
        _owned("commit")

    async def rollback(self) -> None:
        """Always refused: raise an exception instead."""
        _owned("rollback")


class SyncHandlerConnection(Connection[TupleRow]):
    """The same, for handlers that are plain functions."""

    asked = 0
    """As in HandlerConnection."""

    def wait(self, gen: PQGen[T], *args: Any, **kwargs: Any) -> T:
        """As in HandlerConnection."""
        self.asked += 1
        return super().wait(gen, *args, **kwargs)

    def __enter__(self) -> NoReturn:
        """Always refused: `with tx.connection` would commit and close it."""
        _owned("__enter__")

    def commit(self) -> None:
        """Always refused: the reply has to be committed with the handler's work."""
        _owned("commit")

    def rollback(self) -> None:
        """Always refused: raise an exception instead."""
        _owned("rollback")


AnyConnection = HandlerConnection | SyncHandlerConnection


def is_lost(connection: AnyConnection) -> bool:
    """Whether nothing can be sent on this connection any more."""
    return connection.closed or connection.pgconn.status != ConnStatus.OK


def is_content(error: psycopg.Error) -> bool:
    """Whether the database blames what is written. Without a SQLSTATE psycopg itself refused to send it."""
    if error.sqlstate is None:
        return isinstance(error, psycopg.DataError)
    return error.sqlstate[:2] in CONTENT_CLASSES


def wants_another(error: psycopg.Error) -> bool:
    """Whether another connection may do better than this one, although this one still works."""
    return error.sqlstate is not None and error.sqlstate[:2] in STATE_CLASSES


def after_handler(connection: AnyConnection, work: Work, error: BaseException | None) -> None:
    """Check that the transaction is still the inbox's, and undo what a handler set on the connection.

    Raises HandlerRaised with `error`, or with what the handler did to the transaction; InboxAway if it is
    gone.
    """
    if is_lost(connection):
        raise InboxAway(error or psycopg.OperationalError("the connection is lost"), during=work)
    connection.row_factory = tuple_row
    status = connection.pgconn.transaction_status
    if status == TransactionStatus.IDLE:
        ended = TransactionEnded(f"the handler of {work.type} ended the transaction")
        ended.__cause__ = error
        raise HandlerRaised(ended, over=True)
    over = status not in (TransactionStatus.INTRANS, TransactionStatus.INERROR)
    if error is not None:
        raise HandlerRaised(error, over=over)
    if status == TransactionStatus.INERROR:
        raise HandlerRaised(TransactionAborted(f"{work.type} went on after a failed statement"))
    if over:
        running = TransactionOver(f"{work.type} returned while a statement was running")
        raise HandlerRaised(running, over=True)
