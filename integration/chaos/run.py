"""One run: the town, the load, the faults of the schedule, then calm, the audit and the report.

Called by `__main__.py`, inside of a sandbox where there is one.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg

from chaos import chart, report
from chaos.faults import Breaker, Struck
from chaos.load import Load, rounds
from chaos.report import Outcome
from chaos.schedule import SERVICES, Fault
from chaos.town import Town
from chaos.watch import Watcher
from examples.audit import audit, read_books, read_sagas
from examples.contracts import NAMESPACE
from kasaga_wire.kafka import Consumer
from kasaga_wire.topics import Topics

TELL_SECONDS = 10.0
LOOK_SECONDS = 0.2

PATIENCE_SECONDS = 150.0
"""How long nothing may end once all faults are over: longer than a step's time-out."""

OUTBOX_SECONDS = 30.0
"""How long what is to be sent may take once all sagas have ended."""

AUDITED_A_SECOND = 2_000
AUDIT_SECONDS = 600.0

SENTENCES_SHOWN = 20

LEFT = "SELECT kind, step, topic, count(*) FROM kasaga.outbox GROUP BY 1, 2, 3 ORDER BY 4 DESC LIMIT 5"
SLOWEST = """
SELECT extract(epoch FROM ended_at - started_at)::float8, saga_id FROM kasaga.saga
WHERE ended_at IS NOT NULL ORDER BY 1 DESC LIMIT 1
"""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is asked to do."""

    seconds: float
    seed: int
    rate: float
    faults: Sequence[Fault]
    small_disk: bool
    results: Path
    """Where logs, the report and the chart go."""


class Run:
    """Does it."""

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._directory = directory
        self._say = say
        self._began = time.monotonic()
        self._over = threading.Event()
        self._struck = [Struck(fault) for fault in plan.faults]

    def run(self) -> int:
        """Gives the exit status: 0 only if everything has been carried out and nothing is violated."""
        logs = self._plan.results / "logs"
        logs.mkdir(parents=True)
        logging.basicConfig(filename=logs / "load.log", format="%(asctime)s %(message)s")
        stock = rounds(self._plan.rate, self._plan.seconds)
        town = Town(self._directory, logs, small_disk=self._plan.small_disk, stock=stock, tell=self._tell)
        with town:
            self._tell("a Postgres, a Kafka, three orchestrators and two of each service run: orders come")
            try:
                outcome = self._play(town)
            finally:
                self._over.set()
        return self._conclude(outcome)

    # --- while it lasts

    def _now(self) -> float:
        return time.monotonic() - self._began

    def _tell(self, text: str) -> None:
        self._say(f"{self._now():6.1f} s  {text}")

    def _play(self, town: Town) -> Outcome:
        plan = self._plan
        load = Load(town.client, plan.rate, plan.seed)
        self._began = time.monotonic()
        load.start()
        watcher = Watcher(town.database("kasaga"), load, self._struck, max(plan.rate, 10.0), self._now)
        watcher.start()
        try:
            self._break(town, load, watcher)
            load.leave()
            self._tell("no more faults, no more orders: now everything has to end")
            self._drain(load, watcher)
        finally:
            watcher.stop()
        outcome = Outcome(plan.seed, plan.seconds, self._struck, watcher.samples)
        outcome.tries_failed = load.tries_failed
        outcome.ends = {name: actor.ends for name, actor in town.actors.items() if actor.ends}
        self._audit(town, load, outcome)
        return outcome

    def _break(self, town: Town, load: Load, watcher: Watcher) -> None:
        breaker = Breaker(town, self._now, self._over)
        threads: list[threading.Thread] = []
        told = 0.0
        todo = list(self._struck)
        while todo or self._now() < self._plan.seconds or any(thread.is_alive() for thread in threads):
            while todo and self._now() >= todo[0].fault.at:
                threads.append(threading.Thread(target=self._one, args=(breaker, todo.pop(0)), daemon=True))
                threads[-1].start()
            if self._now() - told > TELL_SECONDS:
                told = self._now()
                last = watcher.last
                self._tell(f"{last.started:,} orders, {last.ended:,} ended, {last.open:,} open")
            if load.failure is not None:
                raise load.failure
            time.sleep(LOOK_SECONDS / 4)

    def _one(self, breaker: Breaker, struck: Struck) -> None:
        self._tell(f"✗ {struck.fault.number:3} {struck.fault.name}" + _for(struck.fault.seconds))
        breaker.carry_out(struck)
        self._tell(f"↻ {struck.fault.number:3} {struck.failure or 'is over'}")

    def _drain(self, load: Load, watcher: Watcher) -> None:
        """Waits until all sagas have ended, or nothing moves any more."""
        since = told = self._now()
        while not load.is_over or watcher.last.open > 0 or watcher.last.at < since:
            now = self._now()
            if now - told > TELL_SECONDS:
                told = now
                self._tell(f"{watcher.last.open:,} open, {watcher.last.stuck:,} of them stuck")
            if now - max(since, watcher.moved_at) > PATIENCE_SECONDS:
                self._tell(f"nothing has ended for {PATIENCE_SECONDS:.0f} s: giving up")
                return
            if load.failure is not None:
                raise load.failure
            time.sleep(LOOK_SECONDS)

    # --- the end

    def _audit(self, town: Town, load: Load, outcome: Outcome) -> None:
        sagas = read_sagas(town.database("kasaga"))
        books = read_books(*map(town.database, SERVICES))
        outcome.states = Counter(saga.state for saga in sagas)
        outcome.violations = audit(load.orders, sagas, books)
        outcome.violations += [
            f"Saga {saga.saga_id} is stuck: {saga.reason}" for saga in sagas if saga.state == "STUCK"
        ]
        with psycopg.connect(town.database("kasaga"), autocommit=True) as connection:
            deadline = time.monotonic() + OUTBOX_SECONDS
            while connection.execute(LEFT).fetchall() and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
            for kind, step, topic, count in connection.execute(LEFT).fetchall():
                outcome.violations.append(f"{count} outbox rows are left: kind {kind}, {step} for {topic}.")
            slowest = connection.execute(SLOWEST).fetchone()
        if slowest is not None:
            outcome.slowest = (float(slowest[0]), str(slowest[1]))
        outcome.violations += dead_letters(town)
        outcome.violations += histories(town)

    def _conclude(self, outcome: Outcome) -> int:
        results = self._plan.results
        table = report.table(self._struck)
        last = report.last_line(outcome)
        self._say("\n" + table)
        for name, statuses in outcome.ends.items():
            self._say(f"  {name} ended by itself {len(statuses)} times, with {sorted(set(statuses))}")
        self._say(
            f"  {outcome.tries_failed} starts had to be tried again; the slowest saga took "
            f"{outcome.slowest[0]:.1f} s ({outcome.slowest[1]})"
        )
        for sentence in outcome.violations[:SENTENCES_SHOWN]:
            self._say(sentence)
        if len(outcome.violations) > SENTENCES_SHOWN:
            self._say(
                f"and {len(outcome.violations) - SENTENCES_SHOWN} more: all are in {results}/violations.txt"
            )
        failed = [each for each in self._struck if each.failure]
        results.joinpath("faults.txt").write_text(f"{table}\n{last}\n")
        results.joinpath("run.json").write_text(report.as_json(outcome))
        results.joinpath("violations.txt").write_text("".join(f"{each}\n" for each in outcome.violations))
        chart.draw(outcome, results / "chart.svg")
        bad = bool(outcome.violations) or bool(failed)
        if bad:
            self._say(f"logs of every process: {results / 'logs'}")
        else:
            shutil.rmtree(results / "logs")
        self._say(f"the table, the chart and all figures: {results}")
        self._say(last)
        return 1 if bad else 0


def histories(town: Town) -> list[str]:
    """Holds all histories against the services' inboxes, with `kasaga audit`; gives what it says is wrong."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KASAGA_")}
    environment["KASAGA_DATABASE_URL"] = town.database("kasaga")
    for name in SERVICES:
        environment[f"KASAGA_INBOX_{name.upper()}_URL"] = town.database(name)
    # Clocks have jumped: a saga may have ended in what is the future by now.
    argv = [sys.executable, "-m", "kasaga", "audit", f"--rate={AUDITED_A_SECOND}", "--until=2100-01-01T00:00"]
    done = subprocess.run(
        argv,
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        cwd=town.directory,
        timeout=AUDIT_SECONDS,
    )
    said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
    town.tell(f"kasaga audit: {said[-1]}")
    return (
        [] if done.returncode == 0 else [f"kasaga audit, status {done.returncode}: {line}" for line in said]
    )


def dead_letters(town: Town) -> list[str]:
    """Gives a sentence for each topic of dead letters that has some: no fault is a reason for one."""
    topics = Topics(NAMESPACE)
    names = [topics.orchestrator_dead_letters, *(topics.dead_letters(name) for name in SERVICES)]
    consumer = Consumer(town.client, group="chaos")
    try:
        ends = {name: consumer.watermarks(name, 0)[1] for name in names}
    finally:
        consumer.close()
    return [f"There are {end} records on {name}." for name, end in ends.items() if end]


def _for(seconds: float) -> str:
    return f", for {seconds:.1f} s" if seconds else ""
