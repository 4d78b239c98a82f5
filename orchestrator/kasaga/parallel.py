"""Branches of one saga, as authors write them: gather, race, select, timeout, spawn.

No thread and no event loop: the engine runs the branches one after the other, in an order that a
replay repeats (engine/scheduling.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Coroutine, Generator
from datetime import timedelta
from typing import Any, Generic, Literal, TypeVar, cast, overload

from kasaga_wire.nodes import clean_text

from .engine.branches import Branch, Child, Gather, Join, Race, Timer, awaiting, begin
from .engine.requests import ContinueCall, EmitCall, Host, PivotCall, Request
from .engine.scopes import Scope
from .errors import NotAwaitable, SagaCodeError
from .policy import MAX_SECONDS, Seconds, micros

MAX_NAME = 100
"""Characters of a scope's name."""

A = TypeVar("A")
B = TypeVar("B")
D = TypeVar("D")
E = TypeVar("E")
F = TypeVar("F")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Spawned(Generic[R_co]):
    """A branch in the background. Await it for its result, or leave it: the saga's end waits for it."""

    __slots__ = ("_branch",)

    def __init__(self, branch: Branch) -> None:
        self._branch = branch

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Wait for its end. Raises what it ended with, BranchEnded if it was ended before."""
        value: R_co = yield from self._branch.__await__()
        return value

    @property
    def done(self) -> bool:
        """It has ended, well or not."""
        return self._branch.ended


class Branching:
    """The part of the context that runs several things at once."""

    __slots__ = ()

    def _live(self) -> Host:
        raise NotImplementedError

    @overload
    def gather(
        self, first: Awaitable[A], second: Awaitable[B], /, *, return_exceptions: Literal[False] = False
    ) -> Coroutine[object, None, tuple[A, B]]: ...
    @overload
    def gather(
        self,
        first: Awaitable[A],
        second: Awaitable[B],
        third: Awaitable[D],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> Coroutine[object, None, tuple[A, B, D]]: ...
    @overload
    def gather(
        self,
        first: Awaitable[A],
        second: Awaitable[B],
        third: Awaitable[D],
        fourth: Awaitable[E],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> Coroutine[object, None, tuple[A, B, D, E]]: ...
    @overload
    def gather(
        self,
        first: Awaitable[A],
        second: Awaitable[B],
        third: Awaitable[D],
        fourth: Awaitable[E],
        fifth: Awaitable[F],
        /,
        *,
        return_exceptions: Literal[False] = False,
    ) -> Coroutine[object, None, tuple[A, B, D, E, F]]: ...
    @overload
    def gather(
        self, *branches: Awaitable[R], return_exceptions: Literal[False] = False
    ) -> Coroutine[object, None, tuple[R, ...]]: ...
    @overload
    def gather(
        self, first: Awaitable[A], second: Awaitable[B], /, *, return_exceptions: Literal[True]
    ) -> Coroutine[object, None, tuple[A | Exception, B | Exception]]: ...
    @overload
    def gather(
        self,
        first: Awaitable[A],
        second: Awaitable[B],
        third: Awaitable[D],
        /,
        *,
        return_exceptions: Literal[True],
    ) -> Coroutine[object, None, tuple[A | Exception, B | Exception, D | Exception]]: ...
    @overload
    def gather(
        self, *branches: Awaitable[R], return_exceptions: bool
    ) -> Coroutine[object, None, tuple[R | Exception, ...]]: ...
    def gather(
        self, *branches: Awaitable[Any], return_exceptions: bool = False
    ) -> Coroutine[object, None, Any]:
        """Run branches side by side and return all their results, in the order of the arguments.

        A branch is a command, `ctx.run`, `ctx.sleep`, or a coroutine of yours with steps in it. The
        first steps of all go out in one batch. When one ends with an outcome (a refusal, a failure,
        SagaFailed), the others take no new steps and begin no new attempts; what is in flight is
        waited for, then the outcome is raised here. What was done is undone if the saga is.

        Args:
            *branches: what to run; begun when the gather is awaited.
            return_exceptions: let all go on to their ends, and return outcomes among the results.

        Raises:
            SagaOutcome: the first outcome that a branch ended with.
            NotAwaitable: one of the branches is nothing that a saga can await.
        """
        host = self._live()
        made = Gather(host, _children(host, branches, "gather"), keep=return_exceptions)
        return cast("Coroutine[object, None, Any]", made)

    @overload
    def race(
        self, first: Awaitable[A], second: Awaitable[B], /, *, skip_failures: bool = False
    ) -> Coroutine[object, None, A | B]: ...
    @overload
    def race(
        self,
        first: Awaitable[A],
        second: Awaitable[B],
        third: Awaitable[D],
        /,
        *,
        skip_failures: bool = False,
    ) -> Coroutine[object, None, A | B | D]: ...
    @overload
    def race(self, *branches: Awaitable[R], skip_failures: bool = False) -> Coroutine[object, None, R]: ...
    def race(self, *branches: Awaitable[Any], skip_failures: bool = False) -> Coroutine[object, None, Any]:
        """Run branches side by side and return the result of the first that ends.

        The others have lost: their code is ended, and all their steps are undone while the saga goes
        on, those in flight first. The saga's end waits for that.

        Args:
            *branches: as for `gather`; at least one.
            skip_failures: a branch that ends with an outcome is out, and the race goes on without it;
                the last one's outcome is raised. Otherwise the first to end ends the race, well or not.

        Raises:
            SagaOutcome: what the branch that ended the race ended with.
            NotAwaitable: one of the branches is nothing that a saga can await, or there is none.
        """
        host = self._live()
        children = _children(host, branches, "race")
        if not children:
            raise NotAwaitable("ctx.race of nothing would never end", remedy="Give it at least one branch.")
        return cast("Coroutine[object, None, Any]", Race(host, children, skip=skip_failures))

    def select(self, **branches: Awaitable[R]) -> Coroutine[object, None, tuple[str, R]]:
        """As `race`, and say which was the first: `name, value = await ctx.select(paid=…, gone=…)`.

        Raises as `race` does.
        """
        host = self._live()
        children = _children(host, tuple(branches.values()), "select")
        if not children:
            raise NotAwaitable("ctx.select of nothing would never end", remedy="Give it at least one branch.")
        made = Race(host, children, skip=False, names=tuple(branches))
        return cast("Coroutine[object, None, tuple[str, R]]", made)

    def timeout(self, seconds: Seconds) -> Timer:
        """Limit the time of a block: `async with ctx.timeout(30): …`.

        When the time is over, TimedOut is raised at the block's end: the code in it is unwound, the
        steps that it was waiting for are undone, as after any time-out. What it had been told of
        before stays done, and is undone if the saga is.

        Args:
            seconds: from the block's beginning, durable as a sleep; more than 0, at most ten years.

        Raises:
            SagaCodeError: `seconds` isn't such a length of time.
            TimedOut: at the end of the block.
        """
        host = self._live()
        length = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not 0 < length <= MAX_SECONDS:
            raise SagaCodeError(
                f"ctx.timeout({seconds!r})", remedy="Use more than 0 seconds, up to ten years."
            )
        return Timer(host, micros(length))

    def scope(self, name: str = "") -> Scope:
        """Undo what a block has done when it fails, and nothing else: `async with ctx.scope(): …`.

        When an outcome leaves the block (a refusal, a failure, SagaFailed, a type in `fails_on`, a time that
        is over), the steps that were asked for in it are undone, last first, and the outcome goes on when
        that is done: whoever catches it around the block finds the world as it was before. A block that ends
        well undoes nothing; its steps are undone with what is around it. Branches spawned in it end with it.

        Args:
            name: what `describe`, `history` and the page call it, up to 100 characters.

        Raises:
            SagaCodeError: the name is too long.
        """
        host = self._live()
        if len(name) > MAX_NAME:
            said = f"the name of a ctx.scope has {len(name)} characters"
            raise SagaCodeError(said, remedy=f"Use {MAX_NAME} at most.")
        return Scope(host, clean_text(name, MAX_NAME))

    def spawn(self, branch: Awaitable[R]) -> Spawned[R]:
        """Begin a branch in the background, at the next await.

        It belongs to the branch, or the scope, that spawned it, which doesn't end before it: so the saga
        waits for its spawned branches when its function has returned. An outcome that nobody has awaited by
        then is raised there, and the saga is undone.

        Raises:
            TooManySteps: the saga has too many branches, or too deep ones.
            NotAwaitable: the branch is nothing that a saga can await.
        """
        host = self._live()
        (child,) = _children(host, (branch,), "spawn")
        made = begin(host, child, host.current)
        coroutine = made.coroutine
        assert coroutine is not None
        assert host.scheduler is not None
        try:
            host.scheduler.spawn(made)
        except SagaCodeError:
            coroutine.close()
            raise
        return Spawned(made)


def _children(host: Host, branches: tuple[Any, ...], word: str) -> list[Child]:
    """What may be a branch. Raises NotAwaitable, and nothing of the others is begun."""
    made: list[Child] = []
    try:
        made.extend(_child(host, each, word) for each in branches)
    except NotAwaitable:
        for each in branches:
            if inspect.iscoroutine(each):
                each.close()
        raise
    return made


def _child(host: Host, each: object, word: str) -> Child:
    if isinstance(each, Timer):
        raise NotAwaitable(f"ctx.{word} got a ctx.timeout", remedy="Write `async with ctx.timeout(...):`.")
    if isinstance(each, Scope):
        raise NotAwaitable(f"ctx.{word} got a ctx.scope", remedy="Write `async with ctx.scope():`.")
    if isinstance(each, PivotCall | EmitCall | ContinueCall):
        raise NotAwaitable(
            f"ctx.{word} got a {each.describe()}",
            remedy="Await it by itself: it is no step.",
        )
    if isinstance(each, Request | Join):
        if each.host is not host:
            raise NotAwaitable(f"ctx.{word} got {each.describe()} of another saga")
        return each
    if isinstance(each, Spawned):
        return awaiting(cast("Awaitable[Any]", each))
    if inspect.iscoroutine(each):
        return cast("Coroutine[object, None, Any]", each)
    raise NotAwaitable(f"ctx.{word} got {type(each).__module__}.{type(each).__qualname__}")
