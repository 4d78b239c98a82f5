"""Two thousand orders across three services, with an orchestrator and a service killed on the way.

`make demo` runs this. From nothing: a real Kafka and a real Postgres in a temporary directory, two
orchestrators and three services as processes (`stage.py`), one saga for each order, two SIGKILLs, and in the
end the audit. The last line says how it went, and the exit status is 0 only if all of it went well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import psycopg

from examples.audit import COMPENSATED, COMPLETED, STUCK, Saga, audit, read_books, read_sagas
from examples.contracts import NAMESPACE, Order
from examples.jaeger import JaegerServer
from examples.orders import load_orders
from examples.sagas import payment
from examples.stage import ORCHESTRATORS, SERVICES, Stage, StageError, servers
from examples.traces import Traces
from kasaga.client import Client
from kasaga_wire.errors import KasagaError

KILLS_AT = (0.25, 0.55)
"""The parts of all sagas that have ended when the orchestrator and the service are killed."""

DOWN_SECONDS = 2.0
"""How long a killed process stays down."""

LOOK_SECONDS = 0.1
"""How often the sagas are counted, so that a kill comes where it should."""

PATIENCE_SECONDS = 75.0
"""How long nothing may move: longer than a step's time-out, after which it is sent again."""

IN_FLIGHT = 400
"""How many sagas run at once. All at once would do too, but whoever comes last would wait for all others."""

SENTENCES_SHOWN = 20
"""How many violations, and how many stuck sagas, are told one by one."""

COUNT_BY_STATE = "SELECT state, count(*) FROM kasaga.saga GROUP BY state"

UNDONE_MOST = """
SELECT saga_id FROM kasaga.saga AS saga
WHERE state = 'COMPENSATED'
ORDER BY (SELECT count(*) FROM kasaga.history WHERE (shard, run_id) = (saga.shard, saga.run_id)) DESC,
         ended_at - started_at DESC
LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    orders: int
    seed: int
    keep: bool
    jaeger: bool = False


class Screen:
    """Standard output: lines that stay, and one that is written over where there is a terminal."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._open = False
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Writes a line that stays."""
        if self._open:
            sys.stdout.write("\n")
            self._open = False
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def tell(self, text: str) -> None:
        """Writes a line that stays, with the time since the beginning."""
        self.say(f"{time.monotonic() - self._began:6.1f} s  {text}")

    def progress(self, text: str) -> None:
        """Writes a line that the next one replaces."""
        if not self._live:
            self.tell(text)
            return
        sys.stdout.write(f"\r\x1b[K{time.monotonic() - self._began:6.1f} s  {text}")
        sys.stdout.flush()
        self._open = True


class Starter(threading.Thread):
    """Starts a saga for each order, and counts those that Kafka has."""

    def __init__(self, orders: Sequence[Order], stage: Stage) -> None:
        super().__init__(name="starter", daemon=True)
        self.started = 0
        self.ended = 0
        """How many sagas have ended; to be told by whoever counts them."""
        self.failure: BaseException | None = None
        self._leave = threading.Event()
        self._orders = orders
        self._stage = stage

    def run(self) -> None:
        """Runs the client's event loop."""
        try:
            asyncio.run(self._start_all())
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            self.failure = error

    async def _start_all(self) -> None:
        async with Client(NAMESPACE, self._stage.kafka, topic_prefix=self._stage.prefix) as client:
            while self.started < len(self._orders) and not self._leave.is_set():
                room = max(0, IN_FLIGHT - self.started + self.ended)
                some = self._orders[self.started :][:room]
                await asyncio.gather(*(client.start(payment, order, id=order.id) for order in some))
                self.started += len(some)
                await asyncio.sleep(LOOK_SECONDS)

    def leave(self) -> None:
        """Starts no more, and waits for the end of the thread."""
        self._leave.set()
        self.join()


