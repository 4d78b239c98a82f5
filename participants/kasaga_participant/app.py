"""A service that takes part in sagas: what it handles, where it runs.

Station: the face that authors see. Collects contracts and handlers; `run` makes a `Process` of them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Generic, TypeVar, overload

from kasaga_wire.claims import claims_from_env
from kasaga_wire.contracts import CommandSpec, command_of, contract_of
from kasaga_wire.interpreter import tune_interpreter
from kasaga_wire.kafka import KafkaSettings
from kasaga_wire.logs import configure_logs
from kasaga_wire.sealing import sealer_from_env
from kasaga_wire.topics import DRILL_PREFIX

from . import settings as environment
from .deferred import Deferred
from .errors import RegistrationError
from .handlers import Registry
from .inbox.rows import Rules
from .inbox.statements import Limits
from .later import Late, SyncLate
from .process import Process
from .settings import FROM_ENVIRONMENT, Settings, Unset
from .store import PostgresStore
from .tx import SyncTx, Tx

C = TypeVar("C")
S = TypeVar("S")
I = TypeVar("I")  # noqa: E741 (input)
R = TypeVar("R")
T = TypeVar("T")


class HandleCommand(Generic[I, R]):
    """Decorates the handler of one command: `(input, tx) -> result`, async or plain."""

    def __init__(self, add: Callable[[Callable[..., Any]], None]) -> None:
        self._add = add

    @overload
    def __call__(
        self, fn: Callable[[I, Tx], Coroutine[Any, Any, R]]
    ) -> Callable[[I, Tx], Coroutine[Any, Any, R]]: ...
    @overload
    def __call__(self, fn: Callable[[I, SyncTx], R]) -> Callable[[I, SyncTx], R]: ...
    @overload
    def __call__(
        self, fn: Callable[[I, Tx], Coroutine[Any, Any, R | Deferred]]
    ) -> Callable[[I, Tx], Coroutine[Any, Any, R | Deferred]]: ...
    @overload
    def __call__(self, fn: Callable[[I, SyncTx], R | Deferred]) -> Callable[[I, SyncTx], R | Deferred]: ...
    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Register it, and give it back as it is."""
        self._add(fn)
        return fn


