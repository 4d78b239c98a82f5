"""Steps in one function: which come after which, what is caught around them, and what is never awaited.

A block is walked from its end to its beginning, with what may still come after it: so it is known of each
step whether the saga can yet be undone when the step is done.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, Protocol, TypeGuard, cast

from ..errors import Interrupt, SagaOutcome
from ..saga import Saga
from .names import BRANCHING, CHILDREN, Command, Commands, ContextCall, Pending, Real, Scope, peek
from .pivot import Pivot
from .rules import (
    NO_COMMAND,
    NO_COMPENSATION,
    NO_WAY_BACK,
    NOT_AWAITED,
    SCOPE_MISUSED,
    STEP_IN_FINALLY,
    SWALLOWS_INTERRUPT,
    SWALLOWS_OUTCOME,
    Rule,
)

Later = str | None
"""What may come after a place and undo what was done before it, in words; None: nothing."""

MAX_CALLS = 12
"""Functions that call each other are followed so deep."""

_STOP = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


class Desk(Protocol):
    """Where findings go, and other functions come from."""

    def report(self, scope: Scope, rule: Rule, node: ast.AST, message: str) -> None:
        """Keep a finding."""
        ...

    def used(self, scope: Scope, node: ast.AST, commands: Commands) -> None:
        """Note that a saga uses a contract."""
        ...

    def scope_of(self, function: FunctionType) -> Scope | None:
        """The names of a function of the author's; None for all others."""
        ...

    def begins(self, scope: Scope, node: ast.AST, child: Saga[Any, Any]) -> None:
        """Note that a saga begins another."""
        ...

    def undoes(self, error: type) -> bool:
        """Whether raising it undoes the saga."""
        ...


