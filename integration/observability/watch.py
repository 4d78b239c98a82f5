"""One namespace with processes of its own, and all ways of looking at it."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from eventually import eventually
from kasaga.client import BlockingClient, UnknownSaga
from kasaga.dev.process import Process, log_tail
from kasaga.dev.servers import KafkaServer
from kasaga.store.migrate import migrate
from kasaga_wire.errors import KasagaError
from kasaga_wire.kafka import KafkaSettings
from observability.watched_shop import NAMESPACE, Order, purchase

SOURCES = Path(__file__).parent.parent
PATIENCE = 60.0
STOP_SECONDS = 20.0
SHARDS = 4

STATE = TraceState([("vendor", "x")])


class Watch:
    """Starts and ends processes, starts sagas, reads logs and probes."""

    def __init__(self, folder: Path, kafka: KafkaServer, database: str, own: str, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.bootstrap = kafka.bootstrap
        self.closed, self.broken = folder / "closed", folder / "broken"
        self.database, self.own = database, own
        mine = {name for name in os.environ if not name.startswith(("KASAGA_", "OTEL_"))}
        self.environment = {
            **{name: os.environ[name] for name in mine},
            "PYTHONPATH": os.pathsep.join([str(SOURCES), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep),
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
            "KASAGA_DATABASE_URL": database,
            "KASAGA_TOPIC_PREFIX": prefix,
            "KASAGA_HTTP_PORT": "0",
            "PYTHONHASHSEED": "0",
            "SHOP_CLOSED": str(self.closed),
            "SHOP_BROKEN": str(self.broken),
        }
        self.running: dict[str, Process] = {}
        migrate(database, namespace=NAMESPACE, shards=SHARDS)

    # --- processes

    def orchestrator(self, name: str = "one", **environment: str) -> Process:
        """Start an orchestrator and wait until it is ready."""
        process = self.start_only(name, **environment)
        eventually(lambda: self._lives(name) and self.probe(name, "/ready")[0] == 200, timeout=PATIENCE)
        return process

    def start_only(self, name: str, **environment: str) -> Process:
        argv = ["-m", "kasaga", "orchestrator", "observability.watched_shop:app"]
        return self._run(name, argv, {**self.environment, **environment})

    def service(self, **environment: str) -> Process:
        own = {**self.environment, "KASAGA_NAMESPACES": NAMESPACE, "KASAGA_DATABASE_URL": self.own}
        return self._run("service", ["-m", "observability.watched_shop"], {**own, **environment})

    def _run(self, name: str, argv: list[str], environment: Mapping[str, str]) -> Process:
        self.running[name] = Process(
            [sys.executable, *argv], log=self.log_of(name), cwd=self.folder, env=environment
        )
        return self.running[name]

    def _lives(self, name: str) -> bool:
        assert self.running[name].ended() is None, log_tail(self.log_of(name))
        return True

    def end(self) -> None:
        for process in self.running.values():
            process.stop(SIGTERM, STOP_SECONDS)

    # --- looking

    def log_of(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def text(self, name: str) -> str:
        return self.log_of(name).read_text() if self.log_of(name).exists() else ""

    def lines(self, name: str) -> list[dict[str, Any]]:
        """Every whole line that a process has logged; each has to be JSON."""
        return [json.loads(line) for line in self.text(name).splitlines(keepends=True) if line.endswith("\n")]

    def port(self, name: str) -> int:
        """Where the probes are, as the log says."""
        said = [f"{line['message']} {line.get('port', '')}" for line in self.lines(name)]
        found = [text.split()[-1] for text in said if text.startswith(("probes and metrics", "/metrics, "))]
        assert found, self.text(name)
        return int(found[-1])

    def probe(self, name: str, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port(name)}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    # --- sagas

    @contextmanager
    def client(self) -> Generator[BlockingClient]:
        with BlockingClient(NAMESPACE, KafkaSettings(self.bootstrap), topic_prefix=self.prefix) as client:
            yield client

    def start(self, saga_id: str, wish: str = "", parent: SpanContext = trace.INVALID_SPAN_CONTEXT) -> str:
        """Start a purchase, inside of a span if one is given. Returns the run's id."""
        with self.client() as client, trace.use_span(NonRecordingSpan(parent)):
            handle = client.start(purchase, Order(id=saga_id, wish=wish), id=saga_id)
            assert handle.run_id
            return handle.run_id

    def wait(self, saga_id: str) -> str:
        """The saga's result, or the error's name."""
        until = time.monotonic() + PATIENCE
        with self.client() as client:
            while True:
                try:
                    return client.handle(purchase, saga_id).result(timeout=PATIENCE)
                except UnknownSaga:
                    assert time.monotonic() < until, "its start was never read"
                except KasagaError as error:
                    return type(error).__name__
                time.sleep(0.1)


def a_span(*, sampled: bool = True) -> SpanContext:
    """Somebody's span, in which a saga is started."""
    flags = TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT)
    return SpanContext(0xABC << 64 | 0x123, 0x4567, is_remote=False, trace_flags=flags, trace_state=STATE)
