"""The stage: four databases, two orchestrators and three services, each a process, on servers that run.

Used by `demo.py` and the integration test. What is started here ends with the process that started it,
however that ends: see `kasaga.dev.process`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

from examples.contracts import NAMESPACE
from kasaga.dev.process import Process, log_tail
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.migrate import migrate
from kasaga_wire.kafka import Admin, KafkaSettings
from kasaga_wire.topics import Topics

APP = "examples.sagas:app"

ORCHESTRATORS = ("orchestrator-1", "orchestrator-2")

SERVICES = ("inventory", "payments", "shipping")

START_SECONDS = 30.0
"""How long the orchestrators may take until they serve."""

LOOK_SECONDS = 0.1
"""How often it is looked whether they do."""

COMMAND_SECONDS = 60.0
"""How long a command of the CLI may take."""


class StageError(Exception):
    """An actor can't play."""


class Stage:
    """The actors and their databases. Leaving it kills them and keeps the databases."""

    def __init__(
        self,
        directory: Path,
        postgres: PostgresServer,
        kafka: KafkaServer,
        *,
        prefix: str = "",
        orchestrators: int = len(ORCHESTRATORS),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Logs go into `directory`; `prefix` begins the names of topics and databases.

        `environment`: variables for everybody, besides those that are needed.
        """
        self._more = dict(environment or {})
        self.directory = directory
        self.prefix = prefix
        self.orchestrators = ORCHESTRATORS[:orchestrators]
        self.kafka = KafkaSettings(kafka.bootstrap)
        self._postgres = postgres
        self._running: dict[str, Process] = {}

    def __enter__(self) -> Self:
        """Makes the databases, starts everybody, and waits until sagas can be started."""
        try:
            for name in ("kasaga", *SERVICES):
                self._postgres.create_database(self.prefix + name)
            # The services make their tables themselves.
            migrate(self.database("kasaga"), namespace=NAMESPACE)
            for name in (*self.orchestrators, *SERVICES):
                self.start(name)
            self._wait_for_topics()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends everybody."""
        self.close()

    def close(self) -> None:
        """Ends everybody, at once: what they would still do is of no interest."""
        with contextlib.ExitStack() as stack:
            for process in self._running.values():
                stack.callback(process.kill)
        self._running.clear()

    def database(self, name: str) -> str:
        """Gives the address of one of the four databases."""
        return self._postgres.url(self.prefix + name)

    def start(self, name: str) -> None:
        """Starts an orchestrator or a service, by its name."""
        module = ["kasaga", "orchestrator", APP] if name in ORCHESTRATORS else [f"examples.{name}"]
        self._running[name] = Process(
            [sys.executable, "-m", *module],
            log=self.log(name),
            cwd=self.directory,
            env=self._environment(name),
        )

    def kill(self, name: str) -> None:
        """Kills an actor as a crash would."""
        self._running.pop(name).kill()

    def check(self) -> None:
        """Raises StageError, with the end of its log, if an actor has ended by itself."""
        for name, process in self._running.items():
            if (status := process.ended()) is not None:
                tail = log_tail(self.log(name))
                raise StageError(f"{name} ended by itself with status {status}. The end of its log:\n{tail}")

    def log(self, name: str) -> Path:
        """Says where an actor's output goes."""
        return self.directory / f"{name}.log"

    def command(self, arguments: Sequence[str]) -> str:
        """Runs a command of kasaga's CLI, as an operator would, and gives what it prints."""
        return subprocess.run(
            [sys.executable, "-m", "kasaga", *arguments],
            check=True,
            capture_output=True,
            text=True,
            cwd=self.directory,
            env=self._environment(ORCHESTRATORS[0]),
            timeout=COMMAND_SECONDS,
        ).stdout

    def _environment(self, name: str) -> dict[str, str]:
        # What is set for other orchestrators of this machine is none of the actors' business.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KASAGA_")}
        return (
            inherited
            | self._more
            | {
                "KASAGA_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap,
                "KASAGA_TOPIC_PREFIX": self.prefix,
                "KASAGA_DATABASE_URL": self.database("kasaga" if name in ORCHESTRATORS else name),
            }
        )

    def _wait_for_topics(self) -> None:
        """Waits until an orchestrator has made the topics that a client needs."""
        topics = Topics(NAMESPACE, self.prefix)
        needed = {topics.sagas, topics.answers}
        admin = Admin(self.kafka)
        deadline = time.monotonic() + START_SECONDS
        try:
            while needed - admin.partitions(needed).keys():
                self.check()
                if time.monotonic() > deadline:
                    raise StageError(f"no orchestrator made the topics within {START_SECONDS:.0f} s")
                time.sleep(LOOK_SECONDS)
        finally:
            admin.close()


@contextlib.contextmanager
def servers(
    directory: Path, progress: Callable[[str], None]
) -> Generator[tuple[PostgresServer, KafkaServer]]:
    """Runs a Postgres and a Kafka, started side by side, and throws them away in the end."""
    postgres = PostgresServer(directory / "postgres", progress=progress)
    kafka = KafkaServer(directory / "kafka", progress=progress)
    try:
        with ThreadPoolExecutor(2) as pool:
            starting = pool.submit(postgres.start), pool.submit(kafka.start)
        for each in starting:
            each.result()
        yield postgres, kafka
    finally:
        # At once: the data is of no interest any more.
        kafka.kill()
        postgres.kill()
