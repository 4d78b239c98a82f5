"""`make fuzz MINUTES=n SEED=s`: changes the corpus at random for a while, and adds what breaks something.

What meets an outcome that nothing has met before goes on being changed, in this run and in the next ones: it
is kept in build/fuzz. The exit status is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import random
import secrets
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

from fuzz import targets
from fuzz.parts import CORPUS, Parts, changed, known, read, write
from fuzz.targets import TARGETS, check

KEPT = Path(__file__).parents[2] / "build" / "fuzz"

TELL_SECONDS = 30.0

MOST_EXAMPLES = 1_000
"""Of one target that are changed on: more would be more of the same."""


class Fuzzer:
    """One run over all targets, by turns."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.tried: Counter[str] = Counter()
        self.found: list[Path] = []
        self.news = 0
        self._met: set[tuple[str, str]] = set()
        self._examples: dict[str, list[Parts]] = {
            name: [*known(name).values(), *(read(path) for path in sorted((KEPT / name).glob("*.txt")))]
            for name in TARGETS
        }

    def turn(self) -> None:
        """One example for each target."""
        for name, target in TARGETS.items():
            examples = self._examples[name]
            parts = changed(self.rng, self.rng.choice(examples), examples)
            outcomes: list[str] = []
            self.tried[name] += 1
            with targets.listening(outcomes):
                try:
                    check(target, parts)
                except Exception as error:  # noqa: BLE001 (whatever it is: that is what is looked for)
                    self._report(name, parts, error)
                    continue
            fresh = {(name, outcome) for outcome in outcomes} - self._met
            if fresh and len(examples) < MOST_EXAMPLES:
                self._met |= fresh
                self.news += 1
                examples.append(parts)
                write(KEPT / name, parts)

    def _report(self, name: str, parts: Parts, error: Exception) -> None:
        where = traceback.extract_tb(error.__traceback__)[-1]
        outcome = (name, f"{type(error).__name__} {where.filename}:{where.lineno}")
        if outcome in self._met:
            return
        self._met.add(outcome)
        path = write(CORPUS / name, parts)
        self.found.append(path)
        print(
            f"{name}: {type(error).__name__}: {error}\n  at {where.filename}:{where.lineno}\n  kept: {path}"
        )


def main() -> int:
    """Runs for the time that is asked for."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    given = parser.parse_args()
    print(f"fuzz: {given.minutes:g} minutes; the same again: SEED={given.seed}", flush=True)
    fuzzer = Fuzzer(given.seed)
    began = told = time.monotonic()
    while time.monotonic() - began < given.minutes * 60:
        fuzzer.turn()
        if time.monotonic() - told > TELL_SECONDS:
            told = time.monotonic()
            print(f"{told - began:6.0f} s  {fuzzer.tried.total():,} examples, {fuzzer.news} of a new kind")
    print(
        f"fuzz: {fuzzer.tried.total():,} examples of {len(TARGETS)} kinds of input, "
        f"{fuzzer.news} met something new; {len(fuzzer.found)} broke something"
    )
    return 1 if fuzzer.found else 0


if __name__ == "__main__":
    sys.exit(main())
