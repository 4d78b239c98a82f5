"""The systems that are measured side by side: how each is brought up, and its best setting.

Each is a context manager that starts everything anew in an empty directory and ends it, by process id.
Temporal is in `temporal.py`.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.bed import POSTGRES_SETTINGS, Setup, bed
from bench.driver import INTEGRATION, LoadProcess, Measured
from bench.errors import BenchError
from bench.peers.client import RAMP_SECONDS, Clients
from bench.peers.tools import Tools
from kasaga.dev.ports import free_port
from kasaga.dev.process import Process, log_tail, wait_until
from kasaga.dev.servers import PostgresServer

READY_SECONDS = 60.0
STOP_SECONDS = 15.0
ASK_SECONDS = 30.0


class Load(Protocol):
    """What asks for sagas."""

    def closed(self, in_flight: int, seconds: float) -> Measured:
        """Keep so many in flight."""
        ...

    def single(self, count: int) -> Measured:
        """One after the other."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """How a system is driven."""

    in_flight: int
    processes: int = 1
    """Of workers; what serves steps apart from sagas has as many again. Of Kasaga: orchestrators."""
    mode: str = ""
    """Of DBOS: `threads`, or an event `loop`."""

    def parameters(self) -> dict[str, object]:
        """What a figure's line says of it."""
        about: dict[str, object] = {"in_flight": self.in_flight, "processes": self.processes}
        return {**about, "mode": self.mode} if self.mode else about


@dataclass(frozen=True, slots=True)
class Running:
    """A system that is up. `pids`: by `server`, `workers` and, where it is a process of its own, `client`."""

    load: Load
    pids: Mapping[str, Sequence[int]]


Up = Callable[[Tools, Path, Setting], AbstractContextManager[Running]]


@dataclass(frozen=True, slots=True)
class System:
    """One that is measured. `best` was the best of `tried` on 2 cores; `--sweep` looks again."""

    name: str
    up: Up
    best: Setting
    tried: tuple[Setting, ...]
    about: Mapping[str, object] = field(default_factory=dict[str, object])

    @property
    def title(self) -> str:
        """What it is called where one line has to do."""
        return " ".join([self.name, *(f"{name} {value}" for name, value in self.about.items())])


@dataclass(frozen=True, slots=True)
class Ramped:
    """Kasaga's load generator, which measures as the peers' do: without the ramp."""

    process: LoadProcess

    def closed(self, in_flight: int, seconds: float) -> Measured:
        """Keep so many in flight."""
        return self.process.closed(in_flight, seconds, ramp=RAMP_SECONDS)

    def single(self, count: int) -> Measured:
        """One after the other."""
        return self.process.single(count)


def kasaga(*, inbox: bool) -> Up:
    """Kasaga as `make bench` brings it up, audited at the end."""

    @contextmanager
    def up(_: Tools, directory: Path, setting: Setting) -> Generator[Running]:
        with bed(Setup(inbox=inbox, orchestrators=setting.processes), directory) as made:
            pids = made.pids()
            server = [pid for name in ("kafka", "postgres", "orchestrator") for pid in pids[name]]
            yield Running(
                Ramped(made.load), {"server": server, "workers": pids["participants"], "client": pids["load"]}
            )

    return up


def restate(service: str) -> Up:
    """Restate, steps in the saga's own handler (`Run`) or in services of other processes (`Call`)."""

    @contextmanager
    def up(tools: Tools, directory: Path, setting: Setting) -> Generator[Running]:
        with ExitStack() as stack:
            ingress, admin, node = (free_port() for _ in range(3))
            server = start(
                stack,
                [str(tools.restate), f"--base-dir={directory / 'data'}", "--bind-ip=127.0.0.1"]
                + [f"--bind-port={node}", "--listen-mode=tcp", "--node-name=one", "--no-logo"],
                directory / "restate.log",
                {
                    "RESTATE_INGRESS__BIND_PORT": str(ingress),
                    "RESTATE_ADMIN__BIND_PORT": str(admin),
                    "RESTATE_LOG_FILTER": "error",
                    "RESTATE_DISABLE_TELEMETRY": "true",
                },
            )
            workers: list[Process] = []
            addresses: list[str] = []
            for app in ("sagas", "services") if service == "Call" else ("sagas",):
                port = free_port()
                command = ["-m", "hypercorn", f"--bind=127.0.0.1:{port}", f"--workers={setting.processes}"]
                command += [
                    "--worker-class=uvloop",
                    "--log-level=error",
                    f"bench.peers.workers.restate_saga:{app}",
                ]
                workers.append(start(stack, [str(tools.python), *command], directory / f"{app}.log"))
                wait_for_port(port, workers[-1], directory)
                addresses.append(f"http://127.0.0.1:{port}")
            for port in (admin, ingress):
                wait_for_port(port, server, directory)
            for address in addresses:
                _post(f"http://127.0.0.1:{admin}/deployments", {"uri": address}, directory)
            url = f"http://127.0.0.1:{ingress}/{service}/pay"
            order = {"order_id": "probe", "amount": 1999, "sku": "book"}
            _post(url, order, directory)
            command = [str(tools.client), "-url", url, "-connections", str(setting.in_flight)]
            load = stack.enter_context(Clients([command], directory / "client.log"))
            yield Running(
                load,
                {"server": [server.pid], "workers": [each.pid for each in workers], "client": load.pids},
            )

    return up


