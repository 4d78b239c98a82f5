"""What a handler is given: its transaction, and the command it runs for.

Station: made by the worker around each call of a handler; imported by authors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from psycopg import AsyncConnection, Connection
from psycopg.rows import TupleRow

from .errors import CannotDefer, NoConnection, TransactionOver

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class CommandInfo:
    """The command a handler runs for.

    Attributes:
        id: the command's id, the same in each attempt: pass it on as the idempotency key of a call to the
        outside. attempt: counted from 1. type: such as `inventory.reserve`. participant: the contract's name.
        saga_id: what its starter called the saga. saga: the saga's name. saga_version: None where the sender
        has no versions. sent: when this attempt was sent. deadline: when its sender will stop waiting for
        this attempt; advisory, it is executed all the same. undoes: of a compensation, the id of the command
        that it undoes. reason: of a compensation, why. failed_step: of a compensation, the step whose failure
        set it off; None where there was none. drill: it is only a rehearsal, and will be rolled back: call
        nobody outside.
    """

    id: str
    attempt: int
    type: str
    participant: str
    saga_id: str
    saga: str
    saga_version: int | None
    sent: datetime
    deadline: datetime | None = None
    undoes: str | None = None
    reason: str | None = None
    failed_step: str | None = None
    drill: bool = False


class BaseTx(Generic[C]):
    """One command's transaction. Good until the handler returns."""

    __slots__ = ("_connection", "_over", "_token", "command")

    def __init__(
        self, connection: C | None, command: CommandInfo, token: Callable[[str], str] | None = None
    ) -> None:
        """`connection` None: there is no inbox, hence no transaction. `token`: makes a command's token."""
        self._connection = connection
        self._token = token
        self._over = False
        self.command = command

    @property
    def connection(self) -> C:
        """The transaction that the inbox row and the reply are committed in.

        Neither to be committed nor rolled back. Raises NoConnection where there is no inbox, TransactionOver
        when the handler has returned.
        """
        if self._over:
            raise TransactionOver(f"the transaction of {self.command.id} is over")
        if self._connection is None:
            raise NoConnection(f"{self.command.participant} runs without an inbox")
        return self._connection

    @property
    def token(self) -> str:
        """With what the command can be answered later, if its handler returns Deferred.

        Raises CannotDefer where there is no inbox, and for a compensation.
        """
        if self._token is None:
            raise CannotDefer(f"{self.command.participant} runs without an inbox")
        if self.command.undoes is not None:
            raise CannotDefer(f"{self.command.type} is a compensation: nobody would wait for it")
        return self._token(self.command.id)

    def close(self) -> None:
        """The handler has returned: whatever it left running finds no connection."""
        self._over = True


class Tx(BaseTx[AsyncConnection[TupleRow]]):
    """What async handlers get: `tx.connection` is a psycopg AsyncConnection."""

    __slots__ = ()


class SyncTx(BaseTx[Connection[TupleRow]]):
    """What plain functions get: `tx.connection` is a psycopg Connection."""

    __slots__ = ()
