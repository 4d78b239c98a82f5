"""Locks, as authors write them: `await ctx.lock(key)`, and `@saga(locks=...)`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar, cast

from .engine.keylocks import MAX_KEY, MAX_KEYS
from .engine.requests import Host, LockCall
from .errors import BadKey

A = TypeVar("A")
R = TypeVar("R")


class Locking:
    """The part of the context that keeps other sagas away."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    def lock(self, *keys: str, wait: bool = True) -> Coroutine[object, None, None]:
        """Wait until no other saga holds any of these keys, and hold them to this saga's end.

        Sagas get a key in the order in which they asked for it, whichever process runs them. It is held while
        the saga is undone as well, and let go of when it is COMPLETED, COMPENSATED or TERMINATED; a saga that
        is STUCK or PAUSED holds it. To ask again for what the saga holds does nothing. A lock keeps out those
        that ask for it, and nobody else.

        Args:
            *keys: 1 to 100, each a text of 1 to 200 characters without control characters. A saga that needs
                several asks for them together: then it can't be part of a deadlock with others that do so.
            wait: False to be refused when another saga holds one of them, or waits for it.

        Raises:
            LockRefused: without `wait`: another saga has a key. None of them is held because of this call.
            Deadlock, which is a LockRefused: to wait would be to wait for ever. It names the cycle.
            BadKey: that can't be keys.
        """
        return cast(
            "Coroutine[object, None, None]", LockCall(self._live(), checked(keys, "ctx.lock"), wait=wait)
        )


def checked(keys: Iterable[object], where: str) -> tuple[str, ...]:
    """Return keys sorted, each once. Raises BadKey."""
    if isinstance(keys, str):
        raise BadKey(f"{where}: {keys!r} is one text", remedy="Give a list of keys.")
    found: set[str] = set()
    for key in keys:
        if not isinstance(key, str) or not 0 < len(key) <= MAX_KEY or not key.isprintable():
            said = repr(key) if len(repr(key)) <= MAX_KEY else f"a {type(key).__name__}"
            raise BadKey(
                f"{where}: {said} can't be a key",
                remedy=f"Use a text of 1 to {MAX_KEY} printable characters, such as f'order:{{order.id}}'.",
            )
        found.add(key)
    if not 0 < len(found) <= MAX_KEYS:
        raise BadKey(f"{where}: {len(found)} keys", remedy=f"Ask for 1 to {MAX_KEYS} keys at a time.")
    return tuple(sorted(found))


class _Locks(Protocol):
    def lock(self, *keys: str, wait: bool = True) -> Coroutine[object, None, None]: ...


def locked(
    function: Callable[[Any, A], Coroutine[Any, Any, R]], locks: Callable[[A], Iterable[str]]
) -> Callable[[Any, A], Coroutine[Any, Any, R]]:
    """Return a saga's function that asks for what `locks` makes of its argument before anything else."""

    @functools.wraps(function)
    async def first_locks(ctx: _Locks, argument: A) -> R:
        given = locks(argument)
        if keys := given if isinstance(given, str) else tuple(given):
            await ctx.lock(*checked(keys, "@saga(locks=...)"))
        return await function(ctx, argument)

    return first_locks
