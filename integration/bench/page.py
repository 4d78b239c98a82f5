"""`make bench-page ARGS=figures.jsonl`: BENCHMARKS.md and its charts, from the figures' lines.

Of lines of the same figure with the same parameters the last one counts. What stands between the marks
`<!-- by hand -->` and `<!-- end by hand -->` is written by people, and kept.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pydantic

from bench.charts import Point, draw
from bench.figures import ROOT
from bench.peers.page import belongs, section
from bench.sections import CURVES, PRELIMINARY, SECTIONS, Curve

PAGE = ROOT / "BENCHMARKS.md"
DOCS = ROOT / "docs" / "bench"
FRAME = Path(__file__).parent / "page.md"

HAND = re.compile(r"(?<=<!-- by hand -->\n).*?(?=<!-- end by hand -->)", re.DOTALL)

NOISE = frozenset({"others_cores", "preliminary", "offered", "by_process"})
"""Parameters that say how it went, not what was measured."""


class Line(pydantic.BaseModel):
    """One figure as it was written; what it says beside these are parameters, too."""

    model_config = pydantic.ConfigDict(extra="allow")

    figure: str
    value: float
    unit: str = ""
    values: list[float] = []
    parameters: dict[str, Any] = {}
    commit: str = ""
    machine: dict[str, Any] = {}
    at: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """What was measured: all parameters but those that tell of noise."""
        known = {**(self.model_extra or {}), **self.parameters}
        skipped = NOISE | {"rounds", "median", "spread"}
        return {name: value for name, value in known.items() if name not in skipped}

    @property
    def rounds(self) -> list[float]:
        """The value of each round."""
        return self.values or [self.value]


def read(path: Path) -> list[Line]:
    """The lines of a file; of those that measured the same, the last one. Raises ValueError."""
    found: dict[tuple[str, str], Line] = {}
    for text in path.read_text().splitlines():
        if text.strip():
            line = Line.model_validate_json(text)
            key = (line.figure, repr(sorted(line.about.items(), key=lambda each: each[0])))
            found.pop(key, None)
            found[key] = line
    return list(found.values())


def write(lines: Sequence[Line], page: Path, docs: Path) -> None:
    """Write the page and its charts; keep what people wrote into the page."""
    docs.mkdir(parents=True, exist_ok=True)
    made = FRAME.read_text()
    drawn = {figure for curve in CURVES for figure in curve.figures}
    named = {figure for section in SECTIONS for figure in section.figures} | drawn | {"machine"}
    tables = [
        _section(each.title, each.text, [x for x in lines if x.figure in each.figures]) for each in SECTIONS
    ]
    others = [x for x in lines if x.figure not in named and not belongs(x.figure)]
    tables.append(_section("More figures", "", others))
    place = docs.relative_to(page.parent)
    parts = {
        "preliminary": [PRELIMINARY] if any(x.parameters.get("preliminary") for x in lines) else [],
        "machine": _machine(lines),
        "tables": chain.from_iterable(tables),
        "peers": section(x.model_dump() for x in lines).splitlines(),
        "curves": chain.from_iterable(_curve(each, lines, docs, place) for each in CURVES),
    }
    for name, part in parts.items():
        made = made.replace(f"{{{name}}}", "".join(f"{each}\n" for each in part))
    if page.exists() and (kept := HAND.search(page.read_text())):
        # By a function: what people write is no pattern.
        made = HAND.sub(lambda _: kept.group(), made)
    page.write_text(made)


def _machine(lines: Sequence[Line]) -> Iterator[str]:
    machines = list({repr(line.machine): line.machine for line in lines if line.machine}.values())
    # One that only says less of the same is the same one.
    for machine in [each for each in machines if not any(each.items() < other.items() for other in machines)]:
        yield from _table(["what", "is"], ([name, str(value)] for name, value in machine.items()))
    commits = sorted(
        {line.commit[:10] + ("+" if line.commit.endswith("+") else "") for line in lines if line.commit}
    )
    times = sorted(line.at for line in lines if line.at)
    if times:
        yield f"Commit {', '.join(commits)} (`+`: with changes), measured from {times[0]} to {times[-1]}.\n"
    speeds = [value for line in lines if line.figure == "machine" for value in line.rounds]
    if speeds:
        yield (
            f"How fast one core added numbers before each scenario: {_number(min(speeds))} to "
            f"{_number(max(speeds))} million a second."
        )
    others = [float(line.parameters["others_cores"]) for line in lines if "others_cores" in line.parameters]
    if others:
        yield f"What others used of the machine meanwhile: {min(others):.2f} to {max(others):.2f} cores."
    yield ""


def _section(title: str, text: str, lines: Sequence[Line]) -> Iterator[str]:
    """A table of figures with the parameters in which lines differ; the others stand below it."""
    if not lines:
        return
    yield f"## {title}\n"
    if text:
        yield f"{text}\n"
    names = list(dict.fromkeys(name for line in lines for name in line.about))
    same = [
        name
        for name in names
        if len(lines) > 1 and len({repr(line.about.get(name, "")) for line in lines}) == 1
    ]
    differ = [name for name in names if name not in same]
    yield from _table(
        ["figure", "with", "median", "rounds", ""],
        (
            [
                line.figure,
                ", ".join(f"{name} {_text(line.about[name])}" for name in differ if name in line.about),
                f"**{_number(line.value)}**",
                _rounds(line),
                line.unit,
            ]
            for line in lines
        ),
    )
    if same:
        yield "All with " + ", ".join(f"{name} {_text(lines[0].about[name])}" for name in same) + ".\n"


def _curve(curve: Curve, lines: Sequence[Line], docs: Path, place: Path) -> Iterator[str]:
    points = {
        figure: {float(line.about["size"]): line for line in lines if line.figure == figure}
        for figure in curve.figures
    }
    shown = [figure for figure in curve.figures if points[figure]]
    if not shown:
        return
    yield f"### {curve.title}\n\n{curve.text}\n"
    for figure in shown:
        drawn = sorted(points[figure].items())
        if len(drawn) > 1:
            path = docs / f"{figure}.svg"
            marks = [Point(size, line.value, min(line.rounds), max(line.rounds)) for size, line in drawn]
            draw(marks, path, across=curve.across, up=drawn[0][1].unit)
            yield f"![{curve.title}: {drawn[0][1].unit}]({place / path.name})\n"
    sizes = sorted({size for figure in shown for size in points[figure]})
    headings = [f"{figure} ({next(iter(points[figure].values())).unit})" for figure in shown]
    yield from _table(
        [curve.across, *headings],
        (
            [_number(size)]
            + [
                f"**{_number(line.value)}** ({_rounds(line)})" if (line := points[figure].get(size)) else ""
                for figure in shown
            ]
            for size in sizes
        ),
    )
    for figure in shown:
        for size, line in sorted(points[figure].items()):
            if size in (sizes[0], sizes[-1]) and (split := line.parameters.get("by_process")):
                parts = ", ".join(f"{name} {_number(float(value))}" for name, value in split.items())
                yield f"At {_number(size)}, {line.unit}: {parts}.\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _rounds(line: Line) -> str:
    low, high = min(line.rounds), max(line.rounds)
    return f"{_number(low)} – {_number(high)}" if len(line.rounds) > 1 else "one"


def _number(value: float) -> str:
    """Three digits that count, and no fewer than stand before the point."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{float(f'{value:.3g}'):g}"


def _text(value: object) -> str:
    return _number(value) if isinstance(value, float) else str(value)


def main() -> None:
    """Make the page from the files that are named; they are kept beside it, so that it can be made again."""
    parser = argparse.ArgumentParser(prog="bench.page", description=__doc__)
    parser.add_argument(
        "lines", nargs="+", type=Path, help="files that `make bench ARGS=--out …` has written"
    )
    options = parser.parse_args()
    DOCS.mkdir(parents=True, exist_ok=True)
    kept = DOCS / "figures.jsonl"
    texts = [path.read_text() for path in options.lines]
    kept.write_text("".join(text if text.endswith("\n") else text + "\n" for text in texts))
    for old in DOCS.glob("*.svg"):
        old.unlink()
    write(read(kept), PAGE, DOCS)
    print(f"{PAGE.name}: {len(read(kept))} figures", file=sys.stderr)


if __name__ == "__main__":
    main()
