"""Ends what isn't wanted any more in one saga: branches, what they wait for, and the whole of its code.

The lower half of `scheduling.py`, with all that is known of a saga's live code. What is ended leaves
effects: steps that nobody waits for any more (`Left`), and why.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, NamedTuple

from ..errors import BranchEnded, BranchInterrupt, Interrupt, SagaCodeError
from .attributes import SetAttributes
from .branches import Branch, Join, Timer, asked_by
from .model import CUT_OFF, DRAINED, LOST, SCOPED, Emit, Pivot
from .requests import MAX_SWALLOWS, Expect, Host, LockCall, Pause, Request
from .scopes import Scope
from .versions import Patch

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
    reason: str = ""
    failed: str = ""


class Returned(NamedTuple):
    """The code returned; the result is encoded."""

    result: bytes


class Renewed(NamedTuple):
    """The code asks to go on as a new run; the input is encoded."""

    input: bytes


class Raised(NamedTuple):
    """The code let a business outcome pass: the saga is to be undone."""

    code: str
    reason: str
    step: str


class Broken(NamedTuple):
    """The code can't go on: a bug, a hang, something unreadable. The driver is of no more use."""

    error: SagaCodeError


class Ending:
    """All branches of one saga, and how they are ended before their ends."""

    __slots__ = (
        "_begun",
        "_end",
        "_live",
        "_ready",
        "_turn",
        "between",
        "effects",
        "guard",
        "host",
        "named",
        "patches",
        "pivoted",
        "replayed",
        "requests",
        "root",
    )

    def __init__(self, host: Host, guard: Guard) -> None:
        self.host = host
        self.guard = guard
        self.root = Branch(host, None)
        self.requests: dict[str, Request] = {}
        """By path, the steps that are asked for and have no outcome yet, as far as the code knows."""
        self.effects: list[Request | Left | Pivot | Emit | SetAttributes | Patch] = []
        """Of the last turn."""
        self.named = False
        """The code sets search attributes, now and then."""
        self.pivoted = False
        """The code has passed its pivot."""
        self.patches: dict[str, bool] = {}
        """By patch that the code has asked for, whether it is on the new branch."""
        self.replayed: frozenset[str] | None = None
        """While a history is replayed: the patches that it has."""
        self._live: dict[Branch, None] = {}
        """Those beside the saga's own whose coroutine hasn't ended, oldest first."""
        self._ready: list[tuple[Branch, Callable[[Any], Any], Any]] = []
        self._end: Returned | Renewed | Raised | Broken | None = None
        self._turn = self._begun = 0
        self.between = False
        """The code of no branch runs, but the handler of an update."""

    def _wake(self, branch: Branch, value: Any, error: BaseException | None) -> None:
        """Let a branch go on in its turn."""
        assert branch.coroutine is not None
        if error is None:
            self._ready.append((branch, branch.coroutine.send, value))
        else:
            self._ready.append((branch, branch.coroutine.throw, error))

    # --- ending what isn't wanted any more ---

    def _let_go(self, found: Iterable[Request], why: str, others: Iterable[str] = ()) -> None:
        """Nobody waits for these steps, nor did for the others; what was never sent is as if never asked."""
        steps = set(others)
        for request in found:
            self.requests.pop(request.path, None)
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

    def _drain(
        self, owner: Join | Branch | Scope, waits_for: dict[str, Request], children: Iterable[Any]
    ) -> None:
        """End branches, and let their owner wait for the outcome of what is in flight."""
        found: list[Request] = []
        for child in children:
            self._stop(child, found)
        asleep: list[Request] = []
        scopes: list[Request] = []
        drained: list[str] = []
        for request in found:
            if isinstance(request, Scope):
                scopes.append(request)
                continue
            if isinstance(request, Pause | Timer | Expect | LockCall) or request.turn == self._turn:
                asleep.append(request)
                continue
            waits_for[request.path] = request
            request.waiter = owner
            if request.index >= 0:  # else it is drained already, by a gather that is ended now
                drained.append(request.path)
                request.index = -1
        self._let_go(asleep, "")
        self._let_go(scopes, CUT_OFF)
        if drained:
            self.effects.append(Left(tuple(sorted(drained, key=in_order)), DRAINED))
        self._undo_broken(found)

    def _undo_broken(self, found: Iterable[Request]) -> None:
        """What was done in scopes whose branches were ended in them is undone, beside what goes on."""
        scopes = [each for each in found if isinstance(each, Scope) and not each.over and each.asked]
        within = {path for scope in scopes for path in scope.asked}
        for scope in scopes:
            if scope.path not in within:
                self._undo_scope(scope, "its branch was ended", "")

    def _undo_scope(self, scope: Scope, reason: str, failed: str) -> None:
        scope.over = True
        steps = sorted({scope.path, *scope.asked}, key=in_order)
        self.effects.append(Left(tuple(steps), SCOPED, reason, failed))

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
            if child.has_more and child.more.scopes:
                _sum_up(child)
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
        for scope in more.scopes:
            found.append(scope)
            found += scope.drained.values()
            for spawned in scope.spawned:
                self._stop(spawned, found)
        for waiter in more.waiters:
            self._wake(waiter, None, branch.error)

    def _stop_waiting(self, branch: Branch, found: list[Request]) -> None:
        """End what a branch waits for."""
        waiting, branch.waiting = branch.waiting, None
        if isinstance(waiting, Request):
            if not isinstance(waiting, Scope):  # those are found by themselves
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


def _sum_up(branch: Branch) -> None:
    """Let the scopes that a branch is in know all that was asked for in them."""
    scopes = branch.more.scopes
    if isinstance(branch.waiting, Join):
        scopes[-1].asked += asked_by(branch.waiting.children)
    for scope in reversed(scopes):
        scope.asked += asked_by(scope.spawned)
        assert scope.outer is not None, "the saga's own branch is never ended by another"
        scope.outer += scope.asked


def in_order(path: str) -> tuple[int, ...]:
    """Sort paths by this: steps of one branch stand in the order in which they were asked for."""
    return tuple(map(int, path.split(".")))
