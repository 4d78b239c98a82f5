"""Branches of one saga: what runs side by side in it, and what its code may await beside steps.

Only data, and what a coroutine does by itself; `driver.py` runs them. A branch is named by its path:
the third await of a saga is `3`; if it is a gather, its branches are `3.1`, `3.2`, and so on. A branch
that is a mere step has that path; one that is a coroutine takes the steps `3.1.1`, `3.1.2`.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable
from types import TracebackType
from typing import Any

from ..errors import Interrupt, NotAwaitable, TimedOut
from .requests import Host, Request
from .scopes import Scope


class TimeIsOver(Interrupt):
    """Unwinds a block whose time is over, up to its `ctx.timeout`."""

    def __init__(self, timer: Timer) -> None:
        super().__init__("the time of a ctx.timeout is over")
        self.timer = timer


class More:
    """What few branches have."""

    __slots__ = ("drained", "failed", "home", "scopes", "spawned", "timers", "waiters")

    def __init__(self) -> None:
        self.scopes: list[Scope] = []
        """That it is in, the innermost last."""
        self.home: Scope | None = None
        """The scope that it was spawned in; None where that is no scope."""
        self.timers: list[Timer] = []
        """Of the blocks that it is in, the innermost last."""
        self.spawned: dict[Branch, None] = {}
        """Those that haven't ended."""
        self.failed: list[Branch] = []
        """Spawned ones that ended with an error that nobody awaited."""
        self.waiters: list[Branch] = []
        """Those that await it."""
        self.drained: dict[str, Request] = {}
        """Steps of ended branches whose outcome is waited for before the error is raised."""


class Branch:
    """One coroutine: the saga's own (its path is empty), a child of a gather or race, or a spawned one."""

    __slots__ = (
        "_more",
        "asked",
        "context",
        "coroutine",
        "depth",
        "ended",
        "error",
        "host",
        "index",
        "interrupt",
        "join",
        "known",
        "over",
        "parent",
        "path",
        "prefix",
        "run",
        "steps",
        "swallowed",
        "value",
        "waiting",
    )

    def __init__(
        self, host: Host, coroutine: Coroutine[Any, Any, Any] | None, parent: Branch | None = None
    ) -> None:
        self.host = host
        self.coroutine = coroutine
        """None until the saga's own is made."""
        self.parent = parent
        self.join: Join | None = None
        """The gather or race that it is a child of."""
        self.index = self.steps = self.swallowed = 0
        self.path = self.prefix = ""
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.asked: list[str] | None = None if parent is None else []
        """Steps that it and what it has waited for asked for. The saga's own branch can't lose: none."""
        self.context: contextvars.Context = contextvars.Context() if parent is None else parent.context.copy()
        self.run: Callable[..., Any] = self.context.run
        self.waiting: Request | Join | Branch | None = None
        """What its code awaits."""
        self.interrupt: TimeIsOver | None = None
        """What its code is unwound by, and hasn't let pass yet."""
        self.over = self.ended = self.known = False
        """Its code has returned; so have those that it spawned; somebody is given its error."""
        self.value: Any = None
        self.error: Exception | None = None
        self._more: More | None = None

    @property
    def has_more(self) -> bool:
        """Whether it has ever had more than steps, gathers and races."""
        return self._more is not None

    @property
    def more(self) -> More:
        """What few branches have."""
        if self._more is None:
            self._more = More()
        return self._more

    def __await__(self) -> Generator[Branch, Any, Any]:
        """Suspend the awaiting branch until this one has ended."""
        if self.ended:
            self.known = True
            if self.error is not None:
                raise self.error
            return self.value
        return (yield self)


