"""What the inbox's suite works with: records, a handler that does as it is told, and somebody to run both."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from kasaga_participant.inbox.late import LateReply, Plan
from kasaga_participant.inbox.rows import Answer, Kind, Later, Original, Rules, StoredRow, Work

DAY = 86_400.0
NOW = 1_700_000_000.0
RULES = Rules(max_age=7 * DAY, retention=14 * DAY)

Handler = Callable[[Work, bytes | None], Awaitable[bytes | Later | None]]


def encode_error(error: BaseException) -> bytes:
    return f"{type(error).__name__}: {error}".encode()


class Runner(Protocol):
    """One connection's worth of an inbox."""

    async def settle(
        self, works: Sequence[Work], handler: Handler, now: float = NOW, *, guarded: bool = False
    ) -> list[Answer]: ...


class Bench(Protocol):
    """One inbox."""

    async def runner(self) -> Runner: ...

    async def row(self, id_: str) -> StoredRow | None: ...

    async def waiting(self) -> int:
        """How many runners wait for another's claim."""
        ...

    async def forget(self, id_: str) -> None:
        """Purge one row."""
        ...

    async def key(self) -> bytes:
        """What tokens are made by."""
        ...

    async def late(self, plan: Plan) -> None:
        """Answer something later, in a transaction of its own."""
        ...

    async def replies(self) -> list[LateReply]:
        """Take the late replies that are to be sent."""
        ...

    async def close(self) -> None:
        """Let go of what the runners hold."""
        ...


def command(
    id_: str = "r.1", *, payload: bytes = b"order", type_: str = "shop.buy", sent: float = NOW
) -> Work:
    return Work(id_, type_, Kind.COMMAND, sent, hashlib.sha256(payload).digest(), None, None)


def undo(
    of: str = "r.1", *, done: bool = False, last: float = NOW, sent: float = NOW, type_: str = "shop.buy"
) -> Work:
    return Work(f"{of}~undo", "shop.unbuy", Kind.UNDO, sent, None, Original(of, type_, done, last), None)


def void(of: str = "r.1", *, done: bool = False, last: float = NOW, sent: float = NOW) -> Work:
    original = Original(of, "shop.buy", done, last)
    return Work(f"{of}~void", "kasaga.void", Kind.VOID, sent, None, original, None)


class Shop:
    """A handler that notes its runs and does as it was told."""

    def __init__(self, *behaviour: bytes | Later | BaseException) -> None:
        self.behaviour = list(behaviour)
        self.runs: list[tuple[str, bytes | None]] = []

    async def __call__(self, work: Work, stored: bytes | None) -> bytes | Later | None:
        self.runs.append((work.id, stored))
        what = self.behaviour.pop(0) if self.behaviour else b"bought"
        if isinstance(what, BaseException):
            raise what
        return what if work.kind is Kind.COMMAND else None

    @property
    def ids(self) -> list[str]:
        return [id_ for id_, _ in self.runs]


async def until(question: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    """Waits until the answer is true, for 20 seconds at most."""
    async with asyncio.timeout(20):
        while not await question():  # noqa: ASYNC110 (a database can't set our events)
            await asyncio.sleep(0.005)


def run_with(bench: Bench, test: Coroutine[Any, Any, None]) -> None:
    """Runs an async test, and tidies up after it."""

    async def tidily() -> None:
        try:
            await test
        finally:
            await bench.close()

    asyncio.run(tidily())


def in_loop(test: Callable[[Any, Bench], Coroutine[Any, Any, None]]) -> Callable[[Any, Bench], None]:
    """An async test of the suite as one that pytest can call."""

    def run(self: Any, bench: Bench) -> None:
        run_with(bench, test(self, bench))

    run.__name__ = test.__name__
    return run
