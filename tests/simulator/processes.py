"""The processes: the real loop of an orchestrator, the real runtime and readers of a participant.

Station: made by the world. The clock, the network, the databases and the threads aren't real.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import patch

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from kasaga.engine.decide import Definitions
from kasaga.orchestrator import functions as functions_module
from kasaga.orchestrator import loop as loop_module
from kasaga.orchestrator import ownership as ownership_module
from kasaga.orchestrator import relay as relay_module
from kasaga.orchestrator import source as source_module
from kasaga.orchestrator import threads as threads_module
from kasaga.orchestrator.clock import Clock, to_micros
from kasaga.orchestrator.loop import Loop
from kasaga.orchestrator.relay import Relay
from kasaga.orchestrator.rows import Addresses
from kasaga.orchestrator.source import Asker, Source
from kasaga.settings import Settings
from kasaga.testing.network import Partitions
from kasaga.testing.world import silent
from kasaga_participant import answers as answers_module
from kasaga_participant import calls as calls_module
from kasaga_participant import jobs as jobs_module
from kasaga_participant import log as log_module
from kasaga_participant import outage as outage_module
from kasaga_participant import progress as progress_module
from kasaga_participant import reader as reader_module
from kasaga_participant import runtime as runtime_module
from kasaga_participant import sender as sender_module
from kasaga_participant.calls import Calls
from kasaga_participant.inbox import algorithm as algorithm_module
from kasaga_participant.inbox import memory as memory_module
from kasaga_participant.inbox.rows import Rules
from kasaga_participant.metrics import Metrics as ParticipantMetrics
from kasaga_participant.progress import Room
from kasaga_participant.reader import Reader
from kasaga_participant.runtime import Parts, Runtime
from kasaga_participant.sender import Sender
from kasaga_participant.tracing import NoTracing
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import KafkaFailure
from kasaga_wire.kafka import Consumer as KafkaConsumer
from kasaga_wire.kafka import GroupConsumer, KafkaSettings
from kasaga_wire.kafka import Producer as KafkaProducer
from kasaga_wire.records import own_schemas
from simulator import families, trips
from simulator.kafka import Consumer, Member, Producer
from simulator.machine import NEVER, SECOND, Process
from simulator.postgres import Connection, Participants, as_store
from simulator.shims import EPOCH, Asyncio, Clocks, Inline, Threading
from simulator.shims import Loop as EventLoop

if TYPE_CHECKING:
    from simulator.world import World

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Code:
    """What all processes of all runs share: it never changes."""

    app: Any
    schemas: Schemas
    defs: Definitions
    metrics: ParticipantMetrics
    quiet: Any


def _make_code() -> Code:
    app, schemas = families.make_app(), Schemas()
    defs = app.definitions(schemas, max_payload=900_000)
    for schema in own_schemas():
        schemas.add(schema)
    return Code(app, schemas, defs, ParticipantMetrics(CollectorRegistry()), silent())


CODE = _make_code()


@contextlib.contextmanager
def simulated(world: World) -> Generator[None]:
    """Inside, the real modules see the world's time, threads and crash points."""
    clocks, threads = world.clocks, Threading(world.machine)
    timed = (
        *(reader_module, sender_module, answers_module, runtime_module, calls_module),
        *(jobs_module, outage_module, log_module, functions_module, threads_module),
    )
    pointed = (
        *(loop_module, ownership_module, relay_module, source_module),
        *(reader_module, algorithm_module, sender_module),
    )
    loggers = [logging.getLogger(name) for name in ("kasaga", "asyncio")]
    levels = [logger.level for logger in loggers]
    with contextlib.ExitStack() as stack:
        for module in timed:
            stack.enter_context(patch.object(module, "time", clocks))
        for module in pointed:
            stack.enter_context(patch.object(module, "crash_point", world.crash_point))
        for module in (reader_module, progress_module):
            stack.enter_context(patch.object(module, "threading", threads))
        stack.enter_context(patch.object(outage_module, "random", clocks))
        stack.enter_context(patch.object(answers_module, "datetime", clocks))
        stack.enter_context(patch.object(memory_module, "asyncio", Asyncio))
        stack.enter_context(patch.object(functions_module, "Pool", Inline))
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


# --- orchestrators