class HandleCompensation(Generic[I, R]):
    """Decorates the handler of one compensation: `(input, result or None, tx) -> None`, async or plain."""

    def __init__(self, add: Callable[[Callable[..., Any]], None]) -> None:
        self._add = add

    @overload
    def __call__(
        self, fn: Callable[[I, R, Tx], Coroutine[Any, Any, None]]
    ) -> Callable[[I, R, Tx], Coroutine[Any, Any, None]]: ...
    @overload
    def __call__(self, fn: Callable[[I, R, SyncTx], None]) -> Callable[[I, R, SyncTx], None]: ...
    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Register it, and give it back as it is."""
        self._add(fn)
        return fn


class Participant:
    """A service. One process of it may serve several contracts; each has a topic and a consumer group."""

    def __init__(
        self,
        name: str = "",
        *,
        database_url: str | Unset | None = FROM_ENVIRONMENT,
        kafka: KafkaSettings | None = None,
        namespaces: tuple[str, ...] | None = None,
        topic_prefix: str | None = None,
        max_age: timedelta = timedelta(days=7),
        retention: timedelta | None = None,
        batch: int = 64,
        concurrency: int = 4,
        create_topics: bool = True,
        partitions: int = 4,
        http_port: int | None = None,
        http_host: str = "0.0.0.0",
        stop_timeout: timedelta = timedelta(seconds=20),
        idle_in_transaction: timedelta = timedelta(minutes=5),
        prepare: bool = True,
        drill: bool | None = None,
    ) -> None:
        """Collect what to run; nothing is connected, nor the environment read, before `run`.

        Args:
            name: how the process shows in Kafka (`client.id`) and Postgres (`application_name`); by
                default the contracts' names.
            database_url: where the inbox is, the database that handlers write to; by default
                KASAGA_DATABASE_URL. None: no inbox; participants/README.md says what isn't guaranteed then.
            kafka: the brokers; by default KASAGA_KAFKA_….
            namespaces: whose sagas are served: replies go nowhere else. By default KASAGA_NAMESPACES, else
                `kasaga`.
            topic_prefix: in front of every topic's name; by default KASAGA_TOPIC_PREFIX.
            max_age: a command sent longer ago is not executed for the first time.
            retention: how long the inbox remembers, at least and by default twice `max_age`.
            batch: how many commands may share a transaction.
            concurrency: how many transactions run at once, and how many connections that takes.
            create_topics: whether topics that don't exist are created.
            partitions: how many a command topic gets when it is created.
            http_port: for /metrics, /live and /ready; by default KASAGA_HTTP_PORT, else none.
            http_host: the address where that listens.
            stop_timeout: how long a stop waits for what is in hand.
            idle_in_transaction: after how long Postgres ends the transaction of a process that hangs.
            prepare: whether statements are prepared; False behind a PgBouncer that can't.
            drill: run compensations for `kasaga drill`, and roll each back; by default KASAGA_DRILL, else no.
        """
        self._name = name
        self._database_url = database_url
        self._kafka = kafka
        self._namespaces = namespaces
        self._topic_prefix = topic_prefix
        self._http_port = http_port
        self._drill = drill
        self._fixed: dict[str, Any] = {
            "max_age": max_age,
            "retention": 2 * max_age if retention is None else retention,
            "batch": batch,
            "concurrency": concurrency,
            "create_topics": create_topics,
            "partitions": partitions,
            "http_host": http_host,
            "stop_timeout": stop_timeout,
            "idle_in_transaction": idle_in_transaction,
            "prepare": prepare,
        }
        self._registries: dict[str, Registry] = {}
        self._process: Process | None = None

    # --- what it handles

    def serve(self, contract: Callable[..., C], service: Callable[[Tx], C]) -> None:
        """Handle all commands of a contract with the methods of what `service` makes, once for each command.

        Raises RegistrationError where the service lacks one, ContractError where the contract can't work.
        """
        self._registry(contract).add_service(service)

    @overload
    def handle(self, command: Callable[[S, I], Coroutine[Any, Any, R]], /) -> HandleCommand[I, R]: ...
    @overload
    def handle(
        self, command: Callable[[S, I, R], Coroutine[Any, Any, None]], /
    ) -> HandleCompensation[I, R]: ...
    def handle(self, command: Callable[..., Any], /) -> Any:
        """Handle one command of a contract with a function: async, or plain, which runs in a thread.

        `@app.handle(Inventory.reserve)` over `def reserve(order: Order, tx: SyncTx) -> Reservation`.
        """
        spec = command_of(command)
        registry = self._registry(command)

        def add(fn: Callable[..., Any]) -> None:
            registry.add_function(spec, fn)

        return HandleCommand[Any, Any](add)

    # --- answering later

    def late(self, command: Callable[[S, I], Coroutine[Any, Any, R]], /) -> Late[R]:
        """Answers commands of this kind whose handler has returned Deferred, by their tokens.

        In any process that reaches the inbox's database. Raises RegistrationError for a compensation.
        """
        spec, url = self._deferrable(command)
        return Late(spec, url, sealer=sealer_from_env())

    def sync_late(self, command: Callable[[S, I], Coroutine[Any, Any, R]], /) -> SyncLate[R]:
        """The same, for code that isn't async."""
        spec, url = self._deferrable(command)
        return SyncLate(spec, url, sealer=sealer_from_env())

    def _deferrable(self, command: Callable[..., Any]) -> tuple[CommandSpec, str | None]:
        spec = command_of(command)
        if not isinstance(spec, CommandSpec):
            raise RegistrationError(f"{spec.type} is a compensation", remedy="name the command")
        return spec, environment.database_url(self._database_url)

    def _registry(self, contract_or_command: Callable[..., Any]) -> Registry:
        contract = contract_of(contract_or_command)
        known = self._registries.setdefault(contract.name, Registry(contract))
        if known.contract is not contract:
            raise RegistrationError(
                f"two contracts are called {contract.name}", remedy="rename one of them: it names a topic"
            )
        return known

    @property
    def registries(self) -> dict[str, Registry]:
        """What is handled, by the contracts' names. Raises RegistrationError if a command has no handler."""
        if not self._registries:
            raise RegistrationError("there is nothing to serve", remedy="app.serve(Contract, Service)")
        for registry in self._registries.values():
            registry.check_complete()
        return dict(self._registries)

    @property
    def rules(self) -> Rules:
        """How old is too old."""
        return Rules(self._fixed["max_age"].total_seconds(), self._fixed["retention"].total_seconds())

    # --- running it

    def settings(self) -> Settings:
        """The arguments, and the environment where they say nothing. Raises StartError and SettingsError."""
        drill = environment.is_set("KASAGA_DRILL") if self._drill is None else self._drill
        prefix = environment.topic_prefix(self._topic_prefix)
        return Settings(
            name=self._name or "+".join(sorted(self._registries)) or "participant",
            kafka=self._kafka or KafkaSettings.from_env(),
            database_url=environment.database_url(self._database_url),
            namespaces=environment.namespaces(self._namespaces),
            # Whatever a drill reads and writes in Kafka is a world of its own.
            topic_prefix=f"{prefix}{DRILL_PREFIX}" if drill else prefix,
            drill=drill,
            drill_alone=environment.is_set("KASAGA_DRILL_ALONE"),
            http_port=environment.http_port(self._http_port),
            sealer=sealer_from_env(),
            claims=claims_from_env(),
            **self._fixed,
        )

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, which stop it gracefully; a second one at once.

        Logs to standard error as KASAGA_LOG_FORMAT and KASAGA_LOG_LEVEL say, unless logging is set up
        already. Raises StartError and the like.
        """
        configure_logs(yielding=True)
        tune_interpreter()
        asyncio.run(self._run_with_signals())

    async def _run_with_signals(self) -> None:
        loop = asyncio.get_running_loop()
        main = asyncio.current_task()
        asked = False

        def stop() -> None:
            nonlocal asked
            if asked and main is not None:
                main.cancel()
            asked = True
            self.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        try:
            await self.run_async()
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    async def run_async(self) -> None:
        """Serve until `stop`, in this event loop, without touching signals or logging."""
        if self._process is not None:
            raise RegistrationError("this participant runs already")
        self._process = Process(self.settings(), self.registries)
        try:
            await self._process.run()
        finally:
            self._process = None

    def stop(self) -> None:
        """Stop gracefully: answer what is in hand, commit, leave. To be called in the event loop."""
        if self._process is not None:
            self._process.stop()

    def migrate(self) -> list[str]:
        """Create or update the inbox's tables and give the names of what was applied; `run` does it too.

        For services whose own user may not create a schema. Raises StartError and psycopg.Error.
        """
        url = environment.database_url(self._database_url)
        return [] if url is None else asyncio.run(self._migrate(url))

    async def _migrate(self, url: str) -> list[str]:
        settings = self._fixed
        limits = Limits(
            settings["retention"].total_seconds(), settings["idle_in_transaction"].total_seconds()
        )
        store = PostgresStore(url, limits, name=self._name or "kasaga migrate", threads=1, prepare=False)
        try:
            return await store.prepare()
        finally:
            await store.close()


logging.getLogger("kasaga").addHandler(logging.NullHandler())
