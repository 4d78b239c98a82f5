"""A figure is one JSON line: printed, and appended to a file if there is one. The page is made from these.

{"figure": "throughput", "value": 812.4, "unit": "sagas/s", "values": [790.1, 812.4, 820.0], "rounds": 3,
 "median": 812.4, "spread": 0.037, "parameters": {"inbox": "on", "in_flight": 1000, …},
 "commit": "57fdfa7…", "machine": {"cpu": "…", "cores": 2, …}, "at": "2026-11-23T11:42:00Z"}
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.machine import describe

ROOT = Path(__file__).parent.parent.parent


def commit() -> str:
    """The commit that is measured; a `+` if files differ from it."""
    head = _git("rev-parse", "HEAD")
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=False, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def _short(value: float) -> float:
    """Six digits that count: nothing here is measured better than that."""
    return float(f"{value:.6g}")


@dataclass(frozen=True, slots=True)
class Figures:
    """Where the figures of a run go, and what is said of all of them."""

    out: Path | None = None
    parameters: Mapping[str, object] = field(default_factory=dict[str, object])
    commit: str = field(default_factory=commit)
    machine: Mapping[str, object] = field(default_factory=describe)

    def put(
        self, figure: str, values: float | Sequence[float], unit: str, /, **parameters: object
    ) -> dict[str, object]:
        """Make a figure's line, and write it; see `line` and `write`."""
        line = self.line(figure, values, unit, **parameters)
        self.write(line)
        return line

    def line(
        self, figure: str, values: float | Sequence[float], unit: str, /, **parameters: object
    ) -> dict[str, object]:
        """Make the line of one figure.

        Args:
            figure: its name, such as `throughput`.
            values: one of each round.
            unit: such as `sagas/s`, `ms`, `bytes`, `share`.
            parameters: what else it depends on; they win over those of the whole run.

        Returns:
            The line. `value` and `median` are the median of the values; `spread` is the largest less the
            smallest, as a share of it.
        """
        rounds = [float(each) for each in (values if isinstance(values, Sequence) else [values])]
        middle = median(rounds)
        return {
            "figure": figure,
            "value": _short(middle),
            "unit": unit,
            "values": [_short(each) for each in rounds],
            "rounds": len(rounds),
            "median": _short(middle),
            "spread": _short((max(rounds) - min(rounds)) / abs(middle)) if middle else 0.0,
            "parameters": {**self.parameters, **parameters},
            "commit": self.commit,
            "machine": dict(self.machine),
            "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        }

    def write(self, line: Mapping[str, object]) -> None:
        """Print a line, and append it to the file."""
        text = json.dumps(line)
        if self.out is not None:
            with self.out.open("a") as file:
                file.write(text + "\n")
        print(text, flush=True)


def tell(text: str) -> None:
    """Say how far the bench is; figures alone go to the standard output."""
    print(f"bench: {text}", file=sys.stderr, flush=True)
