"""What an expression in a saga's code stands for, as far as it can be told without running it.

Names are looked up where Python would: locals, the function around, the module's real objects, builtins.
Of a local it is known what it is if it is bound once, to something that is known. Whatever isn't known
is None, and nothing is said about it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from kasaga_wire.contracts import Contract, contract_of, is_contract
from kasaga_wire.errors import ContractError

from ..context import SagaContext
from .sources import Code

MAX_DEPTH = 20
"""Expressions inside of expressions that are followed."""


@dataclass(frozen=True, slots=True, eq=False)
class Real:
    """A real object of a loaded module."""

    value: Any


@dataclass(frozen=True, slots=True)
class Instance:
    """Some value of a real class."""

    cls: type


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """An attribute of a value of a real class, as its class declares it."""

    cls: type
    name: str
    declared: Any
    shared: bool
    """The value is a module's: every saga sees the same one."""


@dataclass(frozen=True, slots=True)
class Context:
    """The saga's context."""


@dataclass(frozen=True, slots=True)
class ContextCall:
    """A method of the saga's context."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Commands:
    """What `ctx.use(Contract)` gives; without a contract if that can't be declared."""

    cls: type
    contract: Contract | None


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One command of a participant."""

    commands: Commands
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Pending:
    """A call that is to be awaited: a command, `ctx.sleep`, `ctx.run`, `ctx.signal`, `ctx.gather`."""

    made_by: Command | ContextCall


@dataclass(frozen=True, slots=True)
class Dotted:
    """A name of a module that is imported in the function, and isn't loaded."""

    name: str


Value = Real | Instance | Attribute | Context | ContextCall | Commands | Command | Pending | Dotted

BRANCHING = frozenset({"gather", "race", "select", "spawn"})
"""Methods of the context that run what they are given side by side."""

CHILDREN = frozenset({"child", "start_child"})
"""Methods of the context that begin another saga."""

_OTHERS = frozenset({"sleep", "run", "signal", "event", "pivot", "emit", "set_attributes"})

AWAITABLE = BRANCHING - {"spawn"} | CHILDREN | _OTHERS
"""Methods of the context that make something to be awaited."""

_MISSING = object()

_NAMED = (
    ast.FunctionDef,
    ast.AsyncFunctionDef,
    ast.ClassDef,
    ast.ExceptHandler,
    ast.MatchAs,
    ast.MatchStar,
)


