"""A saga's timeline as bars: where each begins and ends on one scale, and what it is.

Pure. Called by `story`; drawn by `templates/timeline.html` as one SVG a row, since a strict policy for
content allows no styles in elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..engine import lifecycle
from ..engine.model import SCOPE, SLEEP
from ..timeline import ACTION, CODE, EMIT, PIVOT, START, STATE, UNDOING, meaning, summarised
from ..timeline_attributes import ATTRIBUTES, LONG, RUN
from ..timeline_entries import PATCH, RECEIVED, UPDATE, Attempt, Entry, attempt_text
from ..wording import STATE_MEANING, counted, length, printable, shortened

SCALE = 1000
"""Units from the left to the right edge."""

ROWS_DRAWN, ROWS_AT_END = 60, 20
"""Of a saga with more steps, those are drawn that tell something, and the last ones."""

BARS_DRAWN = 100
"""Attempts of one row that have a bar of their own: the last ones. Those before them share one."""

TEXT_SHOWN = 160
"""Characters beside or over a bar."""

PARTS = 4
"""Of the scale, each with its time below."""


@dataclass(slots=True)
class Bar:
    """From x, as wide as that, in units of the scale."""

    x: float
    width: float
    look: str
    """busy, good, warn, bad; wait for the time between two attempts, sleep, act for somebody's action."""
    title: str


@dataclass(slots=True)
class Row:
    """A step, an undo, or the saga itself."""

    name: str
    step: str
    kind: str
    """saga, command, undo, void, sleep, local, scope."""
    tone: str
    text: str
    bars: list[Bar] = field(default_factory=list[Bar])


MARKED = (ACTION, CODE, PIVOT, EMIT, ATTRIBUTES, PATCH, RUN, LONG)
"""Kinds of entries that are marks in the saga's own row."""


@dataclass(slots=True)
class Chart:
    """All rows over one scale."""

    rows: list[Row]
    ticks: list[str]
    """How long after the start: PARTS + 1 of them, from the left edge to the right one."""
    left_out: int
    """Rows that are not drawn."""


def chart(entries: Sequence[Entry], now: datetime) -> Chart:
    """Draw a saga's timeline; what goes on reaches to `now`."""
    if not entries:
        return Chart([], [], 0)
    begin = entries[0].at
    over = entries[-1].kind == STATE and entries[-1].name in lifecycle.FINAL
    end = entries[-1].at if over else max(now, entries[-1].at)
    scale = _Scale(begin, end)
    rows = [_saga_row(entries, scale, now)]
    besides = (START, STATE, *MARKED, RECEIVED, UPDATE)
    steps = [entry for entry in entries if entry.kind not in besides]
    drawn = steps
    if len(steps) > ROWS_DRAWN:
        first = steps[:-ROWS_AT_END]
        telling = [entry for entry in first if meaning(entry) != "good" or entry.kind in UNDOING]
        drawn = telling[: ROWS_DRAWN - ROWS_AT_END] + steps[-ROWS_AT_END:]
    rows += [_step_row(entry, scale, now) for entry in drawn]
    ticks = ["0" if part == 0 else length((end - begin) * part / PARTS) for part in range(PARTS + 1)]
    return Chart(rows, ticks, len(steps) - len(drawn))


class _Scale:
    def __init__(self, begin: datetime, end: datetime) -> None:
        self.begin, self.end = begin, end
        self._span = max((end - begin) / timedelta(microseconds=1), 1.0)

    def bar(self, since: datetime, until: datetime, look: str, title: str) -> Bar:
        x, right = self._place(since), self._place(until)
        return Bar(round(x, 2), round(max(right - x, 0.0), 2), look, shortened(printable(title), TEXT_SHOWN))

    def _place(self, at: datetime) -> float:
        return min(max((at - self.begin) / timedelta(microseconds=1) / self._span, 0.0), 1.0) * SCALE


def _saga_row(entries: Sequence[Entry], scale: _Scale, now: datetime) -> Row:
    """The saga's states, one after the other, and what people did."""
    start = entries[0]
    states = [entry for entry in entries if entry.kind == STATE]
    last = states[-1].name if states else lifecycle.RUNNING
    row = Row(printable(start.name), "", "saga", STATE_MEANING.get(last, "busy"), _saga_text(last, scale))
    since, name = start.at, lifecycle.RUNNING
    if len(states) > BARS_DRAWN:
        since, name = states[-BARS_DRAWN - 1].at, states[-BARS_DRAWN - 1].name
    for entry in [*states[-BARS_DRAWN:], None]:
        until = entry.at if entry else scale.end
        if until > since or not row.bars:
            title = f"{name} for {length(until - since)}"
            row.bars.append(scale.bar(since, until, STATE_MEANING.get(name, "busy"), title))
        if entry is not None:
            since, name = entry.at, entry.name
        if name in lifecycle.FINAL:
            break
    acts = [entry for entry in entries if entry.kind in MARKED]
    for entry in acts[-BARS_DRAWN:]:
        title = f"{entry.name} {summarised(entry, now)}"
        row.bars.append(scale.bar(entry.at, entry.at, "act", title))
    return row


def _saga_text(state: str, scale: _Scale) -> str:
    took = length(scale.end - scale.begin)
    return f"{state} after {took}" if state in lifecycle.FINAL else f"{state}, {took} so far"


def _step_row(entry: Entry, scale: _Scale, now: datetime) -> Row:
    text = shortened(printable(summarised(entry, now)), TEXT_SHOWN)
    tone = meaning(entry) or "busy"
    row = Row(printable(entry.name), entry.step, entry.kind, tone, text)
    if not entry.attempts:
        look = "sleep" if entry.kind == SLEEP else "undo" if entry.kind == SCOPE and entry.reason else tone
        row.bars.append(scale.bar(entry.at, entry.ended or scale.end, look, row.text))
        return row
    shown = entry.attempts[-BARS_DRAWN:]
    if shown[0] is not entry.attempts[0]:
        title = f"the first {counted(len(entry.attempts) - len(shown), 'attempt')}"
        row.bars.append(scale.bar(entry.at, shown[0].at, "wait", title))
    for attempt, after in zip(shown, [*shown[1:], None], strict=True):
        row.bars += _attempt_bars(entry, attempt, after, scale, now)
    return row


def _attempt_bars(
    entry: Entry, attempt: Attempt, after: Attempt | None, scale: _Scale, now: datetime
) -> list[Bar]:
    """One attempt, and the wait for the next."""
    title = attempt_text(entry, attempt, now)
    if attempt.at > scale.end:  # it is yet to be sent
        return []
    until = attempt.ended or (after.at if after else entry.ended) or scale.end
    bars = [scale.bar(attempt.at, min(until, scale.end), _look(entry, attempt, after), title)]
    if after is not None and after.at > until:
        wait = f"{length(after.at - until)} until attempt {after.number}"
        bars.append(scale.bar(until, min(after.at, scale.end), "wait", wait))
    return bars


def _look(entry: Entry, attempt: Attempt, after: Attempt | None) -> str:
    if attempt.outcome in ("done", "undone", "voided", "nothing"):
        return "undo" if entry.kind in UNDOING else "good"
    if attempt.outcome:
        return "bad" if after is None and entry.outcome else "warn"
    if entry.ended is None and after is None:
        return "busy"
    return "warn" if after is not None else (meaning(entry) or "busy")
