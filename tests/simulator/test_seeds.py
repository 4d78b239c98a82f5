"""Some seeds in every run of the tests; `make simulate` is for many."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulator.world import Plan, simulate

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(1, 49)
TWICE = (3, 17)
ODD = (2000479, 3000035)
"""A sender who asks for ever about a saga whose start Kafka has lost; a process that dies before one of its
threads has run: both made the simulated world itself stand still."""


@pytest.mark.parametrize("seed", [*SEEDS, *ODD])
def test_whatever_goes_wrong_every_saga_comes_to_a_good_end(seed: int) -> None:
    outcome = simulate(Plan(seed))
    assert outcome.ok, f"make simulate SEEDS=1 SEED={seed}: {outcome.violations}"


def digest(seeds: tuple[int, ...]) -> str:
    """Of every event of these runs."""
    text = "\n".join(line for seed in seeds for line in simulate(Plan(seed, traced=True)).lines)
    return f"{len(text)} {hashlib.sha256(text.encode()).hexdigest()}"


def test_a_seed_gives_the_same_run_to_the_byte_in_any_process() -> None:
    """Whatever the hash seed: orchestrators fix theirs, the simulator doesn't need to."""

    def elsewhere(hash_seed: str) -> str:
        code = f"from simulator.test_seeds import *; print(digest({TWICE}))"
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT / "tests")}
        command = [sys.executable, "-c", code]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    here = digest(TWICE)
    assert int(here.split()[0]) > 100_000, "so much happens that it can differ"
    assert {elsewhere("1"), elsewhere("2")} == {here}
