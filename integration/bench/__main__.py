"""`make bench`: Kasaga on this machine, on a real Kafka and a real Postgres, as JSON lines.

`ARGS='throughput latency --rounds 5 --out figures.jsonl' make bench`. Figures go to the standard output,
progress to the standard error. Machines are noisy: compare figures of one run only.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from pathlib import Path

from bench.errors import BenchError
from bench.figures import Figures, tell
from bench.machine import pin, speed
from bench.scenarios import IN_FLIGHT, Run, Scenario, load_all
from kasaga_wire.errors import KasagaError


def main() -> int:
    """Run the scenarios that are named. Returns the exit status: 0 if all of them ended and were audited."""
    # As Ctrl-C does: what was brought up is ended, and its folders are removed.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = load_all()
    options = _options(known)
    chosen = [
        known[name] for name in options.scenarios or [each.name for each in known.values() if not each.long]
    ]
    pin(options.cores)
    parameters: dict[str, object] = {"preliminary": True} if options.preliminary else {}
    run = Run(
        Figures(options.out, parameters),
        seconds=options.seconds,
        rounds=options.rounds,
        warm_up=options.warm_up,
        in_flight=options.in_flight,
        full=options.full,
        largest=options.largest,
        keep=options.keep,
    )
    failed: list[str] = []
    begun = time.monotonic()
    for each in chosen:
        tell(f"{each.name}: {each.about}")
        try:
            run.put("machine", speed(), "million additions/s", before=each.name)
            each.run(run)
        except (BenchError, KasagaError) as error:
            tell(f"{each.name} FAILED: {error}")
            failed.append(each.name)
    minutes = (time.monotonic() - begun) / 60
    well = f"{len(chosen) - len(failed)} of {len(chosen)} scenarios measured and audited in {minutes:.0f} min"
    tell(f"{well}; failed: {', '.join(failed)}" if failed else well)
    return 1 if failed else 0


def _options(known: dict[str, Scenario]) -> argparse.Namespace:
    names = "\n".join(f"  {each.name:24}{each.about}" for each in known.values())
    parser = argparse.ArgumentParser(
        prog="bench",
        description=__doc__,
        epilog=f"scenarios:\n{names}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="by default all but the hours-long")
    parser.add_argument("--out", type=Path, help="append the figures to this file too")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each round")
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds before the first round")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT, help="sagas, for throughput")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--full", action="store_true", help="the largest sizes too: hours")
    parser.add_argument("--largest", type=int, default=0, help="leave out the sizes above this")
    parser.add_argument("--cores", type=int, default=2, help="that everything runs on; 0: all")
    parser.add_argument(
        "--preliminary", action="store_true", help="mark each figure so: others use the machine"
    )
    parser.add_argument("--keep", type=Path, help="a folder that exists, for servers' data and logs, kept")
    options = parser.parse_args()
    if unknown := [each for each in options.scenarios if each not in known]:
        parser.error(f"no scenario is called {', '.join(unknown)}; there are {', '.join(known)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
