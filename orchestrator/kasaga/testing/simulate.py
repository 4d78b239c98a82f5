"""Runs whose faults, delays and orders are drawn from seeds; a seed and the code give the same run again.

Station: behind `Case.simulate` and `kasaga simulate`. A run that fails is made smaller before it is shown.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random, SystemRandom
from typing import TYPE_CHECKING, Any

from ..wording import counted
from .faults import Drawn, Fault, Given
from .result import Result

if TYPE_CHECKING:
    from .case import Case

LARGEST_SEED = 2**32
FAILURES = 20
"""After which a simulation ends: they are the same few, most likely."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A run in which an invariant doesn't hold.

    `smallest`: the same with as few faults as still fail, without delays where it fails without them.
    """

    seed: int
    result: Result
    smallest: Result


@dataclass(slots=True)
class Simulation:
    """What the runs have shown. False when something is wrong; printed, it tells the failures.

    Attributes:
        saga: its name.
        seed: of the first run; each run has the next one.
        runs: how many there were.
        states: how many of them ended in which state.
        faults: how many faults struck, by kind.
        failures: at most 20.
        seconds: real time that it took.
    """

    saga: str
    seed: int
    runs: int = 0
    states: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    failures: list[Failure] = field(default_factory=list[Failure])
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether all invariants hold in all runs."""
        return not self.failures

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        last = self.seed + self.runs - 1
        head = f"{self.saga}: {counted(self.runs, 'run')} with the seeds {self.seed} to {last}"
        ends = ", ".join(f"{count} {state}" for state, count in self.states.most_common())
        lines = [
            f"{head} in {self.seconds:.2f} s: {ends}; {counted(self.faults.total(), 'fault')}",
            f"{counted(len(self.failures), 'failure')}" if self.failures else "all invariants hold",
        ]
        for failure in self.failures:
            lines += ["", f"seed {failure.seed}:", str(failure.smallest)]
        return "\n".join(lines)


def simulate(case: Case[Any, Any], seeds: int, seed: int | None) -> Simulation:
    """Run a case once for each of `seeds` seeds; stops early when many fail. Raises ValueError."""
    if seeds < 1:
        raise ValueError(f"seeds is {seeds}, must be 1 or more")
    first = SystemRandom().randrange(LARGEST_SEED) if seed is None else seed
    found = Simulation(case.saga.name, first)
    began = time.perf_counter()
    for each in range(first, first + seeds):
        result = case.play(Drawn(each), Random(each))
        found.runs += 1
        found.states[result.state] += 1
        found.faults.update(fault.kind for fault in result.struck)
        if not result.ok:
            found.failures.append(Failure(each, result, smallest(case, each, result)))
            if len(found.failures) == FAILURES:
                break
    found.seconds = time.perf_counter() - began
    return found


def smallest(case: Case[Any, Any], seed: int, result: Result) -> Result:
    """Leave out what a failing run doesn't need to fail: delays, then one fault after the other."""
    best = result
    dice: int | None = seed
    for chance in (None, seed):
        again = _again(case, list(result.struck), chance)
        if not again.ok:
            best, dice = again, chance
            break
    else:
        return result
    left: list[Fault] = list(result.struck)
    for fault in result.struck:
        fewer = [each for each in left if each != fault]
        again = _again(case, fewer, dice)
        if not again.ok:
            best, left = again, fewer
    return best


def _again(case: Case[Any, Any], faults: list[Fault], seed: int | None) -> Result:
    return case.play(Given(faults), None if seed is None else Random(seed))
