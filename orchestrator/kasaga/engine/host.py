"""What one live coroutine may know of the world, shared by its context and its driver."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Evicted

if TYPE_CHECKING:
    from .requests import Request

MAX_SWALLOWS = 10
"""How often a saga's code may swallow an interrupt before it is left alone."""


class Host:
    """One for each driver; `now` is the time of the event being processed, in microseconds."""

    __slots__ = ("_refused", "attached", "loose", "max_payload", "now", "run_id", "saga_id")

    def __init__(self, run_id: str, saga_id: str, max_payload: int) -> None:
        self.run_id = run_id
        self.saga_id = saga_id
        self.max_payload = max_payload
        self.now = 0
        self.attached = True
        """False while the coroutine is being closed."""
        self.loose: dict[Request, None] = {}
        """Requests that were made and not awaited yet."""
        self._refused = 0

    def live(self) -> None:
        """Refuse any use by a coroutine that is being closed.

        Code that swallows even that must reach an await all the same, where the driver gets hold of
        it: a loop that is refused for ever would never end. So it is refused only so often.
        """
        if not self.attached and self._refused < MAX_SWALLOWS:
            self._refused += 1
            raise Evicted("this coroutine is closed; the saga goes on from its history")
