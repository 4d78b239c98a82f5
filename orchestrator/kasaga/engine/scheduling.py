"""Runs the branches of one saga: who is woken by what, and in which order.

One outcome is fed in, and everything runs until nothing is ready: children are begun in the order of
their arguments, and woken branches run first come, first served. The order follows from the outcomes
alone, so a replay that feeds them in their recorded order goes the same way.

What comes out are *effects*, in order: steps that are asked for, steps that nobody waits for any more
(`Left`), and the pivot.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import (
    BugInSaga,
    EarlyPivot,
    Nondeterminism,
    NotAwaitable,
    OpenEnds,
    SagaCodeError,
    StepError,
    TooManySteps,
)
from .attributes import SetAttributes
from .branches import Branch, Gather, Join, Race, TimeIsOver, Timer, asked_by, begin
from .ending import Broken, Ending, Guard, Raised, Renewed, Returned
from .failures import kind_of, suspended_at, words
from .model import CUT_OFF, Emit, Pivot
from .requests import MAX_SWALLOWS, Host, Renewal, Request
from .scopes import Exit, Scope
from .versions import Patch

MAX_DEPTH = 20
"""Branches within branches: paths grow with them."""

MAX_BRANCHES = 50_000
"""Branches that one saga may begin in all; as many as it may have steps."""


MAX_PATCHES = 1_000
"""Patches that one saga may ask for."""


class Scheduling(Ending):
    """All branches of one saga. `Driver` says what is fed in, and what errors and results are."""

    __slots__ = ()

    def __init__(self, host: Host, guard: Guard) -> None:
        super().__init__(host, guard)
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

    def _awaits(self, branch: Branch, wanted: object) -> None:
        """What is awaited is no step, or none that may be awaited here."""
        if isinstance(wanted, Exit):
            self._leaves(branch, wanted.scope)
        elif isinstance(wanted, Renewal) and branch is self.root and branch.interrupt is None:
            self._renews(branch, wanted)
        elif branch.interrupt is not None:
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
            if branch.asked is not None:
                branch.asked += asked_by(spawned)
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
            self._spawned_ended(parent, branch)

    def _spawned_ended(self, parent: Branch, branch: Branch) -> None:
        scope = branch.more.home if branch.has_more else None
        home, asked = parent.more if scope is None else scope, parent.asked
        if scope is not None:
            asked = scope.asked
        elif parent.more.scopes:
            asked = parent.more.scopes[0].outer
        home.spawned.pop(branch, None)
        if asked is not None:
            asked += branch.asked or ()
        if branch.has_more:
            for waiter in branch.more.waiters:
                branch.known = True
                self._wake(waiter, branch.value, branch.error)
        if branch.error is not None and not branch.known:
            home.failed.append(branch)
        if scope is not None and parent.waiting is scope:
            self._close_scope(scope)
        elif parent.over:
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
        drained = owner.more.drained if isinstance(owner, Branch) else owner.drained
        del drained[request.path]
        if drained:
            return
        if isinstance(owner, Join):
            self._joined(owner, None, owner.error)
        elif isinstance(owner, Scope):
            self._close_scope(owner)
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
        if parent.more.scopes and not self.between:
            branch.more.home = parent.more.scopes[-1]
            branch.more.home.spawned[branch] = None
        else:
            parent.more.spawned[branch] = None
        self._ready.append((branch, coroutine.send, None))

    def pivot(self) -> None:
        """Pass the point of no return, the second time without an effect. Raises EarlyPivot."""
        if self.host.current is not self.root:
            raise EarlyPivot("ctx.pivot in a branch: others of the saga may be undone yet")
        if self._live:
            lines = ", ".join(suspended_at(branch.coroutine) for branch in self._live)
            raise EarlyPivot(f"ctx.pivot while other branches run, at {lines}")
        if self.root.has_more and self.root.more.scopes:
            name = self.root.more.scopes[-1].describe()
            raise EarlyPivot(f"ctx.pivot in a {name}, which may be undone by itself yet")
        if not self.pivoted:
            self.pivoted = True
            self.effects.append(Pivot())

    def may_renew(self) -> None:
        """Look whether anything of the run is open. Raises OpenEnds."""
        root = self.root
        if self.host.current is not root:
            raise OpenEnds("ctx.continue_as_new in a branch: it ends the whole run")
        if self._live:
            lines = ", ".join(suspended_at(branch.coroutine) for branch in self._live)
            raise OpenEnds(f"ctx.continue_as_new while other branches run, at {lines}")
        if root.has_more and root.more.scopes:
            raise OpenEnds(
                f"ctx.continue_as_new in a {root.more.scopes[-1].describe()}, which isn't left yet"
            )
        timers: list[Request] = [*root.more.timers] if root.has_more else []
        out = [request for request in self.requests.values() if request not in timers]
        if out:
            names = ", ".join(f"{request.describe()} (step {request.path})" for request in out)
            raise OpenEnds(f"ctx.continue_as_new while steps are out: {names}")
        if self.host.loose:
            names = ", ".join(request.describe() for request in self.host.loose)
            raise OpenEnds(f"ctx.continue_as_new, and never awaited was what the saga called: {names}")

    def _renews(self, branch: Branch, renewal: Renewal) -> None:
        """The run is over: its blocks with time-outs as well."""
        if branch.has_more:
            timers, branch.more.timers = branch.more.timers, []
            self._let_go(timers, "")
        self._end = Renewed(renewal.payload)

    def emit(self, event: Emit) -> None:
        """Publish an event with what the turn decides."""
        self.effects.append(event)

    def set_attributes(self, changes: bytes) -> None:
        """Set search attributes with what the turn decides."""
        self.named = True
        self.effects.append(SetAttributes(changes))

    def patched(self, patch: str) -> bool:
        """Say whether the code is to take the new branch; it takes the same one each time that it asks."""
        known = self.patches.get(patch)
        if known is None:
            if len(self.patches) >= MAX_PATCHES:
                raise SagaCodeError(
                    f"more than {MAX_PATCHES} patches", remedy="Use a constant for a patch's id."
                )
            known = self.patches[patch] = self.replayed is None or patch in self.replayed
            if self.replayed is None:
                self.effects.append(Patch(patch))
        return known

    def deprecate(self, patch: str) -> None:
        """The old branch is gone. Raises Nondeterminism for a saga that stands on it."""
        if not self.patched(patch):
            raise Nondeterminism(
                f"the saga stands on the old branch of patch {patch!r}, which the code has no more"
            )

    # --- time-outs ---

    def enter(self, timer: Timer) -> None:
        """Begin a block: its timer is a step of the branch that is in it."""
        branch = self.host.current
        assert branch is not None
        timer.branch, timer.depth = branch, len(branch.more.timers)
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
        if isinstance(branch.waiting, Scope):
            self._time_is_over_later(timer, branch, branch.waiting)
            return
        if isinstance(branch.waiting, Join) and branch.asked is not None:
            branch.asked += asked_by(branch.waiting.children)
        found: list[Request] = []
        self._stop_waiting(branch, found)
        self._let_go(found, CUT_OFF)
        self._undo_broken(found)
        branch.interrupt, branch.swallowed = TimeIsOver(timer), 0
        self._wake(branch, None, branch.interrupt)

    def _time_is_over_later(self, timer: Timer, branch: Branch, scope: Scope) -> None:
        """The time is over while a scope of the block waits for what it undoes: that is waited for."""
        if branch.interrupt is not None and branch.interrupt.timer.depth < timer.depth:
            return  # its block is being left already
        ended_well, scope.error = scope.error is None, TimeIsOver(timer)
        branch.interrupt, branch.swallowed = scope.error, 0
        if ended_well:
            self._close_scope(scope)

    # --- scopes ---

    def enter_scope(self, scope: Scope) -> None:
        """Begin a scope: a step of the branch that is in it, which nothing is waited for yet."""
        branch = self.host.current
        assert branch is not None
        branch.steps += 1
        scope.path, scope.turn = f"{branch.prefix}{branch.steps}", self._turn
        self.effects.append(scope)
        if branch.asked is not None:
            branch.asked.append(scope.path)
        scope.branch, scope.outer, branch.asked = branch, branch.asked, scope.asked
        branch.more.scopes.append(scope)

    def leave_scope(self, scope: Scope, error: BaseException | None) -> bool:
        """End a scope; says whether nothing is to be waited for."""
        branch = scope.branch
        assert branch is not None
        scope.error = error or branch.interrupt
        if scope.error is not None or scope.spawned or scope.failed or branch.more.scopes[-1:] != [scope]:
            return False
        self._leave(branch, scope)
        return True

    def _leaves(self, branch: Branch, scope: Scope) -> None:
        """A branch waits at the end of a scope: for what is spawned in it, and for what is undone."""
        error = scope.error
        if branch.more.scopes[-1:] != [scope]:
            said = f"{scope.describe()} is left before one that was begun in it, or a second time"
            self._end = Broken(NotAwaitable(f"{said}, at {suspended_at(branch.coroutine)}"))
        elif error is not None and error is not branch.interrupt and (broken := self._judge(branch, error)):
            self._end = broken
        else:
            branch.waiting = scope
            self._close_scope(scope)

    def _close_scope(self, scope: Scope) -> None:
        """Go on with the end of a scope: branches first, then what is to be undone."""
        branch = scope.branch
        assert branch is not None
        if scope.error is None:
            failed = next((each for each in scope.failed if not each.known), None)
            if failed is not None:
                failed.known, scope.error = True, failed.error
        error = scope.error
        if error is not None and scope.spawned:
            spawned, scope.spawned = scope.spawned, {}
            scope.asked += asked_by(spawned)
            self._drain(scope, scope.drained, spawned)
        if scope.spawned or scope.drained:
            return
        if error is None or not scope.asked:
            self._leave(branch, scope)
            self._wake(branch, None, None)
            return
        scope.waiter = branch
        self.requests[scope.path] = scope
        failed_step = str(error.step) if isinstance(error, StepError) else ""
        self._undo_scope(scope, words(error), failed_step)

    def _leave(self, branch: Branch, scope: Scope) -> None:
        """A scope has ended, and nothing of it is to be undone."""
        self._pop(branch, scope)
        self._let_go([scope], "")

    def _scope_undone(self, scope: Scope) -> None:
        """What was done in a scope is undone: what has left it goes on."""
        branch = scope.branch
        assert branch is not None
        self._pop(branch, scope)
        self._wake(branch, None, None)

    def _pop(self, branch: Branch, scope: Scope) -> None:
        branch.more.scopes.pop()
        branch.asked = scope.outer
        if branch.asked is not None:
            branch.asked += scope.asked
