"""What a world's processes do in threads, without threads; and where they may die."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from kasaga.orchestrator import claims, locking, loop, ownership, relay, source
from kasaga_wire.claims import Claims
from kasaga_wire.topics import Topics

WITH_CRASH_POINTS = (claims, locking, loop, ownership, relay, source)


class AtOnce(Executor):
    """Does what it is given in the thread that gives it."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        fn(*args, **kwargs)
        return Future()


def claims_desk(kept: Claims, topics: Topics) -> claims.Desk:
    return claims.Desk(kept, topics, threads=AtOnce())
