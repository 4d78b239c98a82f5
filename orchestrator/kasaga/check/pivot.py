"""What of a function comes after its `await ctx.pivot()`, on every way there."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from .names import ContextCall, Pending, Scope


class Pivot:
    """Of one function.

    Attributes:
        there: whether the function has a pivot at all.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._after: set[ast.AST] = set()
        self.there = any(
            self._is_pivot(node) for node in ast.walk(scope.code.node) if isinstance(node, ast.Await)
        )
        if self.there:
            self._block(scope.code.node.body, passed=False)

    def passed(self, node: ast.AST) -> bool:
        """Whether the pivot was passed wherever this node is reached."""
        return node in self._after

    def _is_pivot(self, node: ast.Await) -> bool:
        value = self._scope.infer(node.value)
        return isinstance(value, Pending) and value.made_by == ContextCall("pivot")

    def _block(self, statements: Sequence[ast.stmt], *, passed: bool) -> bool:
        """Mark what comes after the pivot; says whether it is passed at the block's end."""
        for statement in statements:
            if passed:
                self._after.update(ast.walk(statement))
            else:
                passed = self._statement(statement)
        return passed

    def _statement(self, node: ast.stmt) -> bool:
        match node:
            case ast.Expr(value=ast.Await() as awaited):
                return self._is_pivot(awaited)
            case ast.With() | ast.AsyncWith():
                return self._block(node.body, passed=False)
            case ast.If():
                both = [self._block(body, passed=False) for body in (node.body, node.orelse)]
                return all(both)
            case ast.For() | ast.AsyncFor() | ast.While():
                self._block(node.body, passed=False)
            case ast.Try() | ast.TryStar():
                self._block([*node.body, *node.orelse], passed=False)
            case ast.Match():
                for each in node.cases:
                    self._block(each.body, passed=False)
            case _:
                pass
        return False
