"""Runs the branches of one saga: who is woken by what, and in which order.

One outcome is fed in, and everything runs until nothing is ready: children are begun in the order of
their arguments, and woken branches run first come, first served. The order follows from the outcomes
alone, so a replay that feeds them in their recorded order goes the same way.

What comes out are *effects*, in order: steps that are asked for, steps that nobody waits for any more
(`Left`), and the pivot.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, NamedTuple

from ..errors import (
    BranchEnded,
    BranchInterrupt,
    BugInSaga,
    EarlyPivot,
    Interrupt,
    NotAwaitable,
    SagaCodeError,
    TooManySteps,
)
from .branches import Branch, Gather, Join, Race, TimeIsOver, Timer, asked_by, begin
from .failures import kind_of, suspended_at
from .model import CUT_OFF, DRAINED, LOST, Pivot
from .requests import MAX_SWALLOWS, Expect, Host, Pause, Request

MAX_DEPTH = 20
"""Branches within branches: paths grow with them."""

MAX_BRANCHES = 50_000
"""Branches that one saga may begin in all; as many as it may have steps."""

GRAVEYARD: list[Coroutine[Any, Any, Any]] = []
"""Coroutines that refuse to close: kept, so that the collector never runs their code. Count them."""

Guard = Callable[[Callable[[Any], Any], Any], Any]
"""Calls a function with one argument; the shell's puts a watchdog around it."""


def unguarded(function: Callable[[Any], Any], argument: Any) -> Any:
    """Call without a watchdog."""
    return function(argument)


class Left(NamedTuple):
    """The code waits no more for these steps; `why` as in the model's Leave."""

    steps: tuple[str, ...]
    why: str


class Returned(NamedTuple):
    """The code returned; the result is encoded."""

    result: bytes


class Raised(NamedTuple):
    """The code let a business outcome pass: the saga is to be undone."""

    code: str
    reason: str
    step: str


class Broken(NamedTuple):
    """The code can't go on: a bug, a hang, something unreadable. The driver is of no more use."""

    error: SagaCodeError


