"""Contracts and sagas that can't be declared, and contracts that don't fit each other."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kasaga_wire.codec import Schemas
from kasaga_wire.contracts import Contract, contract_of
from kasaga_wire.errors import ContractError, KasagaError

from ..saga import App, Saga
from .rules import CLASH, NO_DEADLINE, UNLISTED, Finding, Severity
from .sources import Sources, class_node, file_of

_LARGEST = 8 * 1024 * 1024
"""Bytes; only schemas are looked at here."""


def declared(cls: type) -> Contract | None:
    """A class's contract; None where it can't be declared."""
    try:
        return contract_of(cls)
    except ContractError:
        return None


def undeclarable(cls: type, sources: Sources) -> Iterator[Finding]:
    """Say what keeps a contract from being declared: a type, a signature, a name."""
    try:
        contract_of(cls)
    except ContractError as error:
        yield of_error(error, *place_of_class(cls, error.message, sources))


def saga_findings(saga: Saga[Any, Any], sources: Sources) -> Iterator[Finding]:
    """Say what is wrong with a saga's own declaration."""
    code = sources.code_of(saga.function)
    file = str(code.source.path) if code else _file_of_function(saga.function)
    line = code.node.lineno if code else 1
    name = f"{saga.name}/{saga.version}"
    for codec in ("input", "result"):
        try:
            getattr(saga, codec)
        except KasagaError as error:
            yield of_error(error, file, line, name)
            return  # both are compiled at once
    if saga.timeout is None:
        message = f"saga {saga.name} has no deadline: it waits as long as its steps do"
        yield Finding(
            NO_DEADLINE.code,
            NO_DEADLINE.name,
            NO_DEADLINE.severity,
            file,
            line,
            1,
            message,
            NO_DEADLINE.remedy,
            name,
        )


def together(app: App, sources: Sources) -> Iterator[Finding]:
    """Say what keeps an App's schemas from being published together."""
    try:
        app.definitions(Schemas(), max_payload=_LARGEST)
    except KasagaError as error:
        first = next(iter(app.sagas.values()), None)
        code = sources.code_of(first.function) if first is not None else None
        yield of_error(error, str(code.source.path) if code else "", code.node.lineno if code else 1)


def misfit(app: App, contract: Contract) -> tuple[str, str] | None:
    """Whether a contract that a saga uses is the App's: the code of what is wrong, and a sentence."""
    listed = app.contracts.get(contract.name)
    if listed is None:
        return UNLISTED.code, f"participant {contract.name!r} isn't in the App"
    if listed.cls is contract.cls or surface(listed) == surface(contract):
        return None
    return CLASH.code, clash(contract, listed)


def clash(one: Contract, other: Contract) -> str:
    """Say what two contracts of one name have different."""
    here, there = surface(one), surface(other)
    differ = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    return (
        f"{one.cls.__qualname__} and {other.cls.__module__}.{other.cls.__qualname__} are both participant "
        f"{one.name!r}, and differ in {', '.join(differ)}"
    )


def surface(contract: Contract) -> dict[str, tuple[str, ...]]:
    """What goes over the wire of each command and compensation."""
    made: dict[str, tuple[str, ...]] = {}
    for name, command in contract.commands.items():
        undo = command.compensation.name if command.compensation else ""
        made[name] = (command.input.schema.json, command.result.schema.json, undo)
    for name, each in contract.compensations.items():
        made[name] = (each.payload.schema.json,)
    return made


def of_error(error: KasagaError, file: str, line: int, saga: str = "") -> Finding:
    """A finding with an error's own code."""
    name, severity = type(error).__name__, Severity.ERROR
    return Finding(error.code, name, severity, file, line, 1, error.message, error.remedy, saga)


def place_of_class(cls: type, message: str, sources: Sources) -> tuple[str, int]:
    """The line of the method that a message begins with, else of the class."""
    file = file_of(sys.modules.get(cls.__module__))
    source = sources.get(file)
    node = class_node(source, cls) if source is not None else None
    if node is None:
        return file, 1
    named = re.match(rf"{re.escape(cls.__qualname__)}\.(\w+)", message)
    for each in node.body:
        if named and isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == named[1]:
            return file, each.lineno
    return file, node.lineno


def _file_of_function(function: Any) -> str:
    code = getattr(function, "__code__", None)
    return str(Path(code.co_filename)) if code is not None else ""