class Flow:
    """Walks one function, and those that it awaits."""

    def __init__(
        self,
        scope: Scope,
        desk: Desk,
        *,
        quiet: bool = False,
        calls: tuple[object, ...] = (),
        pivot: bool = False,
        passed: bool = False,
        within: bool = False,
    ) -> None:
        """Of who calls this one: `pivot`, it has one; `passed`, it is behind it; `within`, in a scope."""
        self._scope = scope
        self._desk = desk
        self._quiet = quiet
        self._calls = (*calls, scope.code.node)
        self._pivot, self._has_pivot, self._passed = Pivot(scope), pivot, passed
        self._within = within
        self._loops: list[tuple[Later, Later]] = []
        """Of each loop around: what comes after it, and its first step."""

    def walk(self, later: Later = None) -> Later:
        """Walk the whole function; returns what may come at its beginning."""
        return self._block(self._scope.code.node.body, later)

    # --- statements

    def _block(self, statements: Sequence[ast.stmt], later: Later) -> Later:
        for statement in reversed(statements):
            later = self._statement(statement, later)
        return later

    def _statement(self, node: ast.stmt, later: Later) -> Later:  # noqa: C901 (a case a statement)
        match node:
            case ast.Return():
                return self._expression(node, None)
            case ast.Raise():
                return self._expression(node, self._raised(node))
            case ast.If():
                one, other = self._block(node.body, later), self._block(node.orelse, later)
                either = one or other
                return self._expression(node.test, either)
            case ast.For() | ast.AsyncFor():
                return self._expression(node.iter, self._loop(node.body, node.orelse, later))
            case ast.While():
                return self._expression(node.test, self._loop(node.body, node.orelse, later))
            case ast.Break():
                return self._loops[-1][0] if self._loops else later
            case ast.Continue():
                return (self._loops[-1][1] or self._loops[-1][0]) if self._loops else later
            case ast.Try() | ast.TryStar():
                return self._try(node, later)
            case ast.With() | ast.AsyncWith():
                self._suppressed(node)
                after = self._scoped(node, later)
                for item in reversed(node.items):
                    after = self._expression(item.context_expr, after)
                return after
            case ast.Match():
                found = [self._block(case.body, later) for case in node.cases]
                return self._expression(node.subject, next(filter(None, found), later))
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return later
            case _:
                self._forgotten(node)
                return self._expression(node, later)

    def _begins_scope(self, node: ast.With | ast.AsyncWith) -> bool:
        items = (item.context_expr for item in node.items)
        return any(isinstance(each, ast.Call) and self._is_scope(each) for each in items)

    def _is_scope(self, call: ast.Call) -> bool:
        return self._scope.infer(call.func) == ContextCall("scope")

    def _scoped(self, node: ast.With | ast.AsyncWith, later: Later) -> Later:
        """Behind the pivot only what comes in the same scope can undo what is in it."""
        if not self._begins_scope(node):
            return self._block(node.body, later)
        past, before, self._within = self._is_past(node), self._within, True
        found = self._block(node.body, None if past else later) or later
        self._within = before
        return found

    def _loop(self, body: Sequence[ast.stmt], orelse: Sequence[ast.stmt], later: Later) -> Later:
        after = self._block(orelse, later)
        first = self._first(body)
        self._loops.append((later, first))
        found = self._block(body, first or after)
        self._loops.pop()
        return found or after

    def _try(self, node: ast.Try | ast.TryStar, later: Later) -> Later:
        steps = self._first(node.body)
        after = self._block(node.finalbody, later)
        found = self._block(node.body, self._block(node.orelse, after))
        handled = [self._block(handler.body, after) for handler in node.handlers]
        if steps:
            self._handlers(node.handlers, steps)
            for each in node.finalbody:
                returns = next((one for one in ast.walk(each) if isinstance(one, ast.Return)), None)
                if returns is not None:
                    self._say(
                        SWALLOWS_INTERRUPT,
                        returns,
                        f"a return in `finally` swallows the end of {steps}, and a cancel",
                    )
        cleaned = self._first(node.finalbody)
        if cleaned:
            self._say(STEP_IN_FINALLY, node.finalbody[0], f"{cleaned} is in a `finally`")
        return found or next(filter(None, handled), None)

    def _first(self, body: Sequence[ast.stmt]) -> Later:
        """The first step of a block, in words."""
        return Flow(self._scope, self._desk, quiet=True, calls=self._calls[:-1])._block(body, None)

    def _raised(self, node: ast.Raise) -> Later:
        """A saga that raises on purpose is undone; one with a bug isn't."""
        where = f"the raise in line {node.lineno}"
        if node.exc is None:
            return where
        found = self._scope.infer(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)
        if isinstance(found, Real) and isinstance(found.value, type):
            return where if self._desk.undoes(found.value) else None
        return where if not isinstance(node.exc, ast.Call) else None

    # --- expressions

    def _expression(self, node: ast.AST, later: Later) -> Later:
        for each in reversed(list(_points(node))):
            if isinstance(each, ast.Await):
                later = self._await(each, later)
            elif self._scope.infer(each.func) == ContextCall("spawn"):
                later = self._branches(each, "spawn", later)
        return later

    def _branches(self, call: ast.Call, name: str, later: Later) -> Later:
        """Steps side by side: when one is done, another may fail yet, or have won."""
        where = f"ctx.{name} in line {call.lineno}"
        parts = [*call.args, *(each.value for each in call.keywords)]
        several = len(parts) > 1 or any(isinstance(each, ast.Starred) for each in parts)
        beside = f"another branch of {where}" if several and name == "gather" else None
        for part in parts:
            for each in _calls(part):
                self._branch(each, later or beside)
                if several and name in ("race", "select"):
                    self._loses(each, where)
        return where

    def _branch(self, call: ast.Call, later: Later) -> None:
        value, called = self._scope.infer(call), self._scope.infer(call.func)
        if isinstance(value, Pending) and isinstance(value.made_by, Command):
            self._command(call, value.made_by, later)
        elif isinstance(value, Pending) and value.made_by.name in CHILDREN:
            self._child(call, value.made_by.name, later)
        elif isinstance(called, Real) and isinstance(called.value, FunctionType):
            self._called(call, called.value, later)

    def _loses(self, call: ast.Call, where: str) -> None:
        value = self._scope.infer(call)
        made = value.made_by if isinstance(value, Pending) else None
        contract = made.commands.contract if isinstance(made, Command) else None
        spec = contract.commands.get(made.name) if contract and isinstance(made, Command) else None
        if spec is not None and spec.compensation is None:
            said = f"{spec.type} has no compensation: if another branch wins {where}, this may stay done"
            self._say(NO_COMPENSATION, call, said)

    def _await(self, node: ast.Await, later: Later) -> Later:
        value = self._scope.infer(node.value)
        if isinstance(node.value, ast.Call) and self._is_scope(node.value):
            self._say(SCOPE_MISUSED, node, "ctx.scope is awaited, and is a block")
        if isinstance(value, Pending):
            made = value.made_by
            if isinstance(made, Command):
                return self._command(node, made, later)
            if made.name == "pivot":
                if self._within:
                    self._say(SCOPE_MISUSED, node, "ctx.pivot is in a scope, which may be undone yet")
                return None  # what comes after it undoes nothing that was before
            if made.name in ("emit", "set_attributes"):
                return later
            if made.name in BRANCHING and isinstance(node.value, ast.Call):
                return self._branches(node.value, made.name, later)
            if made.name in CHILDREN and isinstance(node.value, ast.Call):
                return self._child(node.value, made.name, later)
            return f"ctx.{made.name} in line {node.lineno}"
        called = self._scope.infer(node.value.func) if isinstance(node.value, ast.Call) else None
        if isinstance(called, Real) and isinstance(called.value, FunctionType):
            return self._called(node, called.value, later)
        return later

    def _command(self, node: ast.Await | ast.Call, made: Command, later: Later) -> Later:
        contract = made.commands.contract
        spec = contract.commands.get(made.name) if contract is not None else None
        if contract is None:
            return f"{made.name} in line {node.lineno}"
        if spec is None:
            return later
        past = self._is_past(node)
        if spec.compensation is None and later and (self._within or not past):
            to_pivot = (self._pivot.there or self._has_pivot) and not past
            self._say(
                NO_WAY_BACK if to_pivot else NO_COMPENSATION,
                node,
                f"{spec.type} has no compensation, and {later} comes after it: "
                f"if the {'scope' if past else 'saga'} is undone then, this stays done",
            )
        return f"{spec.type} in line {node.lineno}"

    def _child(self, call: ast.Call, name: str, later: Later) -> Later:
        """Another saga as a step: what it does is undone when something fails that comes after it."""
        where = f"ctx.{name} in line {call.lineno}"
        value = self._scope.infer(call.args[0]) if call.args else None
        declared: object = value.value if isinstance(value, Real) else None
        if not _is_saga(declared):
            return where
        self._desk.begins(self._scope, call, declared)
        abandoned = any(
            each.arg == "on_undo" and isinstance(each.value, ast.Constant) and each.value.value == "abandon"
            for each in call.keywords
        )
        function = inspect.unwrap(declared.function)
        if later and not abandoned and not self._is_past(call) and isinstance(function, FunctionType):
            self._called(call, function, later)
        return where

    def _is_past(self, node: ast.AST) -> bool:
        return self._passed or self._pivot.passed(node)

    def _called(self, node: ast.AST, function: FunctionType, later: Later) -> Later:
        scope = self._desk.scope_of(function)
        if scope is None or scope.code.node in self._calls or len(self._calls) > MAX_CALLS:
            return later
        pivot, passed = self._has_pivot or self._pivot.there, self._is_past(node)
        flow = Flow(
            scope,
            self._desk,
            quiet=self._quiet,
            calls=self._calls,
            pivot=pivot,
            passed=passed,
            within=self._within,
        )
        return flow.walk(later)

    # --- what is caught

    def _handlers(self, handlers: Sequence[ast.ExceptHandler], steps: str) -> None:
        for handler in handlers:
            caught = self._caught(handler.type)
            written = f"except {ast.unparse(handler.type)}" if handler.type is not None else "a bare except"
            if any(issubclass(Interrupt, each) for each in caught):
                if not _raises_again(handler):
                    self._say(
                        SWALLOWS_INTERRUPT,
                        handler,
                        f"{written} around {steps} swallows a cancel and an eviction",
                    )
            elif Exception in caught and not any(isinstance(each, ast.Raise) for each in _shallow(handler)):
                self._say(
                    SWALLOWS_OUTCOME,
                    handler,
                    f"{written} around {steps} takes a refusal, an unknown outcome and a bug for the same",
                )

    def _suppressed(self, node: ast.With | ast.AsyncWith) -> None:
        for item in node.items:
            call = item.context_expr
            if not isinstance(call, ast.Call):
                continue
            called = self._scope.infer(call.func)
            if not isinstance(called, Real) or peek(called.value, "__qualname__") != "suppress":
                continue
            steps = self._first(node.body)
            caught = {each for argument in call.args for each in self._caught(argument)}
            if steps and Exception in caught:
                self._say(SWALLOWS_OUTCOME, call, f"{ast.unparse(call)} around {steps} hides how it ended")
            elif steps and BaseException in caught:
                self._say(
                    SWALLOWS_INTERRUPT,
                    call,
                    f"{ast.unparse(call)} around {steps} swallows a cancel and an eviction",
                )

    def _caught(self, node: ast.expr | None) -> list[type]:
        if node is None:
            return [BaseException]
        if isinstance(node, ast.Tuple):
            return [found for each in node.elts for found in self._caught(each)]
        value = self._scope.infer(node)
        found: Any = value.value if isinstance(value, Real) else None
        if isinstance(found, tuple):
            return [each for each in cast("tuple[object, ...]", found) if isinstance(each, type)]
        return [found] if isinstance(found, type) else []

    # --- what is never awaited

    def _forgotten(self, node: ast.stmt) -> None:
        call = node.value if isinstance(node, ast.Expr | ast.Assign | ast.AnnAssign) else None
        if not isinstance(call, ast.Call):
            return
        if isinstance(node, ast.Expr) and self._is_scope(call):
            self._say(SCOPE_MISUSED, call, "ctx.scope is called and begins no block")
        what = self._unawaited(call)
        if not what:
            return
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {target.id for target in targets if isinstance(target, ast.Name)}
            if not names or any(
                isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load) and each.id in names
                for each in ast.walk(self._scope.code.node)
            ):
                return
        self._say(NOT_AWAITED, call, f"{what} is called and never awaited: it is never sent")

    def _unawaited(self, call: ast.Call) -> str:
        value = self._scope.infer(call)
        if isinstance(value, Pending):
            made = value.made_by
            return f"ctx.{made.name}" if isinstance(made, ContextCall) else _name(made)
        called = self._scope.infer(call.func)
        if isinstance(called, Real) and isinstance(called.value, FunctionType):
            scope = self._desk.scope_of(called.value)
            if scope is not None and isinstance(scope.code.node, ast.AsyncFunctionDef):
                return called.value.__qualname__
        return ""

    def _say(self, rule: Rule, node: ast.AST, message: str) -> None:
        if not self._quiet:
            self._desk.report(self._scope, rule, node, message)


