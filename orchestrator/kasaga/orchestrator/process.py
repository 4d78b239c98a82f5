"""One orchestrator process: puts the parts together, runs the loop, ends it in order."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from uuid import UUID

from kasaga_wire.codec import Schemas
from kasaga_wire.errors import KafkaUnavailable
from kasaga_wire.interpreter import tune_interpreter
from kasaga_wire.kafka import Admin, Consumer, GroupConsumer, Producer
from kasaga_wire.records import own_schemas
from kasaga_wire.redaction import hide, hide_in
from kasaga_wire.topics import Topics

from ..probes import Probes
from ..saga import App
from ..settings import Settings, SettingsInvalid, limited
from ..steady import hash_steadily
from ..store.base import Offsets, StoreUnavailable
from ..store.postgres import PostgresStore
from . import topics as setup
from .announce import Announcer, announce
from .awaited_events import AwaitedEvents
from .census import Census
from .claims import Desk
from .clock import Clock
from .listener import OPTIONS, Clients, Listener
from .loop import Loop
from .matching import Matcher
from .metrics import Metrics
from .relay import Relay
from .retention import Retention, period_of
from .rows import Addresses
from .scheduler import Scheduler
from .source import Source
from .tracing import NoTracer, Tracing, sampling_from, tracer_from
from .watchdog import Watchdog

log = logging.getLogger("kasaga.orchestrator")

FIRST_TRY, LONGEST_TRY = 0.2, 5.0
"""Seconds between tries to reach Postgres and Kafka at start."""


class Orchestrator:
    """One process's orchestrator; `run` blocks until `stop`."""

    def __init__(self, app: App, settings: Settings) -> None:
        self._app, self._settings = app, settings
        hide_in(settings.database_url.get_secret_value())
        hide(*settings.kafka.secrets)
        self.metrics = Metrics({name for name, _ in app.sagas})
        self._tracer: Tracing = NoTracer()
        self._loop: Loop | None = None
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Ask it to end: the batch at hand is committed, the shards are handed over."""
        self._stopping.set()
        if self._listener is not None:
            self._listener.end()
        if self._loop is not None:
            self._loop.stop()

    def run(self) -> None:
        """Run until `stop`; raises KasagaError for what no waiting can mend."""
        probes = self._probes()
        sealer = self._settings.sealer()
        archive = self._settings.archive()
        store = PostgresStore(self._settings.database_url.get_secret_value(), sealer=sealer)
        try:
            self._tracer = tracer_from(
                namespace=self._app.namespace,
                process=self._settings.process,
                prefix=self._settings.topic_prefix,
            )
            loop = self._patiently(lambda: self._assemble(store))
            if loop is None:
                return
            self._loop = loop
            tune_interpreter()
            thread = threading.Thread(target=self._turn, args=(loop,), name="kasaga-loop")
            thread.start()
            archiver = None
            if archive is not None:
                from ..archive import Archiver  # brings with it what tells histories

                archiver = Archiver(archive, store, self._app.namespace, self.metrics)
            retention = Retention(
                store,
                lambda: 0 in loop.shards,
                metrics=self.metrics,
                archive=archiver,
                claims=self._settings.claims(),
                keep=period_of(self._settings.retention_days),
                remember=timedelta(days=self._settings.remember_days),
            )
            if self._listener is not None:
                self._listener.start()
            if self._scheduler is not None:
                self._scheduler.start()
            if self._stopping.is_set():
                self.stop()
            announcer = Announcer(store, self._app, lambda: 0 in loop.shards)
            census = Census(store, self.metrics, lambda: list(loop.shards.values()), self._lag)
            thread.join()
            if self._listener is not None:
                self._listener.close()
            if self._scheduler is not None:
                self._scheduler.close()
            census.close()
            announcer.close()
            retention.close()
            if self._error is not None:
                raise self._error
        finally:
            store.close()
            self._tracer.close()
            if self._producer is not None and self._loop is None:
                self._producer.close(0)
            if probes is not None:
                probes.close()

    _error: BaseException | None = None
    _source: Source | None = None
    _listener: Listener | None = None
    """Where a saga declares an Event."""
    _scheduler: Scheduler | None = None
    """Where the App has schedules."""
    _producer: Producer | None = None
    """The first. It takes half a second to be ready, in the background: so it is made before all else, and
    the relay goes on with what has published the schemas."""

    def _lag(self, shard: int, offsets: Offsets) -> dict[str, int]:
        return self._source.lag(shard, offsets) if self._source is not None else {}

    def _turn(self, loop: Loop) -> None:
        try:
            loop.run()
        except BaseException as error:
            log.exception("the loop has ended")
            self._error = error

    def _assemble(self, store: PostgresStore) -> Loop:
        app, settings = self._app, self._settings

        def producer() -> Producer:
            return Producer(settings.kafka)

        if self._producer is None or self._producer.fatal:
            self._producer = producer()
            self._producer.warm()
        namespace = store.namespace()
        if namespace.name != app.namespace:
            raise SettingsInvalid(
                f"the database belongs to namespace {namespace.name!r}, the App to {app.namespace!r}",
                remedy="Each namespace has a database of its own: set KASAGA_DATABASE_URL to the right one",
            )
        topics = Topics(app.namespace, settings.topic_prefix)
        schemas = Schemas()
        for text in store.schemas().values():
            schemas.add(text)
        sealer = settings.sealer()
        defs = limited(app.definitions(schemas, max_payload=settings.max_payload_bytes), settings)
        if sealer.key_ids:  # with other keys, what was parked for a missing one is tried again
            defs = defs._replace(fingerprint=f"{defs.fingerprint}+{sealer.keys_fingerprint}")
        for schema in own_schemas():
            schemas.add(schema)
        announce(store, app)
        admin = Admin(settings.kafka)
        setup.ensure(admin, app, topics, namespace.shards)

        setup.publish(self._producer, topics, schemas)
        clock = Clock()
        claims = settings.claims()
        desk = Desk(claims, topics, self.metrics.object) if claims is not None else None
        relay = Relay(producer, setup.Counter(admin), first=self._producer, desk=desk)
        consumer = Consumer(settings.kafka, group=f"{settings.topic_prefix}{app.namespace}.orchestrator")
        consumer.learn((topics.sagas, topics.replies, topics.control))
        source = Source(
            consumer,
            admin,
            topics,
            schemas,
            clock,
            self.metrics.stalled,
        )
        self._source = source
        where = Addresses(
            topics, f"/kasaga/{app.namespace}", namespace.shards, sampling_from(os.environ), sealer, desk
        )
        self._listener = self._listening(admin, where, store)
        loop = Loop(
            app,
            settings,
            defs=defs,
            where=where,
            store=store,
            source=source,
            relay=relay,
            clock=clock,
            metrics=self.metrics,
            tracer=self._tracer,
        )
        self._scheduler = self._scheduling(store, loop, where)
        return loop

    def _scheduling(self, store: PostgresStore, loop: Loop, where: Addresses) -> Scheduler | None:
        if not self._app.schedules:
            return None

        def token() -> UUID | None:
            shard = loop.shards.get(0)
            return shard.token if shard is not None else None

        def producer() -> Producer:
            return Producer(self._settings.kafka)

        return Scheduler(
            store, self._app.schedules, where, token=token, producer=producer, metrics=self.metrics
        )

    def _listening(self, admin: Admin, where: Addresses, store: PostgresStore) -> Listener | None:
        app, settings = self._app, self._settings
        watchdog = Watchdog(
            limit=settings.saga_step_seconds,
            kill_after=settings.saga_kill_seconds,
            culprit="a function of an Event",
        )
        matcher = Matcher(app, where.topics, max_payload=settings.max_payload_bytes, guard=watchdog.guard)
        if not matcher.routes:
            return None
        group = f"{settings.topic_prefix}{app.namespace}.listener"
        clients = Clients(
            lambda: GroupConsumer(settings.kafka, group=group, options=OPTIONS),
            lambda: Producer(settings.kafka),
            admin.partitions,
        )
        awaited = AwaitedEvents(store, matcher.kept, sealer=where.sealer)
        return Listener(matcher, where, clients, self.metrics, awaited, watch_thread=watchdog.start)

    def _patiently(self, make: Callable[[], Loop]) -> Loop | None:
        """Try until Postgres and Kafka answer, or until `stop`."""
        wait = FIRST_TRY
        while not self._stopping.is_set():
            try:
                return make()
            except (StoreUnavailable, KafkaUnavailable) as error:
                log.warning("waiting for what is needed to start", extra={"error": str(error)})
                self._stopping.wait(wait)
                wait = min(wait * 2, LONGEST_TRY)
        return None

    # --- probes ---

    def _probes(self) -> Probes | None:
        settings = self._settings
        if settings.http_port is None:
            return None
        probes = Probes(
            settings.http_host, settings.http_port, self.metrics.registry, self._live, self._ready
        )
        log.info("probes and metrics", extra={"host": settings.http_host, "port": probes.port})
        return probes

    def _live(self) -> tuple[bool, dict[str, object]]:
        quiet = self._loop.quiet_seconds() if self._loop is not None else 0.0
        return quiet < self._settings.hang_seconds, {"quiet_seconds": round(quiet, 3)}

    def _ready(self) -> tuple[bool, dict[str, object]]:
        loop = self._loop
        if loop is None:
            return False, {"reason": "starting"}
        return loop.ready()


def run(app: App, settings: Settings) -> None:
    """Run an orchestrator in this process until SIGTERM or SIGINT.

    Starts the program anew where it has no PYTHONHASHSEED=0: see `hash_steadily`.
    """
    hash_steadily()
    orchestrator = Orchestrator(app, settings)

    def end(number: int, frame: FrameType | None) -> None:
        log.info("stopping", extra={"signal": signal.Signals(number).name})
        orchestrator.stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    orchestrator.run()
