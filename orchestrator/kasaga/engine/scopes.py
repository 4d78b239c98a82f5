"""A scope of a saga: a block whose steps are undone when an exception leaves it, and only those.

Only data, and what the block's beginning and end do by themselves; `scheduling.py` decides when it is over. A
scope is a step of its branch, so it has a path, a place in the history, and an outcome that the code is fed
when everything is undone. It is the home of the branches that are spawned in it, and waits for them.
"""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kasaga_wire.codec import Schemas

from ..errors import NotAwaitable
from .requests import Host, Request

if TYPE_CHECKING:
    from .branches import Branch


class Scope(Request):
    """`async with ctx.scope():`. As a request, the wait for what was done in it to be undone."""

    __slots__ = (
        "asked",
        "branch",
        "depth",
        "drained",
        "error",
        "failed",
        "name",
        "outer",
        "over",
        "spawned",
    )

    def __init__(self, host: Host, name: str) -> None:
        super().__init__(host)
        self.name = name
        self.branch: Branch | None = None
        """Whose code is in it."""
        self.asked: list[str] = []
        """Steps that were asked for in it, those of the branches in it included."""
        self.outer: list[str] | None = None
        """The same of what is around it; None where that is the saga."""
        self.spawned: dict[Branch, None] = {}
        """Branches that were spawned in it and haven't ended."""
        self.failed: list[Branch] = []
        """Those that ended with an error that nobody awaited."""
        self.drained: dict[str, Request] = {}
        """Steps of ended branches whose outcome is waited for before anything is undone."""
        self.error: BaseException | None = None
        """What leaves it."""
        self.over = False
        """What was done in it is being undone."""

    def describe(self) -> str:
        """Name the scope."""
        return f"scope {self.name}".rstrip()

    def read(self, payload: bytes, schemas: Schemas) -> None:
        """A scope has no result."""

    def __await__(self) -> Generator[Request, Any, Any]:
        """Raises NotAwaitable: it is a block."""
        self.hand_over()
        raise NotAwaitable("ctx.scope was awaited", remedy="Write `async with ctx.scope():`.")

    async def __aenter__(self) -> None:
        """Begin the block. Takes no time and no message."""
        host = self.host
        host.live()
        self.hand_over()
        assert host.scheduler is not None
        host.scheduler.enter_scope(self)

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> Exit:
        """End the block. An outcome that leaves it is held back until what was done in it is undone."""
        return Exit(self, error)


class Exit:
    """The end of a scope's block, which `async with` awaits. No coroutine: errors tell the author's line."""

    __slots__ = ("_error", "scope")

    def __init__(self, scope: Scope, error: BaseException | None) -> None:
        self.scope = scope
        self._error = error

    def __await__(self) -> Generator[Exit, Any, None]:
        """Suspend the branch until the scope is over.

        Raises what a spawned branch ended with, or that a time is over; NotAwaitable for one never begun.
        """
        scope, error = self.scope, self._error
        scheduler = scope.host.scheduler
        if not scope.host.attached:
            return
        if scope.branch is None or scheduler is None:
            raise NotAwaitable(f"{scope.describe()} is left, and was never begun")
        if scheduler.leave_scope(scope, error):
            return
        yield self
        found, scope.error = scope.error, None
        if found is not None and found is not error:
            raise found
