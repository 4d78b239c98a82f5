"""Everything that runs: a Kafka, a Postgres, orchestrators, services, and a proxy for each way between them.

Each actor comes to Postgres and to Kafka by proxies of its own, so that it can be cut off alone. A keeper
starts again whoever ended by itself, as any supervisor would. Called by `run.py`, broken by `faults.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import LiteralString, Self

import psycopg

from chaos.schedule import ACTORS, KAFKA, ORCHESTRATORS, POSTGRES, SERVICES
from chaos.shim import Shim, build
from examples.contracts import NAMESPACE
from fix_proxy import TcpProxy
from kasaga.dev.kafka import KafkaServer
from kasaga.dev.ports import free_port
from kasaga.dev.postgres import PostgresServer
from kasaga.dev.process import Process, log_tail
from kasaga.store.migrate import migrate
from kasaga_wire.errors import KafkaUnavailable
from kasaga_wire.kafka import Admin, KafkaSettings
from kasaga_wire.topics import Topics

APP = "examples.sagas:app"

DISK_BYTES = 1536 * 1024 * 1024
"""Of the file system in memory that Postgres' data is on, where we may mount one."""

START_SECONDS = 60.0
LOOK_SECONDS = 0.1

KEEPER_SECONDS = 1.0
"""How long whoever ended by itself stays away."""

POSTGRES_SETTINGS = {"max_wal_size": "256MB", "min_wal_size": "32MB", "log_min_messages": "warning"}
"""So that the disk in memory stays small, and a full disk is soon met by the write-ahead log."""

MORE_STOCK = "UPDATE stock SET initial = initial * %(times)s, quantity = quantity * %(times)s"
MORE_CREDIT = "UPDATE card SET credit_limit = credit_limit * %(times)s"


SUPPLIES: tuple[tuple[str, LiteralString], ...] = (("inventory", MORE_STOCK), ("payments", MORE_CREDIT))


class TownError(Exception):
    """Something does not come up."""


class Actor:
    """One orchestrator or one instance of a service, and its ways to the servers."""

    def __init__(self, name: str, town: Town) -> None:
        self.name = name
        self.is_orchestrator = name in ORCHESTRATORS
        self.database = "kasaga" if self.is_orchestrator else name.rpartition("-")[0]
        self.log = town.logs / f"{name}.log"
        self.shim = Shim(town.library, town.directory / f"{name}.shim")
        self.proxies = {
            POSTGRES: TcpProxy(town.postgres.port),
            KAFKA: TcpProxy(town.listeners[name][0], town.listeners[name][1]),
        }
        self.lock = threading.RLock()
        self.down = True
        """Whether it is meant not to run."""
        self.ends: list[int] = []
        """The exit statuses of processes that ended by themselves."""
        self._town = town
        self._process: Process | None = None
        self._away_until = 0.0

    def start(self) -> None:
        """Starts the process."""
        module = ["kasaga", "orchestrator", APP] if self.is_orchestrator else [f"examples.{self.database}"]
        with self.lock:
            self.down = False
            self._process = Process(
                [sys.executable, "-m", *module],
                log=self.log,
                cwd=self._town.directory,
                env=self._environment(),
            )

    def kill(self) -> None:
        """Kills the process; it stays away until it is started."""
        with self.lock:
            self.down = True
            if self._process is not None:
                self._process.kill()

    def pause(self) -> None:
        """Freezes the process."""
        with self.lock:
            if self._process is not None and self._process.ended() is None:
                self._process.pause()

    def resume(self) -> None:
        """Lets it go on."""
        with self.lock:
            if self._process is not None:
                self._process.resume()

    def keep(self) -> None:
        """Starts it again if it has ended by itself."""
        with self.lock:
            if self.down or self._process is None:
                return
            status = self._process.ended()
            if status is None:
                return
            now = time.monotonic()
            if not self._away_until:
                self.ends.append(status)
                self._away_until = now + KEEPER_SECONDS
            elif now > self._away_until:
                self._away_until = 0.0
                self.start()

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("KASAGA_")}
        return inherited | {
            **self.shim.environment,
            "KASAGA_DATABASE_URL": self._town.postgres.url(self.database, port=self.proxies[POSTGRES].port),
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": self.proxies[KAFKA].address,
        }


