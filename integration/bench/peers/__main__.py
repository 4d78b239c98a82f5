"""`make bench-peers`: Kasaga and its peers on the same payment saga, in turns, on the same cores.

Each round brings up one system after the other, from nothing, warms it up and measures it. Each figure is a
JSON line on the standard output, and so is each ratio; README.md says what they mean and what they don't.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from bench.errors import BenchError
from bench.figures import ROOT, Figures, tell
from bench.machine import Meter, pin, speed
from bench.peers.ratios import PREFIX, ratios
from bench.peers.systems import SYSTEMS, Setting, System
from bench.peers.temporal import TEMPORAL
from bench.peers.tools import Tools, install
from kasaga_wire.errors import KasagaError

SINGLES = 300
"""Sagas one by one in each round; as many as a third go before them."""

SWEEP_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Round:
    """What one system did in one round."""

    rate: float
    p50_ms: float
    p99_ms: float
    server_cpu: float
    """Seconds for 1,000 sagas, as the others."""
    workers_cpu: float
    client_cpu: float
    others_cores: float
    """What everybody else on the machine used meanwhile."""


@dataclass(slots=True)
class Contest:
    """A system, its setting, and its rounds so far."""

    system: System
    setting: Setting
    rounds: list[Round] = field(default_factory=list[Round])
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Bench:
    """How everything is measured."""

    tools: Tools
    keep: Path | None
    seconds: float
    warm_up: float
    singles: int

    def rate(self, system: System, setting: Setting) -> float:
        """Sagas a second in a short run."""
        directory = self._directory()
        try:
            with system.up(self.tools, directory, setting) as running:
                running.load.closed(setting.in_flight, min(self.warm_up, SWEEP_SECONDS))
                return running.load.closed(setting.in_flight, SWEEP_SECONDS).rate
        finally:
            self._clear(directory)

    def round(self, system: System, setting: Setting) -> Round:
        """Bring a system up, warm it up, and measure it under load and then one by one."""
        directory = self._directory()
        try:
            with system.up(self.tools, directory, setting) as running:
                running.load.closed(setting.in_flight, self.warm_up)
                meter = Meter(running.pids)
                loaded = running.load.closed(setting.in_flight, self.seconds)
                meter.stop()
                running.load.single(-(-self.singles // 3))
                alone = running.load.single(self.singles)
        finally:
            self._clear(directory)
        cpu = {name: used / sum(loaded.ends.values()) * 1000 for name, used in meter.cpu.items()}
        return Round(
            rate=loaded.rate,
            p50_ms=alone.p50_ms,
            p99_ms=alone.p99_ms,
            server_cpu=cpu["server"],
            workers_cpu=cpu["workers"],
            client_cpu=cpu.get("client", 0.0),
            others_cores=meter.others,
        )

    def _directory(self) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="kasaga-peers-", dir=self.keep))
        directory.chmod(0o755)  # Postgres may have to run as another user
        return directory

    def _clear(self, directory: Path) -> None:
        if self.keep is None:
            shutil.rmtree(directory)


def sweep(bench: Bench, contest: Contest) -> Setting:
    """The best of a system's settings, by a short run of each."""
    rates: dict[Setting, float] = {}
    for setting in contest.system.tried:
        rates[setting] = bench.rate(contest.system, setting)
        tell(f"peers: sweep of {contest.system.title}: {rates[setting]:.1f}/s at {setting}")
    return max(rates, key=lambda each: rates[each])


def measure(bench: Bench, contests: list[Contest], rounds: int, *, look_again: bool) -> None:
    """Measure round by round. A system that fails is left out from then on."""
    for number in range(-1 if look_again else 0, rounds):
        for contest in contests:
            if contest.failure:
                continue
            try:
                if number < 0:
                    contest.setting = sweep(bench, contest)
                    continue
                contest.rounds.append(bench.round(contest.system, contest.setting))
                tell(f"peers: round {number + 1} of {rounds}: {contest.system.title}: {contest.rounds[-1]}")
            except (BenchError, KasagaError) as error:
                contest.failure = str(error)
                tell(f"peers: {contest.system.title} FAILED: {error}")


