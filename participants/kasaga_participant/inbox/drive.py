"""Carries out a plan of the algorithm: the waiting, and nothing else.

Station: between the worker, which has a batch, and a place where rows are kept (`postgres.py`, `memory.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from .algorithm import Abort, Close, Effect, Guard, HandlerRaised, Hold, Invoke, Open, Plan, Read, Retreat
from .rows import Later, Work

T = TypeVar("T")
C_co = TypeVar("C_co", covariant=True)
C = TypeVar("C")

RowEffect = Open | Read | Hold | Guard | Retreat | Close | Abort


class InboxAway(Exception):
    """The connection is lost; nobody knows what was committed. Run the same plan again: its claim will tell.

    `during`: the record whose handler was running, if one was.
    """

    def __init__(self, error: BaseException, during: Work | None = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.during = during


class InboxError(Exception):
    """The database refuses a statement of the inbox itself; the transaction is rolled back.

    `content`: it refuses what is to be written (SQLSTATE class 22, 23 or 54), not its own state.
    """

    def __init__(self, error: BaseException, *, content: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.content = content


AsyncInvoke = Callable[[Work, bytes | None, C], Awaitable[bytes | Later | None]]
"""Runs the handler of a record: what it is, the stored result of what it undoes, the connection.

Gives the encoded result, None for an Avro null, Later for a command that is answered later.
"""
SyncInvoke = Callable[[Work, bytes | None, C], bytes | Later | None]
"""The same, for handlers that are plain functions."""


class AsyncSession(Protocol[C_co]):
    """One place to keep rows; takes one plan at a time. Raises InboxAway and InboxError."""

    async def rows(self, effect: RowEffect, /) -> Any:
        """Carry out one effect on the rows."""
        ...

    async def handler(self, effect: Invoke, invoke: AsyncInvoke[C_co], /) -> bytes | Later | None:
        """Run one handler. Raises HandlerRaised and InboxAway."""
        ...


class SyncSession(Protocol[C_co]):
    """The same, for a thread."""

    def rows(self, effect: RowEffect, /) -> Any:
        """Carry out one effect on the rows."""
        ...

    def handler(self, effect: Invoke, invoke: SyncInvoke[C_co], /) -> bytes | Later | None:
        """Run one handler. Raises HandlerRaised and InboxAway."""
        ...


async def drive_async(plan: Plan[T], session: AsyncSession[C], invoke: AsyncInvoke[C]) -> T:
    """Drive a plan to its end and give its value. Raises what the plan raises, InboxAway and InboxError."""
    try:
        effect: Effect = next(plan)
        while True:
            if not isinstance(effect, Invoke):
                effect = plan.send(await session.rows(effect))
                continue
            try:
                payload = await session.handler(effect, invoke)
            except HandlerRaised as raised:
                effect = plan.throw(raised)
            else:
                effect = plan.send(payload)
    except StopIteration as stop:
        value: T = stop.value
        return value


def drive_sync(plan: Plan[T], session: SyncSession[C], invoke: SyncInvoke[C]) -> T:
    """The same, in a thread."""
    try:
        effect: Effect = next(plan)
        while True:
            if not isinstance(effect, Invoke):
                effect = plan.send(session.rows(effect))
                continue
            try:
                payload = session.handler(effect, invoke)
            except HandlerRaised as raised:
                effect = plan.throw(raised)
            else:
                effect = plan.send(payload)
    except StopIteration as stop:
        value: T = stop.value
        return value