class Saboteur:
    """Kills one orchestrator and one service, each at its moment, and starts them again."""

    def __init__(self, stage: Stage, screen: Screen, rng: random.Random) -> None:
        self.kills = 0
        self._stage = stage
        self._screen = screen
        self._todo = list(zip(KILLS_AT, (rng.choice(ORCHESTRATORS), rng.choice(SERVICES)), strict=True))
        self._down: list[tuple[float, str]] = []

    @property
    def is_done(self) -> bool:
        """Whether both have been killed and run again."""
        return not self._todo and not self._down

    def act(self, part_ended: float) -> None:
        """Does what is due when this part of the sagas has ended."""
        now = time.monotonic()
        for when, name in list(self._down):
            if now >= when:
                self._down.remove((when, name))
                self._stage.start(name)
                self._screen.tell(f"↻ {name} is started again")
        while self._todo and part_ended >= self._todo[0][0]:
            _, name = self._todo.pop(0)
            self._stage.kill(name)
            self.kills += 1
            self._down.append((now + DOWN_SECONDS, name))
            self._screen.tell(f"✗ {name} is killed (SIGKILL)")


class Demo:
    """One run."""

    def __init__(
        self, options: Options, stage: Stage, screen: Screen, jaeger: JaegerServer | None = None
    ) -> None:
        self._jaeger = jaeger
        rng = random.Random(options.seed)
        self._orders = load_orders(options.orders)
        rng.shuffle(self._orders)
        self._stage = stage
        self._screen = screen
        self.saboteur = Saboteur(stage, screen, rng)

    def run(self) -> int:
        """Runs everything and gives the exit status."""
        self._screen.tell(f"two orchestrators and three services run: {len(self._orders):,} orders come")
        began = time.monotonic()
        self._play()
        seconds = time.monotonic() - began
        sagas = read_sagas(self._stage.database("kasaga"))
        self._screen.tell(f"every saga has ended, after {seconds:.1f} s; now the audit")
        violations = audit(self._orders, sagas, read_books(*map(self._stage.database, SERVICES)))
        saga_id = self._show_timeline()
        lacking = self._show_traces(saga_id)
        return self.conclude(sagas, [*violations, *lacking])

    def _play(self) -> None:
        """Starts the orders and watches, until all has ended or nothing moves any more."""
        starter = Starter(self._orders, self._stage)
        starter.start()
        try:
            self._watch(starter)
        finally:
            starter.leave()

    def _watch(self, starter: Starter) -> None:
        last_count, moved_at, shown_at = -1, time.monotonic(), 0.0
        with psycopg.connect(self._stage.database("kasaga"), autocommit=True) as connection:
            while True:
                now = time.monotonic()
                states = dict[str, int](connection.execute(COUNT_BY_STATE).fetchall())
                ended = states.get(COMPLETED, 0) + states.get(COMPENSATED, 0) + states.get(STUCK, 0)
                starter.ended = ended
                if ended != last_count:
                    last_count, moved_at = ended, now
                over = ended == len(self._orders)
                if over or now - shown_at >= 1.0:
                    shown_at = now
                    self._show_progress(starter.started, states)
                self.saboteur.act(ended / len(self._orders))
                if over and self.saboteur.is_done:
                    return
                self._check(starter)
                if now - moved_at > PATIENCE_SECONDS:
                    self._screen.tell(f"nothing has moved for {PATIENCE_SECONDS:.0f} s: giving up")
                    return
                time.sleep(LOOK_SECONDS)

    def _show_progress(self, started: int, states: dict[str, int]) -> None:
        completed, compensated, stuck = (states.get(state, 0) for state in (COMPLETED, COMPENSATED, STUCK))
        self._screen.progress(
            f"started {started:5,}   completed {completed:5,}   compensated {compensated:4,}   "
            f"in flight {started - completed - compensated - stuck:5,}"
            + (f"   stuck {stuck:,}" if stuck else "")
        )

    def _check(self, starter: Starter) -> None:
        """Raises when something is broken that no waiting would mend."""
        if starter.failure is not None:
            raise starter.failure
        self._stage.check()

    def _show_timeline(self) -> str:
        """Shows one compensated saga the way anybody can: with the command line. Gives its id, or nothing."""
        with psycopg.connect(self._stage.database("kasaga")) as connection:
            row = connection.execute(UNDONE_MOST).fetchone()
        if row is None:
            return ""
        self._screen.say(f"\n$ kasaga history {row[0]}")
        shown = self._stage.command(["history", row[0]])
        self._screen.say(shown.rstrip() + "\n")
        return str(row[0])

    def _show_traces(self, saga_id: str) -> list[str]:
        """Asks Jaeger, if one runs, for every trace, and shows the saga's. Gives what is lacking."""
        if self._jaeger is None:
            return []
        traces = Traces(self._jaeger, self._stage.database("kasaga"))
        spans, lacking = traces.check()
        for line in traces.tree(saga_id) if saga_id else ():
            self._screen.say(line)
        count = len(self._orders) - len(lacking)
        self._screen.say(f"\njaeger: {count:,} traces are whole, of {len(self._orders):,}; {spans:,} spans\n")
        return [f"The trace of {saga}: {', '.join(said)}." for saga, said in lacking.items()]

    def conclude(self, sagas: Sequence[Saga], violations: Sequence[str]) -> int:
        """Says how it went, in the last line and in the exit status."""
        stuck = [f"Saga {saga.saga_id} is stuck: {saga.reason}" for saga in sagas if saga.state == STUCK]
        for sentences in (stuck, violations):
            for sentence in sentences[:SENTENCES_SHOWN]:
                self._screen.say(sentence)
            if len(sentences) > SENTENCES_SHOWN:
                self._screen.say(f"and {len(sentences) - SENTENCES_SHOWN} more")
        count = Counter(saga.state for saga in sagas)
        kills = self.saboteur.kills
        self._screen.say(
            f"demo: {len(sagas)} sagas: {count[COMPLETED]} completed, {count[COMPENSATED]} compensated, "
            f"{count[STUCK]} stuck; audit: {len(violations)} violations; {kills} kills survived"
        )
        all_ended = count[COMPLETED] + count[COMPENSATED] == len(self._orders) == len(sagas)
        return 0 if all_ended and not violations and kills == len(KILLS_AT) else 1


