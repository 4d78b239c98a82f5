"""Right uses are accepted, and wrong uses reported, by mypy strict and pyright strict.

Each file `*_right.py` is checked as it is. In each file `*_wrong.py` every mistake is silenced on its
line, once for each checker; a checker that doesn't see the mistake then complains about a comment that
silences nothing. So the repo's own checks stay green, and this test fails when a mistake is no longer
found. Files for sagas, services and the client go beside these and are picked up by their names.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
FILES = sorted([*HERE.glob("*_right.py"), *HERE.glob("*_wrong.py")])

PYRIGHT = {
    "typeCheckingMode": "strict",
    "pythonVersion": "3.11",
    # mypy's comments are for mypy, and each of pyright's own must be needed.
    "enableTypeIgnoreComments": False,
    "reportUnnecessaryTypeIgnoreComment": "error",
}


def run(*command: str, directory: Path = ROOT) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=directory)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.stdout


def test_there_is_something_to_check() -> None:
    assert {file.name for file in FILES} >= {"contracts_right.py", "contracts_wrong.py"}


def test_mypy_sees_what_is_wrong_and_nothing_else() -> None:
    config = ["--config-file", str(ROOT / "pyproject.toml"), "--warn-unused-ignores", "--no-error-summary"]
    assert run(sys.executable, "-m", "mypy", *config, *map(str, FILES)) == ""


def test_pyright_sees_what_is_wrong_and_nothing_else(tmp_path: Path) -> None:
    def relative(path: Path) -> str:  # pyright takes no others
        return os.path.relpath(path, tmp_path)

    sources = [relative(ROOT / each) for each in ("schemas", "orchestrator", "participants")]
    config = {**PYRIGHT, "include": [relative(file) for file in FILES], "extraPaths": sources}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config), encoding="utf-8")
    python = ["--pythonpath", sys.executable]
    report = json.loads(run(sys.executable, "-m", "pyright", "--outputjson", *python, directory=tmp_path))
    assert report["summary"]["filesAnalyzed"] == len(FILES)
    found = [
        f"{Path(each['file']).name}:{each['range']['start']['line'] + 1}: {each['message']}"
        for each in report["generalDiagnostics"]
        if "typeshed" not in each["file"]
    ]
    assert found == []


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.stem.endswith("_wrong")], ids=lambda file: file.stem
)
def test_every_mistake_is_silenced_for_both(file: Path) -> None:
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        mypy, pyright = "# type: ignore[" in line, "# pyright: ignore[" in line
        assert mypy == pyright, f"{file.name}:{number} is seen by one of the two only"
        assert not re.search(r"# (type|pyright): ignore(?!\[)", line), f"{file.name}:{number} says no rule"


@pytest.mark.parametrize(
    "file", [file for file in FILES if file.stem.endswith("_right")], ids=lambda file: file.stem
)
def test_nothing_is_silenced_in_what_is_right(file: Path) -> None:
    assert "ignore" not in file.read_text(encoding="utf-8")