class Scope:
    """The names of one function."""

    def __init__(self, code: Code, *, saga: bool = False, receiver: type | None = None) -> None:
        """`saga`: its first argument is the context. `receiver`: the class whose method it is."""
        self.code = code
        self._function = code.function
        self._bound: dict[str, list[ast.expr | None]] = {}
        self._known: dict[str, Value | None] = {}
        self._outer = _closure(code.function)
        self._working: set[str] = set()
        self.globals_rebound: set[str] = set()
        self._collect()
        self._arguments(saga, receiver)

    # --- names

    def _arguments(self, saga: bool, receiver: type | None) -> None:
        hints = _hints(self._function)
        given = self.code.node.args
        names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        for number, name in enumerate(names):
            value: Value | None = of_annotation(hints.get(name))
            if number == 0 and saga:
                value = Context()
            elif number == 0 and receiver is not None:
                value = Instance(receiver)
            self._known[name] = value if name not in self._bound else None
        for star in (given.vararg, given.kwarg):
            if star is not None:
                self._known[star.arg] = None

    def _collect(self) -> None:
        """Find what each local name is bound to; parameters of inner functions count as locals, too."""
        for node in inside(self.code.node):
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    self._bind(target, node.value)
            elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
                if node.value is not None:
                    self._bind(node.target, node.value)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._imports(node)
            elif isinstance(node, ast.Global):
                self.globals_rebound.update(node.names)
            else:
                self._bound_otherwise(node)
        for node in inside(self.code.node):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
                self._bound.setdefault(node.id, [None])
        for name in self.globals_rebound:
            self._bound.pop(name, None)

    def _bound_otherwise(self, node: ast.AST) -> None:
        """Note names that are bound to what isn't an expression."""
        name: str | None = None
        if isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, _NAMED):
            name = node.name
        elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        if name:
            self._bound.setdefault(name, []).append(None)

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Name):
            self._bound.setdefault(target.id, []).append(value)
            return
        pairs: list[tuple[ast.expr, ast.expr | None]] = []
        if isinstance(target, ast.Tuple | ast.List):
            same = isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts)
            values: list[ast.expr | None] = (
                list(value.elts)
                if same and isinstance(value, ast.Tuple | ast.List)
                else [None] * len(target.elts)
            )
            pairs = list(zip(target.elts, values, strict=True))
        for each, its in pairs:
            if its is not None:
                self._bind(each, its)
            else:
                for name in ast.walk(each):
                    if isinstance(name, ast.Name):
                        self._bound.setdefault(name.id, []).append(None)

    def _imports(self, node: ast.Import | ast.ImportFrom) -> None:
        for each in node.names:
            name = each.asname or each.name.partition(".")[0]
            if isinstance(node, ast.Import):
                self._known[name] = _module(each.name if each.asname else name)
            elif node.level == 0 and node.module:
                module = sys.modules.get(node.module)
                found = peek(module, each.name, _MISSING) if module is not None else _MISSING
                dotted = Dotted(f"{node.module}.{each.name}")
                self._known[name] = dotted if found is _MISSING else Real(found)
            self._bound.pop(name, None)

    def lookup(self, name: str) -> Value | None:
        """What a name stands for."""
        if name in self._known:
            return self._known[name]
        if name in self._bound:
            return self._local(name)
        for names in (self._outer, self._function.__globals__, vars(builtins)):
            if name in names:
                return Real(names[name])
        return None

    def is_global(self, name: str) -> bool:
        """Whether a name is the module's, or the function's around."""
        return name not in self._known and name not in self._bound

    def _local(self, name: str) -> Value | None:
        values = self._bound[name]
        if name in self._working or not values or any(value is None for value in values):
            return None
        self._working.add(name)
        found = [self.infer(value) for value in values if value is not None]
        self._working.discard(name)
        first = found[0]
        if len(found) > 1:
            first = first if isinstance(first, Instance) and all(each == first for each in found) else None
        self._known[name] = first
        return first

    # --- expressions

    def infer(self, node: ast.expr, depth: int = 0) -> Value | None:
        """What an expression stands for."""
        if depth > MAX_DEPTH:
            return None
        match node:
            case ast.Name():
                return self.lookup(node.id)
            case ast.Attribute():
                return attribute(self.infer(node.value, depth + 1), node.attr)
            case ast.Call():
                return self._call(node, depth)
            case ast.Await():
                return _outcome(self.infer(node.value, depth + 1))
            case ast.NamedExpr():
                return self.infer(node.value, depth + 1)
            case ast.BinOp():
                left = self.infer(node.left, depth + 1)
                made = isinstance(left, Instance) and left.cls in (set, frozenset)
                return left if made else None
            case ast.IfExp():
                one, other = self.infer(node.body, depth + 1), self.infer(node.orelse, depth + 1)
                return one if isinstance(one, Instance) and one == other else None
            case _:
                kind = _literal(node)
                return Instance(kind) if kind is not None else None

    def _call(self, node: ast.Call, depth: int) -> Value | None:
        called = self.infer(node.func, depth + 1)
        if isinstance(called, ContextCall):
            if called.name == "use":
                return self._commands(node)
            return Pending(called) if called.name in AWAITABLE else None
        if isinstance(called, Command):
            return Pending(called)
        if isinstance(called, Real):
            if isinstance(called.value, type):
                return Instance(called.value)
            return _returned(called.value)
        return _returned(called.declared) if isinstance(called, Attribute) else None

    def _commands(self, node: ast.Call) -> Commands | None:
        given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "contract")]
        found = self.infer(given[0]) if given else None
        if not isinstance(found, Real) or not isinstance(found.value, type):
            return None
        return commands_of(found.value)


def attribute(owner: Value | None, name: str) -> Value | None:
    """What an attribute of something stands for."""
    match owner:
        case Context():
            return ContextCall(name)
        case Commands():
            return Command(owner, name)
        case Dotted():
            return Dotted(f"{owner.name}.{name}")
        case Instance():
            return Attribute(owner.cls, name, inspect.getattr_static(owner.cls, name, None), False)
        case Real(value=ModuleType() as module):
            found = peek(module, name, _MISSING)
            return Dotted(f"{module.__name__}.{name}") if found is _MISSING else Real(found)
        case Real(value=type() as cls):
            found = peek(cls, name, _MISSING)
            return None if found is _MISSING else Real(found)
        case Real():
            kind = kind_of(owner.value)
            return Attribute(kind, name, inspect.getattr_static(kind, name, None), True)
        case _:
            return None


