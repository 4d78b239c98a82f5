"""Nondeterminism in one function: what would not be the same again when its saga is replayed."""

from __future__ import annotations

import ast
import inspect
import os
import sys
from collections import deque
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from .impure import ONLY_BARE, rule_of
from .names import (
    Attribute,
    ContextCall,
    Dotted,
    Instance,
    Real,
    Scope,
    Value,
    as_class,
    kind_of,
    names_of,
    peek,
)
from .rules import CHANCE, CONCURRENCY, ENVIRONMENT, IDENTITY, IO, SHARED, UNORDERED, Rule

Report = Callable[[Rule, ast.AST, str], None]
Follow = Callable[[FunctionType, type | None], None]
"""Called for each function of the author's that the code calls, with the class whose method it is."""

_WHAT = {
    CHANCE: "is left to chance",
    ENVIRONMENT: "depends on the machine and the process",
    IO: "does I/O",
    CONCURRENCY: "waits or runs outside of the engine's order",
    IDENTITY: "differs from process to process",
}

_REMEDY_CLOCK = "reads the clock"

_ORDERLESS = frozenset({"sorted", "set", "frozenset", "len", "min", "max", "any", "all", "sum"})
"""Builtins that don't care in which order they are given things."""

_ORDERED = frozenset(
    {"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "next", "reversed", "dict"}
)

_CHANGES = frozenset(
    {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft"}
    | {"remove", "reverse", "setdefault", "sort", "update", "__setitem__"}
)
_CONTAINERS = (list, dict, set, deque, bytearray)

_HASHES_LAST = (int, float, complex, bool, type(None))
"""Types whose hash() is the same in every process."""

_SHOWN = 60


class Reader(ast.NodeVisitor):
    """Reads one function's body."""

    def __init__(self, scope: Scope, report: Report, follow: Follow) -> None:
        self._scope = scope
        self._report = report
        self._follow = follow
        self._fine: set[int] = set()
        """Expressions whose order doesn't matter to who takes them."""
        called = {
            node.func.id
            for node in ast.walk(scope.code.node)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        self._called = called

    def read(self) -> None:
        """Read it all."""
        for statement in self._scope.code.node.body:
            self.visit(statement)

    # --- functions

    def _inner(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """A function inside is read where it is called here, not where it is handed to `ctx.run`."""
        if node.name in self._called:
            self.generic_visit(node)

    visit_FunctionDef = _inner  # noqa: N815
    visit_AsyncFunctionDef = _inner  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        """Look at what is called."""
        called = self._scope.infer(node.func)
        if isinstance(called, ContextCall) and called.name == "run":
            for each in (*node.args, *(keyword.value for keyword in node.keywords)):
                if not isinstance(each, ast.Lambda):
                    self.visit(each)
            return
        self._impure(node, called)
        self._orders(node, called)
        self._changes(node, called)
        self._own(called)
        self.generic_visit(node)

    def _impure(self, node: ast.Call, called: Value | None) -> None:
        if isinstance(called, Real) and _is_error(called.value):
            return
        for name in names_of(called):
            rule = rule_of(name)
            if rule is None or (name in ONLY_BARE and (node.args or node.keywords)):
                continue
            if rule is CHANCE and isinstance(called, Attribute) and not called.shared:
                continue  # of a generator that the code has made itself, and perhaps seeded
            if rule is IDENTITY and self._hash_lasts(node, name):
                return
            self._say(rule, node, node.func, "()")
            return

    def _hash_lasts(self, node: ast.Call, name: str) -> bool:
        value = self._scope.infer(node.args[0]) if node.args else None
        return name == "builtins.hash" and isinstance(value, Instance) and value.cls in _HASHES_LAST

    def _say(self, rule: Rule, node: ast.AST, what: ast.expr, behind: str = "") -> None:
        text = " ".join(ast.unparse(what).split())
        text = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        self._report(rule, node, f"{text}{behind} {_WHAT.get(rule, _REMEDY_CLOCK)}")

    def _own(self, called: Value | None) -> None:
        """Go on in functions that are called; whether they are the author's, `follow` knows."""
        function: Any = None
        receiver: type | None = None
        if isinstance(called, Attribute):
            function = called.declared
            receiver = None if type(called.declared) is staticmethod else called.cls
        elif isinstance(called, Real) and isinstance(called.value, type):
            function, receiver = inspect.getattr_static(called.value, "__init__", None), called.value
        elif isinstance(called, Real):
            function = called.value
            receiver = as_class(peek(function, "__self__"))
        function = peek(function, "__func__", function)
        if isinstance(function, FunctionType):
            self._follow(function, receiver)

    # --- order

    def _orders(self, node: ast.Call, called: Value | None) -> None:
        name = called.value.__name__ if isinstance(called, Real) and _is_builtin(called.value) else ""
        if name in _ORDERLESS:
            for each in node.args:
                self._fine.add(id(each))
                if isinstance(each, ast.GeneratorExp | ast.ListComp):
                    self._fine.update(id(part.iter) for part in each.generators)
        elif name in _ORDERED:
            for each in node.args:
                self._unordered(each)
        elif isinstance(called, Attribute) and called.name == "join" and called.cls is str and node.args:
            self._unordered(node.args[0])
        elif isinstance(called, Attribute) and called.name == "pop" and issubclass(called.cls, set):
            self._report(UNORDERED, node, f"{ast.unparse(node.func)}() takes any element of a set")

    def _unordered(self, node: ast.expr) -> None:
        if id(node) in self._fine or not self._is_set(node):
            return
        text = " ".join(ast.unparse(node).split())
        self._report(UNORDERED, node, f"the order of the set {text[:_SHOWN]} differs from process to process")

    def _is_set(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Set) and all(_hash_lasts(each) for each in node.elts):
            return False
        value = self._scope.infer(node)
        found: Any = value.value if isinstance(value, Real) else None
        if kind_of(found) in (set, frozenset):
            return len(found) > 1 and not all(isinstance(each, _HASHES_LAST) for each in found)
        return isinstance(value, Instance) and issubclass(value.cls, set | frozenset)

    def _loop(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        self._unordered(node.iter)
        self.generic_visit(node)

    visit_For = _loop  # noqa: N815
    visit_AsyncFor = _loop  # noqa: N815
    visit_comprehension = _loop

    def visit_SetComp(self, node: ast.SetComp) -> None:
        """A set of a set has no order to lose."""
        self._fine.update(id(part.iter) for part in node.generators)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        """`[*a_set]` has an order."""
        self._unordered(node.value)
        self.generic_visit(node)

    # --- what is there for all

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """`os.environ`; and properties of the author's classes are code like any other."""
        value = self._scope.infer(node)
        self._environment(node, value)
        if isinstance(value, Attribute) and isinstance(value.declared, property):
            getter = value.declared.fget
            if isinstance(getter, FunctionType):
                self._follow(getter, value.cls)
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """`environ`, if it was imported by name."""
        if isinstance(node.ctx, ast.Load):
            self._environment(node, self._scope.lookup(node.id))

    def _environment(self, node: ast.expr, value: Value | None) -> None:
        named = isinstance(value, Dotted) and value.name in ("os.environ", "os.environb")
        real = isinstance(value, Real) and (value.value is os.environ or value.value is sys.argv)
        if named or real:
            self._say(ENVIRONMENT, node, node)

    def _with(self, node: ast.With | ast.AsyncWith) -> None:
        """A lock that is entered has no call."""
        for item in node.items:
            value = self._scope.infer(item.context_expr)
            if isinstance(item.context_expr, ast.Call) or not isinstance(value, Real | Instance):
                continue
            rules = {rule_of(name) for name in names_of(value)}
            rule = next((each for each in (CONCURRENCY, IO) if each in rules), None)
            if rule is not None:
                self._say(rule, item.context_expr, item.context_expr)
        self.generic_visit(node)

    visit_With = _with  # noqa: N815
    visit_AsyncWith = _with  # noqa: N815

    # --- state that is shared

    def _changes(self, node: ast.Call, called: Value | None) -> None:
        if isinstance(called, Attribute) and called.shared and isinstance(node.func, ast.Attribute):
            if called.name in _CHANGES and issubclass(called.cls, _CONTAINERS):
                self._shared(node, node.func.value)
        elif isinstance(called, Real) and called.value is next and node.args:
            taken = self._scope.infer(node.args[0])
            if isinstance(taken, Real) and hasattr(kind_of(taken.value), "__next__"):
                self._shared(node, node.args[0])

    def _shared(self, node: ast.AST, what: ast.expr) -> None:
        self._report(
            SHARED, node, f"{ast.unparse(what)} is shared by all sagas of a process, and changed here"
        )

    def _assigned(self, node: ast.AST, target: ast.expr) -> None:
        if isinstance(target, ast.Name) and target.id in self._scope.globals_rebound:
            self._shared(node, target)
        elif isinstance(target, ast.Subscript | ast.Attribute):
            value = self._scope.infer(target.value)
            if not isinstance(value, Real) or isinstance(target.value, ast.Call):
                return
            kinds = (*_CONTAINERS, ModuleType, type) if isinstance(target, ast.Attribute) else _CONTAINERS
            if isinstance(value.value, kinds) or isinstance(target, ast.Attribute):
                self._shared(node, target)
        elif isinstance(target, ast.Tuple | ast.List):
            for each in target.elts:
                self._assigned(node, each)

    def visit_Assign(self, node: ast.Assign) -> None:
        """Something of the module's is bound anew."""
        for target in node.targets:
            self._assigned(node, target)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        """The same, by `+=`."""
        self._assigned(node, node.target)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        """The same, by `del`."""
        for target in node.targets:
            self._assigned(node, target)
        self.generic_visit(node)


def _is_error(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseException)


def _is_builtin(found: Any) -> bool:
    return peek(found, "__module__") == "builtins" and isinstance(peek(found, "__name__"), str)


def _hash_lasts(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, _HASHES_LAST)