class Join:
    """A gather or a race: waits for branches."""

    __slots__ = ("branch", "children", "drained", "error", "host", "over", "path", "pending", "results")

    word = ""

    def __init__(self, host: Host, children: list[Child]) -> None:
        self.host = host
        self.path = ""
        self.branch: Branch | None = None
        """Whose code awaits it."""
        self.children: list[Child | Branch] = [*children]
        self.results: list[Any] = [None] * len(children)
        self.pending = len(children)
        self.error: Exception | None = None
        self.over = False
        """Nothing of it is begun any more."""
        self.drained: dict[str, Request] = {}
        for child in children:
            if isinstance(child, Request | Join):
                child.hand_over()
        host.loose[self] = host.current

    def hand_over(self) -> None:
        """It is awaited now, by itself or by what it was given to. Raises NotAwaitable the second time."""
        if self not in self.host.loose:
            raise NotAwaitable(f"{self.describe()} was awaited a second time; call it again to do it again")
        del self.host.loose[self]

    def __await__(self) -> Generator[Join, Any, Any]:
        """Suspend the branch until what it waits for is there."""
        self.hand_over()
        return (yield self)

    def describe(self) -> str:
        """Name it as a person would."""
        return f"ctx.{self.word} of {len(self.children)}"

    def close(self) -> None:
        """Close what was never begun."""
        self.over = True
        for child in self.children:
            if not isinstance(child, Request | Branch):
                child.close()


Child = Request | Join | Coroutine[Any, Any, Any]
"""What a gather, a race or a spawn may be given."""


async def awaiting(awaited: Awaitable[Any]) -> Any:
    """Await something in a coroutine of its own."""
    return await awaited


def begin(host: Host, child: Child, parent: Branch | None) -> Branch:
    """Make a branch of what is no mere step, or is to be none."""
    if not isinstance(child, Request | Join):
        return Branch(host, child, parent)
    branch = Branch(host, awaiting(child), parent)
    host.loose[child] = branch  # until its coroutine awaits it
    return branch


class Gather(Join):
    """Waits for all."""

    __slots__ = ("keep",)

    word = "gather"

    def __init__(self, host: Host, children: list[Child], *, keep: bool) -> None:
        super().__init__(host, children)
        self.keep = keep
        """Errors are results."""


class Race(Join):
    """Waits for the first to end; with `skip`, for the first to succeed."""

    __slots__ = ("names", "skip")

    def __init__(self, host: Host, children: list[Child], *, skip: bool, names: tuple[str, ...] = ()) -> None:
        super().__init__(host, children)
        self.skip = skip
        self.names = names
        """With names its result is the winner's name and value."""

    word = "race"

    def result(self, index: int, value: Any) -> Any:
        """What the code is given."""
        return (self.names[index], value) if self.names else value


class Timer(Request):
    """A block with a time-out: a durable timer that is left when the block ends."""

    __slots__ = ("_length", "branch", "depth", "due_at", "fired")

    def __init__(self, host: Host, length: int) -> None:
        super().__init__(host)
        self._length = length
        self.due_at = self.depth = 0
        """`depth`: of how many others it is the inner one."""
        self.fired = False
        self.branch: Branch | None = None

    def describe(self) -> str:
        """Name the block's limit."""
        return "timeout"

    @property
    def error(self) -> TimedOut:
        """What the code is told when the time is over."""
        return TimedOut(f"the {self._length / 1_000_000:g} s of a ctx.timeout are over (step {self.path})")

    def __await__(self) -> Generator[Request, Any, Any]:
        """Raises NotAwaitable: it is a block."""
        self.hand_over()
        raise NotAwaitable("ctx.timeout was awaited", remedy="Write `async with ctx.timeout(seconds):`.")

    async def __aenter__(self) -> None:
        """Begin the block. Takes no time; the timer goes out with the next step."""
        host = self.host
        host.live()
        self.hand_over()
        assert host.scheduler is not None
        self.due_at = host.now + self._length
        host.scheduler.enter(self)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the block. Raises TimedOut if its time is over."""
        host, branch = self.host, self.branch
        assert branch is not None
        assert host.scheduler is not None
        if not host.attached:
            return
        if not self.fired:
            host.scheduler.leave(self)
            return
        if branch.interrupt is not None and branch.interrupt.timer is self:
            branch.interrupt = None
        if error is None or (isinstance(error, TimeIsOver) and error.timer is self):
            raise self.error from None


def asked_by(children: Iterable[Any]) -> list[str]:
    """All steps that branches have asked for, those of what they still wait for included."""
    paths: list[str] = []
    for child in children:
        if isinstance(child, Request):
            paths += [child.path] if child.path else []
        elif isinstance(child, Branch):
            paths += child.asked or ()
            if child.has_more:
                paths += asked_by(child.more.spawned)
                for scope in child.more.scopes:
                    paths += scope.outer or ()
                    paths += asked_by(scope.spawned)
            if isinstance(child.waiting, Join):
                paths += asked_by(child.waiting.children)
    return paths
