"""One saga from its start to its end, in one thread and on a virtual clock.

Station: made anew for each run by `case.py`. The loop, the relay, the timers and the store's contract are
the real ones, over a Kafka and a database in memory. Time jumps to whatever comes next, so a week of sleep
takes none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast
from uuid import UUID

from pydantic import SecretStr

from kasaga_wire.children import BEGIN as BEGIN_CHILD
from kasaga_wire.children import ChildEnvelope
from kasaga_wire.envelope import ControlEnvelope, StartEnvelope, type_of
from kasaga_wire.kafka import Consumer as KafkaConsumer
from kasaga_wire.kafka import KafkaSettings
from kasaga_wire.kafka import Producer as KafkaProducer
from kasaga_wire.kafka import Record as KafkaRecord
from kasaga_wire.records import Control, control_codec
from kasaga_wire.topics import Topics

from ..engine.model import Record
from ..engine.run import Definitions
from ..engine.state import State, fold
from ..lookup import read_records
from ..orchestrator.clock import Clock, to_micros
from ..orchestrator.loop import Loop
from ..orchestrator.metrics import Metrics
from ..orchestrator.relay import Relay
from ..orchestrator.rows import Addresses
from ..orchestrator.source import Asker, Source
from ..saga import App, Saga
from ..settings import Settings
from ..store.base import FINAL_STATES, SagaFilter, SagaRow, SagaState
from ..store.memory import MemoryStore
from .delivery import Courier
from .faults import Plan
from .network import Consumer, Kafka, Partitions, Producer
from .services import Services
from .signals import Signal

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
FIRST = 5_000_000_000
"""Nanoseconds of the virtual clock at the beginning: 0 means `never` to some."""
TURN = 1_000_000
"""Nanoseconds that a turn of the loop takes."""
MOST_TURNS = 20_000
"""After which a saga is held to go on for ever."""
STUCK_FOR = 60 * 1_000_000_000
"""Nanoseconds for which a STUCK saga is watched: other steps of it may go on."""
FOREVER = 1e9
"""Seconds. Leases and brokers aren't what is tested here."""
PAUSE = 0.0002
"""Real seconds between two looks whether a function of ctx.run has ended."""

MOST_SAGAS = 1_000
"""Children that are looked at."""

SAGA_ID = "saga-1"


@dataclass(frozen=True, slots=True)
class Stage:
    """What all runs of a case share."""

    saga: Saga[Any, Any]
    app: App
    defs: Definitions
    services: Services
    metrics: Metrics
    settings: Settings
    topics: Topics
    signals: tuple[Signal, ...] = ()
    """By their times."""


def make_settings() -> Settings:
    """Of a process that shares its shard with nobody."""
    return Settings(
        database_url=SecretStr("memory"),
        kafka=KafkaSettings("memory:0"),
        process="testing",
        lease_seconds=FOREVER,
        heartbeat_seconds=FOREVER,
        brokers_lost_seconds=FOREVER,
        run_threads=1,
    )


