"""Whole orchestrators in one thread: the real loop over a store and a Kafka in memory, on a clock of its own.

Every choice is drawn from one seed, so a failing run can be run again. What may go wrong is in `Odds`; what
a single test wants to go wrong, it does itself between two steps.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, cast
from unittest.mock import patch
from uuid import UUID

from kasaga.engine.codec import decode
from kasaga.errors import KilledProcess
from kasaga.orchestrator.clock import Clock
from kasaga.orchestrator.loop import Loop
from kasaga.orchestrator.metrics import Metrics
from kasaga.orchestrator.relay import Relay
from kasaga.orchestrator.rows import Addresses
from kasaga.orchestrator.source import Asker, Source
from kasaga.saga import App
from kasaga.settings import Settings, limited
from kasaga.store.base import FINAL_STATES, Offsets, SagaFilter, SagaRow, SagaState, StoreUnavailable
from kasaga.store.memory import MemoryStore
from kasaga.testing import network
from kasaga_wire.claims import Claims
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import ControlEnvelope, ReplyTo, StartEnvelope
from kasaga_wire.kafka import Consumer, KafkaSettings, Producer, Record, partition_for
from kasaga_wire.records import Control, answer_codec, control_codec, own_schemas
from kasaga_wire.topics import Topics
from orchestrator.at_once import WITH_CRASH_POINTS, claims_desk
from orchestrator.desk import Desk, Reply
from orchestrator.ledger import Books, audit
from orchestrator.node import Node
from orchestrator.trips import Trip, make_app

BEGIN = datetime(2030, 1, 1, tzinfo=UTC)
COMMAND_PARTITIONS = 2


class Died(BaseException):
    """The process was killed at a crash point."""


@dataclass
class Odds:
    """How often something goes wrong, from 0 to 1, each time it could."""

    die: float = 0.0
    """At a crash point."""
    freeze: float = 0.0
    """For longer than a lease, between two turns."""
    store: float = 0.0
    """Postgres doesn't answer, and did nothing."""
    unknown: float = 0.0
    """Postgres commits, and its answer is lost."""
    outage: float = 0.0
    """Postgres is away for a while, from this call on."""
    kafka: float = 0.0
    """Kafka is away for a while."""
    again: float = 0.0
    """A command is delivered once more."""
    slow: float = 0.5
    """A reply waits, and others overtake it."""
    leave: float = 0.0
    """A process ends in order, and another begins."""


class _Ticks(Clock):
    def __init__(self, world: World, node: str) -> None:
        self._world, self._node = world, node
        super().__init__()

    def ticks(self) -> int:
        return self._world.nanos

    def wait(self, until: threading.Event, seconds: float) -> None:
        self._world.meanwhile(seconds)


