"""The first page's figures: rates, latencies, what is open, who works, what needs a person.

Station: `read` asks the store, in one of the process's reading threads; `pages` keeps the answer for two
seconds, so that any number of readers costs the database the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..store.base import Attention, Pulse, RowKind, SagaFilter, SagaRow, SagaState, ShardLease, Store
from ..wording import STATE_MEANING, counted, length, printable
from .story import Item, item

NEEDY_SHOWN, NEWEST_SHOWN = 6, 8
"""Stuck sagas, and the newest of all, on the first page."""

CALLS_SHOWN = 12
"""Participants, those with the most open commands."""

HEIGHT = 100
"""Units of the chart of rates, from the bottom to the top."""


@dataclass(slots=True)
class Figure:
    """One number and what it is."""

    label: str
    value: str
    unit: str = ""
    note: str = ""
    tone: str = ""


@dataclass(slots=True)
class Column:
    """One slice of the chart of rates: heights in units."""

    x: int
    completed: float
    compensated: float
    started: float


@dataclass(slots=True)
class Calls:
    """What many sagas wait for together."""

    name: str
    rows: int
    again: int


@dataclass(slots=True)
class Worker:
    """An orchestrator, and how much of the work is its."""

    name: str
    shards: int


@dataclass(slots=True)
class Overview:
    """All of the first page."""

    now: datetime
    span: str
    figures: list[Figure]
    latencies: list[Figure]
    columns: list[Column]
    chart_text: str
    peak: str
    stuck: int
    oldest: str
    """How long the first of the stuck has been so."""
    needy: list[Item]
    troubled: list[tuple[str, str, str, int]]
    """(saga's name, state, tone, how many) of those that are neither running nor ended."""
    calls: list[Calls]
    workers: list[Worker]
    ownerless: int
    """Shards that nobody owns."""
    shards: int
    newest: list[Item]


def read(store: Store) -> Overview:
    """Ask the store; every read is bounded."""
    leases = store.shards()
    return overview(
        store.pulse(),
        store.attention([lease.shard for lease in leases]),
        leases,
        store.list_sagas(SagaFilter(states=(SagaState.STUCK,)), limit=NEEDY_SHOWN),
        store.list_sagas(SagaFilter(), limit=NEWEST_SHOWN),
    )


def overview(
    pulse: Pulse,
    attention: Sequence[Attention],
    leases: Sequence[ShardLease],
    needy: Sequence[SagaRow],
    newest: Sequence[SagaRow],
) -> Overview:
    """Put the first page together."""
    stuck = [each for each in attention if each.state is SagaState.STUCK]
    owners = [lease.owner for lease in leases if lease.owner is not None and not lease.expired]
    number = sum(each.sagas for each in stuck)
    oldest = length(timedelta(seconds=max((each.oldest for each in stuck), default=0.0)))
    return Overview(
        pulse.now,
        _span(pulse.seconds),
        _figures(pulse, number, oldest),
        _latencies(pulse),
        _columns(pulse),
        _chart_text(pulse),
        rate(_highest(pulse), pulse.seconds / len(pulse.started)),
        number,
        oldest if number else "",
        [item(row, pulse.now) for row in needy],
        sorted(
            (printable(each.name), each.state.value, STATE_MEANING.get(each.state.value, ""), each.sagas)
            for each in attention
        ),
        _calls(pulse),
        [Worker(printable(name), owners.count(name)) for name in sorted(set(owners))],
        len(leases) - len(owners),
        len(leases),
        [item(row, pulse.now) for row in newest],
    )


def _span(seconds: float) -> str:
    return length(timedelta(seconds=seconds))


def _figures(pulse: Pulse, stuck: int, oldest: str) -> list[Figure]:
    ended = sum(pulse.completed) + sum(pulse.compensated)
    undone = sum(pulse.compensated)
    share = f"{undone / ended:.1%} of them undone" if undone else "none of them undone"
    return [
        Figure("Started", *_rate(sum(pulse.started), pulse.seconds), f"over {_span(pulse.seconds)}"),
        Figure("Ended", *_rate(ended, pulse.seconds), share if ended else "nothing has ended"),
        Figure(
            "In flight",
            f"{pulse.open_sagas:,}" + ("+" if pulse.more_open else ""),
            note="wait for an answer or a timer",
        ),
        Figure(
            "Stuck",
            f"{stuck:,}",
            note=f"the first for {oldest}" if stuck else "nobody is needed",
            tone="bad" if stuck else "good",
        ),
    ]


def _rate(count: int, seconds: float) -> tuple[str, str]:
    """A number and its unit: `12.3`, `/s`."""
    each_second = count / seconds
    if each_second >= 100:
        return f"{each_second:,.0f}", "/s"
    if each_second >= 1:
        return f"{each_second:.1f}", "/s"
    return (f"{each_second * 60:.1f}" if count else "0"), "/min"


def rate(count: int, seconds: float) -> str:
    """How often, in words: `12.3/s`."""
    return "".join(_rate(count, seconds))


def _latencies(pulse: Pulse) -> list[Figure]:
    if pulse.latencies is None:
        return []
    words = ("median", "95 %", "99 %")
    return [
        Figure(word, length(timedelta(seconds=each)))
        for word, each in zip(words, pulse.latencies, strict=True)
    ]


def _highest(pulse: Pulse) -> int:
    ended = [done + undone for done, undone in zip(pulse.completed, pulse.compensated, strict=True)]
    return max(*pulse.started, *ended, 0)


def _columns(pulse: Pulse) -> list[Column]:
    unit = HEIGHT / max(_highest(pulse), 1)
    slices = zip(pulse.started, pulse.completed, pulse.compensated, strict=True)
    return [
        Column(x, round(completed * unit, 2), round(compensated * unit, 2), round(started * unit, 2))
        for x, (started, completed, compensated) in enumerate(slices)
    ]


def _chart_text(pulse: Pulse) -> str:
    """The chart for who can't see it."""
    started = counted(sum(pulse.started), "saga")
    done, undone = sum(pulse.completed), sum(pulse.compensated)
    return f"In the last {_span(pulse.seconds)}: {started} started, {done} completed, {undone} compensated"


def _calls(pulse: Pulse) -> list[Calls]:
    commands = sorted(
        (each for each in pulse.open_calls if each.kind is RowKind.COMMAND),
        key=lambda each: (-each.rows, each.topic),
    )
    found = [Calls(printable(each.topic), each.rows, each.again) for each in commands[:CALLS_SHOWN]]
    words = {RowKind.TIMER: "timers and sleeps", RowKind.LOCAL: "functions in the orchestrators"}
    for kind, word in words.items():
        rows = [each for each in pulse.open_calls if each.kind is kind]
        if rows:
            found.append(Calls(word, sum(each.rows for each in rows), sum(each.again for each in rows)))
    return found
