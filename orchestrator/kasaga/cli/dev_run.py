"""What `kasaga dev` does: servers, then processes, then their output on one terminal until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from signal import SIGTERM
from types import TracebackType
from typing import Self

import click

from kasaga_wire.kafka import Admin, KafkaSettings
from kasaga_wire.topics import COMMAND_PARTITIONS, Topics, TopicSpec

from ..dev.keeper import Keeper
from ..dev.lock import LOCK_NAME, lock_data, lock_folder
from ..dev.ports import is_free
from ..dev.process import Process
from ..dev.server import Server
from ..dev.servers import KafkaServer, PostgresServer, free_port
from ..orchestrator.matching import Matcher
from ..saga import App
from ..store.migrate import migrate
from .errors import DevFailed
from .session import Session

LOOK_SECONDS = 0.2
"""How often the processes' output is looked for."""

CODE_SECONDS = 1.0
"""How often it is looked whether code has changed."""

STOP_SECONDS = 10.0
"""How long a process may take to end in order."""

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds until a process that ended by itself is started again: doubled each time, up to the longest."""

READY_SECONDS = 60.0
"""How long the orchestrator may take until it serves; then the rest is told anyway."""

QUIET_SECONDS = 60.0
"""A process that ran for so long begins with the first wait again."""

PROBE_SECONDS = 1.0
"""How long it may take to say whether it serves."""

ORCHESTRATOR, API = "orchestrator", "api"
API_NEEDS = ("fastapi", "jinja2", "jsonschema", "uvicorn")
ONE_REPLICA = b"min.insync.replicas=1"
"""A warning about each topic, which is no news on a laptop with one broker."""

COLOURS = ("36", "35", "33", "34", "32")


@dataclass
class Child:
    """One process, and how much of its output was shown."""

    name: str
    argv: list[str]
    environment: dict[str, str]
    log: Path
    reload: bool = True
    """It runs the author's code, and is started again when that changes."""
    process: Process | None = None
    began: float = 0.0
    wait: float = FIRST_WAIT
    again_at: float = 0.0
    shown: int = 0
    rest: bytes = field(default=b"")


