"""All that a measurement needs, as a context manager: servers, orchestrators, participants, a load generator.

    with bed(Setup(shards=16, orchestrators=2), directory) as town:
        town.load.closed(1000, 15)

Durable as in production: fsync and full-page writes on, acks=all. When the block ends well, `kasaga audit`
holds every saga of the run against the participants' inboxes; one violation fails the bench.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import psycopg

from bench.driver import INTEGRATION, LoadProcess
from bench.errors import BenchError
from bench.figures import tell
from bench.machine import Meter
from kasaga.dev.process import Process, log_tail, wait_until
from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.migrate import migrate

NAMESPACE = "bench"

POSTGRES_SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "4GB", "max_connections": "200"}
"""Those of the peers' benchmark. fsync, synchronous_commit and full_page_writes stay on."""

B = TypeVar("B", bound="Bed")

STOP_SECONDS = 30.0
READY_SECONDS = 60.0
AUDIT_SECONDS = 3600.0
AUDITED_A_SECOND = 100_000


@dataclass(frozen=True, slots=True)
class Setup:
    """What is brought up."""

    shards: int = 16
    orchestrators: int = 1
    participants: int = 1
    """Processes; each serves all contracts."""
    inbox: bool = True
    """Whether participants have a database, and so do what they do once."""
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    """Settings of orchestrators, participants and load, such as `KASAGA_MAX_BATCH`."""
    postgres: Mapping[str, str] = field(default_factory=dict[str, str])
    """Settings of Postgres besides POSTGRES_SETTINGS."""
    kafka: Mapping[str, str] = field(default_factory=dict[str, str])
    """Settings of the broker."""

    def parameters(self) -> dict[str, object]:
        """What a figure's line says of it."""
        return {
            "shards": self.shards,
            "orchestrators": self.orchestrators,
            "participants": self.participants,
            "inbox": "on" if self.inbox else "off",
            **self.environment,
            **self.postgres,
            **self.kafka,
        }


