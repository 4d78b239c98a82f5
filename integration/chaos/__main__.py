"""`make chaos MINUTES=n SEED=s`: real processes on real servers, and everything that can go wrong with them.

Outside: opens a sandbox where we are root. Inside: the run. README.md beside this file has more.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

import psycopg

import sandbox
from chaos.run import Plan, Run
from chaos.schedule import Kind, deck, draw
from chaos.town import TownError
from debian import MachineError, bring
from kasaga.dev.jars import kafka_class_path
from kasaga.dev.process import ServerError
from kasaga_wire.errors import KasagaError

ROOT = Path(__file__).parents[2]

PROGRAMS = {"cc": "gcc", "ip": "iproute2", "setpriv": "util-linux", "unshare": "util-linux"}

INSIDE = "--inside"

QUICK_JAVA = "-XX:TieredStopAtLevel=1"
"""Kafka starts so often here that the second compiler never pays."""


def tell(text: str) -> None:
    """Writes one line."""
    print(text, flush=True)


def main() -> int:
    """Reads the command line, and runs inside of a sandbox if there can be one."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000), help="draws the faults")
    parser.add_argument("--rate", type=float, default=40.0, help="orders a second")
    parser.add_argument("--only", default="", help='only some faults, as "clock jump,kill: kafka"')
    parser.add_argument("--results", type=Path, default=None, help="a directory that isn't there yet")
    parser.add_argument("--schedule", action="store_true", help="tell the faults and do nothing")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    seconds = given.minutes * 60
    cards = deck(
        [name.strip() for name in given.only.split(",") if name],
        without=() if os.geteuid() == 0 else (Kind.DISK_FULL,),
    )
    if not cards:
        parser.error("--only: there is no such fault")
    faults = draw(given.seed, seconds, cards)
    if given.schedule:
        for fault in faults:
            tell(f"{fault.number:3}  {fault.at:6.1f}  {fault.seconds:4.1f}  {fault.name}")
        return 0
    results = (
        given.results or ROOT / "build" / "chaos" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-seed-{given.seed}"
    )
    plan = Plan(seconds, given.seed, given.rate, faults, os.geteuid() == 0, results.absolute())
    if given.inside:
        return inside(plan, sandbox.directory())
    tell(f"chaos: {given.minutes:g} minutes, {len(faults)} faults; the same again: SEED={given.seed}")
    try:
        kafka_class_path(tell)
        if os.geteuid() == 0:
            bring(PROGRAMS, tell)
            argv = [INSIDE, f"--minutes={given.minutes}", f"--seed={given.seed}", f"--rate={given.rate}"]
            argv += [f"--only={given.only}", f"--results={plan.results}"]
            return sandbox.enter("chaos", argv, keep=False, tell=tell)
    except (MachineError, ServerError) as error:
        tell(f"chaos: failed: {error}")
        return 1
    tell("not as root: no full disk, which takes a file system of its own; all else is tried")
    return without_a_sandbox(plan)


def inside(plan: Plan, directory: Path) -> int:
    """Runs, and says what went wrong with that."""
    os.environ.setdefault("JAVA_TOOL_OPTIONS", QUICK_JAVA)
    if os.geteuid() == 0:
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    try:
        return Run(plan, directory, tell).run()
    except subprocess.CalledProcessError as error:
        tell(f"chaos: failed: {error}: {error.stderr}")
    except (TownError, KasagaError, psycopg.Error, OSError) as error:
        tell(f"chaos: failed: {type(error).__name__}: {error}")
    tell(f"logs: {plan.results / 'logs'}")
    return 1


def without_a_sandbox(plan: Plan) -> int:
    """Each process has a guard, which ends it when we end; only SIGKILL leaves the directory behind."""
    signal.signal(signal.SIGTERM, _interrupt)
    directory = Path(tempfile.mkdtemp(prefix="kasaga-chaos-"))
    try:
        return inside(plan, directory)
    except KeyboardInterrupt:
        tell("interrupted: everything it started is ended")
        return 130
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
