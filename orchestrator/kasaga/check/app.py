"""Checks a whole App: goes from its sagas to the author's functions that they call, and gathers findings."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from kasaga_wire.contracts import is_contract
from kasaga_wire.errors import KasagaError

from ..saga import App, Saga
from . import fit, signals, steps
from .code import Reader
from .names import Commands, Scope
from .rules import (
    BAD_IGNORE,
    CLASH,
    NO_SOURCE,
    RULES,
    UNKNOWN_SIGNAL,
    UNLISTED,
    UNLISTED_CHILD,
    UNLISTED_EVENT,
    UNUSED_IGNORE,
    Finding,
    Rule,
    Severity,
)
from .sources import Code, Ignore, Source, Sources

MAX_FUNCTIONS = 20_000
"""Functions that are read for one App; more is a loop in what is followed."""

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.INFO)


def check_app(app: App) -> list[Finding]:
    """Read the code of all sagas of an App; runs none of it."""
    contracts = [contract.cls for contract in app.contracts.values()]
    check = _Check(app, _sources(app.sagas.values(), contracts))
    return check.run()


def check_broken(error: KasagaError, names: Iterable[dict[str, Any]]) -> list[Finding]:
    """Say why a module can't make its App: `names` are those of the modules that were being imported.

    Returns at least one finding: the error itself, if nothing says it better.
    """
    values: list[Any] = [value for each in names for value in list(each.values())]
    contracts = {value: None for value in values if is_contract(value)}
    made: list[Saga[Any, Any]] = [value for value in values if isinstance(value, Saga)]
    sagas = {(saga.name, saga.version): saga for saga in made}
    sources = _sources(sagas.values(), contracts)
    found = [finding for cls in contracts for finding in fit.undeclarable(cls, sources)]
    found += [
        finding
        for saga in sagas.values()
        for finding in fit.saga_findings(saga, sources)
        if finding.severity is Severity.ERROR
    ]
    if not any(each.code == error.code and each.message == error.message for each in found):
        file, line = _raised_at(error)
        found.append(fit.of_error(error, file, line))
    return _sorted(found)


def _sources(sagas: Iterable[Saga[Any, Any]], contracts: Iterable[type]) -> Sources:
    functions = [inspect.unwrap(saga.function) for saga in sagas]
    return Sources({each.__module__ for each in (*functions, *contracts)})


def _raised_at(error: KasagaError) -> tuple[str, int]:
    """The last line of a module's own in a traceback."""
    file, line = "", 1
    traceback = error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if code.co_name == "<module>":
            file, line = code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next
    return file, line


