"""A shop as a process, and somebody who asks it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import psycopg
import pytest

from eventually import eventually
from kasaga.dev.servers import KafkaServer
from participant.asker import Asker
from participant.shop import TABLES

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 40.0


class ShopProcess:
    """One process of the service; started at once."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "participant.shop"], env=environment, stdout=file, stderr=file
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> int | None:
        return self._process.poll()

    def wait_until_killed(self) -> None:
        """Waits for the crash point; anything else that ends it is an error."""
        code = self._process.wait(PATIENCE_SECONDS)
        assert code == -signal.SIGKILL, self.log.read_text()[-3000:]

    def wait_until_serving(self) -> None:
        eventually(lambda: "reads partitions" in self.log.read_text() or self.ended is not None)
        assert self.ended is None, self.log.read_text()[-3000:]

    def http_port(self) -> int:
        """Where its probes are, if it was started with KASAGA_HTTP_PORT=0."""
        found = eventually(lambda: re.search(r"/ready on port (\d+)", self.log.read_text()))
        assert found is not None
        return int(found[1])

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        """Gracefully; anything but success is an error."""
        if self.ended is None:
            self.send(signal.SIGTERM)
        assert self._process.wait(PATIENCE_SECONDS) == 0, self.log.read_text()[-3000:]

    def end(self) -> None:
        if self.ended is None:
            self._process.kill()
        self._process.wait(PATIENCE_SECONDS)


ShopStarter = Callable[..., ShopProcess]


@pytest.fixture
def asker(kafka: KafkaServer, namespace: str, database: str) -> Generator[Asker]:
    with Asker(kafka.bootstrap, namespace, database=database) as made:
        yield made


@pytest.fixture
def start_shop(kafka: KafkaServer, database: str, namespace: str) -> Generator[ShopStarter]:
    """Starts processes; each is killed at the end, whatever has become of it."""
    started: list[ShopProcess] = []
    path = os.pathsep.join(str(ROOT / each) for each in ("participants", "schemas", "integration"))
    with tempfile.TemporaryDirectory() as directory:

        def start(**more: str) -> ShopProcess:
            environment = {
                **os.environ,
                "PYTHONPATH": path,
                "KASAGA_DATABASE_URL": database,
                "SHOP_DATABASE": database,
                "KASAGA_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
                "KASAGA_NAMESPACES": namespace,
                "KASAGA_TOPIC_PREFIX": f"{namespace}.",
                **more,
            }
            started.append(ShopProcess(environment, Path(directory) / f"{len(started)}.log"))
            return started[-1]

        yield start
        for number, each in enumerate(started):
            each.end()
            # pytest shows it where a test fails
            print(f"--- shop {number}, process {each.pid}, ended with {each.ended}:")
            print(each.log.read_text(errors="replace")[-3000:])


class Effects:
    """What the shop has written."""

    def __init__(self, database: str) -> None:
        self._database = database
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute(TABLES)

    def rows(self) -> list[tuple[str, str]]:
        with psycopg.connect(self._database, autocommit=True) as connection:
            found = connection.execute("SELECT command_id, what FROM effect ORDER BY command_id, what")
            return [(row[0], row[1]) for row in found.fetchall()]

    def waiting(self) -> int:
        """How many wait for another's claim."""
        with psycopg.connect(self._database, autocommit=True) as connection:
            sql = (
                "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return connection.execute(sql).rowcount

    def by_pid(self) -> dict[int, int]:
        with psycopg.connect(self._database, autocommit=True) as connection:
            found = connection.execute("SELECT pid, count(*) FROM effect GROUP BY pid")
            return {int(row[0]): int(row[1]) for row in found.fetchall()}


@pytest.fixture
def effects(database: str) -> Effects:
    return Effects(database)
