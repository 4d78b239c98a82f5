"""Tells one process another time, and makes its disk slow: `shim.c`, compiled and preloaded.

Called by `town.py`, which gives each process a shim of its own.
"""

from __future__ import annotations

import mmap
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
COMPILE_SECONDS = 60.0
_TWO_NUMBERS = struct.Struct("=qq")


def build(directory: Path) -> Path:
    """Compiles the shim; raises CalledProcessError with what the compiler says."""
    library = directory / "shim.so"
    argv = ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(argv, check=True, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    library.chmod(0o644)
    return library


class Shim:
    """What one process (and its children) is told."""

    def __init__(self, library: Path, told: Path) -> None:
        self._library = library
        self._told = told
        told.write_bytes(bytes(_TWO_NUMBERS.size))
        told.chmod(0o644)  # Postgres runs as another user
        with told.open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), _TWO_NUMBERS.size)).cast("q")

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables that a process is started with."""
        return {"LD_PRELOAD": str(self._library), "CHAOS_SHIM": str(self._told)}

    def jump(self, seconds: float) -> None:
        """Sets the wall clock off by so many seconds, from now on; 0 sets it right."""
        self._numbers[0] = round(seconds * 1e9)

    def slow_down(self, seconds: float) -> None:
        """Makes each fsync take so much longer; 0 makes the disk fast again."""
        self._numbers[1] = round(seconds * 1e6)