def of_annotation(annotation: object) -> Value | None:
    """What a value of an annotation is."""
    cls = as_class(typing.get_origin(annotation)) or as_class(annotation)
    if cls is None:
        return None
    if issubclass(cls, SagaContext):
        return Context()
    return commands_of(cls) if is_contract(cls) else Instance(cls)


def commands_of(cls: type) -> Commands | None:
    """The commands of a contract's class; None if it is none."""
    if not is_contract(cls):
        return None
    try:
        return Commands(cls, contract_of(cls))
    except ContractError:
        return Commands(cls, None)


def names_of(value: Value | None) -> Iterator[str]:
    """The full names of a function, of a class, or of an attribute in each class that may declare it."""
    match value:
        case Dotted():
            yield value.name
        case Attribute():
            yield from _methods(value.cls, value.name)
        case Instance():
            yield from (_full(each) for each in value.cls.__mro__)
        case Real(value=found):
            yield from _names_of_real(found)
        case _:
            return


def _names_of_real(found: Any) -> Iterator[str]:
    owner = peek(found, "__self__")
    name = peek(found, "__name__")
    name = name if isinstance(name, str) else ""
    if isinstance(found, type):
        yield _full(found)
    elif isinstance(owner, ModuleType):
        yield f"{owner.__name__}.{name}"
    elif owner is not None and name:
        yield from _methods(owner if isinstance(owner, type) else type(owner), name)
    elif callable(found) and isinstance(peek(found, "__module__"), str) and name:
        yield _full(found)
    elif not isinstance(found, ModuleType):
        yield from (_full(each) for each in kind_of(found).__mro__)


def peek(found: object, name: str, default: Any = None) -> Any:
    """An attribute of an object of somebody's, which may do as it likes when it is asked."""
    try:
        return getattr(found, name, default)
    except Exception:  # noqa: BLE001 (a proxy without its context, a module that loads its parts late)
        return default


def as_class(found: object) -> type[Any] | None:
    """A class, if it is one."""
    return cast("type[Any]", found) if isinstance(found, type) else None


def kind_of(found: object) -> type[Any]:
    """A value's class."""
    return cast("type[Any]", type(found))


def inside(function: ast.AST) -> Iterator[ast.AST]:
    """Everything in a function's body, inner functions with it; not its own arguments and decorators."""
    for statement in getattr(function, "body", []):
        yield from ast.walk(statement)


def _methods(cls: type, name: str) -> Iterator[str]:
    return (f"{_full(each)}.{name}" for each in cls.__mro__ if each is not object)


def _full(found: Any) -> str:
    return f"{found.__module__}.{getattr(found, '__qualname__', found.__name__)}"


def _module(name: str) -> Value:
    module = sys.modules.get(name)
    return Dotted(name) if module is None else Real(module)


def _closure(function: Any) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return found


def _hints(function: Any) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # noqa: BLE001 (annotations are the author's code; what can't be read isn't known)
        return {}


def _returned(function: Any) -> Value | None:
    function = peek(function, "__func__", function)  # of a static or a class method
    if not inspect.isroutine(function) or inspect.iscoroutinefunction(function):
        return None
    hint = _hints(function).get("return")
    return Instance(hint) if isinstance(hint, type) and hint is not type(None) else None


def _outcome(value: Value | None) -> Value | None:
    """What awaiting something gives."""
    if not isinstance(value, Pending) or not isinstance(value.made_by, Command):
        return None
    contract = value.made_by.commands.contract
    spec = contract.commands.get(value.made_by.name) if contract else None
    return of_annotation(spec.result.annotation) if spec is not None else None


def _literal(node: ast.expr) -> type | None:
    match node:
        case ast.Constant():
            return type(node.value)
        case ast.JoinedStr():
            return str
        case ast.Set() | ast.SetComp():
            return set
        case ast.List() | ast.ListComp():
            return list
        case ast.Dict() | ast.DictComp():
            return dict
        case ast.Tuple():
            return tuple
        case _:
            return None
