"""The peers' part of the page of figures, from the lines of a run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.peers.ratios import COMPARED, OURS, PREFIX

HEADS = {
    "throughput": "throughput, sagas/s",
    "latency_1_p50": "latency, one in flight, p50, ms",
    "latency_1_p99": "p99, ms",
    "cpu_per_1000": "CPU for 1,000 sagas, s",
}

NOTE = """\
All do the same payment saga in one run, in turns, each at its own best setting and with the durability
that it has by default; Kasaga is audited after each round. A ratio says how many times better Kasaga is:
above 1 it is better, below 1 it is worse. Steps of `restate-run` and `dbos` are functions that the saga
calls in its own process. Kasaga hands them to other processes, as `restate-call` and `temporal` do:
compare with those. With its inbox on, a participant of Kasaga's does each step once in its own database;
none of the others does that here. Clients are in different languages, and all of it is one node:
[what is not comparable](integration/bench/peers/README.md#what-is-not-comparable)."""


ROUGH = """\
**Preliminary: others used the machine at the same time.** A busy machine gives each system another share
of itself, so neither throughput nor latency can be compared, nor their ratios; CPU can, roughly."""


def belongs(figure: str) -> bool:
    """Whether a figure of that name is the section's."""
    return figure == "ratio" or figure.startswith(PREFIX)


def section(lines: Iterable[Mapping[str, Any]]) -> str:
    """Give it in Markdown; empty if there are no figures of peers. Of lines for one thing the last holds."""
    figures: dict[str, dict[str, Mapping[str, Any]]] = {}
    found: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
    rough = False
    for line in lines:
        of = str(line["figure"]).removeprefix(PREFIX)
        if line["figure"] == "ratio":
            found.setdefault((line["peer"], line["inbox"]), {})[line["of"]] = line
        elif of != line["figure"] and of in COMPARED:
            about = line["parameters"]
            name = f"{OURS}, inbox {about['inbox']}" if about["system"] == OURS else about["system"]
            figures.setdefault(name, {})[of] = line
            rough = rough or bool(about.get("preliminary"))
    if not figures and not found:
        return ""
    parts = ["## Beside peers", NOTE]
    if rough:
        parts.append(ROUGH)
    if figures:
        heads = ["system", "in flight, processes", *HEADS.values()]
        parts.append(_table(heads, map(_figures, figures.items())))
    if found:
        heads = ["Kasaga against", "inbox", "throughput", "latency p50", "latency p99", "CPU"]
        parts.append(_table(heads, map(_ratios, found.items())))
    return "\n\n".join(parts) + "\n\n"


def _figures(named: tuple[str, Mapping[str, Mapping[str, Any]]]) -> list[str]:
    name, lines = named
    about = next(iter(lines.values()))["parameters"]
    setting = f"{about['in_flight']}, {about['processes']} {about.get('mode', '')}".strip()
    return [f"`{name}`", setting, *(_cell(lines.get(of)) for of in HEADS)]


def _ratios(named: tuple[tuple[str, str], Mapping[str, Mapping[str, Any]]]) -> list[str]:
    (peer, inbox), lines = named
    return [f"`{peer}`", inbox, *(_cell(lines.get(of), "×") for of in HEADS)]


def _cell(line: Mapping[str, Any] | None, unit: str = "") -> str:
    """The median, and in brackets the least and the most of the rounds."""
    if line is None:
        return "–"
    middle = f"**{_short(line['value'])}{unit}**"
    rounds = line["values"]
    return f"{middle} ({_short(min(rounds))} – {_short(max(rounds))})" if len(rounds) > 1 else middle


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
