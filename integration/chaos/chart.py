"""The run as a picture: sagas that end each second, those that are open, and each fault where it was held.

Called by `run.py`. Needs no display.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from chaos.faults import Struck
from chaos.report import Outcome, last_line, recovery
from chaos.schedule import Kind

WIDTH, HEIGHT = 16.0, 9.0
"""Inches."""

RATE_SECONDS = 1.0
"""Of which the rate is the mean."""

COLOURS = dict(zip(Kind, (f"C{number}" for number in range(len(Kind))), strict=True))


def draw(outcome: Outcome, path: Path) -> None:
    """Writes an SVG."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = import_module("matplotlib.pyplot")
    figure, (rates, opens, faults) = pyplot.subplots(
        3, 1, sharex=True, figsize=(WIDTH, HEIGHT), height_ratios=(2, 2, 3), layout="constrained"
    )
    times = [sample.at for sample in outcome.samples]
    for name, counts in (
        ("orders that came", [sample.started for sample in outcome.samples]),
        ("sagas that ended", [sample.ended for sample in outcome.samples]),
    ):
        rates.plot(times, rate(times, counts), linewidth=0.9, label=name)
    rates.set_ylabel("a second")
    rates.legend(loc="upper right", fontsize="small")
    opens.fill_between(times, [sample.open for sample in outcome.samples], step="post", alpha=0.6)
    opens.set_ylabel("sagas open")
    opens.set_ylim(bottom=0)
    _faults(faults, outcome.done)
    figure.suptitle(last_line(outcome), fontsize="medium")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _faults(axes: Any, struck: Sequence[Struck]) -> None:
    """A line for each target: dark while a fault is held, light until it is got over."""
    targets = sorted({each.fault.target for each in struck}, reverse=True)
    for each in struck:
        if each.struck is None or each.mended is None:
            continue
        line, colour = targets.index(each.fault.target), COLOURS[each.fault.kind]
        held = max(each.mended - each.struck, 0.4)
        axes.barh(line, recovery(each) or 0.0, left=each.mended, height=0.6, color=colour, alpha=0.25)
        axes.barh(line, held, left=each.struck, height=0.6, color=colour)
        axes.text(each.struck, line + 0.32, str(each.fault.number), fontsize=6)
    for kind in Kind:
        axes.barh(0, 0, color=COLOURS[kind], label=str(kind))
    axes.set_yticks(range(len(targets)), targets)
    axes.set_xlabel("seconds; dark: a fault is held, light: until it is got over")
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize="small")


def rate(times: Sequence[float], counts: Sequence[int]) -> list[float]:
    """Gives for each moment how much came in the second before it, by what was seen nearest to its begin."""
    rates: list[float] = []
    begin = 0
    for now, count in zip(times, counts, strict=True):
        while times[begin + 1 : begin + 2] and times[begin + 1] <= now - RATE_SECONDS:
            begin += 1
        seconds = now - times[begin]
        rates.append((count - counts[begin]) / seconds if seconds > 0 else 0.0)
    return rates
