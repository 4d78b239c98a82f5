"""Every fault at every step, then pairs of them: which runs that makes, and what came of each.

Station: behind `Case.matrix`. The steps are those that the runs themselves show: a step that only follows on
another's failure has its row as well, and is reached through that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .faults import ENDING, KINDS, PASSING, TIMEOUT_HAPPENED, UNDO_KINDS, Fault, Given
from .result import Result

if TYPE_CHECKING:
    from .case import Case

MOST_PAIRS = 2_000
"""Pairs that are run; a saga with many steps has more, and the report says so."""


@dataclass(frozen=True, slots=True)
class Row:
    """A step of the matrix. `way`: the faults through which a run comes to it; none where it needs none."""

    step: str
    type: str
    way: tuple[Fault, ...] = ()

    def __str__(self) -> str:
        return f"{self.step} {self.type}" + (f" (after {self.way[0]})" if self.way else "")


@dataclass(slots=True)
class Report:
    """What a matrix has found. False when something is wrong; printed, it is the table.

    Attributes:
        saga: its name.
        plain: the run in which nothing goes wrong.
        rows: the steps, in the order of the runs that show them.
        cells: by row and kind of fault, the run; None where there was no occasion for the fault.
        pairs: runs with two faults at once.
        omitted: pairs that weren't run, for their number.
        seconds: real time that it took.
    """

    saga: str
    plain: Result
    rows: list[Row] = field(default_factory=list[Row])
    cells: dict[tuple[Row, str], Result | None] = field(
        default_factory=dict[tuple[Row, str], "Result | None"]
    )
    pairs: list[Result] = field(default_factory=list[Result])
    omitted: int = 0
    seconds: float = 0.0

    @property
    def results(self) -> list[Result]:
        """All runs, the plain one first."""
        return [self.plain, *(each for each in self.cells.values() if each is not None), *self.pairs]

    @property
    def failures(self) -> list[Result]:
        """The runs in which an invariant doesn't hold; those with fewer faults first."""
        return [result for result in self.results if not result.ok]

    @property
    def ok(self) -> bool:
        """Whether all invariants hold in all runs."""
        return not self.failures

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        from .report import as_text

        return "\n".join(as_text(self))

    def html(self) -> str:
        """The report as one HTML document that needs nothing beside it."""
        from .html import as_html

        return as_html(self)


def explore(case: Case[Any, Any], *, pairs: bool) -> Report:
    """Run the whole matrix of a case."""
    began = time.perf_counter()
    report = Report(case.saga.name, case.play(Given(())))
    todo = [Row(path, type_) for path, type_ in report.plain.steps.items()]
    while todo:
        row = todo.pop(0)
        report.rows.append(row)
        for kind in KINDS:
            report.cells[row, kind] = _cell(case, report, row, kind)
        todo += [new for new in _new_rows(report, row) if new not in todo]
    if pairs:
        chosen = list(_pairs(report))
        report.omitted = max(0, len(chosen) - MOST_PAIRS)
        for faults in chosen[:MOST_PAIRS]:
            result = case.play(Given(faults))
            if {*faults} <= {*result.struck}:
                report.pairs.append(result)
    report.seconds = time.perf_counter() - began
    return report


def _cell(case: Case[Any, Any], report: Report, row: Row, kind: str) -> Result | None:
    """One fault at one step. A fault of its undo needs an undo: the step times out, having happened."""
    fault = Fault(kind, row.step)
    faults = (*row.way, fault)
    if kind in UNDO_KINDS:
        timed_out = report.cells[row, TIMEOUT_HAPPENED]
        if timed_out is None or not any(
            each.kind == "undo" and each.step == row.step for each in timed_out.handled
        ):
            return None
        faults = (*row.way, Fault(TIMEOUT_HAPPENED, row.step), fault)
    result = case.play(Given(faults))
    return result if fault in result.struck else None


def _new_rows(report: Report, row: Row) -> Iterator[Row]:
    """Steps that a fault at this row has brought about. One fault leads to a row, or rows would never end."""
    if row.way:
        return
    known = {(each.step, each.type) for each in report.rows}
    for kind in KINDS:
        result = report.cells[row, kind]
        for step in result.steps.items() if result is not None else ():
            if step not in known and step not in report.plain.steps.items():
                known.add(step)
                yield Row(*step, (Fault(kind, row.step),))


def _pairs(report: Report) -> Iterator[tuple[Fault, Fault]]:
    """Two faults at two steps, such that the second one can matter to what the first one did.

    A step that went through in some odd way and is undone later; an undo that goes wrong in each way of
    coming to it; and, where a saga goes on after a step has failed, whatever comes next.
    """
    rows = [row for row in report.rows if not row.way]
    for index, row in enumerate(rows):
        later = rows[index + 1 :]
        for kind in sorted(PASSING):
            yield from _meet(report, row, kind, later, ENDING)
        for kind in sorted(UNDO_KINDS):
            yield from _meet(report, row, kind, later, ENDING)
        for kind in sorted(ENDING):
            single = report.cells[row, kind]
            if single is None:
                continue
            after = [each for each in later if single.steps.get(each.step) == each.type]
            yield from _meet(report, row, kind, after, ENDING | PASSING)


def _meet(
    report: Report, row: Row, kind: str, others: Sequence[Row], kinds: frozenset[str]
) -> Iterator[tuple[Fault, Fault]]:
    if report.cells[row, kind] is None:
        return
    for other in others:
        for second in sorted(kinds):
            if report.cells[other, second] is not None:
                yield Fault(kind, row.step), Fault(second, other.step)
