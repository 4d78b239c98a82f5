"""Events that a saga awaits by a key: `await ctx.event(settled, key=order.id)`."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from datetime import timedelta
from typing import Any, TypeVar, cast

from kasaga_wire.codec import Codec

from .engine.awaited import EventNotAwaitable, key_fault, signal_name
from .engine.requests import Expect, Host
from .listening import Event
from .policy import MAX_SECONDS, Seconds, micros

V = TypeVar("V")


class Awaiting:
    """The part of the context that is about them."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    def _awaited(self) -> Mapping[str, Codec[Any]]:
        """The codecs of the events that the saga declares, by name."""
        raise NotImplementedError

    def event(
        self, event: Event[V], *, key: str, timeout: Seconds | None = None
    ) -> Coroutine[object, None, V]:
        """Wait for the event whose key is this one, and return it.

        An event is there for each saga that awaits its key when it comes, or within the Event's `keep` after
        it; each saga is given it once, in the order in which they came. May stand wherever a step may: in a
        gather, a race, a `ctx.timeout`.

        Args:
            event: one that the saga declares: `@saga(…, awaits=[settled])`.
            key: what the Event's `key` makes of a record; 1 to 256 printable characters.
            timeout: seconds to wait, durable as a sleep; None for no limit.

        Raises:
            SignalTimeout: none came in time. Uncaught, the saga is undone.
            EventNotAwaitable: the saga doesn't declare it, or key or time can't be used.
        """
        host = self._live()
        codec = self._awaited().get(event.name)
        if codec is None or codec.annotation != event.type:
            raise EventNotAwaitable(f"ctx.event({event!r}) isn't what @saga(awaits=...) declares")
        fault = key_fault(key)
        if fault:
            raise EventNotAwaitable(
                f"ctx.event({event!r}): {fault}", remedy="Give the key that the records have, as text."
            )
        length = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        if length is not None and not 0 < length <= MAX_SECONDS:
            raise EventNotAwaitable(
                f"ctx.event({event!r}, timeout={timeout!r})",
                remedy="Use more than 0 seconds, up to ten years.",
            )
        due_at = host.now + micros(length) if length is not None else 0
        expected = Expect(host, signal_name(event.name, key), codec, due_at)
        return cast("Coroutine[object, None, V]", expected)