class _Silent:
    """`Metrics` that count nothing: nobody reads those of a test, and they cost a tenth of its time."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return _nothing


def _nothing(*arguments: object, **named: object) -> None:
    """Count nothing."""


def silent() -> Metrics:
    """Metrics for runs that nobody measures."""
    return cast("Metrics", _Silent())


class _Ticks(Clock):
    def __init__(self, world: World) -> None:
        self._world = world
        super().__init__()

    def ticks(self) -> int:
        return self._world.nanos

    def wait(self, until: threading.Event, seconds: float) -> None:
        self._world.nanos += int(seconds * 1e9)


class World:
    """One run."""

    def __init__(self, stage: Stage, plan: Plan, *, dice: Random | None = None) -> None:
        self._stage = stage
        self.nanos = FIRST
        self._ids = Random(1)
        self._network = Kafka(lambda: int(self.now().timestamp() * 1000))
        self._network.appended = self._appended
        for spec in stage.topics.orchestrator_specs(1):
            self._network.create(spec.name, 1)
        self._services = frozenset(stage.topics.commands(name) for name in stage.app.contracts)
        for topic in sorted(self._services):
            self._network.create(topic, 1)
        self.store = MemoryStore(namespace=stage.app.namespace, shards=1, clock=self.now, tokens=self._uuid)
        virtuals, self.data = stage.services.begin(self.now)
        self.courier = Courier(
            self._network,
            virtuals,
            plan,
            nanos=lambda: self.nanos,
            now=self.now,
            ask=self._ask,
            dice=dice,
            promises=stage.services.promises,
        )
        self.turns = self._signalled = 0
        """Turns so far; signals sent so far."""
        self._settled: SagaState | None = None
        self._stuck_at = 0
        self._loop, self._consumer = self._begin()

    def now(self) -> datetime:
        """The virtual time."""
        return BEGIN + timedelta(microseconds=self.nanos // 1000)

    def _uuid(self) -> UUID:
        return UUID(int=self._ids.getrandbits(128), version=4)

    def _appended(self, record: KafkaRecord) -> None:
        if record.topic in self._services:
            self.courier.sent(record)
        elif record.topic == self._stage.topics.sagas and type_of(record.headers) == BEGIN_CHILD:
            self.courier.begins(ChildEnvelope.parse(record.headers))

    def _begin(self) -> tuple[Loop, Consumer]:
        self._begun = False
        stage, clock, consumer = self._stage, _Ticks(self), Consumer(self._network)
        source = Source(
            cast("KafkaConsumer", consumer), cast("Asker", consumer), stage.topics, stage.defs.schemas, clock
        )
        topics = Partitions(self._network, create=True)  # a saga may emit to any
        relay = Relay(lambda: cast("KafkaProducer", Producer(self._network)), topics)
        loop = Loop(
            stage.app,
            stage.settings,
            defs=stage.defs,
            where=Addresses(stage.topics, f"/kasaga/{stage.app.namespace}", 1),
            store=self.store,
            source=source,
            relay=relay,
            clock=clock,
            metrics=stage.metrics,
        )
        return loop, consumer

    # --- the run

    def run(self, payload: bytes) -> None:
        """Start the saga with its encoded input, and go on until nothing can come any more."""
        stage = self._stage
        start = StartEnvelope(
            run_id=str(self._uuid()),
            source="/kasaga/testing",
            time=self.now(),
            saga_id=SAGA_ID,
            saga=stage.saga.name,
            saga_version=stage.saga.version,
        )
        self._network.append(stage.topics.sagas, 0, SAGA_ID.encode(), payload, start.to_headers())
        try:
            while self.turns < MOST_TURNS and self._turn():
                pass
        finally:
            self._loop.finish()

    def _turn(self) -> bool:
        """Let the process turn once, and time pass; say whether anything is left to do."""
        self.turns += 1
        self.courier.deliver()
        self._signal()
        if self.courier.restart:
            self.courier.restart = False
            self._loop.stop()
            self._loop.finish()
            self._loop, self._consumer = self._begin()
        if self._is_idle():
            return self._jump()
        self._loop.once()
        if self._loop.functions_running:
            self.turns -= 1
            time.sleep(PAUSE)  # what runs there is the author's own, in a thread, and takes its time
            return True
        self.nanos += TURN
        return self._consumer.behind or self._jump()

    @property
    def _timer(self) -> int | None:
        """When the process has something to do by itself, in nanoseconds."""
        due = self._loop.next_due
        return None if due is None else (due - to_micros(BEGIN)) * 1000

    def _is_idle(self) -> bool:
        """Whether a turn of the process would find nothing to do; its first ones begin it."""
        if not self._begun:
            self._begun = True
            return False
        timer = self._timer
        idle = not self._consumer.behind and not self._loop.functions_running
        comes = self.courier.next_at is not None or self._next_signal is not None
        return idle and comes and (timer is None or timer > self.nanos)

    def _jump(self) -> bool:
        """Nothing is there to be read: go on to what comes next."""
        timer = self._timer
        mail = min((at for at in (self.courier.next_at, self._next_signal) if at is not None), default=None)
        if mail is None and self._over(timer):
            if self._settled is None:
                self._settled = self.row.state
                return self.courier.release()
            return False
        times = [at for at in (mail, timer) if at is not None]
        if not times:
            return False
        self.nanos = max(self.nanos, min(times))
        return True

    def _over(self, timer: int | None) -> bool:
        """Whether the saga has ended, or is stuck for so long that the rest of it has ended."""
        states = {row.state for row in self._rows()}
        if SagaState.STUCK not in states:
            self._stuck_at = 0
            return bool(states) and states <= FINAL_STATES
        self._stuck_at = self._stuck_at or self.nanos
        return timer is None or timer > self._stuck_at + STUCK_FOR

    @property
    def _next_signal(self) -> int | None:
        """When the next signal comes, in nanoseconds."""
        signals = self._stage.signals
        if self._signalled == len(signals):
            return None
        return FIRST + int(signals[self._signalled].after * 1e9)

    def _signal(self) -> None:
        """Put the signals into the log whose time has come."""
        while (at := self._next_signal) is not None and at <= self.nanos:
            signal = self._stage.signals[self._signalled]
            self._signalled += 1
            self._network.append(self._stage.topics.schemas, 0, *signal.schema(), [])
            value, headers = signal.record(SAGA_ID, self._signalled, self.now())
            self._network.append(self._stage.topics.control, 0, SAGA_ID.encode(), value, headers)

    def _ask(self, action: str) -> None:
        envelope = ControlEnvelope(
            id=str(self._uuid()),
            source="/kasaga/testing",
            action=action,
            time=self.now(),
            saga_id=SAGA_ID,
        )
        body = control_codec.encode(
            Control(action=action, by="the test", reason=f"the test asks to {action} it")
        )
        self._network.append(self._stage.topics.control, 0, SAGA_ID.encode(), body, envelope.to_headers())

    # --- what came of it

    @property
    def row(self) -> SagaRow:
        """The saga's row."""
        row = self.store.saga(SAGA_ID)
        assert row is not None, "the start was put into the log before the first turn"
        return row

    @property
    def moved_after_its_end(self) -> bool:
        """Whether what was held back until the end has changed how the saga ended."""
        return self._settled in FINAL_STATES and self.row.state is not self._settled

    def _rows(self) -> list[SagaRow]:
        """The saga's row, and those of its children and theirs."""
        return self.store.list_sagas(SagaFilter(), after=None, limit=MOST_SAGAS)

    def children(self) -> dict[str, tuple[State, str]]:
        """The children by id, each with what its steps' numbers begin with."""
        made: dict[str, tuple[State, str]] = {}
        for row in self._rows():
            if row.saga_id != SAGA_ID:
                run_id = str(row.run_id)
                state = fold(run_id, read_records(self.store, row))
                made[row.saga_id] = state, self.courier.prefix(run_id)
        return made

    def records(self) -> list[Record]:
        """The history."""
        return read_records(self.store, self.row)

    def schemas(self) -> Mapping[bytes, str]:
        """The schemas that the history names."""
        return self.store.schemas()
