"""Modules that a test writes, imports and takes away again, so that no other test meets them."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def imported_from(folder: Path, *names: str) -> Generator[None]:
    """Stand in a folder that imports look into; its top-level modules are fresh, and forgotten at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", [str(folder), *sys.path])
        patch.setattr(sys, "dont_write_bytecode", True)
        forget(names)
        try:
            yield
        finally:
            forget(names)


def forget(names: tuple[str, ...]) -> None:
    """Have modules imported anew, with all that lies in them."""
    for module in [each for each in sys.modules if each.partition(".")[0] in names]:
        del sys.modules[module]