class Bed:
    """What runs. Made by `bed`."""

    app = "bench.payment_app:app"
    audited: tuple[str, ...] = ("INVENTORY", "PAYMENTS", "SHIPPING", "WORK")
    """Participants with an inbox, as environment variables name them."""

    def __init__(
        self, setup: Setup, directory: Path, postgres: PostgresServer, kafka: KafkaServer, stack: ExitStack
    ) -> None:
        self.setup = setup
        self.directory = directory
        self.postgres = postgres
        self.kafka = kafka
        self.store = postgres.create_database("kasaga")
        """The address of the orchestrators' database."""
        self.services = postgres.create_database("services")
        """The address of the participants' database, empty if they have no inbox."""
        migrate(self.store, namespace=NAMESPACE, shards=setup.shards)
        self.orchestrators: list[Process] = []
        self.participants: list[Process] = []
        self.since = datetime.now(UTC) - timedelta(seconds=1)
        stack.callback(self._stop)
        for _ in range(setup.participants):
            self.start_participants()
        for _ in range(setup.orchestrators):
            self.start_orchestrator()
        self.load = LoadProcess(kafka.bootstrap, setup.shards, directory / "load.log", setup.environment)
        stack.callback(self.load.close)

    def start_orchestrator(self, **environment: str) -> Process:
        """Start one more orchestrator; it takes its share of the shards by itself."""
        number = len(self.orchestrators) + 1
        argv = ["-m", "kasaga", "orchestrator", self.app]
        self.orchestrators.append(
            self._start(f"orchestrator-{number}", argv, {**self.setup.environment, **environment})
        )
        return self.orchestrators[-1]

    def start_participants(self) -> Process:
        """Start one more process that serves all contracts."""
        number = len(self.participants) + 1
        argv = ["-m", "bench.service"]
        database = self.services if self.setup.inbox else ""
        self.participants.append(
            self._start(f"participants-{number}", argv, {**self.setup.environment, "DATABASE_URL": database})
        )
        return self.participants[-1]

    def wait_until_owned(self, orchestrators: int | None = None) -> None:
        """Wait until so many processes (by default as many as asked for) own all shards, in fair shares."""
        wanted = orchestrators or self.setup.orchestrators
        fair = range(self.setup.shards // wanted, -(-self.setup.shards // wanted) + 1)

        def owned() -> bool:
            counts = [count for _, count in self.query("SELECT owner, count(*) FROM kasaga.shard GROUP BY 1")]
            return len(counts) == wanted and all(int(str(count)) in fair for count in counts)

        if not wait_until(owned, READY_SECONDS):
            raise BenchError(f"the shards are not owned: {self.logs()}")

    def query(self, statement: str, *arguments: object) -> list[tuple[object, ...]]:
        """Ask the orchestrators' database."""
        with psycopg.connect(self.store, autocommit=True) as connection:
            return connection.execute(statement.encode(), arguments or None).fetchall()

    def pids(self) -> dict[str, list[int]]:
        """The process ids by what they are."""
        return {
            "orchestrator": [each.pid for each in self.orchestrators if each.ended() is None],
            "participants": [each.pid for each in self.participants if each.ended() is None],
            "kafka": [self.kafka.pid],
            "postgres": [self.postgres.pid],
            "load": [self.load.pid],
        }

    def meter(self) -> Meter:
        """Measure CPU from now on."""
        return Meter(self.pids())

    def logs(self) -> str:
        """The ends of the processes' logs."""
        return "\n".join(log_tail(log, 5) for log in sorted(self.directory.glob("*.log")))

    def audit(self) -> None:
        """Hold all sagas that ended so far, and all stuck ones, against the inboxes. Raises BenchError."""
        environment = {
            **_plain_environment(),
            "KASAGA_DATABASE_URL": self.store,
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap,
        }
        if self.setup.inbox:
            environment |= {f"KASAGA_INBOX_{name}_URL": self.services for name in self.audited}
        done = subprocess.run(
            [sys.executable, "-m", "kasaga", "audit"]
            + [f"--rate={AUDITED_A_SECOND}", f"--since={self.since:%Y-%m-%dT%H:%M:%S}"],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            timeout=AUDIT_SECONDS,
        )
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        tell(said[-1])
        if done.returncode != 0 or "STUCK" in said[-1]:
            raise BenchError(f"the audit ended with {done.returncode}:\n" + "\n".join(said[-20:]))

    def _start(self, name: str, argv: list[str], environment: Mapping[str, str]) -> Process:
        return Process(
            [sys.executable, *argv],
            log=self.directory / f"{name}.log",
            cwd=self.directory,
            env={
                **_plain_environment(),
                "PYTHONPATH": str(INTEGRATION),
                "KASAGA_DATABASE_URL": self.store,
                "KASAGA_KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap,
                "KASAGA_LOG_LEVEL": "WARNING",
                **environment,
            },
        )

    def _stop(self) -> None:
        running = [each for each in (*self.orchestrators, *self.participants) if each.ended() is None]
        if running:
            with ThreadPoolExecutor(len(running)) as pool:
                for each in [pool.submit(one.stop, signal.SIGTERM, STOP_SECONDS) for one in running]:
                    each.result()


@contextmanager
def bed(setup: Setup, directory: Path, *, audit: bool = True) -> Generator[Bed]:
    """Bring everything up in an empty directory, and audit what ran when the block has ended well.

    Raises BenchError if something doesn't come up, or if the audit finds anything.
    """
    with other_bed(Bed, setup, directory, audit=audit) as made:
        yield made


@contextmanager
def other_bed(kind: type[B], setup: Setup, directory: Path, *, audit: bool = True) -> Generator[B]:
    """The same with other sagas."""
    with ExitStack() as stack:
        postgres = PostgresServer(directory / "postgres", settings={**POSTGRES_SETTINGS, **setup.postgres})
        kafka = KafkaServer(directory / "kafka", settings=setup.kafka)
        for server in (postgres, kafka):
            stack.enter_context(server)
        made = kind(setup, directory, postgres, kafka, stack)
        made.wait_until_owned()
        yield made
        if audit:
            made.audit()


def _plain_environment() -> dict[str, str]:
    """Ours, without settings of somebody else's Kasaga."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("KASAGA_", "OTEL_"))}
