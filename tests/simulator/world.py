"""One run: several orchestrators and participants, what goes wrong, the people, and the end of it.

A seed says everything: which sagas there are, how likely each kind of fault is, and where each one strikes.
First things go wrong for a while; then nothing does any more, and all must come to an end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from kasaga.store.base import FINAL_STATES, RowKind, SagaFilter, SagaRow, StoreUnavailable
from kasaga.store.memory import MemoryStore
from kasaga_wire.kafka import partition_for
from kasaga_wire.topics import Topics
from simulator import disasters, news, trips
from simulator.book import Book
from simulator.chance import Chance
from simulator.kafka import Group, Kafka
from simulator.machine import SECOND, Died, Machine, Process
from simulator.people import People
from simulator.postgres import Database, hold_leases
from simulator.processes import CODE, DAY, Orchestrator, Participant, simulated
from simulator.shims import Clocks
from simulator.trace import Tracer

COMMAND_PARTITIONS = 2
MOST_TURNS = 80_000
"""After which a run is held to go on for ever."""

BASE = {
    "die": 0.002,
    "freeze": 0.0015,
    "store": 0.01,
    "unknown_commit": 0.02,
    "straggler": 0.01,
    "slow_commit": 0.02,
    "drop": 0.01,
    "delay": 0.03,
    "duplicate": 0.02,
    "ack_lost": 0.01,
    "inbox_lost": 0.01,
    "inbox_unknown": 0.02,
    "handler_slow": 0.05,
    "handler_fails": 0.1,
    "undo_fails": 0.1,
    "refused": 0.08,
}
"""By kind: about how likely a fault is, each time that it could strike. Seeds draw from 0 to four times."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a run.

    Attributes:
        seed: says everything that the others don't.
        sagas: how many start; None: drawn.
        kept: the names of the faults that strike; None: as the seed has it.
        off: kinds of faults that don't strike.
        traced: whether every event is noted.
        only: the sagas' numbers that start; None: all.
        odds: by kind, instead of what the seed has.
        saga: the name of all sagas; empty: drawn.
        trouble: seconds for which things go wrong.
    """

    seed: int
    sagas: int | None = None
    kept: frozenset[str] | None = None
    off: frozenset[str] = frozenset()
    traced: bool = False
    only: frozenset[int] | None = None
    odds: tuple[tuple[str, float], ...] = ()
    saga: str = ""
    trouble: float = 40.0


@dataclass
class Outcome:
    """What came of a run."""

    plan: Plan
    violations: list[str] = field(default_factory=list[str])
    states: Counter[str] = field(default_factory=Counter[str])
    faults: Counter[str] = field(default_factory=Counter[str])
    struck: list[str] = field(default_factory=list[str])
    asked: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Where faults could have struck, and when."""
    sagas: int = 0
    turns: int = 0
    seconds: float = 0.0
    """Of simulated time."""
    lines: list[str] = field(default_factory=list[str])
    story: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        return not self.violations