class World:
    """Use it as a context: inside, crash points belong to it."""

    def __init__(self, seed: int = 0, *, shards: int = 2, odds: Odds | None = None, **settings: Any) -> None:
        self.dice = Random(seed)
        self.odds = odds or Odds()
        self.nanos = 5_000_000_000
        self.shards = shards
        self.app = make_app("trips")
        self.topics = Topics("trips")
        self.kafka = network.Kafka()
        self.kafka.now_ms = lambda: int(self.now().timestamp() * 1000)
        for spec in self.topics.orchestrator_specs(shards):
            self.kafka.create(spec.name, spec.partitions)
        for name in self.app.contracts:
            self.kafka.create(self.topics.commands(name), COMMAND_PARTITIONS)
        self.store = MemoryStore(
            namespace="trips", shards=shards, clock=self.now, tokens=self.uuid, fault=self._fault
        )
        self.settings: dict[str, Any] = {
            "lease_seconds": 3.0,
            "heartbeat_seconds": 0.5,
            "sleepers_in_memory": 4,  # the fewest: what the store alone has is read again and again
            **settings,
        }
        self.claims: Claims | None = None  # of processes that join from now on
        self.desk = Desk(self.app.contracts, now=self.now)
        self.nodes: list[Node] = []
        self.asked: dict[str, str] = {}
        self.points: dict[str, int] = {}
        """Crash points passed, and how often."""
        self.crash: Callable[[str], bool] = lambda point: False
        self.fault: Callable[[str], None] = lambda point: None
        self._running: list[Node] = []
        self._made = 0
        self._taken: dict[tuple[str, int], int] = {}
        self._mail: list[Reply] = []
        self._patches = contextlib.ExitStack()

    def __enter__(self) -> World:
        for module in WITH_CRASH_POINTS:
            self._patches.enter_context(patch.object(module, "crash_point", self._crash_point))
        logger = logging.getLogger("kasaga")
        level = logger.level
        logger.setLevel(logging.CRITICAL + 1)
        self._patches.callback(logger.setLevel, level)
        return self

    def __exit__(self, *about: object) -> None:
        for node in list(self.nodes):
            self._bury(node)
        self._patches.close()

    # --- time and chance

    @property
    def running(self) -> Node | None:
        """Whose turn it is."""
        return self._running[-1] if self._running else None

    def now(self) -> datetime:
        return BEGIN + timedelta(microseconds=self.nanos // 1000)

    def pass_time(self, seconds: float) -> None:
        self.nanos += int(seconds * 1e9)

    def uuid(self) -> UUID:
        return UUID(int=self.dice.getrandbits(128), version=4)

    def happens(self, odds: float) -> bool:
        return bool(odds) and self.dice.random() < odds

    # --- processes

    def join(self, app: App | None = None, **settings: Any) -> Node:
        """Begin another process, perhaps with other code."""
        self.kafka.down = False  # a process waits with its beginning until Kafka is there
        self._made += 1
        name = f"node-{self._made}"
        defined = Settings(
            database_url=cast("Any", "unused"),
            kafka=KafkaSettings("unused:9092"),
            process=name,
            **{**self.settings, **settings},
        )
        schemas = Schemas()
        for text in self.store.schemas().values():
            schemas.add(text)
        app = app or self.app
        defs = limited(app.definitions(schemas, max_payload=defined.max_payload_bytes), defined)
        for schema in own_schemas():
            schemas.add(schema)
        clock = _Ticks(self, name)
        consumer = network.Consumer(self.kafka)
        producers: list[network.Producer] = []

        def make_producer() -> Producer:
            producers.append(network.Producer(self.kafka))
            producers[-1].deliver = producers[-1].confirm = self._some
            return cast("Producer", producers[-1])

        counter = None if self.claims is None else claims_desk(self.claims, self.topics)
        loop = Loop(
            app,
            defined,
            defs=defs,
            where=Addresses(self.topics, "/kasaga/trips", self.shards, desk=counter),
            store=self.store,
            source=Source(cast("Consumer", consumer), cast("Asker", consumer), self.topics, schemas, clock),
            relay=Relay(make_producer, network.Partitions(self.kafka), desk=counter),
            clock=clock,
            metrics=Metrics(),
        )
        node = Node(name, loop, consumer, producers)
        self.nodes.append(node)
        return node

    def turn(self, node: Node) -> None:
        """Let a process turn once; it may die of it. A dead one does nothing."""
        if not node.alive:
            return
        self._running.append(node)
        try:
            node.loop.once()
        except Died:
            self._running.pop()
            self._bury(node)
            return
        self._running.pop()
        self.pass_time(0.002)

    def turns(self, node: Node, times: int) -> None:
        for _ in range(times):
            self.turn(node)

    def kill(self, node: Node) -> None:
        """End a process without a word; some of what it has produced may be in Kafka."""
        self._bury(node)

    def end(self, node: Node) -> None:
        """End a process in order; the others go on meanwhile."""
        node.loop.stop()
        while node.alive and not node.loop.over:
            self.turn(node)
            if len(self.nodes) > 1:
                self.meanwhile(0.01)
        if not node.alive:
            return
        self._running.append(node)
        try:
            node.loop.finish()
        except Died:
            pass
        finally:
            self._running.pop()
            self._bury(node)

    def _bury(self, node: Node) -> None:
        if not node.alive:
            return
        node.alive = False
        self.nodes.remove(node)
        for producer in node.producers:
            if not self.kafka.down:
                producer.land(self.dice.randint(0, producer.waiting))
        node.runs.close()
        node.functions.close()

    def meanwhile(self, seconds: float) -> None:
        """A process waits: the others go on."""
        self.pass_time(seconds)
        for node in list(self.nodes):
            if node not in self._running and self._awake(node) and self.dice.random() < 0.5:
                self.turn(node)
        self.serve()
        if len(self._running) == len(self.nodes):
            for node in self.nodes:
                node.away_until = 0

    def _awake(self, node: Node) -> bool:
        return node.alive and node.asleep_until <= self.nanos

    def _some(self, most: int) -> int:
        return self.dice.randint(0, most) if self.odds.slow else most

    def _crash_point(self, name: str) -> None:
        self.points[name] = self.points.get(name, 0) + 1
        if self.crash(name) or self.happens(self.odds.die):
            raise Died(name)

    def _fault(self, point: str) -> None:
        self.fault(point)
        node = self._running[-1] if self._running else None
        if node is None:
            return
        if node.away_until > self.nanos:
            raise StoreUnavailable("Postgres is away")
        if self.happens(self.odds.outage):
            node.away_until = self.nanos + int(self.dice.uniform(0.1, 6) * 1e9)
            raise StoreUnavailable("Postgres goes away")
        if self.happens(self.odds.unknown if point == "commit.done" else self.odds.store):
            raise StoreUnavailable(f"no answer to {point}")

    # --- sagas and participants

    def shard_of(self, saga_id: str) -> int:
        return partition_for(saga_id.encode(), self.shards)

    def start(
        self,
        saga: str,
        saga_id: str,
        note: str = "",
        *,
        run_id: str = "",
        ask: bool = True,
        partition: int | None = None,
        age: timedelta = timedelta(0),
        value: bytes | None = None,
        traceparent: str | None = None,
        source: str = "/kasaga/clients/test",
        version: int | None = None,
    ) -> str:
        """Put a start into Kafka; returns the run id."""
        run_id = run_id or str(self.uuid())
        envelope = StartEnvelope(
            run_id=run_id,
            source=source,
            time=self.now() - age,
            saga_id=saga_id,
            saga=saga,
            saga_version=version,
            reply_to=ReplyTo(self.topics.answers, 0) if ask else None,
            traceparent=traceparent,
        )
        if value is None:
            value = self.app.sagas["trip", 1].input.encode(Trip(id=saga_id, note=note))
            codec = self.app.sagas.get((saga, 1))
            value = value if codec is None else codec.input.encode(Trip(id=saga_id, note=note))
        where = self.shard_of(saga_id) if partition is None else partition
        self.kafka.append(self.topics.sagas, where, saga_id.encode(), value, envelope.to_headers())
        if ask:
            self.asked.setdefault(saga_id, run_id)
        return run_id

    def control(self, action: str, saga_id: str, *, traceparent: str | None = None, **about: Any) -> str:
        """Put a control record into Kafka; returns its id."""
        action_id = str(self.uuid())
        envelope = ControlEnvelope(
            id=action_id,
            source="/kasaga/clients/test",
            action=action,
            time=self.now(),
            saga_id=saga_id,
            reply_to=ReplyTo(self.topics.answers, 0),
            traceparent=traceparent,
        )
        body = Control(action=action, by="test", **{"reason": "a test", **about})
        self.kafka.append(
            self.topics.control,
            self.shard_of(saga_id),
            saga_id.encode(),
            control_codec.encode(body),
            envelope.to_headers(),
        )
        return action_id

    def serve(self) -> None:
        """Let the participants handle what has come, and Kafka get some of their answers."""
        for name in self.app.contracts:
            for partition in range(COMMAND_PARTITIONS):
                place = (self.topics.commands(name), partition)
                log = self.kafka.logs[place]
                at = self._taken.get(place, 0)
                if at < log.end:
                    self._mail += self.desk.take(log.records[at])
                    self._taken[place] = at + 1
                elif log.records and self.happens(self.odds.again):
                    self._mail += self.desk.take(self.dice.choice(log.records))
        self.deliver()

    def deliver(self) -> None:
        """Let replies reach Kafka, in any order."""
        waiting, self._mail = self._mail, []
        self.dice.shuffle(waiting)
        for reply in waiting:
            if self.happens(self.odds.slow):
                self._mail.append(reply)
            else:
                self.kafka.append(reply.to.topic, reply.to.partition, reply.key, reply.value, reply.headers)

    # --- runs

    def step(self) -> None:
        """Let somebody do something."""
        odds = self.odds
        self.pass_time(self.dice.choice((0.001, 0.003, 0.01, 0.1)))
        self.kafka.down = self.happens(odds.kafka)
        if self.dice.random() < 0.4:
            self.serve()
            return
        node = self.dice.choice(self.nodes) if self.nodes else self.join()
        if not self._awake(node):
            return
        if self.happens(odds.freeze):
            node.asleep_until = self.nanos + int(self.dice.uniform(0.5, 8) * 1e9)
        elif self.happens(odds.leave):
            self.end(node)
            self.join()
        else:
            self.turn(node)
            if not node.alive:
                self.join()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()

    def heal(self) -> None:
        """From here on nothing goes wrong."""
        self.odds = Odds(slow=0.0)
        self.crash = lambda point: False
        self.fault = lambda point: None
        self.desk.mood = lambda envelope: "done"
        self.kafka.down = False
        for node in self.nodes:
            node.asleep_until = node.away_until = 0
            node.consumer.cut_off = False
            for producer in node.producers:
                producer.cut_off = False

    def settle(self, *, stuck: frozenset[str] = frozenset(), most: int = 20_000) -> None:
        """Heal everything, and go on until every saga has ended and the outbox is empty."""
        self.heal()
        for number in range(most):
            self.step()
            if not self._mail and self.over(stuck):
                return
            if number % 1000 == 999:
                self._absolve(stuck)
        left = [(row.saga_id, row.state, row.reason) for row in self.sagas() if row.state not in FINAL_STATES]
        raise AssertionError(f"not over after {most} steps: {left[:5]}, {self.outbox()[:3]}")

    def _absolve(self, stuck: frozenset[str]) -> None:
        """An operator retries the sagas that happened to be stepped each time their process was killed."""
        for row in self.sagas():
            if row.state is SagaState.STUCK and row.code == KilledProcess.code and row.saga_id not in stuck:
                self.control("retry", row.saga_id)

    def over(self, stuck: frozenset[str] = frozenset()) -> bool:
        rows = {row.saga_id: row for row in self.sagas()}
        if not rows.keys() >= self.asked.keys():
            return False
        for row in rows.values():
            if row.state not in FINAL_STATES and not (row.saga_id in stuck and row.state is SagaState.STUCK):
                return False
        waiting = {row.run_id for row in rows.values() if row.saga_id in stuck}
        return all(row.run_id in waiting for row in self.outbox())

    def sagas(self) -> list[SagaRow]:
        return list(self._all())

    def _all(self) -> Iterator[SagaRow]:
        after: UUID | None = None
        while page := self.store.list_sagas(SagaFilter(), after=after, limit=500):
            yield from page
            after = page[-1].run_id

    def snapshot(self) -> object:
        """What the database holds."""
        return copy.deepcopy((self.store._tables, self.store._shards))  # pyright: ignore[reportPrivateUsage]

    def restore(self, snapshot: Any) -> None:
        """The database goes back in time."""
        self.store._tables, self.store._shards = snapshot  # pyright: ignore[reportPrivateUsage]

    def offsets(self, shard: int) -> Offsets:
        """A shard's offsets as the store has them."""
        found = self.store._shards[shard].offsets  # pyright: ignore[reportPrivateUsage]
        assert found is not None
        return found

    def saga(self, saga_id: str) -> SagaRow:
        row = self.store.saga(saga_id)
        assert row is not None, f"there is no saga {saga_id}"
        return row

    def outbox(self) -> list[Any]:
        return [row for shard in range(self.shards) for row in self.store.open_rows(shard)]

    def commands(self) -> list[Record]:
        return [r for name in self.app.contracts for r in self.kafka.all(self.topics.commands(name))]

    def audit(self, *, stuck: frozenset[str] = frozenset()) -> None:
        rows = self.sagas()
        histories = {
            row.run_id: [decode(each.seq, each.body) for each in self.store.history(row)] for row in rows
        }
        answers = [
            answer_codec.decode(record.value or b"", Schemas())
            for record in self.kafka.all(self.topics.answers)
        ]
        books = Books(rows, histories, self.outbox(), self.commands(), answers, self.desk, self.asked)
        audit(books, stuck=stuck)
