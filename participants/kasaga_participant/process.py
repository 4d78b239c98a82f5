"""A running participant: brings everything up, keeps it up, takes it down without losing anything.

Station: made by `Participant.run`; puts the parts together and owns their lives. What is missing at the start
is waited for: a database or a broker that comes a minute later must not make a crash loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import psycopg
from prometheus_client import REGISTRY

from kasaga_wire.codec import MAX_PAYLOAD_BYTES
from kasaga_wire.errors import KafkaFailure, KafkaUnavailable, SettingsError, TopicMismatch, TopicRefused
from kasaga_wire.kafka import Admin, Consumer, GroupConsumer, Producer
from kasaga_wire.records import audited_codec, deferral_codec
from kasaga_wire.schema import Schema, Schemas
from kasaga_wire.topics import Topics, TopicSpec, reply_topics
from kasaga_wire.tracing import CLOSE_SECONDS

from .calls import Calls
from .courier import Courier, LateStore, Whose
from .drill import Drill, DrillCalls, DrillStore, guarded_url
from .errors import StartError
from .handlers import Registry
from .http import HttpServer
from .inbox.late import Tokens
from .inbox.upkeep import PURGE_SLICE
from .log import LEADERLESS_SECONDS, Throttle, logger
from .metrics import metrics_of
from .outage import delay
from .porter import Porter
from .progress import Room
from .reader import Reader
from .runtime import Parts, Runtime
from .schemabook import SchemaBook
from .sender import OPTIONS, Sender
from .settings import IN_HAND_BYTES, IN_HAND_RECORDS, PURGE_SECONDS, Settings
from .store import PlainStore, PostgresStore, Store
from .tracing import tracing_from

T = TypeVar("T")

TICK_SECONDS = 1.0
"""How often slow handlers are looked for and gauges are set."""
FINAL = (SettingsError, TopicMismatch, TopicRefused, StartError)
"""What waiting doesn't heal at the start: the process ends with it."""