class Scheduling:
    """All branches of one saga. `Driver` says what is fed in, and what errors and results are."""

    __slots__ = (
        "_begun",
        "_end",
        "_live",
        "_ready",
        "_turn",
        "effects",
        "guard",
        "host",
        "pivoted",
        "requests",
        "root",
    )

    def __init__(self, host: Host, guard: Guard) -> None:
        self.host = host
        self.guard = guard
        self.root = Branch(host, None)
        self.requests: dict[str, Request] = {}
        """By path, the steps that are asked for and have no outcome yet, as far as the code knows."""
        self.effects: list[Request | Left | Pivot] = []
        """Of the last turn."""
        self.pivoted = False
        """The code has passed its pivot."""
        self._live: dict[Branch, None] = {}
        """Those beside the saga's own whose coroutine hasn't ended, oldest first."""
        self._ready: list[tuple[Branch, Callable[[Any], Any], Any]] = []
        self._end: Returned | Raised | Broken | None = None
        self._turn = self._begun = 0
        host.scheduler = self

    def _judge(self, branch: Branch, error: BaseException) -> Broken | None:
        """Tell a bug from a business outcome, which is None."""
        raise NotImplementedError  # pragma: no cover - Driver has it

    def _conclude(self) -> Returned | Raised | Broken:
        """Say what the end of the saga's own branch means."""
        raise NotImplementedError  # pragma: no cover - Driver has it

    # --- running code ---

    def _run(self, branch: Branch, function: Callable[[Any], Any], argument: Any) -> None:
        """Run a branch's code to its next await; whatever it raises, this doesn't."""
        self.host.current = branch
        branch.waiting = None
        try:
            wanted = self.guard(partial(branch.run, function), argument)
        except StopIteration as stop:
            branch.value = stop.value
            self._over(branch)
        except BaseException as error:  # noqa: BLE001 - a saga's bug must not end the loop
            self._threw(branch, error)
        else:
            if isinstance(wanted, Request) and wanted.host is self.host and branch.interrupt is None:
                branch.waiting = wanted
                wanted.waiter = branch
                self._ask(branch, wanted)
            else:
                self._awaits(branch, wanted)

    def _run_ready(self) -> None:
        while self._ready and not self._ended():
            ready, self._ready = self._ready, []
            for branch, function, argument in ready:
                if not branch.ended and not self._ended():
                    self._run(branch, function, argument)

    def _ended(self) -> bool:
        # A method, since mypyc believes mypy: what was None before a call is read as None after it.
        return self._end is not None

    def _wake(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        """Let a branch go on in its turn."""
        assert branch.coroutine is not None
        if error is None:
            self._ready.append((branch, branch.coroutine.send, value))
        else:
            self._ready.append((branch, branch.coroutine.throw, error))

    def _awaits(self, branch: Branch, wanted: object) -> None:
        """What is awaited is no step, or none that may be awaited here."""
        if branch.interrupt is not None:
            self._insist(branch, wanted)
        elif isinstance(wanted, Join) and wanted.host is self.host:
            branch.waiting = wanted
            self._open(branch, wanted)
        elif isinstance(wanted, Branch) and wanted.host is self.host:
            branch.waiting = wanted
            wanted.more.waiters.append(branch)
        else:
            where = suspended_at(branch.coroutine)
            self._end = Broken(NotAwaitable(f"the saga awaits {kind_of(wanted)} at {where}"))

    def _insist(self, branch: Branch, wanted: object) -> None:
        """The code has swallowed what unwinds it: throw it again, but not for ever."""
        if isinstance(wanted, Join):
            wanted.close()
        branch.swallowed += 1
        if branch.swallowed < MAX_SWALLOWS:
            self._wake(branch, None, branch.interrupt)
            return
        where = suspended_at(branch.coroutine)
        said = f"the time of its ctx.timeout is over, and the saga's code goes on in the block, at {where}"
        self._end = Broken(BugInSaga(said))

    def _threw(self, branch: Branch, error: BaseException) -> None:
        broken = self._judge(branch, error)
        if broken is not None:
            self._end = broken
            return
        assert isinstance(error, Exception)
        branch.error = error
        self._over(branch)

    # --- ends ---

    def _over(self, branch: Branch) -> None:
        """A branch's code has ended; the branch has when those that it spawned have."""
        branch.over = True
        self._live.pop(branch, None)
        if branch.has_more:
            self._close_branch(branch)
        else:
            self._finish(branch)

    def _close_branch(self, branch: Branch) -> None:
        more = branch.more
        if branch.error is None:
            failed = next((each for each in more.failed if not each.known), None)
            if failed is not None:
                failed.known, branch.error = True, failed.error
        if branch.error is not None and more.spawned:
            spawned, more.spawned = more.spawned, {}
            self._drain(branch, more.drained, spawned)
        if not more.spawned and not more.drained:
            self._finish(branch)

    def _finish(self, branch: Branch) -> None:
        branch.ended = True
        parent = branch.parent
        if parent is None:
            self._end = self._conclude()
        elif branch.join is not None:
            self._child_ended(branch.join, branch.index, branch.value, branch.error)
        else:
            parent.more.spawned.pop(branch, None)
            if parent.asked is not None:
                parent.asked += branch.asked or ()
            if branch.has_more:
                for waiter in branch.more.waiters:
                    branch.known = True
                    self._wake(waiter, branch.value, branch.error)
            if branch.error is not None and not branch.known:
                parent.more.failed.append(branch)
            if parent.over:
                self._close_branch(parent)

    def _child_ended(self, join: Join, index: int, value: Any, error: Exception | None) -> None:
        join.pending -= 1
        if isinstance(join, Race):
            if error is not None and join.skip and join.pending:
                return
            join.over = True
            self._lose(child for place, child in enumerate(join.children) if place != index)
            self._joined(join, join.result(index, value), error)
            return
        assert isinstance(join, Gather)
        if error is None or join.keep:
            join.results[index] = value if error is None else error
            if not join.pending:
                self._joined(join, tuple(join.results), None)
            return
        join.error, join.over = error, True
        self._drain(join, join.drained, join.children)
        if not join.drained:
            self._joined(join, None, error)

    def _joined(self, join: Join, value: Any, error: Exception | None) -> None:
        assert join.branch is not None
        if join.branch.asked is not None:
            join.branch.asked += asked_by(join.children)
        self._wake(join.branch, value, error)

    def _drained(self, request: Request) -> None:
        """The outcome of a step is there that only its ended branch's gather waits for, or its spawner."""
        owner = request.waiter
        assert owner is not None
        drained = owner.drained if isinstance(owner, Join) else owner.more.drained
        del drained[request.path]
        if drained:
            return
        if isinstance(owner, Join):
            self._joined(owner, None, owner.error)
        else:
            self._close_branch(owner)

    # --- beginnings ---

    def _ask(self, branch: Branch, request: Request) -> None:
        branch.steps += 1
        request.path = path = f"{branch.prefix}{branch.steps}"
        request.turn = self._turn
        self.requests[path] = request
        self.effects.append(request)
        if branch.asked is not None:
            branch.asked.append(path)

    def _open(self, branch: Branch, join: Join) -> None:
        """Begin a gather or a race: children in the order of their arguments."""
        branch.steps += 1
        join.branch, join.path = branch, f"{branch.prefix}{branch.steps}"
        if not join.children:
            self._joined(join, (), None)
        for index, child in enumerate(join.children):
            if join.over or self._end is not None:
                join.close()
                return
            path = f"{join.path}.{index + 1}"
            if isinstance(child, Request):
                child.waiter, child.index, child.path, child.turn = join, index, path, self._turn
                self.requests[path] = child
                self.effects.append(child)
                continue
            assert not isinstance(child, Branch)
            begun = begin(self.host, child, branch)
            begun.join, begun.index = join, index
            join.children[index] = begun
            error = self._begin_branch(begun, path)
            if error is not None:
                self._end = Broken(error)
            else:
                assert begun.coroutine is not None
                self._run(begun, begun.coroutine.send, None)

    def _begin_branch(self, branch: Branch, path: str) -> SagaCodeError | None:
        """Give a branch its path; says why there can't be one more."""
        branch.path, branch.prefix = path, f"{path}."
        self._live[branch] = None
        self._begun += 1
        if self._begun > MAX_BRANCHES:
            return TooManySteps(f"the saga has begun {MAX_BRANCHES} branches and asks for more")
        if branch.depth > MAX_DEPTH:
            return TooManySteps(f"branch {path} is {branch.depth} branches deep, {MAX_DEPTH} are the most")
        return None

    def spawn(self, branch: Branch) -> None:
        """Begin a branch, as soon as the running one awaits something. Raises TooManySteps."""
        parent, coroutine = branch.parent, branch.coroutine
        assert parent is not None
        assert coroutine is not None
        parent.steps += 1
        error = self._begin_branch(branch, f"{parent.prefix}{parent.steps}")
        if error is not None:
            raise error
        parent.more.spawned[branch] = None
        self._ready.append((branch, coroutine.send, None))

    def pivot(self) -> None:
        """Pass the point of no return, the second time without an effect. Raises EarlyPivot."""
        if self.host.current is not self.root:
            raise EarlyPivot("ctx.pivot in a branch: others of the saga may be undone yet")
        if self._live:
            lines = ", ".join(suspended_at(branch.coroutine) for branch in self._live)
            raise EarlyPivot(f"ctx.pivot while other branches run, at {lines}")
        if not self.pivoted:
            self.pivoted = True
            self.effects.append(Pivot())

    # --- time-outs ---

    def enter(self, timer: Timer) -> None:
        """Begin a block: its timer is a step of the branch that is in it."""
        branch = self.host.current
        assert branch is not None
        timer.branch = branch
        branch.more.timers.append(timer)
        self._ask(branch, timer)

    def leave(self, timer: Timer) -> None:
        """A block has ended in time."""
        assert timer.branch is not None
        timer.branch.more.timers.remove(timer)
        self._let_go([timer], "")

    def _time_is_over(self, timer: Timer) -> None:
        """Cut off what the block awaits, and unwind it."""
        branch = timer.branch
        assert branch is not None
        timer.fired = True
        branch.more.timers.remove(timer)
        if isinstance(branch.waiting, Join) and branch.asked is not None:
            branch.asked += asked_by(branch.waiting.children)
        found: list[Request] = []
        self._stop_waiting(branch, found)
        self._let_go(found, CUT_OFF)
        branch.interrupt, branch.swallowed = TimeIsOver(timer), 0
        self._wake(branch, None, branch.interrupt)

    # --- ending what isn't wanted any more ---

    def _let_go(self, found: Iterable[Request], why: str, others: Iterable[str] = ()) -> None:
        """Nobody waits for these steps, nor did for the others; what was never sent is as if never asked."""
        steps = set(others)
        for request in found:
            del self.requests[request.path]
            if request.turn == self._turn:
                self.effects.remove(request)
                steps.discard(request.path)
            else:
                steps.add(request.path)
        if steps:
            self.effects.append(Left(tuple(sorted(steps, key=in_order)), why))

    def _lose(self, children: Iterable[Any]) -> None:
        """End branches that lost: all their steps are to be undone."""
        losers = list(children)
        asked = asked_by(losers)
        found: list[Request] = []
        for child in losers:
            self._stop(child, found)
        self._let_go(found, LOST, asked)

    def _drain(self, owner: Join | Branch, waits_for: dict[str, Request], children: Iterable[Any]) -> None:
        """End branches, and let their owner wait for the outcome of what is in flight."""
        found: list[Request] = []
        for child in children:
            self._stop(child, found)
        asleep: list[Request] = []
        drained: list[str] = []
        for request in found:
            if isinstance(request, Pause | Timer | Expect) or request.turn == self._turn:
                asleep.append(request)
                continue
            waits_for[request.path] = request
            request.waiter = owner
            if request.index >= 0:  # else it is drained already, by a gather that is ended now
                drained.append(request.path)
                request.index = -1
        self._let_go(asleep, "")
        if drained:
            self.effects.append(Left(tuple(sorted(drained, key=in_order)), DRAINED))

    def _stop(self, child: Any, found: list[Request]) -> None:
        """End one branch and all below it; adds its open steps to `found`."""
        if isinstance(child, Request):
            if self.requests.get(child.path) is child:
                found.append(child)
        elif not isinstance(child, Branch):
            child.close()
        elif not child.ended:
            child.ended = True
            child.error = BranchEnded(f"branch {child.path} was ended before its end")
            self._stop_waiting(child, found)
            if child.has_more:
                self._stop_more(child, found)
            if not child.over:
                self._throw_out(child, BranchInterrupt("this branch is ended: another one failed, or won"))

    def _stop_more(self, branch: Branch, found: list[Request]) -> None:
        more = branch.more
        found += more.timers
        found += more.drained.values()
        for spawned in more.spawned:
            self._stop(spawned, found)
        for waiter in more.waiters:
            self._wake(waiter, None, branch.error)

    def _stop_waiting(self, branch: Branch, found: list[Request]) -> None:
        """End what a branch waits for."""
        waiting, branch.waiting = branch.waiting, None
        if isinstance(waiting, Request):
            found.append(waiting)
        elif isinstance(waiting, Join):
            waiting.over = True
            for child in waiting.children:
                self._stop(child, found)
            found += waiting.drained.values()
        elif waiting is not None:
            waiting.more.waiters.remove(branch)

    def _throw_out(self, branch: Branch, interrupt: Interrupt) -> None:
        """Throw until the coroutine ends, with the context detached: no `ctx` use does anything."""
        coroutine, host = branch.coroutine, self.host
        self._live.pop(branch, None)
        if coroutine is None or branch.over:
            return
        detached = host.detach(branch)
        for _ in range(MAX_SWALLOWS):
            try:
                wanted = self.guard(partial(branch.run, coroutine.throw), interrupt)
            except BaseException:  # noqa: BLE001 - the author's code ends as it likes; nothing of it counts
                break
            if isinstance(wanted, Join):
                wanted.close()
        else:
            GRAVEYARD.append(coroutine)
        host.attached = not detached
        for made in [made for made, by in host.loose.items() if by is branch]:
            del host.loose[made]
            if isinstance(made, Join):
                made.close()

    def close(self, interrupt: Interrupt) -> None:
        """End all of the saga's code: the innermost branches first."""
        self.requests.clear()
        self._ready.clear()
        self.host.attached = False
        for branch in [*reversed(self._live), self.root]:
            self._throw_out(branch, interrupt)
        for made in self.host.loose:
            if isinstance(made, Join):
                made.close()
        self.host.part()


def in_order(path: str) -> tuple[int, ...]:
    """Sort paths by this: steps of one branch stand in the order in which they were asked for."""
    return tuple(map(int, path.split(".")))
