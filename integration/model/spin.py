"""Spin, the model checker: found or brought from Debian, and asked about kasaga.pml.

Called by `make model` (__main__.py) and by the tests beside it. A question is the model with its bounds and
at most one planted bug; Spin makes a C program of it, which looks at every state there is.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from debian import MachineError, bring

MODEL = Path(__file__).with_name("kasaga.pml")

PROGRAMS = {"spin": "spin", "gcc": "build-essential"}
"""Each program, and the Debian package that brings it."""

VECTOR_BYTES = 2048
"""Of one state, at most."""

DEPTH = 100_000
"""Steps of one run, at most; a run that is longer is an error."""

MEMORY_MIB = 6_000

NOBODY_WAITS_FOR_EVER = "nobody_waits_for_ever"
"""What Spin finds by itself: a process that stands in the middle of something, and nothing goes on."""

_STATES = re.compile(r"^\s*([\d.e+]+) states, stored", re.MULTILINE)
_VIOLATED = re.compile(r"assertion violated .*\(1000==(\d+)\)")
_GUARANTEE = re.compile(r"^#define ([a-z_]+) (\d+)\b", re.MULTILINE)
_BUG = re.compile(r"^#define (\w+) \(BUG == (\d+)\) +/\* (\w+) \*/$", re.MULTILINE)
_SAID = re.compile(r"^ *((?:owner|participant|clock) ?\d*: .*|    \S.*)$")


class ModelError(Exception):
    """The checker couldn't give an answer; the message says why."""


@dataclass(frozen=True)
class Bug:
    """One that the model can have planted.

    Attributes:
        name: as kasaga.pml has it, in small letters.
        number: what the environment's PLANTED says.
        breaks: the guarantee that its counterexample violates.
    """

    name: str
    number: int
    breaks: str


@dataclass(frozen=True)
class Found:
    """What a search has found.

    Attributes:
        states: how many it has looked at.
        broken: the guarantee that doesn't hold, or None.
        story: the lines that the shortest way there prints.
    """

    states: int
    broken: str | None
    story: tuple[str, ...] = ()


def bugs() -> list[Bug]:
    """The bugs that the model names."""
    return [
        Bug(name.lower(), int(number), breaks) for name, number, breaks in _BUG.findall(MODEL.read_text())
    ]


def guarantees() -> list[str]:
    """The guarantees that the model checks, as it names them; the last is Spin's own."""
    return [*(name for name, _ in _GUARANTEE.findall(MODEL.read_text())), NOBODY_WAITS_FOR_EVER]


def set_up(tell: Callable[[str], None]) -> None:
    """Bring what is needed. Raises ModelError."""
    try:
        bring(PROGRAMS, tell)
    except MachineError as error:
        raise ModelError(str(error)) from error


@contextmanager
def built(bounds: Mapping[str, int], *flags: str) -> Generator[Path]:
    """A folder with the program `pan` that searches the model within these bounds. Raises ModelError.

    `flags` are the C compiler's.
    """
    with tempfile.TemporaryDirectory(prefix="kasaga-model-") as folder:
        here = Path(folder)
        for file in MODEL.parent.glob("*.pml"):
            shutil.copy(file, here)
        run(["spin", "-a", *_defines(bounds), MODEL.name], here)
        run(["gcc", "-w", f"-DVECTORSZ={VECTOR_BYTES}", *flags, "-o", "pan", "pan.c"], here)
        yield here


def check(bounds: Mapping[str, int]) -> Found:
    """Look at every state within these bounds. Raises ModelError."""
    with built(bounds, "-O2", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MIB}") as here:
        return search(here, {})


def every_run_ends(bounds: Mapping[str, int]) -> bool:
    """Say whether no run comes back to where it was: then each of them ends. Raises ModelError."""
    with built(bounds, "-O1", "-DNP", f"-DMEMLIM={MEMORY_MIB}") as here:
        return "errors: 0" in run(["./pan", "-l", "-n", f"-m{DEPTH}"], here)


class Nursery:
    """The model with every bug in it, none of them planted yet; a context manager."""

    def __init__(self, bounds: Mapping[str, int]) -> None:
        """Raises ModelError, as the methods do."""
        self._stack = ExitStack()
        self._here = self._stack.enter_context(built({**bounds, "PLANT": 1}, "-O0", "-DSAFETY", "-DBFS"))

    def __enter__(self) -> Nursery:
        """Give it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the program."""
        self._stack.close()

    def find(self, bug: Bug) -> Found:
        """Look for the shortest way to what a bug breaks."""
        return search(self._here, {"PLANTED": str(bug.number)})


def search(here: Path, environment: Mapping[str, str]) -> Found:
    """Run a program that `built` has made. Raises ModelError."""
    said = run(["./pan", "-n", f"-m{DEPTH}"], here, environment)
    states = _STATES.search(said)
    if states is None or "max search depth too small" in said or "out of memory" in said:
        raise ModelError(f"a search came to no end:\n{said[-2000:]}")
    count = int(float(states[1]))
    if "errors: 0" in said:
        return Found(count, None)
    steps = run(["./pan", "-r"], here, environment).splitlines()
    lines = tuple(found[1] for line in steps if (found := _SAID.match(line)))
    return Found(count, _broken(said), lines)


def _broken(said: str) -> str:
    """Say which guarantee a search's error is about."""
    if "invalid end state (at depth" in said:
        return NOBODY_WAITS_FOR_EVER
    number = _VIOLATED.search(said)
    named: dict[int, str] = {int(number): name for name, number in _GUARANTEE.findall(MODEL.read_text())}
    if number is None or int(number[1]) not in named:
        raise ModelError(f"an error that isn't understood:\n{said[:2000]}")
    return named[int(number[1])]


def _defines(bounds: Mapping[str, int]) -> list[str]:
    return [f"-D{name}={value}" for name, value in bounds.items()]


def run(command: list[str], here: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a command in a folder; give what it prints. Raises ModelError."""
    done = subprocess.run(
        command,
        cwd=here,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, **(environment or {})},
    )
    if done.returncode != 0:
        raise ModelError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")
    return done.stdout
