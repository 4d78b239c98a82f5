"""One curve as a small SVG: the median of each size on a logarithmic axis, and its extremes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

WIDTH, HEIGHT = 6.4, 2.6
"""Inches, of 72 units of the SVG each."""

COLOUR = "#2f6f8f"


class Point(NamedTuple):
    """A size, and what every round measured at it."""

    size: float
    median: float
    low: float
    high: float


def draw(points: Sequence[Point], path: Path, *, across: str, up: str) -> None:
    """Write the chart. The same points give the same file, so that a page made anew shows no difference."""
    # By name: matplotlib's own types are only partly known, which strict checking refuses.
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = import_module("matplotlib.pyplot")
    with matplotlib.rc_context({"svg.hashsalt": "kasaga", "svg.fonttype": "none", "font.size": 8}):
        figure, axes = pyplot.subplots(figsize=(WIDTH, HEIGHT))
        sizes, middles = [each.size for each in points], [each.median for each in points]
        below = [each.median - each.low for each in points]
        above = [each.high - each.median for each in points]
        axes.errorbar(sizes, middles, [below, above], marker="o", markersize=3, capsize=3, color=COLOUR)
        # Zero has a place left of one: a logarithm has none for it.
        axes.set_xscale("symlog" if min(sizes) < 1 else "log")
        axes.set_xticks(sizes, [f"{each:,.0f}" for each in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.grid(visible=True, alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