class Process:
    """One participant process, from start to stop."""

    def __init__(self, settings: Settings, registries: Mapping[str, Registry]) -> None:
        """`registries`: by contract's name, all complete."""
        self._settings = settings
        self._topics = Topics(settings.namespaces[0], settings.topic_prefix)
        self._registries = registries
        self._metrics = metrics_of(REGISTRY)
        self._schemas = Schemas()
        self._room = Room(IN_HAND_RECORDS, IN_HAND_BYTES)
        self._tracing = tracing_from(settings.name)
        self._drill = Drill(alone=settings.drill_alone) if settings.drill else None
        kind = Calls if self._drill is None else DrillCalls
        self._calls = kind(self._schemas, self._metrics, self._tracing, settings.sealer)
        self._porter = Porter(settings.claims) if settings.claims is not None else None
        if self._porter is not None:
            self._calls.most = MAX_PAYLOAD_BYTES
        self._stop = asyncio.Event()
        self._store: Store = PlainStore(settings.concurrency)
        self._plain: Store = self._store
        self._late: LateStore | None = None
        """Where answers that come later are kept; None: nothing can be answered later."""
        self._runtime: Runtime | None = None
        self._readers: list[Reader] = []
        self._book = SchemaBook(self._schemas, self._schema_topics(), self._schema_consumer)
        self._starting: str | None = "starting"
        self.http_port: int | None = None

    def stop(self) -> None:
        """Stop gracefully: answer what is in hand, commit, leave. To be called in the event loop."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until stopped. Raises StartError and the like, or what failed for good."""
        http = HttpServer(REGISTRY, self._not_ready)
        tasks: list[asyncio.Task[None]] = []
        try:
            if self._settings.http_port is not None:
                self.http_port = await http.start(self._settings.http_host, self._settings.http_port)
                logger.info("/metrics, /live and /ready on port %d", self.http_port)
            self._make_store()
            await self._wait_for("the inbox's database", self._prepare)
            await self._wait_for("Kafka's topics", lambda: asyncio.to_thread(self._ensure_topics))
            await self._wait_for("the schemas", lambda: asyncio.to_thread(self._publish_schemas))
            if not self._stop.is_set():
                await self._serve(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._store.close()
            if self._porter is not None:
                self._porter.close()
            if self._plain is not self._store:
                await self._plain.close()
            await asyncio.to_thread(self._tracing.flush, CLOSE_SECONDS)
            await http.close()

    # --- the start

    def _make_store(self) -> None:
        settings = self._settings
        for registry in self._registries.values():
            if settings.database_url is None or not registry.contract.inbox:
                logger.warning(
                    "%s runs without an inbox: a command may run more than once, its fence and its undo know "
                    "nothing, and handlers must be idempotent by command id",
                    registry.contract.name,
                )
        if settings.database_url is not None:
            store = PostgresStore(
                settings.database_url if self._drill is None else guarded_url(settings.database_url),
                settings.limits,
                name=settings.name,
                threads=settings.concurrency,
                prepare=settings.prepare,
                sealer=settings.sealer,
            )
            self._store = store if self._drill is None else DrillStore(store)
            self._late = store if self._drill is None else None

    async def _prepare(self) -> None:
        """Bring the inbox up to date. Raises psycopg.Error."""
        await self._store.prepare()
        if self._late is None:
            return
        try:
            key = await self._late.late_key()
        except psycopg.errors.InsufficientPrivilege as error:
            logger.warning("no command can be answered later: %s", str(error).strip())
        else:
            self._calls.token = Tokens(key).make if key is not None else None

    async def _wait_for(self, what: str, attempt: Callable[[], Awaitable[object]]) -> None:
        """Try until it works, or until the process is told to stop."""
        throttle, tries, began = Throttle(), 0, time.monotonic()
        self._starting = f"waiting for {what}"
        while not self._stop.is_set():
            try:
                await attempt()
            except FINAL:
                raise
            except (psycopg.Error, KafkaFailure) as error:
                new = isinstance(error, KafkaUnavailable) and error.leaderless
                if not (new and time.monotonic() - began < LEADERLESS_SECONDS) and throttle.due(what):
                    logger.warning("waiting for %s: %s", what, str(error).strip())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), delay(tries))
                tries += 1
            else:
                return

    def _ensure_topics(self) -> None:
        wanted: list[TopicSpec] = []
        for name in self._registries:
            wanted += self._topics.participant_specs(name, self._settings.partitions)
        for namespace in self._settings.namespaces:
            own = Topics(namespace, self._settings.topic_prefix)
            wanted += [spec for spec in own.orchestrator_specs() if spec.name == own.schemas]
        admin = Admin(self._settings.kafka, options=self._client())
        try:
            there = admin.partitions(spec.name for spec in wanted)
            if self._settings.create_topics:
                # How many partitions a topic has is its owner's choice, once it is there.
                admin.ensure_topics([replace(s, partitions=there.get(s.name, s.partitions)) for s in wanted])
            elif missing := sorted({spec.name for spec in wanted} - there.keys()):
                raise KafkaFailure(
                    f"no topic {', '.join(missing)}", remedy="create them, or allow create_topics"
                )
        finally:
            admin.close()

    def _publish_schemas(self) -> None:
        ours: dict[int, Schema] = {
            schema.id: schema for each in self._registries.values() for schema in each.contract.schemas()
        }
        for own in (audited_codec.schema, deferral_codec.schema):
            ours[own.id] = own
        producer = self._producer()
        try:
            self._book.publish(producer, ours.values())
        finally:
            producer.close(0)

    # --- clients

    def _client(self) -> dict[str, object]:
        given = self._settings.kafka.options.get("client.id")
        return {"client.id": given or self._settings.name}

    def _producer(self) -> Producer:
        return Producer(self._settings.kafka, options={**self._client(), **OPTIONS})

    def _schema_topics(self) -> list[str]:
        settings = self._settings
        return [Topics(each, settings.topic_prefix).schemas for each in settings.namespaces]

    def _schema_consumer(self) -> Consumer:
        return Consumer(self._settings.kafka, group=f"{self._settings.name}.schemas", options=self._client())

    def _reader(self, name: str, runtime: Runtime) -> Reader:
        topic = self._topics.commands(name)

        def consumer() -> GroupConsumer:
            return GroupConsumer(self._settings.kafka, group=topic, options=self._client())

        return Reader(topic, consumer, self._room, runtime)

    # --- serving

    async def _serve(self, tasks: list[asyncio.Task[None]]) -> None:
        settings = self._settings
        allowed = reply_topics(settings.namespaces, settings.topic_prefix)
        sender = Sender(self._producer)
        parts = Parts(
            sender=sender,
            room=self._room,
            metrics=self._metrics,
            calls=self._calls,
            tracing=self._tracing,
            rules=settings.rules,
            reply_allowed=allowed.__contains__,
            dead_letters=self._topics.dead_letters,
            refresh_schemas=self._refresh_schemas,
            batch=settings.batch if self._drill is None else 1,
            concurrency=settings.concurrency,
            drill=self._drill,
            porter=self._porter,
        )
        contracts = {
            self._topics.commands(name): (each, self._store if each.contract.inbox else self._plain)
            for name, each in self._registries.items()
        }
        self._runtime = runtime = Runtime(contracts, parts)
        self._readers = [self._reader(name, runtime) for name in self._registries]
        tasks += [asyncio.create_task(self._tick(sender)), asyncio.create_task(self._purge())]
        if self._late is not None and self._calls.token is not None:
            whose = Whose(sorted(self._registries), sorted(allowed))
            tasks.append(asyncio.create_task(Courier(self._late, whose, runtime.post).run()))
        for reader in self._readers:
            reader.start()
        if self._drill is not None:
            logger.warning("%s is in drill mode: it runs compensations, and rolls each back", settings.name)
        logger.info("%s serves %s", settings.name, ", ".join(sorted(contracts)))
        self._starting = None
        stopping = asyncio.create_task(self._stop.wait())
        try:
            waiting: set[asyncio.Future[Any]] = {stopping, runtime.error}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            await self._end(runtime, sender)
        if runtime.error.done():
            raise runtime.error.result()

    async def _end(self, runtime: Runtime, sender: Sender) -> None:
        """Read nothing more, answer what is in hand, commit, leave the group: nothing is lost or repeated."""
        self._starting = "stopping"
        seconds = self._settings.stop_timeout.total_seconds()
        for reader in self._readers:
            reader.hold()
        if not await runtime.finish(seconds):
            logger.warning("stops with commands in hand; whoever reads them next will answer them")
        left = await asyncio.to_thread(sender.close, 1.0)
        if left:
            logger.warning("%d replies are not acknowledged; their commands will be read again", left)
        for reader in self._readers:
            reader.end()
        for reader in self._readers:
            await asyncio.to_thread(reader.join, seconds)
        logger.info("%s has stopped", self._settings.name)

    async def _refresh_schemas(self) -> None:
        try:
            await asyncio.to_thread(self._book.refresh)
        except KafkaFailure as error:
            logger.warning("the schemas can't be read again: %s", error)

    async def _tick(self, sender: Sender) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            self._calls.warn_of_slow()
            self._metrics.spans(self._tracing.totals)
            sender.poll()
            if self._runtime is None:
                continue
            self._metrics.in_hand.set(self._runtime.in_hand)
            if self._runtime.forsaken:
                await self._probe(self._runtime)

    async def _probe(self, runtime: Runtime) -> None:
        """The database is away, and nothing is in hand that would find out when it is back."""
        with contextlib.suppress(psycopg.Error):
            await self._store.prepare()
            runtime.go_on()

    async def _purge(self) -> None:
        """Forget what is older than the retention, slice by slice, with a breath between two of them."""
        retention = self._settings.retention.total_seconds()
        throttle = Throttle(600.0)
        pause = PURGE_SECONDS
        while True:
            await asyncio.sleep(pause)
            started = time.monotonic()
            try:
                rows = await self._store.purge(retention)
            except psycopg.Error as error:
                if throttle.due(type(error).__name__):
                    logger.warning("the inbox isn't purged: %s", str(error).strip())
                pause = PURGE_SECONDS
                continue
            self._metrics.purged.inc(rows)
            more = rows >= PURGE_SLICE
            pause = 4 * (time.monotonic() - started) if more else PURGE_SECONDS

    def _not_ready(self) -> str | None:
        if self._starting is not None:
            return self._starting
        if self._runtime is not None and self._runtime.outage.away:
            return "the inbox's database is away"
        return None  # one that gets no partition is ready too: it takes over from others
