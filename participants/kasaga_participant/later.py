"""Answers that come later: what answers a command by its token, when its handler has returned Deferred.

Station: the face that authors see, from `Participant.late`. Goes by the plan in `inbox/late.py`, in a
transaction of its own or in the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import psycopg
from psycopg import AsyncConnection, Connection
from psycopg.pq import TransactionStatus

from kasaga_wire.contracts import CommandSpec
from kasaga_wire.records import MAX_PROGRESS_CHARACTERS
from kasaga_wire.sealing import PLAIN, Sealer

from .calls import encode_error, encode_result
from .errors import CannotDefer, Refused, ResultTooLarge, RetryableError
from .inbox.late import Plan, Wish, answer_late, drive_late, drive_late_memory, drive_late_sync
from .inbox.memory import MemoryInbox
from .inbox.rows import DEFERRED, DONE, FAILED, REFUSED

R = TypeVar("R")

Details = Mapping[str, object]


class _Answering(Generic[R]):
    """What both kinds of `Late` share: the plans."""

    def __init__(
        self,
        spec: CommandSpec,
        url: str | None,
        inbox: MemoryInbox | None = None,
        *,
        sealer: Sealer = PLAIN,
    ) -> None:
        self._sealer = sealer
        self._spec = spec
        self._url = url
        self._inbox = inbox

    def _address(self) -> str:
        if self._url is None:
            raise CannotDefer(f"{self._spec.participant} runs without an inbox")
        return self._url

    def _done(self, token: str, result: R) -> Plan:
        return answer_late(
            self._spec.type, token, Wish(DONE, encode_result(self._spec, result)), sealer=self._sealer
        )

    def _error(self, token: str, outcome: str, error: Refused | RetryableError) -> Plan:
        return answer_late(self._spec.type, token, Wish(outcome, encode_error(error)), sealer=self._sealer)

    def _beat(self, token: str, progress: object) -> Plan:
        text = None if progress is None else json.dumps(progress)
        if text is not None and len(text) > MAX_PROGRESS_CHARACTERS:
            most = f"a progress of {len(text)} characters; {MAX_PROGRESS_CHARACTERS} fit"
            raise ResultTooLarge(most, remedy="tell less: it is for people")
        return answer_late(self._spec.type, token, Wish(DEFERRED, None, text), sealer=self._sealer)


class Late(_Answering[R]):
    """Answers one kind of command by token. From `Participant.late(Contract.command)`.

    Each method raises BadToken, NotDeferred, GivenUp, AlreadyAnswered, and psycopg.Error. With `connection`
    it is part of the caller's transaction, and holds with it or not at all; without, it is committed at once.
    """

    async def complete(
        self, token: str, result: R, *, connection: AsyncConnection[Any] | None = None
    ) -> None:
        """It is done, and this is the result. The same result twice is one answer."""
        await self._answer(self._done(token, result), connection)

    async def refuse(
        self,
        token: str,
        message: str,
        *,
        code: str | None = None,
        details: Details | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> None:
        """The business says no, for good: as `raise Refused(…)`, but what the handler wrote stays."""
        error = Refused(message, code=code, details=details)
        await self._answer(self._error(token, REFUSED, error), connection)

    async def fail(
        self,
        token: str,
        message: str,
        *,
        code: str | None = None,
        details: Details | None = None,
        connection: AsyncConnection[Any] | None = None,
    ) -> None:
        """It didn't work this time: the handler runs again, by the step's policy. What it wrote stays."""
        error = RetryableError(message, code=code, details=details)
        await self._answer(self._error(token, FAILED, error), connection)

    async def heartbeat(
        self, token: str, *, progress: object = None, connection: AsyncConnection[Any] | None = None
    ) -> None:
        """It is being worked at. `progress`: anything that JSON can say, for people who look at the saga.

        GivenUp says that nobody waits any more. May be called as often as one likes: the orchestrator is told
        three times in a heartbeat time at most.
        """
        await self._answer(self._beat(token, progress), connection)

    async def _answer(self, plan: Plan, connection: AsyncConnection[Any] | None) -> None:
        if connection is not None:
            if not connection.autocommit or connection.info.transaction_status != TransactionStatus.IDLE:
                await drive_late(plan, connection)
                return
            async with connection.transaction():
                await drive_late(plan, connection)
        elif self._inbox is not None:
            await drive_late_memory(plan, self._inbox)
        else:
            async with await psycopg.AsyncConnection.connect(self._address()) as own:
                await drive_late(plan, own)


class SyncLate(_Answering[R]):
    """The same as `Late`, for code that isn't async. From `Participant.sync_late(Contract.command)`."""

    def complete(self, token: str, result: R, *, connection: Connection[Any] | None = None) -> None:
        """It is done, and this is the result."""
        self._answer(self._done(token, result), connection)

    def refuse(
        self,
        token: str,
        message: str,
        *,
        code: str | None = None,
        details: Details | None = None,
        connection: Connection[Any] | None = None,
    ) -> None:
        """The business says no, for good."""
        self._answer(self._error(token, REFUSED, Refused(message, code=code, details=details)), connection)

    def fail(
        self,
        token: str,
        message: str,
        *,
        code: str | None = None,
        details: Details | None = None,
        connection: Connection[Any] | None = None,
    ) -> None:
        """It didn't work this time."""
        error = RetryableError(message, code=code, details=details)
        self._answer(self._error(token, FAILED, error), connection)

    def heartbeat(
        self, token: str, *, progress: object = None, connection: Connection[Any] | None = None
    ) -> None:
        """It is being worked at."""
        self._answer(self._beat(token, progress), connection)

    def _answer(self, plan: Plan, connection: Connection[Any] | None) -> None:
        if connection is not None:
            if not connection.autocommit or connection.info.transaction_status != TransactionStatus.IDLE:
                drive_late_sync(plan, connection)
                return
            with connection.transaction():
                drive_late_sync(plan, connection)
        else:
            with psycopg.connect(self._address()) as own:
                drive_late_sync(plan, own)
