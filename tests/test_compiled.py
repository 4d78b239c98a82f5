"""What KASAGA_COMPILE=1 compiles. These run on a pure and on a compiled build alike."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath

import pytest

from kasaga_wire.interpreter import build

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
LISTED: list[str] = WHEEL["hooks"]["custom"]["modules"]
NAMES = [".".join(PurePosixPath(path).with_suffix("").parts[1:]) for path in LISTED]


def test_each_module_is_there_once_and_in_order() -> None:
    assert [path for path in LISTED if not (ROOT / path).is_file()] == []
    assert [
        path for path in LISTED if not path.startswith(tuple(f"{each}/" for each in WHEEL["packages"]))
    ] == []
    assert sorted(set(LISTED)) == LISTED


@pytest.mark.parametrize("name", NAMES)
def test_all_of_them_are_compiled_or_none(name: str) -> None:
    file = str(importlib.import_module(name).__file__)
    assert file.endswith(".py") == (build() == "pure Python"), file
    # The twin, which tracebacks quote, and which runs where the library is deleted.
    assert Path(file).with_name(f"{name.rpartition('.')[2]}.py").is_file()


@pytest.mark.parametrize(
    ("package", "never"),
    [("kasaga_wire", ("kasaga", "kasaga_participant")), ("kasaga", ("kasaga_participant",))],
)
def test_one_library_for_all_joins_no_layers(package: str, never: tuple[str, ...]) -> None:
    """Compiled, they are parts of one library, which must run no module that nobody has imported."""
    wanted = [name for name in NAMES if name.split(".")[0] == package]
    code = f"import sys, {', '.join(wanted)}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    said = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert package in said
    assert set(never).isdisjoint(said)


@pytest.mark.parametrize("asked", ["", "0"])
def test_a_wheel_is_pure_unless_it_is_asked_for(tmp_path: Path, asked: str) -> None:
    """With nothing but hatchling: a compiler that isn't asked for isn't needed either."""
    environment = {**os.environ, "KASAGA_COMPILE": asked, "PATH": "/nonexistent"}
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        check=True,
        cwd=ROOT,
        env=environment,
        capture_output=True,
    )
    assert [path.name.partition("-py3")[2] for path in tmp_path.iterdir()] == ["-none-any.whl"]
