"""The pytest plugin: the fixture `failure_matrix`, its tables in the summary, its pages in a folder.

Station: loaded by pytest in every project that has Kasaga installed, so it imports nothing of ours before
the fixture is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .testing import Report

OPTION = "--kasaga-report"
TABLE = "kasaga_failure_matrix"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the plugin's one option."""
    parser.getgroup("kasaga").addoption(
        OPTION,
        metavar="FOLDER",
        type=Path,
        default=None,
        help="write each failure matrix to FOLDER as an HTML page, and show the tables",
    )


@pytest.fixture
def failure_matrix(request: pytest.FixtureRequest) -> Callable[..., Report]:
    """Runs a saga's failure matrix, and fails the test unless all invariants hold.

    Takes what `kasaga.testing.matrix` takes, or a Case alone; gives the Report.
    """

    def check(saga_or_case: Any, *arguments: Any, pairs: bool = True, **about: Any) -> Report:
        from .testing import Case

        case: Any = saga_or_case
        if not isinstance(saga_or_case, Case):
            case = Case(saga_or_case, *arguments, **about)
        elif arguments or about:
            raise TypeError("a Case says everything already")
        report: Report = case.matrix(pairs=pairs)
        _keep(request, report)
        if not report.ok:
            pytest.fail(str(report), pytrace=False)
        return report

    return check


def _keep(request: pytest.FixtureRequest, report: Report) -> None:
    from .testing.report import as_text

    folder: Path | None = request.config.getoption(OPTION)
    if folder is None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^\w.-]+", "-", request.node.nodeid)[-120:].strip("-")
    (folder / f"{name}.html").write_text(report.html(), encoding="utf-8")
    # A test in another process (pytest-xdist) can hand over text alone.
    request.node.user_properties.append((TABLE, "\n".join(as_text(report))))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the tables, if the option asks for them."""
    if config.getoption(OPTION) is None:
        return
    shown = [
        value
        for reports in terminalreporter.stats.values()
        for each in reports
        if getattr(each, "when", "") == "call"
        for name, value in each.user_properties
        if name == TABLE
    ]
    for text in shown:
        terminalreporter.section("failure matrix")
        terminalreporter.write_line(str(text))