class _Ticks(Clock):
    def __init__(self, world: World, clocks: Clocks) -> None:
        self._world, self._clocks = world, clocks
        super().__init__()

    def ticks(self) -> int:
        return self._clocks.ticks()

    def wait(self, until: threading.Event, seconds: float) -> None:
        self._world.machine.sleep(int(seconds * SECOND))


class Orchestrator:
    """One orchestrator process."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self.process = world, process
        self.loop: Loop | None = None
        self.leaves = False
        """It is to end in order."""

    def life(self) -> None:
        """From its start to its end."""
        world = self._world
        while True:
            try:
                self.loop = loop = self._make()
                break
            except KafkaFailure:
                world.machine.sleep(SECOND // 2)
        try:
            while not self.leaves:
                loop.once()
            loop.stop()
            while not loop.over:
                loop.once()
            loop.finish()
        finally:
            loop._runs.close()  # pyright: ignore[reportPrivateUsage]

    def _busy_at(self) -> int:
        due = self.loop.next_due if self.loop is not None else 0
        return NEVER if due is None else max(due - to_micros(EPOCH), 0)

    def _make(self) -> Loop:
        world, process = self._world, self.process
        clock = _Ticks(world, world.clocks)
        settings = Settings(
            database_url=SecretStr("simulated"),
            kafka=KafkaSettings("simulated:0"),
            process=process.name,
            max_live_sagas=world.live_sagas,
            sleepers_in_memory=world.sleepers,
        )
        consumer = Consumer(world.kafka, process, self._busy_at)
        return Loop(
            CODE.app,
            settings,
            defs=CODE.defs,
            where=Addresses(world.topics, "/kasaga/sim", world.shards),
            store=as_store(Connection(world, process)),
            source=Source(
                cast("KafkaConsumer", consumer), cast("Asker", consumer), world.topics, CODE.schemas, clock
            ),
            relay=Relay(
                lambda: cast("KafkaProducer", Producer(world.kafka, process)), Partitions(world.kafka)
            ),
            clock=clock,
            metrics=CODE.quiet,
        )


# --- participants


class Participant:
    """One process that serves all contracts, over one database for each."""

    def __init__(self, world: World, process: Process) -> None:
        self._world, self.process = world, process
        self.loop = EventLoop(world.machine, process)
        self.runtime: Runtime | None = None

    def life(self) -> None:
        """From its start to its death."""
        self.loop.call_soon(self._begin)
        self.loop.life()

    def _begin(self) -> None:
        world, process = self._world, self.process
        room = Room(2_000, 64 * 1024 * 1024)
        sender = Sender(lambda: Producer(world.kafka, process))
        rules = Rules(max_age=7 * DAY, retention=14 * DAY)
        parts = Parts(
            sender=sender,
            room=room,
            metrics=CODE.metrics,
            calls=Calls(CODE.schemas, CODE.metrics, NoTracing()),
            tracing=NoTracing(),
            rules=rules,
            reply_allowed=world.topics.reply_allowed,
            dead_letters=world.topics.dead_letters,
            refresh_schemas=_nothing_new,
            batch=8,
            concurrency=2,
            clock=world.clocks.time,
        )
        contracts = {
            world.topics.commands(name): (registry, Participants(world.databases[name], process))
            for name, registry in trips.registries(world, CODE.app.contracts).items()
        }
        self.runtime = runtime = Runtime(contracts, parts)
        for name in CODE.app.contracts:
            topic = world.topics.commands(name)
            group = world.groups[topic]

            def consumer(group: Any = group) -> GroupConsumer:
                return cast("GroupConsumer", Member(world.kafka, process, group))

            reader = Reader(topic, consumer, room, runtime)
            world.machine.begin(process, reader.run)
        world.machine.begin(process, lambda: self._tick(sender))

    def _tick(self, sender: Sender) -> None:
        """What `Process` does once a second."""
        runtime, task = self.runtime, self._world.machine.current
        assert runtime is not None
        assert task is not None

        def look() -> None:
            sender.poll()
            if runtime.forsaken and not self._world.away(self.process, "inbox"):
                runtime.go_on()

        while True:
            task.wait(SECOND, idle_until=NEVER if not len(sender) and not runtime.outage.away else 1)
            self.loop.call_soon_threadsafe(look)


async def _nothing_new() -> None:
    """All schemas are known from the beginning."""