class DevRun:
    """One run of `kasaga dev`. Ends all that it started, however it ends itself."""

    def __init__(
        self,
        session: Session,
        app: App,
        target: str,
        *,
        services: Sequence[str],
        http_port: int,
        shards: int,
        directory: Path,
    ) -> None:
        self._session = session
        self._app = app
        self._target = target
        self._services = services
        self._http_port = http_port
        self._shards = shards
        self._directory = directory
        self._topics = Topics(app.namespace, session.setting("topic_prefix"))
        self._stack = contextlib.ExitStack()
        self._postgres: PostgresServer | None = None
        self._children: list[Child] = []
        self._keepers: list[Keeper] = []
        self._colours = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._children:
            self._say("ending")
        self._stack.close()

    # --- beginning

    def begin(self, *, fresh: bool) -> None:
        """Start servers and processes, and say where they are.

        Raises FolderInUse where another `kasaga dev` runs in this folder, before anything in it is changed.
        """
        self._directory.mkdir(exist_ok=True)
        # First of all, and so let go of last, when everything that was started has ended.
        self._stack.enter_context(lock_folder(self._directory))
        self._see_earlier_servers_gone()
        if fresh:
            self._throw_away()
        self._directory.chmod(0o711)
        (self._directory / ".gitignore").write_text("*\n")
        database_url, bootstrap = self._servers()
        port = self._http_port or self._port("http")
        for name in migrate(database_url, namespace=self._app.namespace, shards=self._shards):
            self._say(f"applied {name}")
        shared = {
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "KASAGA_TOPIC_PREFIX": self._session.setting("topic_prefix"),
            "KASAGA_NAMESPACES": self._app.namespace,
            "KASAGA_LOG_FORMAT": "text",
            "PYTHONUNBUFFERED": "1",
        }
        own = {
            "KASAGA_DATABASE_URL": database_url,
            "KASAGA_HTTP_PORT": str(port),
            "PYTHONHASHSEED": "0",
        }
        self._add(ORCHESTRATOR, ["-m", "kasaga", "orchestrator", self._target], {**shared, **own})
        api = self._api(database_url, shared)
        for module in self._services:
            name = module.rpartition(".")[2]
            self._add(name, ["-m", module], {**shared, **self._database_of(name)})
        self._wait_until_ready(port)
        self._note(database_url, bootstrap)
        self._announce(database_url, bootstrap, port, api)

    def _api(self, database_url: str, shared: Mapping[str, str]) -> int:
        """Start the HTTP API and its pages, and return their port; 0 where the extra isn't installed."""
        if any(find_spec(name) is None for name in API_NEEDS):
            return 0
        port = self._port("api")
        arguments = ["-m", "kasaga", "api", "--host", "127.0.0.1", "--port", str(port)]
        # The port of an operator's probes is the orchestrator's here.
        own = {"KASAGA_DATABASE_URL": database_url, "KASAGA_HTTP_PORT": ""}
        self._add(API, arguments, {**shared, **own}, reload=False)
        return port

    def _wait_until_ready(self, port: int) -> None:
        """Show what the processes say until the orchestrator serves; then a start finds its topics."""
        until = time.monotonic() + READY_SECONDS
        while time.monotonic() < until and not _is_ready(port):
            self._look_after_all()
            time.sleep(LOOK_SECONDS)

    def _servers(self) -> tuple[str, str]:
        """The addresses of Postgres and Kafka; starts those, side by side, that aren't named."""
        environment = self._session.environment
        url = self._session.database_url or environment.get("KASAGA_DATABASE_URL", "")
        bootstrap = self._session.kafka or environment.get("KASAGA_KAFKA_BOOTSTRAP_SERVERS", "")
        with ThreadPoolExecutor(2) as pool:
            if not url:
                self._postgres = PostgresServer(
                    self._directory / "postgres", port=self._port("postgres"), progress=self._say
                )
                self._stack.callback(self._postgres.stop)
                pool.submit(self._postgres.start)
            if not bootstrap:
                kafka = KafkaServer(self._directory / "kafka", port=self._port("kafka"), progress=self._say)
                self._stack.callback(kafka.stop)
                pool.submit(kafka.start).result()
                bootstrap = kafka.bootstrap
                self._make_topics(bootstrap)
                self._keep(kafka)
        if self._postgres is not None:
            self._postgres.start()  # raises here what it raised in the pool
            self._keep(self._postgres)
            url = self._postgres.create_database("kasaga")
        return url, bootstrap

    def _make_topics(self, bootstrap: str) -> None:
        """The topics that sagas listen to: elsewhere they are other people's."""
        heard = sorted(Matcher(self._app, self._topics, max_payload=1).routes)
        admin = Admin(KafkaSettings(bootstrap))
        try:
            there = admin.partitions(heard) if heard else {}
            missing = [
                TopicSpec(name, COMMAND_PARTITIONS, never_compact=False)
                for name in heard
                if name not in there
            ]
            for report in admin.ensure_topics(missing) if missing else ():
                self._say(f"made the topic {report.name}, which sagas listen to")
        finally:
            admin.close()

    def _keep(self, server: Server) -> None:
        self._keepers.append(Keeper(server, self._say, self._look_after_children))

    def _database_of(self, name: str) -> dict[str, str]:
        """A database of its own for a service, where the Postgres is ours."""
        if self._postgres is None:
            return {}
        url = self._postgres.create_database(name.replace("-", "_"))
        return {"DATABASE_URL": url, "KASAGA_DATABASE_URL": url}

    def _port(self, name: str) -> int:
        """The port of the last time, if it is free: what was configured by hand goes on to work."""
        file = self._directory / "ports.json"
        try:
            ports: dict[str, int] = json.loads(file.read_text())
        except (OSError, ValueError):
            ports = {}
        if name not in ports or not is_free(ports[name]):
            ports[name] = free_port()
            file.write_text(json.dumps(ports))
        return ports[name]

    def _see_earlier_servers_gone(self) -> None:
        """Wait for servers of a run that was killed to end, before their data or ports are touched.

        Raises FolderInUse where one lives on.
        """
        for server in (PostgresServer, KafkaServer):
            directory = self._directory / server.name.lower()
            if directory.exists():
                lock_data(server.name, directory).close()

    def _throw_away(self) -> None:
        """Remove all that earlier runs have left, but the lock: another could take a new file of its name."""
        pointer = self._directory / "postgres" / "elsewhere"
        if pointer.exists():
            shutil.rmtree(pointer.read_text().strip(), ignore_errors=True)
        for each in self._directory.iterdir():
            if each.is_dir() and not each.is_symlink():
                shutil.rmtree(each)
            elif each.name != LOCK_NAME:
                each.unlink()

    def _note(self, database_url: str, bootstrap: str) -> None:
        """Let the other commands in this folder find what runs here."""
        file = self._directory / "dev.json"
        known = {
            "database_url": database_url,
            "kafka": bootstrap,
            "namespace": self._app.namespace,
            "topic_prefix": self._session.setting("topic_prefix"),
        }
        file.write_text(json.dumps(known))
        self._stack.callback(file.unlink, missing_ok=True)

    def _announce(self, database_url: str, bootstrap: str, port: int, api: int) -> None:
        name = next(iter(self._app.sagas), ("NAME", 1))[0]
        lines = [
            "",
            f"  Postgres  {database_url}",
            f"  Kafka     {bootstrap}",
            f"  Metrics   http://127.0.0.1:{port}/metrics",
            f"  Pages     http://127.0.0.1:{api}/ and the API below /api/v1/"
            if api
            else "  Pages     none: pip install 'kasaga[api]'",
            f"  Data      {self._directory} (kept; --fresh begins anew)",
            "",
            "  For services and clients:",
            f"    export KASAGA_KAFKA_BOOTSTRAP_SERVERS={bootstrap} KASAGA_NAMESPACES={self._app.namespace}",
            "  In this folder, without any settings:",
            f"    kasaga start {self._target} {name} --id 1 --input '{{…}}' --wait",
            "    kasaga list",
            "",
        ]
        for line in lines:
            click.echo(line)

    # --- processes

    def _add(
        self, name: str, arguments: list[str], environment: Mapping[str, str], *, reload: bool = True
    ) -> None:
        if any(child.name == name for child in self._children):
            raise DevFailed(f"two processes are named {name}", remedy="Name each module once")
        log = self._directory / f"{name}.log"
        log.write_bytes(b"")
        child = Child(name, [sys.executable, *arguments], {**os.environ, **environment}, log, reload)
        self._children.append(child)
        self._start(child)
        self._stack.callback(self._stop, child)

    def _start(self, child: Child) -> None:
        child.began = time.monotonic()
        child.process = Process(child.argv, log=child.log, cwd=Path.cwd(), env=child.environment)

    def _stop(self, child: Child) -> None:
        if child.process is not None:
            child.process.stop(SIGTERM, STOP_SECONDS)
            child.process = None
        self._show(child)

    def watch(self, *, reload: bool) -> None:
        """Show what the processes say, and start them anew when they end or code changes; until Ctrl-C."""
        code, looked = self._code(), time.monotonic()
        while True:
            self._look_after_all()
            if reload and time.monotonic() - looked >= CODE_SECONDS:
                now, looked = self._code(), time.monotonic()
                if now != code:
                    code = now
                    self._say("code has changed: starting again")
                    for child in self._children:
                        if child.reload:
                            self._stop(child)
                            self._start(child)
            time.sleep(LOOK_SECONDS)

    def _look_after_all(self) -> None:
        """Show what the processes say, and start again what has ended, servers first."""
        for keeper in self._keepers:
            keeper.look()
        self._look_after_children()

    def _look_after_children(self) -> None:
        for child in self._children:
            self._show(child)
            self._look_after(child)

    def _look_after(self, child: Child) -> None:
        """Start a process again that has ended by itself, later each time."""
        now = time.monotonic()
        if child.process is None:
            if now >= child.again_at:
                self._start(child)
            return
        status = child.process.ended()
        if status is None:
            return
        child.process = None
        child.wait = FIRST_WAIT if now - child.began > QUIET_SECONDS else min(child.wait * 2, LONGEST_WAIT)
        child.again_at = now + child.wait
        self._say(f"{child.name} ended with status {status}; it is started again in {child.wait:g} s")

    def _code(self) -> dict[Path, int]:
        """When each source file beside the App's, or below its folder, was written."""
        module = sys.modules[self._target.partition(":")[0]]
        folder = Path(module.__file__ or ".").parent
        found: dict[Path, int] = {}
        for path in folder.rglob("*.py"):
            with contextlib.suppress(OSError):  # just being replaced
                found[path] = path.stat().st_mtime_ns
        return found

    # --- output

    def _show(self, child: Child) -> None:
        with child.log.open("rb") as log:
            log.seek(child.shown)
            data = child.rest + log.read()
            child.shown = log.tell()
        *lines, child.rest = data.split(b"\n")
        for line in lines:
            if ONE_REPLICA not in line:
                self._say(line.decode(errors="replace"), child)

    def _say(self, text: str, child: Child | None = None) -> None:
        width = max(len(each.name) for each in self._children) if self._children else 6
        name = (child.name if child is not None else "kasaga").ljust(width)
        if self._colours:
            place = self._children.index(child) if child is not None else -1
            name = f"\x1b[{COLOURS[place % len(COLOURS)]}m{name}\x1b[0m"
        click.echo(f"{name} | {text}")


def _is_ready(port: int) -> bool:
    """Ask the orchestrator whether it serves."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
