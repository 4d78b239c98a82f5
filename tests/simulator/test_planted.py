"""Each planted bug is found, and soon: a simulator that finds nothing proves nothing."""

from __future__ import annotations

from itertools import islice

import pytest

from simulator import planted, planted_kin, planted_runs
from simulator.planting import PLANTED
from simulator.shrink import shrink, tell
from simulator.world import Plan, simulate

pytestmark = pytest.mark.pure

WHERE = (planted, planted_kin, planted_runs)
"""Where bugs are: importing them plants nothing."""
MOST_SEEDS = 60
"""Within which each has to be found; most take fewer than ten."""


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_bug_is_found(name: str) -> None:
    bug = PLANTED[name]
    for seed in range(1, MOST_SEEDS + 1):
        with bug.plant():
            outcome = simulate(Plan(seed, odds=bug.odds))
        if outcome.violations:
            return
    raise AssertionError(f"{MOST_SEEDS} seeds don't show that {name}")


def test_a_failure_is_told_as_a_short_story() -> None:
    """Of one of the first three: now and then a saga fails only by what the others do at the time."""
    bug = PLANTED["a saga is completed with a step of unknown outcome"]
    with bug.plant():
        plans = (Plan(seed, odds=bug.odds) for seed in range(1, MOST_SEEDS + 1))
        failures = islice((outcome for outcome in map(simulate, plans) if outcome.violations), 3)
        failing, small = next(
            (failing, small)
            for failing, small in ((failing, shrink(failing)) for failing in failures)
            if small.sagas <= 3
        )
        story = tell(small)
    assert not small.ok
    assert small.sagas <= 3
    assert len(small.struck) <= 8 < len(failing.struck)
    assert len(story.splitlines()) < 200, story
    assert f"seed {failing.plan.seed}" in story
    assert "violated: " in story
