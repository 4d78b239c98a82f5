"""A failing run made small, and told so that a person can read it.

A fault is known by its name, so a run can be had again with some of them left out. First whole kinds, then
halves, then single faults, then sagas; whatever still fails is kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from simulator.world import Outcome, Plan, simulate

MOST_RUNS = 250
"""For one failure."""


def shrink(outcome: Outcome, run: Callable[[Plan], Outcome] = simulate) -> Outcome:
    """The smallest run that fails in a like way, traced."""
    search = _Search(outcome, run)
    search.kinds()
    before = -1
    while before != len(search.best.struck):
        before = len(search.best.struck)
        search.faults()
        search.sagas()
    best = run(replace(search.best.plan, traced=True))
    return best if not best.ok else run(replace(outcome.plan, traced=True))


class _Search:
    def __init__(self, outcome: Outcome, run: Callable[[Plan], Outcome]) -> None:
        self._run = run
        self.left = MOST_RUNS
        self.best = outcome
        self.best = self._try(frozenset(outcome.struck), None) or outcome

    def _try(self, kept: frozenset[str], only: frozenset[int] | None) -> Outcome | None:
        """Run it with these faults and sagas; None if it doesn't fail then."""
        if self.left <= 0:
            return None
        self.left -= 1
        found = self._run(replace(self.best.plan, kept=kept, only=only, traced=False))
        return None if found.ok else found

    @property
    def _kept(self) -> frozenset[str]:
        return self.best.plan.kept if self.best.plan.kept is not None else frozenset(self.best.struck)

    def kinds(self) -> None:
        """Leave out kinds of faults."""
        for kind in sorted({name.partition("@")[0] for name in self._kept}):
            fewer = frozenset(name for name in self._kept if name.partition("@")[0] != kind)
            self._accept(self._try(fewer, self.best.plan.only))

    def faults(self) -> None:
        """Leave out faults: halves, quarters, single ones."""
        size = len(self._kept) // 2
        while size:
            names = sorted(self._kept)
            for start in range(0, len(names), size):
                fewer = self._kept - set(names[start : start + size])
                if fewer != self._kept:
                    self._accept(self._try(fewer, self.best.plan.only))
            size //= 2

    def sagas(self) -> None:
        """Leave out sagas."""
        numbers = sorted(self.best.plan.only if self.best.plan.only is not None else range(40))
        size = max(len(numbers) // 2, 1)
        while size:
            for start in range(0, len(numbers), size):
                only = self.best.plan.only if self.best.plan.only is not None else frozenset(numbers)
                fewer = only - set(numbers[start : start + size])
                if fewer and fewer != only:
                    self._accept(self._try(self._kept, fewer))
            size //= 2

    def _accept(self, found: Outcome | None) -> None:
        if found is not None:
            self.best = replace(found, plan=replace(found.plan, kept=frozenset(found.struck)))


QUIET = frozenset({"ack", "offsets", "land", "read", "known"})
"""What a story leaves out."""


def tell(outcome: Outcome) -> str:
    """The run as a person would tell it; it must have been traced."""
    plan = outcome.plan
    struck = ", ".join(sorted(outcome.struck)) or "none"
    head = [
        f"seed {plan.seed}: {outcome.sagas} sagas, {len(outcome.struck)} faults",
        f"faults: {struck}",
        *(f"violated: {violation}" for violation in outcome.violations),
    ]
    events = [json.loads(line) for line in outcome.lines]
    names = _Names()
    return "\n".join(head + [_line(event, names) for event in events if _worth(event)])


def _worth(event: dict[str, Any]) -> bool:
    if event["what"] == "commit":
        return bool(event["sagas"])
    return event["what"] not in QUIET


class _Names:
    """Run ids are long: stories number the runs."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, id_: str) -> str:
        run, dot, rest = id_.partition(".")
        name = self._known.setdefault(run, f"run{len(self._known) + 1}")
        return f"{name}{dot}{rest}"

    def several(self, ids: Sequence[str]) -> str:
        return ", ".join(self(each) for each in ids)


def _line(event: dict[str, Any], names: _Names) -> str:
    what = event["what"]
    teller = _TELLERS.get(what)
    said = teller(event, names) if teller is not None else _plain(event)
    return f"{event['at'] / 1e6:12.6f} s  {event['by']:4} {what:13} {said}"


def _plain(event: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in event.items() if name not in ("at", "by", "what"))


def _commit(event: dict[str, Any], names: _Names) -> str:
    parts = [
        f"{names(each['run'])} {'; '.join(each['events'])}"
        + (f" → {each['state']}" if each["state"] else "")
        + (
            f", opens {', '.join(row[1] + ' ' + row[2] + '.' + str(row[3]) for row in each['opens'])}"
            if each["opens"]
            else ""
        )
        for each in event["sagas"]
    ]
    shards = ", ".join(f"{each['shard']}#{each['seq']}" for each in event["shards"])
    return f"shard {shards}: " + " | ".join(parts)


def _produce(event: dict[str, Any], names: _Names) -> str:
    outcome = f" {event['outcome']}" if "outcome" in event else ""
    attempt = f" attempt {event['attempt']}" if "attempt" in event else ""
    action = f" {event['action']}" if "action" in event else ""
    where = f"{event['topic']}/{event['partition']}"
    return f"{event['kind']}{action} {names(event['id'])}{attempt}{outcome} to {where}"


def _inbox_claim(event: dict[str, Any], names: _Names) -> str:
    there = sorted(set(event["ids"]) - set(event["claimed"]))
    return names.several(event["claimed"]) + (f"; there already: {names.several(there)}" if there else "")


def _inbox_commit(event: dict[str, Any], names: _Names) -> str:
    rows = ", ".join(f"{names(id_)} {outcome}" for id_, outcome in event["rows"].items())
    return rows + (f"; fence against {names.several(event['fences'])}" if event["fences"] else "")


_TELLERS: dict[str, Callable[[dict[str, Any], _Names], str]] = {
    "commit": _commit,
    "produce": _produce,
    "inbox_claim": _inbox_claim,
    "inbox_commit": _inbox_commit,
}
