"""`make model`: looks at every state of the protocol's model, and at each planted bug.

make model                        all of it, under three minutes on two cores
make model ARGS=--list            the guarantees and the bugs
make model ARGS='--show BUG'      a bug's shortest counterexample, in words
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from model.follow import LEFT_OUT, Follower
from model.spin import Bug, Found, ModelError, Nursery, bugs, check, every_run_ends, guarantees, set_up
from model.story import told
from model.trace import Beyond, sagas
from simulator.world import Plan, simulate

WORLDS: dict[str, dict[str, int]] = {
    "one step, two owners, two participants, two faults": {
        "STEPS": 1,
        "OWNERS": 2,
        "PARTICIPANTS": 2,
        "FAULTS": 2,
    },
    "two steps, two owners, one participant, one fault": {
        "STEPS": 2,
        "OWNERS": 2,
        "PARTICIPANTS": 1,
        "FAULTS": 1,
    },
}
"""Each is searched whole."""

NURSERIES = (
    {"STEPS": 1, "OWNERS": 2, "PARTICIPANTS": 2, "FAULTS": 1},
    {"STEPS": 2, "OWNERS": 1, "PARTICIPANTS": 1, "FAULTS": 0},
)
"""The small worlds in which bugs are planted, one after the other: one fault is enough for each."""


def tell(text: str) -> None:
    """Write one line."""
    print(f"model: {text}", flush=True)


def hunt(planted: Sequence[Bug]) -> dict[str, tuple[Found, int]]:
    """Plant bugs; give what each of them breaks, by its name, and in a world with how many owners.

    Raises ModelError, also where nothing is broken.
    """
    hits: dict[str, tuple[Found, int]] = {}
    for bounds in NURSERIES:
        left = [bug for bug in planted if bug.name not in hits]
        if not left:
            break
        with Nursery(bounds) as nursery:
            for bug in left:
                found = nursery.find(bug)
                if found.broken is not None:
                    hits[bug.name] = found, bounds["OWNERS"]
    return hits


def followed(seeds: Iterable[int]) -> tuple[int, list[str]]:
    """Let the model follow the simulator's runs; give how many sagas it could, and of which it couldn't."""
    whole, lost = 0, list[str]()
    with Follower() as follower:
        for seed in seeds:
            for saga in sagas(simulate(Plan(seed, off=LEFT_OUT, traced=True)).lines):
                try:
                    tellings = saga.numbered()
                except Beyond:
                    continue
                found = follower.follow(tellings)
                whole += found.whole
                if not found.whole:
                    lost.append(f"seed {seed}, run {saga.run}, after {found.reached} tellings")
    return whole, lost


def everything(seeds: Iterable[int]) -> int:
    """Check all worlds, plant all bugs, follow recorded runs; give how much isn't as it should be."""
    wrong = states = right = 0
    planted = bugs()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        hunting = pool.submit(hunt, planted)
        for name, found in zip(WORLDS, pool.map(check, WORLDS.values()), strict=True):
            states += found.states
            if found.broken is None:
                tell(f"{name}: every guarantee holds in each of {found.states} states")
            else:
                wrong += 1
                tell(f"{name}: {found.broken} does not hold")
                show(found, WORLDS[name]["OWNERS"])
        hits = hunting.result()
    runs, lost = followed(seeds)
    for each in lost:
        tell(f"the model can't follow {each}")
    if not every_run_ends(NURSERIES[0]):
        wrong += 1
        tell("a run goes on for ever")
    for bug in planted:
        broken = hits[bug.name][0] if bug.name in hits else Found(0, None)
        if broken.broken == bug.breaks:
            right += 1
            tell(f"{bug.name} breaks {bug.breaks}, in {len(broken.story)} lines")
        else:
            tell(f"{bug.name} breaks {broken.broken or 'nothing'}, where it was to break {bug.breaks}")
    wrong += len(planted) - right + len(lost)
    tell(f"{runs} sagas of the simulator are runs of the model, {len(lost)} aren't")
    held = f"{len(guarantees())} invariants hold in {states} states" if not wrong else f"{wrong} findings"
    tell(f"{held}; {right} of {len(planted)} planted bugs found")
    return wrong


def show(found: Found, owners: int) -> None:
    """Print a counterexample in words."""
    for line in told(found.story, owners):
        print(f"    {line}")


def show_bug(name: str) -> int:
    """Print a planted bug's counterexample."""
    chosen = [bug for bug in bugs() if bug.name == name]
    if not chosen:
        tell(f"there is no bug {name!r}; make model ARGS=--list names them")
        return 2
    hits = hunt(chosen)
    if not hits:
        raise ModelError(f"{name} is planted, and breaks nothing")
    found, owners = hits[name]
    show(found, owners)
    tell(f"{name} breaks {found.broken}")
    return 0


def listed() -> int:
    """Print what there is."""
    for guarantee in guarantees():
        print(guarantee)
    for bug in bugs():
        print(f"  --show {bug.name}, which breaks {bug.breaks}")
    return 0


def main(arguments: Sequence[str]) -> int:
    """Do what was asked; give the exit status."""
    parser = argparse.ArgumentParser(prog="make model", description="Checks the model of Kasaga's protocol.")
    parser.add_argument("--list", action="store_true", help="name the guarantees and the planted bugs")
    parser.add_argument("--show", metavar="BUG", help="print a planted bug's shortest counterexample")
    parser.add_argument("--seeds", type=int, default=12, help="how many of the simulator's runs to follow")
    asked = parser.parse_args(arguments)
    if asked.list:
        return listed()
    try:
        set_up(tell)
        return show_bug(asked.show) if asked.show else min(everything(range(1, asked.seeds + 1)), 1)
    except ModelError as error:
        tell(f"failed: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
