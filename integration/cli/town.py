"""One namespace on the run's servers: an orchestrator and a service as processes, and what people do there.

The fixture `town` is for the tests of the client, the command line and the HTTP API.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

import pytest

from cli.real_shop import NAMESPACE
from eventually import eventually
from kasaga.client import Client
from kasaga.dev.process import Process, log_tail
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga_wire.kafka import Admin, KafkaSettings
from kasaga_wire.topics import Topics

SOURCES = Path(__file__).parent.parent
STOP_SECONDS = 10.0
PATIENCE = 60.0


@dataclass
class Said:
    status: int
    out: str
    err: str


class Town:
    """One namespace with its orchestrator and its service, and what a person can do in it."""

    shop = "cli.real_shop"
    """The module of the App and its service."""
    namespace = NAMESPACE

    def __init__(
        self, folder: Path, kafka: KafkaServer, database: str, own: str, prefix: str | None = None
    ) -> None:
        self.folder = folder
        self.prefix = f"t{uuid.uuid4().hex[:8]}." if prefix is None else prefix
        self.kafka = KafkaSettings(kafka.bootstrap)
        self.database = database
        self.broken = folder / "broken"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("KASAGA_")},
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "KASAGA_DATABASE_URL": database,
            "KASAGA_TOPIC_PREFIX": self.prefix,
            "KASAGA_BY": "anna",
            "PYTHONPATH": str(SOURCES),
            "PYTHONHASHSEED": "0",
            "BROKEN": str(self.broken),
        }
        self.own = own
        self.running: list[Process] = []

    def begin(self) -> None:
        said = self.kasaga("migrate", "--namespace", self.namespace, "--shards", "4")
        assert said.status == 0, said.err
        orchestrator = ["-m", "kasaga", "orchestrator", f"{self.shop}:app"]
        self._run("orchestrator", orchestrator, self.environment)
        self._run("service", ["-m", self.shop], {**self.environment, "KASAGA_DATABASE_URL": self.own})
        eventually(self._has_topics, timeout=PATIENCE)

    def _has_topics(self) -> bool:
        assert all(process.ended() is None for process in self.running), self.logs()
        topics = Topics(self.namespace, self.prefix)
        admin = Admin(self.kafka)
        try:
            return len(admin.partitions([topics.sagas, topics.answers])) == 2
        finally:
            admin.close()

    def _run(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.running.append(self.process(name, arguments, environment))

    def process(self, name: str, arguments: list[str], environment: dict[str, str]) -> Process:
        """A process of this town, which whoever asks for it ends."""
        log = self.folder / f"{name}.log"
        return Process([sys.executable, *arguments], log=log, cwd=self.folder, env=environment)

    def end(self) -> None:
        for process in self.running:
            process.stop(SIGTERM, STOP_SECONDS)

    def kasaga(self, *arguments: str) -> Said:
        done = subprocess.run(
            [sys.executable, "-m", "kasaga", *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment,
            timeout=PATIENCE,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def client(self, name: str = "test") -> Client:
        return Client(NAMESPACE, self.kafka, topic_prefix=self.prefix, name=name)

    def logs(self) -> str:
        names = ("orchestrator", "service")
        return "\n".join(f"{name}:\n{log_tail(self.folder / f'{name}.log')}" for name in names)


@pytest.fixture(scope="module")
def town(
    tmp_path_factory: pytest.TempPathFactory, kafka: KafkaServer, postgres: PostgresServer
) -> Generator[Town]:
    names = [f"t{uuid.uuid4().hex[:8]}" for _ in range(2)]
    databases = [postgres.create_database(name) for name in names]
    made = Town(tmp_path_factory.mktemp("town"), kafka, *databases)
    try:
        made.begin()
        yield made
    finally:
        made.end()
        for name in names:
            postgres.drop_database(name)
