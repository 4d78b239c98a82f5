"""How Kasaga compares: a ratio for each figure and each peer, from the lines of one run. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

OURS = "kasaga"
PREFIX = "peers_"
"""Of the names of figures that all systems of a run have in common."""

COMPARED = {
    "throughput": True,
    "latency_1_p50": False,
    "latency_1_p99": False,
    "cpu_per_1000": False,
}
"""The figures that are compared, without the prefix, and whether more is better."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times better Kasaga is than a peer, round by round; below 1 it is worse."""

    of: str
    peer: str
    inbox: str
    values: list[float]
    means: str
    """What was divided by what."""


def ratios(lines: Iterable[Mapping[str, Any]]) -> Iterator[Ratio]:
    """Give the ratios of the lines of one run; lines that say nothing of it are passed over.

    Round by round: a machine that changes its speed does so for what runs at the same time. A round that one
    of the two has not is left out.
    """
    ours: dict[tuple[str, str], list[float]] = {}
    peers: dict[tuple[str, str], list[float]] = {}
    for line in lines:
        of = str(line["figure"]).removeprefix(PREFIX)
        if of == line["figure"] or of not in COMPARED:
            continue
        about = line["parameters"]
        if about["system"] == OURS:
            ours[of, about["inbox"]] = line["values"]
        else:
            peers[of, about["system"]] = line["values"]
    for (of, inbox), mine in ours.items():
        for (what, peer), theirs in peers.items():
            if what != of:
                continue
            more = COMPARED[of]
            pairs = [(a, b) if more else (b, a) for a, b in zip(mine, theirs, strict=False)]
            values = [above / below for above, below in pairs if below]
            if values:
                means = f"{OURS} / {peer}" if more else f"{peer} / {OURS}"
                yield Ratio(of, peer, inbox, values, means)
