"""Packages for the check, made from the texts beside: wrong code, which no other checker should look at."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from imported import imported_from

SHOPS = Path(__file__).parent / "shops"


@contextmanager
def package(folder: Path, name: str, files: dict[str, str]) -> Generator[Path]:
    """Write a package, and forget at the end that it was ever imported."""
    home = folder / name
    home.mkdir()
    for file, text in {"__init__": "", **files}.items():
        (home / f"{file}.py").write_text(text, encoding="utf-8")
    with imported_from(folder, name):
        yield home


def shop(name: str) -> dict[str, str]:
    """The files of one of the shops beside."""
    return {path.stem: path.read_text(encoding="utf-8") for path in (SHOPS / name).glob("*.txt")}


def expected(files: dict[str, str]) -> Counter[tuple[str, int, str]]:
    """What the comments say must be found: file, line, code."""
    found: Counter[tuple[str, int, str]] = Counter()
    for name, text in files.items():
        for number, line in enumerate(text.splitlines(), 1):
            for codes in re.findall(r"# expect: ([KSG\d\- ]+)$", line):
                found.update((f"{name}.py", number, code) for code in codes.split())
    return found