@contextlib.contextmanager
def working_directory(*, keep: bool) -> Generator[Path]:
    """Gives a new directory, and removes it in the end unless it is to be kept."""
    directory = Path(tempfile.mkdtemp(prefix="kasaga-demo-"))
    # Postgres doesn't run as root, so its user has to come through here.
    directory.chmod(0o711)
    try:
        yield directory
    finally:
        if not keep:
            shutil.rmtree(directory, ignore_errors=True)


@contextlib.contextmanager
def tracing(options: Options, directory: Path, screen: Screen) -> Generator[JaegerServer | None]:
    """Gives a Jaeger that runs, if one is wanted."""
    if not options.jaeger:
        yield None
        return
    with JaegerServer(directory / "jaeger", progress=screen.tell) as jaeger:
        screen.tell("a Jaeger runs")
        yield jaeger


def parse(arguments: Sequence[str] | None = None) -> Options:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog="demo", description="A saga across three services, with two crashes."
    )
    everything = len(load_orders())
    parser.add_argument("--orders", type=int, default=everything, help=f"how many, 1 to {everything}")
    parser.add_argument("--seed", type=int, default=1, help="decides who is killed, and what comes when")
    parser.add_argument(
        "--jaeger",
        action="store_true",
        default=os.environ.get("JAEGER", "") not in ("", "0"),
        help="export every trace to a real Jaeger, and ask it for them; so does the variable JAEGER=1",
    )
    parser.add_argument("--keep", action="store_true", help="leave the directory with data and logs")
    given = parser.parse_args(arguments)
    if not 1 <= given.orders <= everything:
        parser.error(f"--orders must be between 1 and {everything}")
    return Options(given.orders, given.seed, given.keep, given.jaeger)


def _end(signum: int, _: FrameType | None) -> None:
    """Ends like Ctrl-C does, so that everything is cleaned up."""
    raise KeyboardInterrupt(signal.Signals(signum).name)


def main() -> int:
    """Runs the demo; the exit status says whether all went well."""
    options = parse()
    screen = Screen()
    signal.signal(signal.SIGTERM, _end)
    with working_directory(keep=options.keep) as directory:
        if options.keep:
            screen.tell(f"data and logs: {directory}")
        try:
            with servers(directory, screen.tell) as running, tracing(options, directory, screen) as jaeger:
                screen.tell("a Postgres and a Kafka run")
                environment = {} if jaeger is None else jaeger.environment
                with Stage(directory, *running, environment=environment) as stage:
                    status = Demo(options, stage, screen, jaeger).run()
                if jaeger is not None and sys.stdin.isatty() and sys.stdout.isatty():
                    input("Jaeger goes on until you press Enter. ")
                return status
        except KeyboardInterrupt:
            screen.say("demo: interrupted; everything it started is ended")
            return 130
        except (StageError, KasagaError, psycopg.Error, OSError, subprocess.SubprocessError) as error:
            screen.say(f"demo: failed: {error}")
            return 1


if __name__ == "__main__":
    sys.exit(main())