class World:
    """Of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.machine = Machine()
        self.clocks = Clocks(self.machine)
        self.chance = Chance(plan.seed, kept=plan.kept)
        self.chance.now = lambda: self.machine.now
        self.chance.odds = _odds(self.chance, plan)
        self.tracer = Tracer(lambda: self.machine.now, plan.traced)
        self.book = Book(self)
        self.shards = self.chance.whole("shards", 1, 3)
        self.live_sagas = self.chance.pick("live sagas", (2, 20_000))
        self.sleepers = self.chance.pick("sleepers", (4, 1_000))
        self.topics = Topics("sim")
        self.kafka = Kafka(self)
        for spec in self.topics.orchestrator_specs(self.shards):
            self.kafka.create(spec.name, spec.partitions)
        self.kafka.create(news.TOPIC, news.PARTITIONS)
        self.groups: dict[str, Group] = {}
        self.databases: dict[str, Database] = {}
        for name in CODE.app.contracts:
            for spec in self.topics.participant_specs(name, COMMAND_PARTITIONS):
                self.kafka.create(spec.name, spec.partitions)
            topic = self.topics.commands(name)
            self.groups[topic] = Group(self.kafka, topic)
            self.databases[name] = Database(self, name, 14 * DAY)
        self.store = MemoryStore(
            namespace="sim", shards=self.shards, clock=self.clocks.true_time, tokens=self.uuid
        )
        self._uuids = 0
        self._made: Counter[str] = Counter()
        self.orchestrators: list[Orchestrator] = []
        self.participants: list[Participant] = []
        self._away: dict[tuple[str, str], int] = {}
        self.calm = False
        """Nothing goes wrong any more."""
        self.people = People(self)

    # --- what everybody asks

    @property
    def running(self) -> str:
        """Whose turn it is."""
        process = self.machine.process
        return process.name if process is not None else "-"

    def now(self) -> datetime:
        return self.clocks.wall()

    def uuid(self) -> UUID:
        self._uuids += 1
        return self._uuid("uuid", self._uuids)

    def run_id(self, number: int) -> UUID:
        """Of a saga: the same whichever others there are, so that one can be left out of a failing run."""
        return self._uuid("run", number)

    def _uuid(self, kind: str, number: int) -> UUID:
        return UUID(int=int(self.chance.number(f"{kind}/{number}") * 2**56) << 60 | number, version=4)

    def shard_of(self, saga_id: str) -> int:
        return partition_for(saga_id.encode(), self.shards)

    async def pause(self, micros: int) -> None:
        """A coroutine waits."""
        await asyncio.sleep(micros / SECOND)

    def away(self, process: Process, what: str) -> bool:
        """Whether a database doesn't answer a process."""
        now = self.machine.now
        return now < self._away.get((what, ""), 0) or now < self._away.get((what, process.name), 0)

    def send_away(self, what: str, process: str, micros: int) -> None:
        """Let a database answer nobody (empty), or a process, for so long."""
        self._away[what, process] = self.machine.now + micros

    def crash_point(self, name: str) -> None:
        """Die or freeze here, if the seed has it so."""
        process = self.machine.process
        if process is None:
            return
        self.machine.check()
        where = f"{process.name}/{name}"
        if self.strikes("die", where):
            self.kill(process)
            raise Died
        if fault := self.strikes("freeze", where):
            self.freeze(process, int(self.chance.between(f"how long/{fault}", 0.2, 12) * SECOND))
            self.machine.sleep(0)

    def strikes(self, kind: str, where: str) -> str:
        """The name of the fault that strikes, noted."""
        fault = self.chance.strikes(kind, where)
        if fault:
            self.tracer.note(self.machine.process, "fault", kind=kind, name=fault)
        return fault

    # --- processes

    def _process(self, host: str) -> Process:
        self._made[host] += 1
        name = f"{host[0]}{self._made[host]}"
        process = Process(name, host)
        if self.chance.odds["skew"]:
            most = int(self.chance.odds["skew"] * SECOND)
            process.skew = self.chance.whole(f"skew/{name}", -most, most)
            process.drift = self.chance.between(f"drift/{name}", -0.002, 0.002)
        self.tracer.note(process, "join")
        return process

    def join_orchestrator(self) -> None:
        process = self._process("orchestrator")
        node = Orchestrator(self, process)
        self.orchestrators.append(node)

        def ended() -> None:
            self.orchestrators.remove(node)
            self._replace(process, self.join_orchestrator)

        process.on_end.append(ended)

        def life() -> None:
            node.life()
            self.machine.kill(process)

        self.machine.begin(process, life)

    def join_participant(self) -> None:
        process = self._process("participant")
        node = Participant(self, process)
        self.participants.append(node)

        def ended() -> None:
            self.participants.remove(node)
            node.loop.dispose()
            for database in self.databases.values():
                for session in [each for each in database.open if each.process is process]:
                    session.lose()
            self._replace(process, self.join_participant)

        process.on_end.append(ended)
        self.machine.begin(process, node.life)

    def _replace(self, process: Process, join: Callable[[], None]) -> None:
        wait = self.chance.between(f"restart/{process.name}", 0.05, 4)
        self.machine.after(int(wait * SECOND), join)

    def kill(self, process: Process) -> None:
        self.tracer.note(process, "die")
        self.machine.kill(process)

    def freeze(self, process: Process, micros: int) -> None:
        self.tracer.note(process, "freeze", micros=micros)
        self.machine.freeze(process, micros)

        def too_long() -> None:
            """Postgres ends a transaction that is idle for five minutes."""
            if process.frozen_until > self.machine.now:
                for database in self.databases.values():
                    for session in [each for each in database.open if each.process is process]:
                        session.lose()

        if micros > 300 * SECOND:
            self.machine.after(300 * SECOND, too_long)

    # --- the run

    def run(self) -> Outcome:
        """Do all of it."""
        trips.BROKEN.clear()
        outcome = Outcome(self.plan)
        with simulated(self):
            self.machine.on_jump = self._jumped
            try:
                self._run()
            finally:
                self.calm = True
                self.chance.armed = False
                self.machine.end()
        outcome.violations += self.book.violations
        outcome.states = Counter(str(row.state) for row in self.sagas())
        outcome.struck = [fault.name for fault in self.chance.struck]
        outcome.asked = self.chance.asked
        outcome.faults = Counter(fault.kind for fault in self.chance.struck)
        outcome.sagas, outcome.turns = len(self.people.started), self.machine.turns
        outcome.seconds = self.machine.now / SECOND
        outcome.lines = self.tracer.lines
        return outcome

    def _run(self) -> None:
        for _ in range(self.chance.whole("orchestrators", 1, 3)):
            self.join_orchestrator()
        for _ in range(self.chance.whole("participants", 1, 3)):
            self.join_participant()
        self.people.begin()
        disasters.begin(self)
        self.machine.at(int(self.plan.trouble * SECOND), self.heal)
        over = self.machine.run(self._over, MOST_TURNS)
        self.book.check_broken()
        if not over:
            self.book.never_over()
            return
        self.book.audit()
        if self.book.violations:
            return
        before = {row.run_id: row.state for row in self.sagas()}
        until = disasters.weeks_later(self)
        self.machine.run(lambda: self.machine.now >= until, 2 * MOST_TURNS)
        self.book.check_broken()
        self.book.unmoved(before)
        self.book.audit()

    def heal(self) -> None:
        """From here on nothing goes wrong."""
        self.calm = True
        self.chance.armed = False
        self._away.clear()
        self.kafka.down_until = 0
        self.kafka.cut.clear()
        self.people.mend()

    def _jumped(self, micros: int) -> None:
        now = self.machine.now
        awake = frozenset(
            each.name for each in self.machine.processes if each.alive and each.frozen_until <= now
        )
        hold_leases(self.store, micros, awake)

    def _over(self) -> bool:
        """Whether everything has come to its end. Looked at now and then: it takes a while."""
        if not self.calm or self.machine.now < self._look_at:
            return False
        self._look_at = self.machine.now + SECOND // 2
        return self.people.satisfied and self.is_over()

    _look_at = 0

    def is_over(self) -> bool:
        rows = self.sagas()
        if self.book.expected() - {row.saga_id for row in rows}:
            return False
        if any(row.state not in FINAL_STATES and not self.people.leaves(row) for row in rows):
            return False
        stuck = self.people.left(rows)
        return all(
            row.run_id in stuck and row.kind is not RowKind.RECORD
            for shard in range(self.shards)
            for row in self.store.open_rows(shard)
            if not self.book.waits_in_vain(row)
        )

    def sagas(self) -> list[SagaRow]:
        """All of them."""
        return self.store.list_sagas(SagaFilter(), limit=10_000)


def _odds(chance: Chance, plan: Plan) -> dict[str, float]:
    """How likely each kind is: nothing at all, or about as much as its base."""
    calm = chance.number("calm") < 0.02
    odds: dict[str, float] = {}
    for kind, base in BASE.items():
        drawn = chance.number(f"odds/{kind}")
        odds[kind] = 0.0 if calm or drawn < 0.4 or kind in plan.off else base * 4 ** ((drawn - 0.4) / 0.3 - 1)
    for kind, most in disasters.KINDS.items():
        drawn = chance.number(f"odds/{kind}")
        odds[kind] = (
            0.0
            if calm or drawn < 0.55 or kind in plan.off
            else most / disasters.TIMES[kind] * (drawn - 0.55) / 0.45
        )
    odds["skew"] = chance.pick("odds/skew", (0.0, 0.5, 30.0, 3600.0, 3 * DAY)) if not calm else 0.0
    if "skew" in plan.off:
        odds["skew"] = 0.0
    return {**odds, **dict(plan.odds)}


def simulate(plan: Plan) -> Outcome:
    """Run it."""
    return World(plan).run()


__all__ = ["Outcome", "Plan", "StoreUnavailable", "World", "simulate"]
