"""`python -m simulator`: many seeds, one after the other; says what it has seen, and how fast.

Exit status 1 as soon as a seed violates an invariant; its seed is printed, and the run made small and told.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections import Counter
from pathlib import Path

from simulator.shrink import shrink, tell
from simulator.world import Outcome, Plan, simulate

EVERY_SECONDS = 5.0
FAILURES = 5
"""After which it ends: they are the same few, most likely."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds to run")
    parser.add_argument("--seed", type=int, default=1, help="the first of them")
    parser.add_argument("--trace", type=Path, help="write every event of the runs here, as JSON lines")
    parser.add_argument("--tell", action="store_true", help="tell each run as a story")
    parser.add_argument("--all", action="store_true", help="go on after a violation")
    parser.add_argument("--raw", action="store_true", help="don't make failing runs small")
    options = parser.parse_args(arguments)
    tally = _Tally()
    for seed in range(options.seed, options.seed + options.seeds):
        plan = Plan(seed, traced=options.trace is not None or options.tell)
        outcome = simulate(plan)
        tally.add(outcome)
        if options.trace is not None:
            mode = "w" if seed == options.seed else "a"
            with options.trace.open(mode, encoding="utf-8") as file:
                file.write(f'{{"at":0,"by":"-","what":"seed","seed":{seed}}}\n')
                file.writelines(line + "\n" for line in outcome.lines)
        if options.tell:
            print(tell(outcome))
        if not outcome.ok:
            _failed(outcome, raw=options.raw)
            if tally.failed >= FAILURES and not options.all:
                break
    print(tally.last_line, flush=True)
    return 1 if tally.failed else 0


def _failed(outcome: Outcome, *, raw: bool) -> None:
    print(f"\nseed {outcome.plan.seed}:", flush=True)
    for violation in outcome.violations:
        print(f"  {violation}")
    if not raw:
        print(tell(shrink(outcome)), flush=True)


class _Tally:
    def __init__(self) -> None:
        self.began = self.said = time.monotonic()
        self.seeds = self.sagas = self.faults = self.failed = 0
        self.states: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.sagas += outcome.sagas
        self.faults += outcome.faults.total()
        self.failed += not outcome.ok
        self.states += outcome.states
        self.kinds += outcome.faults
        if time.monotonic() - self.said > EVERY_SECONDS:
            self.said = time.monotonic()
            print(f"{self._counts}, {self._rate}", flush=True)
            gc.collect()

    @property
    def _counts(self) -> str:
        failed = f"{self.failed} violations" if self.failed != 1 else "1 violation"
        return f"{self.seeds} seeds, {self.sagas} sagas, {self.faults} faults: {failed}"

    @property
    def _rate(self) -> str:
        minutes = max(time.monotonic() - self.began, 0.001) / 60
        return (
            f"{self.sagas / minutes:.0f} sagas and {self.faults / minutes:.0f} faults a minute, "
            f"{self.seeds / minutes:.0f} seeds a minute"
        )

    @property
    def last_line(self) -> str:
        states = ", ".join(f"{count} {state}" for state, count in self.states.most_common())
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds.most_common())
        return f"ends: {states}\nfaults: {kinds}\nsimulate: {self._counts}; {self._rate}"


if __name__ == "__main__":
    sys.exit(main())
