"""Small cases whole: one saga, and every single fault at every place where it could strike; then pairs.

Nothing is drawn here. A run without faults shows where faults could strike; each of these is made to strike,
alone, and pairs of the deaths of processes.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from simulator.world import Outcome, Plan, simulate

QUIET = (("refused", 0.0), ("skew", 0.0))
LOUD = (("refused", 1.0), ("skew", 0.0))
ONE = Plan(1, sagas=1, kept=frozenset(), odds=QUIET, trouble=4.0)
SAGAS = {
    "completed": replace(ONE, saga="patient"),
    "undone": replace(ONE, saga="failing"),
    "refused": replace(ONE, saga="payment", odds=LOUD),
    "timed out or not": replace(ONE, saga="careful"),
    "runs": replace(ONE, saga="subscriber"),
}
MARGIN = 700_000
"""Microseconds around the saga's life in which faults concern it."""


def places(plan: Plan) -> list[str]:
    """Where a fault could strike while the saga lives."""
    outcome = simulate(replace(plan, traced=True))
    assert outcome.ok, outcome.violations
    assert outcome.sagas == 1
    life = [
        int(line[6 : line.index(",")]) for line in outcome.lines if '"commit"' in line and '"rows"' in line
    ]
    return [name for name, at in outcome.asked if life[0] - MARGIN < at < life[-1] + MARGIN]


def failures(plan: Plan, cases: list[frozenset[str]]) -> dict[str, list[str]]:
    """What is wrong in which case."""
    found: dict[str, list[str]] = {}
    for case in cases:
        outcome: Outcome = simulate(replace(plan, kept=case))
        assert set(outcome.struck) == case, "it was seen that it can strike"
        if not outcome.ok:
            found[" and ".join(sorted(case))] = outcome.violations
    return found


@pytest.mark.parametrize("name", SAGAS)
def test_every_single_fault_at_every_place(name: str) -> None:
    cases = [frozenset({place}) for place in places(SAGAS[name])]
    assert len(cases) > 100
    assert failures(SAGAS[name], cases) == {}


def test_every_death_and_what_can_go_wrong_after_it() -> None:
    """That is another death, or a message that comes twice, at every place there is."""
    plan = replace(ONE, saga="patient", trouble=6.0)
    kinds = ("die@", "duplicate@")
    cases: list[frozenset[str]] = []
    for death in [name for name in places(plan) if name.startswith("die@") and _points(name)]:
        after = simulate(replace(plan, kept=frozenset({death}))).asked
        names = [name for name, _ in after]
        cases += [
            frozenset({death, name})
            for name in names[names.index(death) + 1 :]
            if name.startswith(kinds) and _points(name)
        ]
    assert len(cases) > 1_000
    assert failures(plan, cases) == {}


def _points(name: str) -> bool:
    """Not at questions to Postgres: these are tried one by one above, and there are many of them."""
    return "/store." not in name and "/heartbeat" not in name and "/claim" not in name
