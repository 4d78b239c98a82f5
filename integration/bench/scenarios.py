"""Scenarios by name. A file in this folder adds one:

@scenario("throughput", "sagas per second, with and without the participants' inbox")
def throughput(run: Run) -> None:
    with run.bed(Setup(inbox=True)) as bed:
        run.put("throughput", run.rounds(lambda: bed.load.closed(1000, run.seconds).rate), "sagas/s", …)
"""

from __future__ import annotations

import importlib
import shutil
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bench.bed import B, Bed, Setup, other_bed
from bench.figures import Figures, tell

T = TypeVar("T")

IN_FLIGHT = 1000
"""Sagas in flight where throughput is measured: more don't end sooner."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a scenario is given: where figures go, and how long and how often to measure."""

    figures: Figures
    seconds: float = 15.0
    rounds: int = 3
    warm_up: float = 10.0
    """Seconds before the first round of each size: it takes a new broker that long to get fast."""
    in_flight: int = IN_FLIGHT
    """Sagas in flight where throughput is measured."""
    full: bool = False
    """The largest sizes too: hours, and tens of gigabytes."""
    largest: int = 0
    """No larger sizes than this; 0: whatever the scenario has."""
    keep: Path | None = None
    """Where servers' data and logs stay; else they are removed."""
    held: list[list[dict[str, object]]] = field(default_factory=list[list[dict[str, object]]])
    """Figures of beds that aren't audited yet."""

    @contextmanager
    def bed(self, setup: Setup, *, audit: bool = True) -> Generator[Bed]:
        """Bring everything up, anew for each call; audit what ran. See `bench.bed`.

        Figures that are put meanwhile are written when the audit has found nothing, else never.
        """
        with self.other_bed(Bed, setup, audit=audit) as made:
            yield made

    @contextmanager
    def other_bed(self, kind: type[B], setup: Setup, *, audit: bool = True) -> Generator[B]:
        """The same with other sagas."""
        directory = Path(tempfile.mkdtemp(prefix="kasaga-bench-", dir=self.keep))
        directory.chmod(0o755)
        tell(f"{setup.parameters()} in {directory}")
        self.held.append([])
        try:
            with other_bed(kind, setup, directory, audit=audit) as made:
                yield made
            for line in self.held[-1]:
                self.figures.write(line)
        finally:
            self.held.pop()
            if self.keep is None:
                shutil.rmtree(directory)

    def sizes(self, *sizes: int, full: int = 0) -> list[int]:
        """The points of a curve; `full` is one for `--full` alone."""
        wanted = [*sizes, *([full] if full and self.full else [])]
        return [each for each in wanted if not self.largest or each <= self.largest]

    def repeat(self, what: Callable[[], T]) -> list[T]:
        """Do it once a round."""
        found: list[T] = []
        for number in range(self.rounds):
            found.append(what())
            tell(f"  round {number + 1} of {self.rounds}: {found[-1]}")
        return found

    def put(self, figure: str, values: float | list[float], unit: str, /, **parameters: object) -> None:
        """Print a figure: see `Figures.put`; what the whole run has in common is said by itself."""
        line = self.figures.line(figure, values, unit, seconds=self.seconds, **parameters)
        if self.held:
            self.held[-1].append(line)
        else:
            self.figures.write(line)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One that can be asked for by name."""

    name: str
    about: str
    long: bool
    run: Callable[[Run], None]


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    name: str, about: str, *, long: bool = False
) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register a scenario. `long`: it takes hours, and is run only if it is asked for by name."""

    def register(function: Callable[[Run], None]) -> Callable[[Run], None]:
        SCENARIOS[name] = Scenario(name, about, long, function)
        return function

    return register


def load_all() -> dict[str, Scenario]:
    """Import every module of this folder, so that each registers what it has; gives them in order."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem != "__main__" and not path.stem.startswith("test_"):
            importlib.import_module(f"bench.{path.stem}")
    # Curves last: they take longest.
    return dict(sorted(SCENARIOS.items(), key=lambda each: each[0].startswith("growth-")))
