"""A saga's page as the template needs it: where it stands, timeline, history with payloads, actions.

Pure. Called by `pages` with what `kasaga.lookup` has read; `kasaga.explain` and `kasaga.timeline` have the
words, which the command line shows too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from ..explain import Explanation, lifecycle_final, waits_text
from ..remedies import Remedy, cancelling, pausing
from ..store.base import SagaRow, SagaState
from ..timeline import ACTION, STATE, mark, meaning, summarised
from ..timeline_data import Decode
from ..timeline_entries import Entry, attempt_text
from ..wording import STATE_MEANING, attributes_text, length, offset, printable, sentence, shortened, stamp
from .acts import REASON_NEEDED
from .bars import Chart, chart

ENTRIES_SHOWN = 100
"""Entries of the history on one page."""

PAYLOAD_SHOWN = 2_000
"""Characters of a payload in the page; the whole of it has an address of its own."""

TEXT_SHOWN = 600
"""Characters of what became of an entry."""

ATTEMPTS_SHOWN = 50
"""Attempts of one entry that are told, the last ones."""


@dataclass(slots=True)
class Payload:
    """What went in or came out."""

    label: str
    text: str
    """Indented JSON, or a sentence where there is nothing new to show."""
    part: str
    """`in` or `out`."""
    characters: int
    whole: bool


@dataclass(slots=True)
class Line:
    """One entry of the history."""

    number: int
    """Counted from 0 over the whole history: its payloads' address."""
    offset: str
    at: datetime
    mark: str
    tone: str
    step: str
    name: str
    kind: str
    text: str
    attempts: list[str] = field(default_factory=list[str])
    earlier_attempts: int = 0
    payloads: list[Payload] = field(default_factory=list[Payload])


@dataclass(slots=True)
class Action:
    """A button: what it does, and what has to be said with it."""

    name: str
    label: str
    effect: str
    step: str = ""
    value: bool = False
    reason_needed: bool = True


@dataclass(slots=True)
class Story:
    """All of a saga's page."""

    row: SagaRow
    now: datetime
    tone: str
    final: bool
    headline: str
    """Where it stands, in one sentence; or why there is no history."""
    waits: list[str]
    reason: str
    remedy: str
    facts: list[tuple[str, str]]
    chart: Chart
    lines: list[Line]
    entries: int
    page: int
    """Of the history, from 1."""
    pages: int
    actions: list[Action]
    runs: str = ""
    """`all` where the history is that of all its runs; empty for the last one."""
    parent: str = ""
    """The saga whose child it is."""


def story(
    told: Explanation, entries: Sequence[Entry], decode: Decode, *, page: int = 1, runs: str = ""
) -> Story:
    """Put a saga's page together; `page` is the history's, and is brought into its bounds."""
    row, now = told.row, told.now
    pages = max(1, -(-len(entries) // ENTRIES_SHOWN))
    page = min(max(page, 1), pages)
    first = (page - 1) * ENTRIES_SHOWN
    saga_input = entries[0].value if entries else b""
    return Story(
        row,
        now,
        STATE_MEANING.get(row.state.value, ""),
        lifecycle_final(row),
        sentence(told.progress) if told.progress else "",
        waits_text(told),
        printable(sentence(row.reason)) if row.reason else "",
        printable(sentence(row.remedy)) if row.remedy and not lifecycle_final(row) else "",
        _facts(told),
        chart(entries, now),
        [
            _line(number, entry, entries[0].at, saga_input, decode, now)
            for number, entry in enumerate(entries[first : first + ENTRIES_SHOWN], first)
        ],
        len(entries),
        page,
        pages,
        actions(told),
        runs,
        told.parent,
    )


def actions(told: Explanation) -> list[Action]:
    """What may be asked of the saga's owner now; the remedies first, if it is stuck."""
    remedies = list(told.remedies)
    if told.can_cancel and not any(each.action == "cancel" for each in remedies):
        remedies.append(cancelling(told.row.saga_id))
    if told.halting and told.paused is None:
        remedies.append(pausing(told.row.saga_id))
    remedies += told.halting
    return [_action(each) for each in remedies]


def _action(remedy: Remedy) -> Action:
    label = remedy.action.capitalize()
    if remedy.step:
        label += f" step {remedy.step}"
    needed = remedy.action in REASON_NEEDED
    return Action(remedy.action, label, printable(sentence(remedy.effect)), remedy.step, remedy.value, needed)


def _facts(told: Explanation) -> list[tuple[str, str]]:
    row = told.row
    facts = [("Started", f"{stamp(row.started_at)} UTC, {length(told.now - row.started_at)} ago")]
    if row.ended_at is not None:
        facts.append(("Ended", f"{stamp(row.ended_at)} UTC, after {length(row.ended_at - row.started_at)}"))
    else:
        facts.append(("Changed", f"{stamp(row.updated_at)} UTC, {length(told.now - row.updated_at)} ago"))
    if told.run is not None and (said := told.run.text(told.now)):
        facts.append(("Its run", said))
    owner = f"owned by {printable(told.owner)}" if told.owner else "owned by nobody"
    shard = f"{row.shard}" if lifecycle_final(row) else f"{row.shard}, {owner}"
    if row.attributes:
        facts.append(("Found by", printable(attributes_text(row.attributes))))
    return [*facts, ("Version", f"{row.version}"), ("Shard", shard), ("Run", f"{row.run_id}")]


def _line(
    number: int, entry: Entry, begin: datetime, saga_input: bytes, decode: Decode, now: datetime
) -> Line:
    line = Line(
        number,
        offset(entry.at - begin),
        entry.at,
        mark(entry),
        STATE_MEANING.get(entry.name, "") if entry.kind == STATE else meaning(entry),
        printable(entry.step) if entry.kind not in (STATE, ACTION) else "",
        printable(entry.name),
        entry.kind,
        shortened(printable(summarised(entry, now)), TEXT_SHOWN),
    )
    if len(entry.attempts) > 1:
        shown = entry.attempts[-ATTEMPTS_SHOWN:]
        line.attempts = [shortened(printable(attempt_text(entry, each, now)), TEXT_SHOWN) for each in shown]
        line.earlier_attempts = len(entry.attempts) - len(shown)
    for part, data in (("in", entry.value), ("out", entry.result)):
        if data:
            known = number > 0 and data == saga_input
            line.payloads.append(_payload(part, data, decode, known=known))
    return line


def _payload(part: str, data: bytes, decode: Decode, *, known: bool) -> Payload:
    label = "Input" if part == "in" else "Result"
    if known:
        return Payload(label, "the saga's input", part, 0, whole=True)
    text = pretty(data, decode)
    whole = len(text) <= PAYLOAD_SHOWN
    return Payload(label, text if whole else text[:PAYLOAD_SHOWN] + "…", part, len(text), whole)


def pretty(data: bytes, decode: Decode) -> str:
    """A payload as indented JSON; what could steer the reader's eye the wrong way is written out."""
    return printable(json.dumps(decode(data), ensure_ascii=False, indent=2))


@dataclass(slots=True)
class Item:
    """One saga in a list."""

    saga_id: str
    name: str
    state: SagaState
    tone: str
    with_exceptions: bool
    started_at: datetime
    took: str
    code: str
    why: str


def item(row: SagaRow, now: datetime) -> Item:
    """A saga's row for a list."""
    return Item(
        row.saga_id,
        printable(row.name),
        row.state,
        STATE_MEANING.get(row.state.value, ""),
        row.with_exceptions,
        row.started_at,
        length((row.ended_at or now) - row.started_at),
        row.code,
        shortened(printable(row.reason), 200),
    )
