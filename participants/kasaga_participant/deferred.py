"""What a handler returns instead of a result, when the answer comes later.

Station: made by handlers, taken by calls.py; what answers afterwards is in later.py.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar, cast

from .tx import BaseTx, SyncTx, Tx

T = TypeVar("T")

MIN_HEARTBEAT, MAX_HEARTBEAT = timedelta(seconds=1), timedelta(days=366)
"""Up to three heartbeats of one heartbeat time are rows of the saga's history."""


class Deferred:
    """What a handler returns when it has accepted its command and the answer comes later.

    What the handler wrote is committed. Whoever has the token answers, with `Participant.late`.
    """

    __slots__ = ("command_id", "heartbeat", "token")

    def __init__(self, tx: Tx | SyncTx, *, heartbeat: timedelta | None = None) -> None:
        """`heartbeat`: how long may pass between two heartbeats, before the step times out; None: for ever.

        The step's `schedule_to_close` bounds the whole. Raises CannotDefer where there is no inbox, and for a
        compensation; ValueError for a heartbeat below a second or above a year.
        """
        base: BaseTx[Any] = tx
        if heartbeat is not None and not MIN_HEARTBEAT <= heartbeat <= MAX_HEARTBEAT:
            raise ValueError(f"a heartbeat of {heartbeat}: it is to be between a second and a year")
        self.token: str = base.token
        """Whoever has it can answer the command: as secret as a password. The same in each attempt."""
        self.command_id = base.command.id
        self.heartbeat = heartbeat

    def __repr__(self) -> str:
        """Without the token: this may be logged."""
        return f"Deferred({self.command_id})"

    def instead_of(self, result: type[T]) -> T:
        """This very object, for type checkers a result: `return later.instead_of(Approval)`.

        For methods, which have the contract's types; a function may be declared `Approval | Deferred`.
        """
        return cast("T", self)
