"""`make bench`: the payment saga on this machine, on a real Kafka and a real Postgres, as JSON lines.

Each figure is one line: what, of which mode (participants' inbox on or off), value and unit. CPU is
that of whole process trees, from /proc. Machines are noisy: compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from kasaga.dev.servers import KafkaServer, PostgresServer
from kasaga.store.migrate import migrate

HERE = Path(__file__).parent
TICK = os.sysconf("SC_CLK_TCK")


def emit(figure: str, value: float, unit: str, **more: object) -> None:
    """Print one figure."""
    print(json.dumps({"figure": figure, "value": round(value, 4), "unit": unit, **more}), flush=True)


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [pid]
    while queue:
        at = queue.pop()
        found.append(at)
        queue += parents.get(at, [])
    return found


def cpu_seconds(pid: int) -> float:
    """CPU of a process tree so far, of children that have ended too."""
    total = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += sum(int(field) for field in fields[11:15])
    return total / TICK


def machine() -> float:
    """Million additions a second on one core, now."""
    begun = time.perf_counter()
    total = 0
    for number in range(3_000_000):
        total += number
    return 3 / (time.perf_counter() - begun)


class Bench:
    """The servers and processes of one mode."""

    def __init__(self, directory: Path, postgres: PostgresServer, kafka: KafkaServer, inbox: bool) -> None:
        self._directory, self._postgres, self._kafka = directory, postgres, kafka
        self._mode = {"inbox": "on" if inbox else "off"}
        self._inbox = inbox
        self._store = postgres.create_database("bench")
        migrate(self._store, namespace="bench", shards=16)

    @contextmanager
    def processes(self) -> Generator[dict[str, int]]:
        """Run an orchestrator and a participants' process; gives their pids."""
        environment = {
            **os.environ,
            "KASAGA_DATABASE_URL": self._store,
            "KASAGA_KAFKA_BOOTSTRAP_SERVERS": self._kafka.bootstrap,
            "PYTHONPATH": str(HERE.parent),
            "KASAGA_LOG_LEVEL": "WARNING",
            "DATABASE_URL": self._postgres.create_database("services") if self._inbox else "",
        }
        started: list[subprocess.Popen[bytes]] = []

        def run(name: str, *command: str) -> int:
            log = (self._directory / f"{name}.log").open("ab")
            started.append(
                subprocess.Popen([sys.executable, *command], env=environment, stderr=log, stdout=log)
            )
            return started[-1].pid

        try:
            orchestrator = run("orchestrator", "-m", "kasaga", "orchestrator", "bench.payment_app:app")
            participants = run("participants", "-m", "bench.service", self._kafka.bootstrap)
            yield {
                "orchestrator": orchestrator,
                "participants": participants,
                "kafka": self._kafka.pid,
                "postgres": self._postgres.pid,
            }
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(30)

    def load(self, *options: str, begin: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Run the client; `begin` is called between its warm-up and the measurement."""
        with subprocess.Popen(
            [sys.executable, "-m", "bench.load", self._kafka.bootstrap, *options],
            cwd=HERE.parent,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            if client.stdout.readline().strip() != "warm":
                raise SystemExit(f"the client did not warm up; logs are in {self._directory}")
            begin()
            client.stdin.write("\n")
            client.stdin.flush()
            line = client.stdout.readline()
        found: dict[str, float] = json.loads(line)
        return found

    def size(self) -> int:
        """Bytes of the orchestrator's tables and indexes."""
        with psycopg.connect(self._store) as connection:
            connection.execute("CHECKPOINT")
            row = connection.execute(
                "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' "
                "AND relnamespace = 'kasaga'::regnamespace"
            ).fetchone()
        assert row is not None
        return int(row[0])

    def measure(self, in_flight: int, seconds: float, rounds: int) -> None:
        """Print every figure of this mode."""
        with self.processes() as pids:
            emit("machine", machine(), "million additions/s")
            rates: list[float] = []
            for _ in range(rounds):
                rates.append(self._throughput(pids, in_flight, seconds))
            rates.sort()
            emit("throughput_median", rates[len(rates) // 2], "sagas/s", rounds=rounds, **self._mode)
            alone = self.load("--runs", "300", "--in-flight", "1", "--warm-up", "2")
            emit("latency_1_p50", alone["p50_ms"], "ms", **self._mode)
            emit("latency_1_p99", alone["p99_ms"], "ms", **self._mode)
            half = self.load("--rate", str(rates[len(rates) // 2] / 2), "--seconds", str(seconds))
            emit("latency_half_p50", half["p50_ms"], "ms", **self._mode)
            emit("latency_half_p99", half["p99_ms"], "ms", **self._mode)
            undone = self.load(
                "--in-flight", str(in_flight), "--seconds", str(seconds), "--sku", "unshippable"
            )
            emit("throughput_compensated", undone["rate"], "sagas/s", ends=undone["ends"], **self._mode)
            emit("machine", machine(), "million additions/s")

    def _throughput(self, pids: dict[str, int], in_flight: int, seconds: float) -> float:
        before: dict[str, float] = {}
        size = 0

        def begin() -> None:
            nonlocal size
            size = self.size()
            before.update({name: cpu_seconds(pid) for name, pid in pids.items()})

        found = self.load("--in-flight", str(in_flight), "--seconds", str(seconds), begin=begin)
        ended = found["ended"]
        emit("throughput", found["rate"], "sagas/s", in_flight=in_flight, ends=found["ends"], **self._mode)
        for name, pid in pids.items():
            used = cpu_seconds(pid) - before[name]
            emit("cpu_per_1000", used / ended * 1000, "s", process=name, **self._mode)
        emit("cpu_per_1000", found["cpu_s"] / ended * 1000, "s", process="client", **self._mode)
        emit("postgres_per_saga", (self.size() - size) / ended, "bytes", **self._mode)
        return found["rate"]


def main() -> None:
    """Measure with the participants' inboxes on, then off."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--in-flight", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--inbox", choices=["on", "off", "both"], default="both")
    parser.add_argument("--keep", help="a folder for servers' data and logs, kept")
    options = parser.parse_args()
    for inbox in (True, False):
        if options.inbox == ("off" if inbox else "on"):
            continue
        with tempfile.TemporaryDirectory(prefix="kasaga-bench-") as temporary:
            directory = Path(options.keep or temporary) / ("on" if inbox else "off")
            directory.mkdir(parents=True, exist_ok=True)
            with (
                PostgresServer(directory / "postgres") as postgres,
                KafkaServer(directory / "kafka") as kafka,
            ):
                Bench(directory, postgres, kafka, inbox).measure(
                    options.in_flight, options.seconds, options.rounds
                )
    print("bench: done", file=sys.stderr)


if __name__ == "__main__":
    main()