def look_at_contracts(scope: Scope, desk: Desk) -> None:
    """Report uses of contracts in one function, and commands that they don't have."""
    for node in ast.walk(scope.code.node):
        if isinstance(node, ast.Call):
            made = scope.infer(node)
            if isinstance(made, Commands):
                desk.used(scope, node, made)
        elif isinstance(node, ast.Attribute):
            command = scope.infer(node)
            contract = command.commands.contract if isinstance(command, Command) else None
            if contract is not None and node.attr not in contract.commands:
                what = "is a compensation" if node.attr in contract.compensations else "is no command"
                desk.report(scope, NO_COMMAND, node, f"{contract.name}.{node.attr} {what}")


def undoes(error: type, fails_on: tuple[type[Exception], ...]) -> bool:
    """Whether a saga that raises this is undone."""
    return issubclass(error, (SagaOutcome, *fails_on))


def _is_saga(value: object) -> TypeGuard[Saga[Any, Any]]:
    return isinstance(value, Saga)


def _name(command: Command) -> str:
    contract = command.commands.contract
    return f"{contract.name}.{command.name}" if contract is not None else command.name


def _points(node: ast.AST) -> Iterator[ast.Await | ast.Call]:
    """Awaits, and calls of a `spawn`, in the order of evaluation, but for those of inner functions."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _STOP):
            yield from _points(child)
    if isinstance(node, ast.Await) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "spawn"
    ):
        yield node


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    """The outermost calls in an expression."""
    if isinstance(node, ast.Call):
        yield node
        return
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _STOP):
            yield from _calls(child)


def _shallow(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, _STOP):
            yield child
            yield from _shallow(child)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    if not isinstance(last, ast.Raise) or any(isinstance(each, ast.Return) for each in _shallow(handler)):
        return False
    return last.exc is None or (isinstance(last.exc, ast.Name) and last.exc.id == handler.name)
