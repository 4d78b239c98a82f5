"""One orchestrator and the payment saga's participants in one thread, stepped by hand.

Real: the loop, the relay, the stores that the caller gives, the participants' runtime, worker and inbox.
In memory: Kafka (`kasaga.testing.network`). The process's own clock stands still unless it is told to go on,
so nothing happens beside what is counted: no heartbeat, no sweep, no time-out.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from datetime import UTC, datetime
from types import TracebackType
from typing import Self, cast
from uuid import UUID

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from bench.payment_app import Inventory as InventoryContract
from bench.payment_app import Order, app, payment
from bench.payment_app import Payments as PaymentsContract
from bench.payment_app import Shipping as ShippingContract
from bench.service import InventoryService, PaymentsService, ShippingService
from kasaga.orchestrator import metrics as orchestrator_metrics
from kasaga.orchestrator.clock import Clock
from kasaga.orchestrator.loop import SWEEP_SECONDS, Loop
from kasaga.orchestrator.relay import Relay
from kasaga.orchestrator.rows import Addresses
from kasaga.orchestrator.source import Asker, Source
from kasaga.settings import Settings
from kasaga.store.base import FINAL_STATES, SagaState, Store
from kasaga.testing import network
from kasaga_participant import Participant
from kasaga_participant.calls import Calls
from kasaga_participant.metrics import Metrics
from kasaga_participant.progress import Progress, Room
from kasaga_participant.runtime import Parts, Runtime
from kasaga_participant.sender import Sender
from kasaga_participant.settings import IN_HAND_BYTES, IN_HAND_RECORDS
from kasaga_participant.store import Store as Inbox
from kasaga_participant.tracing import tracing
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import StartEnvelope
from kasaga_wire.kafka import Consumer, KafkaSettings, Producer, Record, partition_for
from kasaga_wire.records import own_schemas
from kasaga_wire.topics import Topics, reply_topics

NAMESPACE = app.namespace
TOPICS = Topics(NAMESPACE)
BATCH = 64
"""Commands that may share a participant's transaction: the participants' default."""
PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.0005
"""Between two looks whether all is answered; it uses no CPU, which others may measure."""
FOREVER = 1e6
"""Seconds. No lease runs out here, and none is renewed."""
MOST_TURNS = 100
MOMENT = datetime(2030, 1, 1, tzinfo=UTC)


class _Still(Clock):
    """The process's own time goes on when it is told to; the database's is the database's."""

    def __init__(self) -> None:
        self.nanos = 5_000_000_000
        super().__init__()

    def ticks(self) -> int:
        return self.nanos

    def wait(self, until: threading.Event, seconds: float) -> None:
        self.nanos += int(seconds * 1e9)


def participant() -> Participant:
    """The three services of the payment saga."""
    made = Participant("bench", database_url=None, namespaces=(NAMESPACE,))
    made.serve(InventoryContract, InventoryService)
    made.serve(PaymentsContract, PaymentsService)
    made.serve(ShippingContract, ShippingService)
    return made