@contextmanager
def dbos(tools: Tools, directory: Path, setting: Setting) -> Generator[Running]:
    """DBOS on a Postgres with the settings that Kasaga's has; workers start what they run themselves."""
    with PostgresServer(directory / "postgres", settings=POSTGRES_SETTINGS) as postgres:
        url = postgres.create_database("dbos")
        share = str(-(-setting.in_flight // setting.processes))
        commands = [
            [
                str(tools.python),
                "-m",
                "bench.peers.workers.dbos_saga",
                setting.mode,
                f"worker-{number}",
                share,
            ]
            for number in range(setting.processes)
        ]
        log, environment = directory / "dbos.log", {"DBOS_URL": url}
        with Clients(commands[:1], log, environment) as first:  # makes the tables, for which two would wait
            first.single(1)
        with Clients(commands, log, environment) as load:
            yield Running(load, {"server": [postgres.pid], "workers": load.pids})


def start(
    stack: ExitStack, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Process:
    """Start a process that ends with the stack, and with us."""
    made = {**os.environ, "PYTHONPATH": str(INTEGRATION), **(environment or {})}
    process = Process(command, log=log, cwd=log.parent, env=made)
    stack.callback(lambda: process.stop(signal.SIGTERM, STOP_SECONDS))
    return process


def wait_for_port(port: int, process: Process, directory: Path) -> None:
    """Wait until somebody listens there. Raises BenchError if the process has ended, or in a minute."""

    def listens() -> bool:
        if process.ended() is not None:
            raise BenchError(f"a process has ended:\n{_logs(directory)}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    if not wait_until(listens, READY_SECONDS):
        raise BenchError(f"nobody listens on port {port}:\n{_logs(directory)}")


def _post(url: str, body: object, directory: Path) -> None:
    """Post it until it is taken: a server that listens may not be ready yet. Raises BenchError in the end."""
    request = urllib.request.Request(
        url, data=json.dumps(body).encode(), headers={"content-type": "application/json"}, method="POST"
    )
    said = ""

    def taken() -> bool:
        nonlocal said
        try:
            with urllib.request.urlopen(request, timeout=ASK_SECONDS):
                return True
        except urllib.error.HTTPError as error:
            with error:
                said = f"{error}: {error.read(1000).decode(errors='replace')}"
        except OSError as error:
            said = str(error)
        return False

    if not wait_until(taken, READY_SECONDS):
        raise BenchError(f"{url} said {said}\n{_logs(directory)}")


def _logs(directory: Path) -> str:
    return "\n".join(log_tail(log, 5) for log in sorted(directory.glob("*.log")))


SYSTEMS = (
    System(
        "kasaga",
        kasaga(inbox=True),
        Setting(2000, 2),
        (Setting(1000), Setting(1000, 2), Setting(2000, 2), Setting(4000, 2)),
        {"inbox": "on"},
    ),
    System(
        "kasaga",
        kasaga(inbox=False),
        Setting(2000, 2),
        (Setting(1000), Setting(1000, 2), Setting(2000, 2), Setting(4000, 2)),
        {"inbox": "off"},
    ),
    System(
        "restate-run",
        restate("Run"),
        Setting(256),
        (Setting(64), Setting(256), Setting(512), Setting(256, 2)),
    ),
    System(
        "restate-call",
        restate("Call"),
        Setting(512),
        (Setting(256), Setting(512), Setting(1024), Setting(512, 2)),
    ),
    System(
        "dbos",
        dbos,
        Setting(32, 2, "threads"),
        (
            Setting(8, 1, "loop"),
            Setting(16, 1, "loop"),
            Setting(96, 3, "loop"),
            Setting(8, 1, "threads"),
            Setting(16, 1, "threads"),
            Setting(32, 2, "threads"),
        ),
    ),
)
"""In the order of a round."""