def report(figures: Figures, contest: Contest, seconds: float) -> list[dict[str, object]]:
    """Print a system's figures. Returns their lines."""
    found = contest.rounds
    about = {"system": contest.system.name, **contest.system.about, **contest.setting.parameters()}
    others = round(median(each.others_cores for each in found), 2)
    return [
        figures.put(f"{PREFIX}{name}", values, unit, seconds=seconds, others_cores=others, **about)
        for name, values, unit in (
            ("throughput", [each.rate for each in found], "sagas/s"),
            ("latency_1_p50", [each.p50_ms for each in found], "ms"),
            ("latency_1_p99", [each.p99_ms for each in found], "ms"),
            ("cpu_per_1000", [each.server_cpu + each.workers_cpu for each in found], "s"),
            ("cpu_per_1000_server", [each.server_cpu for each in found], "s"),
            ("cpu_per_1000_workers", [each.workers_cpu for each in found], "s"),
            ("cpu_per_1000_client", [each.client_cpu for each in found], "s"),
        )
    ]


def conclude(figures: Figures, contests: list[Contest], seconds: float) -> None:
    """Print the figures of all systems, then the ratios."""
    lines: list[dict[str, object]] = []
    for contest in contests:
        if contest.rounds:
            lines += report(figures, contest, seconds)
    for ratio in ratios(lines):
        line = figures.line("ratio", ratio.values, "times", means=ratio.means, seconds=seconds)
        figures.write({**line, "of": ratio.of, "peer": ratio.peer, "inbox": ratio.inbox})


def main() -> int:
    """Measure. Returns the exit status: 0 if every system was measured in every round."""
    options = _options()
    pin(options.cores)
    begun = time.monotonic()
    temporal = options.temporal or TEMPORAL.name in options.only
    systems = [*SYSTEMS, *([TEMPORAL] if temporal else [])]
    contests = [Contest(each, each.best) for each in systems if not options.only or each.name in options.only]
    try:
        tools = install(ROOT / "build" / "peers", temporal=temporal)
    except BenchError as error:
        tell(f"peers: {error}")
        return 1
    figures = Figures(options.out, {"preliminary": True} if options.preliminary else {})
    bench = Bench(tools, options.keep, options.seconds, options.warm_up, options.singles)
    speeds = [speed()]
    try:
        measure(bench, contests, options.rounds, look_again=options.sweep)
    finally:  # whatever ends it, Ctrl-C too: the rounds that there are count
        speeds.append(speed())
        figures.put(f"{PREFIX}machine", speeds, "million additions/s")
        conclude(figures, contests, options.seconds)
    failed = [each.system.title for each in contests if each.failure]
    minutes = (time.monotonic() - begun) / 60
    tell(f"peers: {len(contests) - len(failed)} of {len(contests)} systems measured in {minutes:.0f} min")
    return 1 if failed else 0


def _options() -> argparse.Namespace:
    names = sorted({each.name for each in (*SYSTEMS, TEMPORAL)})
    parser = argparse.ArgumentParser(prog="bench.peers", description=__doc__)
    parser.add_argument(
        "only", nargs="*", metavar="SYSTEM", help=f"of {', '.join(names)}; by default all but temporal"
    )
    parser.add_argument("--out", type=Path, help="append the figures to this file too")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="of load in each round")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds of load before each")
    parser.add_argument("--singles", type=int, default=SINGLES, help="sagas one by one in each round")
    parser.add_argument("--sweep", action="store_true", help="look for each system's best setting first")
    parser.add_argument("--temporal", action="store_true", help="Temporal too: minutes of building, once")
    parser.add_argument("--cores", type=int, default=2, help="that everything runs on; 0: all")
    parser.add_argument(
        "--preliminary", action="store_true", help="mark each figure so: others use the machine"
    )
    parser.add_argument("--keep", type=Path, help="a folder that exists, for servers' data and logs, kept")
    options = parser.parse_args()
    if unknown := [each for each in options.only if each not in names]:
        parser.error(f"no system is called {', '.join(unknown)}; there are {', '.join(names)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
