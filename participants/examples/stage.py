"""The demo's stage: real servers, four databases, two orchestrators and three services, each a process.

Used by `demo.py` and the integration test. Everything runs on loopback out of one directory and ends with
the process that made it, however that ends: see `kasaga.dev.process`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGTERM
from types import TracebackType
from typing import Self

from examples.sagas import app
from kasaga.dev.process import Process, log_tail
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.migrate import migrate
from kasaga_wire.kafka import Admin, KafkaSettings
from kasaga_wire.topics import Topics

APP = "examples.sagas:app"

DATABASES = ("kasaga", "inventory", "payments", "shipping")

ORCHESTRATORS = ("orchestrator-1", "orchestrator-2")

SERVICES = ("inventory", "payments", "shipping")

STOP_SECONDS = 10.0
"""How long a process may take to end in order."""

START_SECONDS = 30.0
"""How long the orchestrators may take until they serve."""

LOOK_SECONDS = 0.1
"""How often it is looked whether they do."""

COMMAND_SECONDS = 60.0
"""How long a command of the CLI may take."""


class StageError(Exception):
    """An actor can't play."""


class Stage:
    """Two servers and the processes that act on them."""

    def __init__(self, directory: Path, progress: Callable[[str], None]) -> None:
        self.directory = directory
        self._progress = progress
        self._postgres = PostgresServer(directory / "postgres", progress=progress)
        self._kafka = KafkaServer(directory / "kafka", progress=progress)
        self._running: dict[str, Process] = {}

    def __enter__(self) -> Self:
        """Starts the servers, side by side, and makes the databases."""
        try:
            with ThreadPoolExecutor(2) as pool:
                postgres, kafka = pool.submit(self._postgres.start), pool.submit(self._kafka.start)
                postgres.result()
                kafka.result()
            for name in DATABASES:
                self._postgres.create_database(name)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends everything."""
        self.close()

    def close(self) -> None:
        """Ends the actors and then the servers, at once: whatever they hold is thrown away."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._postgres.kill)
            stack.callback(self._kafka.kill)
            for process in self._running.values():
                stack.callback(process.kill)
            self._running.clear()

    @property
    def bootstrap(self) -> str:
        """Kafka's address."""
        return self._kafka.bootstrap

    def database(self, name: str) -> str:
        """Gives the address of one of the four databases."""
        return self._postgres.url(name)

    def migrate(self) -> None:
        """Makes the orchestrator's tables; the services make their own when they start."""
        migrate(self.database("kasaga"), namespace=app.namespace)

    def start(self, name: str) -> None:
        """Starts an orchestrator or a service, by its name."""
        argv = ["-m", "kasaga", "orchestrator", APP] if name in ORCHESTRATORS else ["-m", f"examples.{name}"]
        self._running[name] = Process(
            [sys.executable, *argv], log=self.log(name), cwd=self.directory, env=self._environment(name)
        )

    def wait_until_ready(self) -> None:
        """Waits until an orchestrator has made the topics that a client needs."""
        topics = Topics(app.namespace)
        needed = {topics.sagas, topics.answers}
        admin = Admin(KafkaSettings(self.bootstrap))
        deadline = time.monotonic() + START_SECONDS
        try:
            while needed - admin.partitions(needed).keys():
                if fallen := self.fallen():
                    raise StageError("\n".join(fallen))
                if time.monotonic() > deadline:
                    raise StageError(f"no orchestrator made the topics within {START_SECONDS:.0f} s")
                time.sleep(LOOK_SECONDS)
        finally:
            admin.close()

    def kill(self, name: str) -> None:
        """Kills an actor as a crash would."""
        self._running.pop(name).kill()

    def stop(self, name: str) -> None:
        """Asks an actor to end in order."""
        self._running.pop(name).stop(SIGTERM, STOP_SECONDS)

    def fallen(self) -> list[str]:
        """Gives a sentence, with the end of its log, about each actor that ended by itself."""
        return [
            f"{name} ended by itself with status {status}. The end of its log:\n{log_tail(self.log(name))}"
            for name, process in self._running.items()
            if (status := process.ended()) is not None
        ]

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
            env=self._environment("orchestrator-1"),
            timeout=COMMAND_SECONDS,
        ).stdout

    def _environment(self, name: str) -> dict[str, str]:
        variable = "KASAGA_DATABASE_URL" if name in ORCHESTRATORS else "DATABASE_URL"
        database = "kasaga" if name in ORCHESTRATORS else name
        own = {"KASAGA_KAFKA_BOOTSTRAP_SERVERS": self.bootstrap, variable: self.database(database)}
        return {**os.environ, **own}
