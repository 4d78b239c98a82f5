"""Signals and events that a saga awaits and doesn't declare: none would ever come."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Sequence
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


def is_event(value: object) -> TypeGuard[Event[Any]]:
    """Whether it is an Event of any type."""
    return isinstance(value, Event)


def unlisted(scope: Scope, awaits: Sequence[Event[Any]]) -> Iterator[tuple[ast.AST, str]]:
    """Each `ctx.event(event)` of a function whose Event `@saga(awaits=…)` doesn't list, and what is wrong."""
    for node in ast.walk(scope.code.node):
        if not isinstance(node, ast.Call) or scope.infer(node.func) != ContextCall("event"):
            continue
        given = [*node.args[:1], *(each.value for each in node.keywords if each.arg == "event")]
        found = scope.infer(given[0]) if given else None
        if not isinstance(found, Real) or not is_event(found.value):
            continue
        event = found.value
        same = [each for each in awaits if each.name == event.name]
        if not same:
            listed = ", ".join(sorted(each.name for each in awaits)) or "none"
            yield node, f"event {event.name!r} isn't declared: @saga(awaits=…) has {listed}"
        elif same[0].type != event.type:
            yield node, f"event {event.name!r} is declared with another type"
