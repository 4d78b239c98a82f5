"""Does what the schedule says: strikes, holds, and mends. Called by `run.py`, a thread for each fault."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from chaos.schedule import KAFKA, POSTGRES, Fault, Kind
from chaos.town import Town
from fix_proxy import TcpProxy
from kasaga.dev.process import ServerError
from kasaga.dev.server import Server

BALLAST = "ballast"
MORE_LOG = "SELECT pg_switch_wal() FROM pg_logical_emit_message(true, 'chaos', repeat('x', 100000))"
LOG_SWITCHES = 12
"""So many new segments are asked for that those which are kept for use again are used up."""

BACKENDS = "SELECT pid FROM pg_stat_activity WHERE datname <> '' AND pid <> pg_backend_pid() ORDER BY pid"
CUT_ALL = f"SELECT pg_terminate_backend(pid) FROM ({BACKENDS}) AS others"

START_TRIES = 3


@dataclass(slots=True)
class Struck:
    """What became of one fault; times are seconds since the beginning."""

    fault: Fault
    struck: float | None = None
    mended: float | None = None
    """When nothing was held down any more: a server that was killed begins to start."""
    recovered: float | None = None
    met: bool = False
    """Whether another fault came before it had recovered: then its recovery holds the other one's as well."""
    failure: str = ""
    """Why it couldn't be done; empty if it was."""


class Breaker:
    """Carries faults out, one at a time on each target."""

    def __init__(self, town: Town, now: Callable[[], float], over: threading.Event) -> None:
        self._town = town
        self._now = now
        self._over = over
        self._locks = {name: threading.Lock() for name in (POSTGRES, KAFKA, *town.actors)}

    def carry_out(self, struck: Struck) -> None:
        """Strikes, holds and mends; what went wrong with that is in `struck.failure`."""
        fault = struck.fault
        with self._locks[fault.target]:
            struck.struck = self._now()
            try:
                mend = self._strike(fault)
            except (OSError, psycopg.Error, StopIteration) as error:
                struck.failure = f"{type(error).__name__}: {error}"
                mend = _nothing
            self._over.wait(fault.seconds)
            struck.mended = self._now()
            if fault.kind is Kind.RESTART:
                struck.mended = struck.struck
            try:
                mend()
            except (OSError, ServerError) as error:
                struck.failure = f"not mended: {type(error).__name__}: {error}"

    def _strike(self, fault: Fault) -> Callable[[], None]:
        """Gives what mends it."""
        match fault.kind:
            case Kind.KILL | Kind.FREEZE | Kind.RESTART:
                return self._process(fault)
            case Kind.CUT:
                with self._connection() as connection:
                    connection.execute(CUT_ALL)
                return _nothing
            case Kind.KILL_BACKEND:
                self._kill_backend(fault)
                return _nothing
            case Kind.PARTITION:
                return self._partition(fault)
            case Kind.DISK_FULL:
                return self._fill_disk(fault)
            case Kind.DISK_SLOW:
                self._town.postgres_shim.slow_down(float(fault.detail) / 1000)
                return lambda: self._town.postgres_shim.slow_down(0)
            case Kind.CLOCK:
                postgres = fault.target == POSTGRES
                shim = self._town.postgres_shim if postgres else self._town.actors[fault.target].shim
                shim.jump(float(fault.detail))
                return lambda: shim.jump(0)

    def _process(self, fault: Fault) -> Callable[[], None]:
        town = self._town
        server: Server | None = {POSTGRES: town.postgres, KAFKA: town.kafka}.get(fault.target)
        if fault.kind is Kind.RESTART and server is not None:
            server.stop()
            return lambda: start(server)
        if fault.kind is Kind.KILL:
            if server is not None:
                server.kill()
                return lambda: start(server)
            actor = town.actors[fault.target]
            actor.kill()
            return actor.start
        if server is not None:
            server.pause()
            return server.resume
        actor = town.actors[fault.target]
        actor.pause()
        return actor.resume

    def _kill_backend(self, fault: Fault) -> None:
        with self._connection() as connection:
            pids = [int(row[0]) for row in connection.execute(BACKENDS).fetchall()]
        with contextlib.suppress(ProcessLookupError):
            os.kill(random.Random(fault.number).choice(pids), signal.SIGKILL)

    def _partition(self, fault: Fault) -> Callable[[], None]:
        server, how = fault.detail.split()
        proxy: TcpProxy = self._town.actors[fault.target].proxies[server]
        match how:
            case "refused":
                proxy.stop()
            case "deaf":
                proxy.deaf()
            case "mute":
                proxy.mute()
            case _:
                proxy.drop_connections()
        return proxy.start

    def _fill_disk(self, fault: Fault) -> Callable[[], None]:
        """Takes all free space; `log` also has Postgres need some for its log at once, of which it panics."""
        ballast = self._town.disk / BALLAST
        free = os.statvfs(self._town.disk)
        with ballast.open("wb") as file, contextlib.suppress(OSError):
            os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize)
        if fault.detail == "log":
            with contextlib.suppress(psycopg.Error), self._connection() as connection:
                for _ in range(LOG_SWITCHES):
                    connection.execute(MORE_LOG)

        def mend() -> None:
            ballast.unlink()
            if not self._town.postgres.is_running:
                start(self._town.postgres)

        return mend

    def _connection(self) -> psycopg.Connection:
        return psycopg.connect(self._town.database("kasaga"), autocommit=True, connect_timeout=5)


def _nothing() -> None:
    """Nothing has to be mended."""


def start(server: Server) -> None:
    """Starts a server, again if it dies of what is still wrong."""
    for _ in range(START_TRIES):
        with contextlib.suppress(ServerError):
            server.start()
            return
        time.sleep(1)
    server.start()
