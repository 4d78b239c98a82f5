"""The matrix as one HTML document: the table, and the story of each run behind its cell.

Station: `Report.html`; it names no other address, so that it can be kept with a build and sent by mail.
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from ..wording import printable
from .faults import KINDS
from .matrix import Report
from .report import headline, meaning, summary, word
from .result import Result

STYLE = """
:root { color-scheme: light dark;
  --line: light-dark(#d5d9e0, #3a4150); --dim: light-dark(#5c6470, #9aa3b2);
  --good: light-dark(#12703a, #5fd38c); --warn: light-dark(#7a5200, #e6b95c);
  --busy: light-dark(#075985, #7cc7f2);
  --bad: light-dark(#b3261e, #ff8a80); }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 96rem; padding: 0 1rem; }
table { border-collapse: collapse; display: block; font-size: 13px; overflow-x: auto; }
th, td { border: 1px solid var(--line); padding: .3rem .45rem; text-align: left; vertical-align: bottom; }
thead th { font-weight: 600; }
tbody th { font-family: ui-monospace, monospace; font-weight: 400; white-space: nowrap; }
pre { border: 1px solid var(--line); border-radius: .4rem; overflow-x: auto; padding: .8rem;
  font-size: 13px; }
a { color: inherit; }
section:target pre { outline: 2px solid var(--busy); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
.good { color: var(--good); } .warn { color: var(--warn); } .busy { color: var(--busy); }
.bad { color: var(--bad); font-weight: 700; } .dim, figcaption { color: var(--dim); }
"""


def as_html(report: Report) -> str:
    """The document."""
    return "\n".join(_document(report)) + "\n"


def _document(report: Report) -> Iterator[str]:
    title = escape(f"Failure matrix of {report.saga}")
    yield f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{STYLE}</style></head><body><h1>{title}</h1><p>{escape(headline(report))}</p>"
    yield from _table(report)
    for line in summary(report):
        yield f'<p class="dim">{escape(line)}</p>'
    failed = [result for result in report.pairs if not result.ok]
    if failed:
        yield "<h2>Pairs of faults</h2>"
    for number, result in enumerate(failed):
        yield from _story(f"pair-{number}", result)
    yield "<h2>Runs</h2>"
    yield from _story("plain", report.plain)
    for number, row in enumerate(report.rows):
        for kind in KINDS:
            cell = report.cells[row, kind]
            if cell is not None:
                yield from _story(f"{kind}-{number}", cell)
    yield "</body></html>"


def _table(report: Report) -> Iterator[str]:
    yield '<table tabindex="0"><thead><tr><th scope="col">Step</th>'
    for head, means in KINDS.values():
        yield f'<th scope="col" title="{escape(means)}">{escape(head)}</th>'
    yield "</tr></thead><tbody>"
    for number, row in enumerate(report.rows):
        yield f'<tr><th scope="row">{escape(str(row))}</th>'
        for kind in KINDS:
            result = report.cells[row, kind]
            text = escape(word(result))
            link = f'<a href="#{kind}-{number}">{text}</a>' if result is not None else text
            yield f'<td class="{meaning(result)}">{link}</td>'
        yield "</tr>"
    yield "</tbody></table>"


def _story(anchor: str, result: Result) -> Iterator[str]:
    yield f'<section id="{anchor}"><h3 class="{meaning(result)}">{escape(result.what)}: {word(result)}</h3>'
    for violation in result.violations:
        yield f'<p class="bad">✗ {escape(printable(violation))}</p>'
    if result.remedy:
        yield f"<p>{escape(printable(result.reason))} Remedy: {escape(printable(result.remedy))}</p>"
    yield f"<pre>{escape(result.timeline)}</pre></section>"