class _Check:
    """One run."""

    def __init__(self, app: App, sources: Sources) -> None:
        self._app = app
        self._sources = sources
        self._saga: Saga[Any, Any] | None = None
        self._scopes: dict[tuple[FunctionType, type | None], Scope | None] = {}
        self._queue: list[Scope] = []
        self._reached: set[ast.AST] = set()
        self._uses: set[type] = set()
        self._found: dict[tuple[str, int, int, str, str], Finding] = {}

    def run(self) -> list[Finding]:
        """Check everything."""
        for saga in self._app.sagas.values():
            self._check_saga(saga)
        for finding in (*self._contracts(), *fit.together(self._app, self._sources)):
            self._keep(finding)
        return _sorted(self._ignored())

    # --- sagas

    def _check_saga(self, saga: Saga[Any, Any]) -> None:
        self._saga = saga
        for finding in fit.saga_findings(saga, self._sources):
            self._keep(finding)
        code = self._sources.code_of(saga.function)
        if code is None:
            self._no_source(saga)
            return
        scope = Scope(code, saga=True)
        self._scopes[code.function, None] = scope
        steps.Flow(scope, self).walk()
        self._queue = [scope]
        while self._queue and len(self._reached) < MAX_FUNCTIONS:
            self._read(self._queue.pop())

    def _read(self, scope: Scope) -> None:
        node = scope.code.node
        if node in self._reached:
            return
        self._reached.add(node)
        Reader(scope, lambda rule, at, said: self.report(scope, rule, at, said), self._follow).read()
        steps.look_at_contracts(scope, self)
        for wrong, said in signals.undeclared(scope, self._saga.signals if self._saga is not None else None):
            self.report(scope, UNKNOWN_SIGNAL, wrong, said)
        for wrong, said in signals.unlisted(scope, self._saga.awaits if self._saga is not None else ()):
            self.report(scope, UNLISTED_EVENT, wrong, said)

    def _follow(self, function: FunctionType, receiver: type | None) -> None:
        scope = self._scope(function, receiver)
        if scope is not None and scope.code.node not in self._reached:
            self._queue.append(scope)

    def _scope(self, function: FunctionType, receiver: type | None = None) -> Scope | None:
        real: Any = inspect.unwrap(function)
        key: tuple[FunctionType, type | None] = (real, receiver)
        if key not in self._scopes:
            own = isinstance(real, FunctionType) and self._sources.is_own(real)
            code: Code | None = self._sources.code_of(real) if own else None
            self._scopes[key] = Scope(code, receiver=receiver) if code is not None else None
        return self._scopes[key]

    def _no_source(self, saga: Saga[Any, Any]) -> None:
        file = getattr(getattr(saga.function, "__code__", None), "co_filename", "")
        said = (
            f"the source of saga {saga.name} version {saga.version} can't be read: nothing of it was checked"
        )
        self._add(NO_SOURCE, str(file), 1, 1, said)

    # --- what `steps` asks

    def scope_of(self, function: FunctionType) -> Scope | None:
        """See `steps.Desk`."""
        return self._scope(function)

    def undoes(self, error: type) -> bool:
        """See `steps.Desk`."""
        return steps.undoes(error, self._saga.fails_on if self._saga is not None else ())

    def report(self, scope: Scope, rule: Rule, node: ast.AST, message: str) -> None:
        """See `steps.Desk`."""
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1
        self._add(rule, str(scope.code.source.path), line, column, message)

    def used(self, scope: Scope, node: ast.AST, commands: Commands) -> None:
        """See `steps.Desk`."""
        self._uses.add(commands.cls)
        wrong = fit.misfit(self._app, commands.contract) if commands.contract is not None else None
        if wrong is not None:
            self.report(scope, UNLISTED if wrong[0] == UNLISTED.code else CLASH, node, wrong[1])

    def begins(self, scope: Scope, node: ast.AST, child: Saga[Any, Any]) -> None:
        """See `steps.Desk`."""
        if not any(name == child.name for name, _ in self._app.sagas):
            self.report(scope, UNLISTED_CHILD, node, f"saga {child.name!r} isn't in the App")

    # --- contracts

    def _contracts(self) -> Iterator[Finding]:
        """Contracts of the App and of the modules beside it: all that can be told without a saga."""
        self._saga = None
        listed = {contract.cls for contract in self._app.contracts.values()}
        declared = {*listed, *self._uses, *self._beside()}
        for cls in sorted(declared, key=lambda each: (each.__module__, each.__qualname__)):
            yield from fit.undeclarable(cls, self._sources)
        for cls in sorted(self._beside() - listed, key=lambda each: (each.__module__, each.__qualname__)):
            contract = fit.declared(cls)
            other = self._app.contracts.get(contract.name) if contract is not None else None
            if contract is None or other is None or fit.surface(contract) == fit.surface(other):
                continue
            file, line = fit.place_of_class(cls, "", self._sources)
            said = fit.clash(contract, other)
            yield Finding(CLASH.code, CLASH.name, CLASH.severity, file, line, 1, said, CLASH.remedy, "")

    def _beside(self) -> set[type]:
        """Contracts in the modules that declare the App's sagas and contracts."""
        sagas = [inspect.unwrap(saga.function) for saga in self._app.sagas.values()]
        names = {each.__module__ for each in (*sagas, *(each.cls for each in self._app.contracts.values()))}
        modules = [sys.modules[name] for name in names if name in sys.modules]
        return {value for module in modules for value in vars(module).values() if is_contract(value)}

    # --- findings

    def _add(self, rule: Rule, file: str, line: int, column: int, message: str) -> None:
        saga = f"{self._saga.name}/{self._saga.version}" if self._saga is not None else ""
        self._keep(
            Finding(rule.code, rule.name, rule.severity, file, line, column, message, rule.remedy, saga)
        )

    def _keep(self, finding: Finding) -> None:
        key = (finding.file, finding.line, finding.column, finding.code, finding.message)
        self._found.setdefault(key, finding)

    def _ignored(self) -> list[Finding]:
        """Take away what comments say is all right, and say what is wrong with the comments."""
        kept: list[Finding] = []
        for finding in self._found.values():
            ignore = self._ignore_of(finding)
            if ignore is None:
                kept.append(finding)
            else:
                ignore.used.add(finding.code)
        for source in self._sources.read():
            kept += [each for ignore in source.ignores for each in _about(source, ignore)]
        return kept

    def _ignore_of(self, finding: Finding) -> Ignore | None:
        source = self._sources.get(finding.file)
        for ignore in source.ignores if source is not None else ():
            at = finding.line in (ignore.target, ignore.line)
            if at and finding.code in ignore.codes and ignore.reason:
                return ignore
        return None


def _about(source: Source, ignore: Ignore) -> Iterator[Finding]:
    """What is wrong with one comment."""
    unknown = [code for code in ignore.codes if code not in RULES]
    said = ""
    if not ignore.codes:
        said = "the comment names no code"
    elif unknown:
        said = f"{unknown[0]} is no code of `kasaga check`"
    elif not ignore.reason:
        said = "the comment gives no reason"
    if said:
        yield _of_comment(BAD_IGNORE, source, ignore, said)
        return
    for code in ignore.codes:
        if code not in ignore.used:
            yield _of_comment(UNUSED_IGNORE, source, ignore, f"there is no {code} here to ignore")


def _of_comment(rule: Rule, source: Source, ignore: Ignore, message: str) -> Finding:
    file = str(source.path)
    return Finding(rule.code, rule.name, rule.severity, file, ignore.line, 1, message, rule.remedy, "")


def _sorted(found: Iterable[Finding]) -> list[Finding]:
    """By file and line."""
    return sorted(
        found,
        key=lambda each: (each.file, each.line, each.column, _ORDER.index(each.severity), each.code),
    )
