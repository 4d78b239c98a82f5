"""Signals that a saga awaits and doesn't declare: nobody could ever send one, and an Event would be none."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from typing import Any, TypeGuard

from ..listening import Event
from .names import ContextCall, Real, Scope


def undeclared(scope: Scope, declared: Collection[str] | None) -> Iterator[tuple[ast.AST, str]]:
    """Each `ctx.signal("name")` of a function whose name isn't declared, and what is wrong with it.

    `declared`: what `@saga(signals=…)` names; None where it names nothing, and any may come.
    """
    for node in ast.walk(scope.code.node) if declared is not None else ():
        if not isinstance(node, ast.Call) or scope.infer(node.func) != ContextCall("signal"):
            continue
        given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "name")]
        name = given[0].value if given and isinstance(given[0], ast.Constant) else None
        if isinstance(name, str) and name not in (declared or ()):
            listed = ", ".join(sorted(declared or ())) or "none"
            yield node, f"signal {name!r} isn't declared: @saga(signals=…) has {listed}"


def unawaited(scope: Scope, declared: Collection[Event[Any]]) -> Iterator[tuple[ast.AST, str]]:
    """Each `ctx.event(event)` of a function whose Event isn't among what `@saga(awaits=…)` lists."""
    for node in ast.walk(scope.code.node):
        if not isinstance(node, ast.Call) or scope.infer(node.func) != ContextCall("event"):
            continue
        given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "event")]
        found = scope.infer(given[0]) if given else None
        event = found.value if isinstance(found, Real) else None
        if _is_event(event) and not any(event is each for each in declared):
            listed = ", ".join(sorted(each.name for each in declared)) or "none"
            yield node, f"{event!r} isn't listed: @saga(awaits=…) has {listed}"


def _is_event(value: object) -> TypeGuard[Event[Any]]:
    return isinstance(value, Event)
