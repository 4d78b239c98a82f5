"""Signals that a saga awaits and doesn't declare: nobody could ever send one, and an Event would be none."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator

from .names import ContextCall, Scope


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
