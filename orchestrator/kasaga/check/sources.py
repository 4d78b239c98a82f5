"""Files as the check reads them: syntax trees, functions by their real objects, and ignore comments."""

from __future__ import annotations

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

Function = ast.FunctionDef | ast.AsyncFunctionDef

MAX_FILE_BYTES = 4 * 1024 * 1024
"""A source file that is larger isn't one that somebody wrote."""

_COMMENT = re.compile(r"#\s*kasaga:\s*ignore\b(?:\[(?P<codes>[^\]]*)\])?(?P<reason>[^#]*)")


@dataclass(slots=True)
class Ignore:
    """One `# kasaga: ignore[…] reason` comment."""

    line: int
    codes: tuple[str, ...]
    reason: str
    alone: bool
    """It stands on a line of its own, and speaks of the next line of code."""
    target: int
    used: set[str] = field(default_factory=set[str])


@dataclass(slots=True)
class Source:
    """One file."""

    path: Path
    tree: ast.Module
    ignores: list[Ignore]

    @classmethod
    def read(cls, path: Path) -> Source | None:
        """Parse a file; None where it is gone, too large, or isn't Python."""
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                return None
            with tokenize.open(path) as file:
                text = file.read()
            return cls(path, ast.parse(text), _ignores(text))
        except (OSError, SyntaxError, ValueError, tokenize.TokenError):
            return None


@dataclass(frozen=True, slots=True)
class Code:
    """One function: the real object, and how it is written."""

    function: Any
    """A FunctionType; as a field, checkers would take it for a method."""
    node: Function
    source: Source


class Sources:
    """Every file that was asked for, read once."""

    def __init__(self, modules: Iterable[str]) -> None:
        """`modules`: those that declare the author's sagas and contracts."""
        self._read: dict[str, Source | None] = {}
        self._packages: set[str] = set()
        self._folders: set[str] = set()
        for name in modules:
            file = file_of(sys.modules.get(name))
            if file:
                self._folders.add(str(Path(file).parent))
                if "." in name:
                    self._packages.add(name.partition(".")[0])

    def read(self) -> list[Source]:
        """All files that were read so far."""
        return [source for source in self._read.values() if source is not None]

    def get(self, file: str) -> Source | None:
        """One file; None where it can't be read."""
        if file not in self._read:
            self._read[file] = Source.read(Path(file)) if file else None
        return self._read[file]

    def is_own(self, function: FunctionType) -> bool:
        """Whether the author wrote it: in the package of a saga or contract, or in a file beside it."""
        module = str(getattr(function, "__module__", "") or "")
        if module.partition(".")[0] in ("kasaga", "kasaga_wire", "kasaga_participant"):
            return False
        if module.partition(".")[0] in self._packages:
            return True
        path = Path(function.__code__.co_filename)
        folder = next((each for each in self._folders if path.is_relative_to(each)), None)
        if folder is None:
            return False
        below = path.relative_to(folder).parts
        return "site-packages" not in below and "dist-packages" not in below

    def code_of(self, function: object) -> Code | None:
        """Find how a function is written; None where its source isn't there."""
        real = inspect.unwrap(function) if callable(function) else None
        if not isinstance(real, FunctionType):
            return None
        source = self.get(real.__code__.co_filename)
        node = _find(source.tree, real.__code__) if source is not None else None
        return Code(real, node, source) if source is not None and node is not None else None


def file_of(module: ModuleType | None) -> str:
    """The source file of a module, or an empty text."""
    path = getattr(module, "__file__", None)
    return path if isinstance(path, str) and path.endswith(".py") else ""


def class_node(source: Source, cls: type) -> ast.ClassDef | None:
    """Where a class is declared in its file."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef) and node.name == cls.__name__:
            return node
    return None


def _find(tree: ast.Module, code: CodeType) -> Function | None:
    for node in ast.walk(tree):
        if isinstance(node, Function) and node.name == code.co_name:
            lines = [node.lineno, *(each.lineno for each in node.decorator_list)]
            if min(lines) == code.co_firstlineno:
                return node
    return None


def _ignores(text: str) -> list[Ignore]:
    found: list[Ignore] = []
    waiting: list[Ignore] = []
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in blank:
            for each in waiting:
                each.target = token.start[0]
            waiting.clear()
            continue
        if token.type != tokenize.COMMENT:
            continue
        match = _COMMENT.match(token.string)
        if match is None:
            continue
        line = token.start[0]
        codes = tuple(code.strip().upper() for code in (match["codes"] or "").split(",") if code.strip())
        alone = not token.line[: token.start[1]].strip()
        made = Ignore(line, codes, match["reason"].strip(" \t-:–—"), alone, line)
        found.append(made)
        if alone:
            waiting.append(made)
    return found
