"""The house rules that no linter knows. CONTRIBUTING.md has them all."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import kasaga_wire

ROOT = Path(__file__).parent.parent
FOLDERS = ("orchestrator", "participants", "schemas", "tests", "integration")

FILE_LINES = 500
FUNCTION_LINES = 70

SKIPPING = re.compile(r"pytest\.(skip|importorskip|xfail)\(|mark\.(skip|skipif|xfail)\b|@unittest\.skip")


def sources(*endings: str) -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in endings and "__pycache__" not in path.parts and path.is_file():
                yield path


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in sources(".py", ".sql", ".js", ".css", ".html")
        if (lines := path.read_text().count("\n")) > FILE_LINES
    }
    assert long == {}


def test_no_function_is_longer_than_a_reader_can_hold() -> None:
    long: dict[str, int] = {}
    for path in sources(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long[f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"] = lines
    assert long == {}


def test_no_test_skips_itself() -> None:
    here = Path(__file__)
    assert [str(path) for path in sources(".py") if path != here and SKIPPING.search(path.read_text())] == []


def test_what_coverage_leaves_out_says_why() -> None:
    bare = re.compile(r"pragma: no (cover|branch)(?! - \w)")
    here = Path(__file__)
    assert [str(path) for path in sources(".py") if path != here and bare.search(path.read_text())] == []


def test_test_modules_have_names_of_their_own() -> None:
    """Helpers are imported by their plain names, so that a second `eventually.py` would hide the first."""
    names = [path.name for folder in ("tests", "integration") for path in (ROOT / folder).glob("*.py")]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_source_root_is_not_a_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()


def test_every_package_says_that_it_is_typed() -> None:
    for package in ("orchestrator/kasaga", "participants/kasaga_participant", "schemas/kasaga_wire"):
        assert (ROOT / package / "py.typed").exists()


def test_the_version_is_written_once() -> None:
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+([a-z]+\d+)?", kasaga_wire.__version__)


def test_the_lock_names_no_address_and_pins_every_sum() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"\w+://|--(extra-)?index-url|--find-links", lock)
    pinned = re.findall(r"^[a-z0-9][^\s=]*==", lock, re.MULTILINE)
    assert pinned
    assert lock.count("--hash=sha256:") >= len(pinned)
