"""The matrix as a table for terminals: steps down, faults across, the failures below with their stories.

Station: printed by tests, by the pytest plugin and by `kasaga simulate`; `html.py` says the same as a page.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from ..engine import lifecycle
from ..wording import PLAIN, Paint, counted
from .faults import KINDS
from .matrix import Report
from .result import Result

WIDTH = 120
"""Columns where the output is no terminal."""
STORIES = 5
"""Failures that are told at length; the others are named."""
GAP = "  "
NONE = "·"

LEGEND = (
    "done: COMPLETED · undone: COMPENSATED · ended: TERMINATED · STUCK: with reason and remedy · "
    f"✗: an invariant doesn't hold · {NONE}: no occasion"
)

WORDS = {lifecycle.COMPLETED: "done", lifecycle.COMPENSATED: "undone", lifecycle.TERMINATED: "ended"}
MEANING = {
    lifecycle.COMPLETED: "good",
    lifecycle.COMPENSATED: "warn",
    lifecycle.STUCK: "busy",
    lifecycle.TERMINATED: "busy",
}


def word(result: Result | None) -> str:
    """What a cell says."""
    if result is None:
        return NONE
    ends = WORDS.get(result.state, result.state)
    return ends if result.ok else f"✗ {ends}"


def meaning(result: Result | None) -> str:
    """Which of `Paint.CODES` a cell has."""
    if result is None:
        return "dim"
    return MEANING.get(result.state, "bad") if result.ok else "bad"


def as_text(report: Report, *, width: int = 0, paint: Paint = PLAIN) -> list[str]:
    """The report as lines, in tables as wide as the terminal allows."""
    width = width or shutil.get_terminal_size((WIDTH, 24)).columns
    lines = [headline(report), ""]
    for kinds in _fitting(report, width):
        lines += [*_table(report, kinds, paint), ""]
    lines += summary(report)
    failures = report.failures
    for result in failures[:STORIES]:
        lines += ["", *str(result).splitlines()]
    lines += ["", *(f"and {result.saga}, {result.what}" for result in failures[STORIES:])]
    return lines[:-1] if not lines[-1] else lines


def headline(report: Report) -> str:
    """One line: how many runs, and how many of them are wrong."""
    failed = len(report.failures)
    how = (
        "all invariants hold"
        if not failed
        else f"{counted(failed, 'run')} with an invariant that doesn't hold"
    )
    return f"{report.saga}: {counted(len(report.results), 'run')} in {report.seconds:.2f} s, {how}"


def summary(report: Report) -> Iterator[str]:
    """What the table has no cells for."""
    yield LEGEND
    if not report.plain.ok:
        yield "✗ also where nothing goes wrong"
    if report.pairs or report.omitted:
        ends = Counter(WORDS.get(result.state, result.state) for result in report.pairs)
        said = ", ".join(f"{count} {ends_so}" for ends_so, count in ends.most_common())
        failed = sum(not result.ok for result in report.pairs)
        yield f"pairs of faults: {len(report.pairs)} ({said}), {failed or 'none'} with ✗" + (
            f"; {report.omitted} more weren't run" if report.omitted else ""
        )
    left = sorted({step for result in report.results for step in result.left})
    if left:
        yield f"no compensation, so left behind when a saga is undone: {', '.join(left)}"


def _fitting(report: Report, width: int) -> Iterator[list[str]]:
    """The faults, in groups whose columns fit beside the steps."""
    room = width - max((len(str(row)) for row in report.rows), default=0)
    group: list[str] = []
    used = 0
    for kind in KINDS:
        needs = _width(report, kind) + len(GAP)
        if group and used + needs > room:
            yield group
            group, used = [], 0
        group.append(kind)
        used += needs
    yield group


def _width(report: Report, kind: str) -> int:
    return max(
        *(len(each) for each in KINDS[kind][0].split()),
        *(len(word(report.cells[row, kind])) for row in report.rows),
        1,
    )


def _table(report: Report, kinds: Sequence[str], paint: Paint) -> Iterator[str]:
    first = max((len(str(row)) for row in report.rows), default=0)
    widths = [_width(report, kind) for kind in kinds]
    heads = [KINDS[kind][0].split() for kind in kinds]
    height = max(len(head) for head in heads)
    for level in range(height):
        cells = [head[level - height + len(head)] if level >= height - len(head) else "" for head in heads]
        yield paint("dim", _line("".ljust(first), _padded(cells, widths)))
    for row in report.rows:
        results = [report.cells[row, kind] for kind in kinds]
        texts = _padded([word(result) for result in results], widths)
        painted = [paint(meaning(result), text) for result, text in zip(results, texts, strict=True)]
        yield _line(str(row).ljust(first), painted)


def _padded(cells: Iterable[str], widths: Iterable[int]) -> list[str]:
    return [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]


def _line(first: str, cells: Iterable[str]) -> str:
    return GAP.join((first, *cells)).rstrip()