class Stepped:
    """Use it as a context. `store` is migrated and nobody's; `inbox` keeps what the participants remember."""

    def __init__(self, store: Store, inbox: Inbox, *, shards: int) -> None:
        self.kafka = network.Kafka(lambda: int(MOMENT.timestamp() * 1000))
        self.kafka.appended = self._appended
        for spec in TOPICS.orchestrator_specs(shards):
            self.kafka.create(spec.name, spec.partitions)
        for name in app.contracts:
            self.kafka.create(TOPICS.commands(name), 1)
        self.store, self.shards = store, shards
        self.messages: Counter[str] = Counter()
        """Records by topic."""
        self.sizes: Counter[str] = Counter()
        """Bytes of their keys, values and headers, by topic."""
        self._inbox = inbox
        self._clock = _Still()
        self._consumer = network.Consumer(self.kafka)
        self.loop = self._make_loop()
        self._runner = asyncio.Runner()
        self._runtime: Runtime | None = None
        self._taken: Counter[str] = Counter()
        self._runs = 0

    def __enter__(self) -> Self:
        self._runtime = self._runner.run(self._make_runtime())
        for _ in range(MOST_TURNS):
            if len(self.loop.shards) == self.shards:
                return self
            self.turn()
        raise AssertionError(f"{len(self.loop.shards)} of {self.shards} shards after {MOST_TURNS} turns")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.loop.stop()
        self.loop.finish()
        self._runner.run(self._end())
        self._runner.close()

    async def _end(self) -> None:
        if self._runtime is not None:
            await self._runtime.finish(PATIENCE_SECONDS)
        await self._inbox.close()

    def _appended(self, record: Record) -> None:
        headers = sum(len(name) + len(value or b"") for name, value in record.headers)
        self.messages[record.topic] += 1
        self.sizes[record.topic] += len(record.key or b"") + len(record.value or b"") + headers

    # --- the orchestrator

    def _make_loop(self) -> Loop:
        settings = Settings(
            database_url=SecretStr("unused"),
            kafka=KafkaSettings("unused:9092"),
            process="stepped",
            lease_seconds=FOREVER,
            heartbeat_seconds=FOREVER,
            brokers_lost_seconds=FOREVER,
        )
        schemas = Schemas()
        defs = app.definitions(schemas, max_payload=settings.max_payload_bytes)
        for schema in own_schemas():
            schemas.add(schema)
        return Loop(
            app,
            settings,
            defs=defs,
            where=Addresses(TOPICS, f"/kasaga/{NAMESPACE}", self.shards),
            store=self.store,
            source=Source(
                cast("Consumer", self._consumer), cast("Asker", self._consumer), TOPICS, schemas, self._clock
            ),
            relay=Relay(
                lambda: cast("Producer", network.Producer(self.kafka)), network.Partitions(self.kafka)
            ),
            clock=self._clock,
            metrics=orchestrator_metrics.Metrics(),
        )

    def turn(self) -> None:
        """One turn of the loop: at most one batch, read, decided, committed, and its records in Kafka."""
        self.loop.once()

    def sweep(self) -> None:
        """Let the time pass after which an idle process writes down what Kafka has acknowledged."""
        self._clock.nanos += int(SWEEP_SECONDS * 1e9) + 1
        self.turn()

    def is_behind(self) -> bool:
        """Whether the orchestrator has something to read."""
        return self._consumer.behind

    # --- the participants

    async def _make_runtime(self) -> Runtime:
        schemas, metrics, traces = Schemas(), Metrics(CollectorRegistry()), tracing()
        made = participant()
        for registry in made.registries.values():
            for schema in registry.contract.schemas():
                schemas.add(schema)
        await self._inbox.prepare()
        parts = Parts(
            sender=Sender(lambda: network.Producer(self.kafka)),
            room=Room(IN_HAND_RECORDS, IN_HAND_BYTES),
            metrics=metrics,
            calls=Calls(schemas, metrics, traces),
            tracing=traces,
            rules=made.rules,
            reply_allowed=reply_topics((NAMESPACE,), "").__contains__,
            dead_letters=TOPICS.dead_letters,
            refresh_schemas=_no_more_schemas,
            batch=BATCH,
            concurrency=1,
        )
        contracts = {TOPICS.commands(name): (each, self._inbox) for name, each in made.registries.items()}
        return Runtime(contracts, parts)

    def serve(self) -> int:
        """Let the participants answer all commands that are there; returns how many there were."""
        found = 0
        for name in app.contracts:
            topic = TOPICS.commands(name)
            records = self.kafka.logs[topic, 0].records[self._taken[topic] :]
            self._taken[topic] += len(records)
            found += len(records)
            if records:
                self._runner.run(self._answer(topic, records))
        return found

    async def _answer(self, topic: str, records: list[Record]) -> None:
        assert self._runtime is not None, "use `with Stepped(…)`"
        progress = Progress((topic, 0))
        self._runtime.accept(topic, [(record, progress) for record in records])
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not self._runtime.idle:  # noqa: ASYNC110 (many things end it)
                await asyncio.sleep(PAUSE_SECONDS)

    # --- sagas

    def start(self, *, sku: str = "book") -> str:
        """Put a start into Kafka; returns the saga's id. Ids and runs have the same length always."""
        self._runs += 1
        saga_id = f"order-{self._runs:08}"
        envelope = StartEnvelope(
            run_id=str(UUID(int=self._runs << 80 | 7 << 76 | 2 << 62)),
            source="/kasaga/clients/counters",
            time=MOMENT,
            saga_id=saga_id,
            saga=payment.name,
        )
        value = payment.input.encode(Order(order_id=saga_id, amount=1999, sku=sku))
        key = saga_id.encode()
        self.kafka.append(TOPICS.sagas, partition_for(key, self.shards), key, value, envelope.to_headers())
        return saga_id

    def finish(self) -> None:
        """Turn and serve until nothing is left to read; all that is there makes one batch."""
        for _ in range(MOST_TURNS):
            while self.is_behind():
                self.turn()
            if not self.serve():
                return
        raise AssertionError(f"the sagas go on after {MOST_TURNS} rounds")

    def state(self, saga_id: str) -> SagaState:
        """How a saga stands; raises AssertionError unless it has ended."""
        row = self.store.saga(saga_id)
        assert row is not None, f"there is no saga {saga_id}"
        assert row.state in FINAL_STATES, f"{saga_id} is {row.state}: {row.reason}"
        return row.state


async def _no_more_schemas() -> None:
    """All are known."""