class Town:
    """All of it, as a context manager.

    `small_disk`: whether Postgres' data is on a small disk of its own. `stock`: for how many rounds of orders
    there are goods and credit.
    """

    def __init__(
        self, directory: Path, logs: Path, *, small_disk: bool, stock: int, tell: Callable[[str], None]
    ) -> None:
        self.directory = directory
        self.logs = logs
        self.disk = directory / "postgres" / "data"
        self.small_disk = small_disk
        self.tell = tell
        self.library = build(directory)
        self.listeners = {name: (free_port(), free_port()) for name in ACTORS}
        self.postgres_shim = Shim(self.library, directory / "postgres.shim")
        self.postgres = PostgresServer(
            directory / "postgres",
            settings=POSTGRES_SETTINGS,
            environment={**os.environ, **self.postgres_shim.environment},
        )
        port = free_port()
        self.kafka = KafkaServer(directory / "kafka", port=port, settings=self._listening(port))
        self.actors = {name: Actor(name, self) for name in ACTORS}
        self._stock = stock
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="keeper", daemon=True)

    def __enter__(self) -> Self:
        """Starts everything and waits until sagas can be started."""
        try:
            for server in (self.postgres, self.kafka):
                server.directory.mkdir()
                for log in {server.log, server.output}:
                    log.symlink_to(self.logs / log.name)
            self._mount()
            with ThreadPoolExecutor(2) as pool:
                for each in [pool.submit(server.start) for server in (self.postgres, self.kafka)]:
                    each.result()
            for name in ("kasaga", *SERVICES):
                self.postgres.create_database(name)
            migrate(self.postgres.url("kasaga"), namespace=NAMESPACE)
            for actor in self.actors.values():
                for proxy in actor.proxies.values():
                    proxy.start()
                actor.start()
            self._wait_for_topics()
            self._fill_shops()
            self._keeper.start()
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
        """Ends everything, at once, and frees the disk."""
        self._over.set()
        if self._keeper.is_alive():
            self._keeper.join()
        with ExitStack() as stack:
            if self.small_disk:
                stack.callback(subprocess.run, ["umount", str(self.disk)], check=False, capture_output=True)
            stack.callback(self.postgres.kill)
            stack.callback(self.kafka.kill)
            for actor in self.actors.values():
                for proxy in actor.proxies.values():
                    stack.callback(proxy.stop)
                stack.callback(actor.kill)

    def database(self, name: str) -> str:
        """Gives the address of one of the four databases; nothing comes in this way."""
        return self.postgres.url(name)

    @property
    def client(self) -> KafkaSettings:
        """For the load: no proxy."""
        return KafkaSettings(self.kafka.bootstrap)

    def _listening(self, own: int) -> dict[str, str]:
        """A listener of Kafka's for each actor: its clients go where the broker says that it lives."""
        controller = free_port()
        ways = {f"W{number}": ports for number, ports in enumerate(self.listeners.values())}
        names = ["PLAIN", "CONTROLLER", *ways]
        listeners = [f"PLAIN://127.0.0.1:{own}", f"CONTROLLER://127.0.0.1:{controller}"]
        listeners += [f"{name}://127.0.0.1:{target}" for name, (target, _) in ways.items()]
        advertised = [f"PLAIN://127.0.0.1:{own}"]
        advertised += [f"{name}://127.0.0.1:{port}" for name, (_, port) in ways.items()]
        return {
            "listeners": ",".join(listeners),
            "advertised.listeners": ",".join(advertised),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        }

    def _mount(self) -> None:
        if not self.small_disk:
            return
        self.disk.mkdir(parents=True)
        argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(self.disk)]
        subprocess.run(argv, check=True, capture_output=True)

    def _wait_for_topics(self) -> None:
        topics = Topics(NAMESPACE)
        needed = {topics.sagas, topics.answers, *(topics.commands(name) for name in SERVICES)}
        admin = Admin(self.client)
        deadline = time.monotonic() + START_SECONDS
        try:
            while needed - self._known(admin, needed):
                if time.monotonic() > deadline:
                    tails = "\n".join(log_tail(actor.log, 5) for actor in self.actors.values())
                    raise TownError(f"There are no topics after {START_SECONDS:.0f} s:\n{tails}")
                for actor in self.actors.values():
                    actor.keep()
                time.sleep(LOOK_SECONDS)
        finally:
            admin.close()

    def _known(self, admin: Admin, needed: set[str]) -> set[str]:
        try:
            return set(admin.partitions(needed))
        except KafkaUnavailable:
            return set()

    def _fill_shops(self) -> None:
        """So many times the goods and the credit that the shipped orders are meant for."""
        for name, statement in SUPPLIES:
            with psycopg.connect(self.database(name)) as connection:
                connection.execute(statement, {"times": self._stock})

    def _keep(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            for actor in self.actors.values():
                actor.keep()
