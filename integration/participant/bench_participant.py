"""How fast one participant process is: commands a second in batches, and how long one alone takes.

    python integration/participant/bench_participant.py [--commands 30000] [--sync] [--concurrency 4]

Starts a Postgres, a Kafka and the shop as a process; one trivial INSERT a handler. The reply's way back to
this process is counted in, so the idle figure is two hops, and the work between them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for source in ("orchestrator", "participants", "schemas", "integration", "tests"):
    sys.path.insert(0, str(ROOT / source))

from kasaga.dev.servers import KafkaServer, PostgresServer  # noqa: E402 (after the path)
from participant.asker import Asker  # noqa: E402
from participant.shop import Order  # noqa: E402


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shop(url: str, bootstrap: str, namespace: str, *, sync: bool) -> subprocess.Popen[bytes]:
    path = os.pathsep.join(str(ROOT / each) for each in ("participants", "schemas", "integration"))
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "KASAGA_DATABASE_URL": url,
        "SHOP_DATABASE": url,
        "SHOP_SYNC": "1" if sync else "0",
        "KASAGA_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KASAGA_NAMESPACES": namespace,
        "KASAGA_TOPIC_PREFIX": f"{namespace}.",
    }
    return subprocess.Popen([sys.executable, "-m", "participant.shop"], env=environment)


def throughput(asker: Asker, pid: int, commands: int) -> None:
    ids = [asker.new_id() for _ in range(commands)]
    before = asker.count
    for number, id_ in enumerate(ids):
        asker.command(Order(id=f"o-{number}"), id_)
        if number % 1000 == 0:
            asker.producer.poll(0.001)
    asker.flush()
    used, started = cpu_seconds(pid), time.perf_counter()
    first = asker.count - before
    while asker.count - before < commands:
        asker.collect(1.0)
    seconds = time.perf_counter() - started
    rest = commands - first
    used = cpu_seconds(pid) - used
    print(f"  {commands} commands: {rest / seconds:,.0f}/s, {used / rest * 1e6:.0f} µs of CPU each")


def latency(asker: Asker, rounds: int) -> None:
    taken: list[float] = []
    for number in range(rounds):
        started = time.perf_counter()
        asker.ask(Order(id=f"o-{number}"))
        taken.append((time.perf_counter() - started) * 1000)
        time.sleep(0.005)
    taken.sort()
    p99 = taken[int(len(taken) * 0.99)]
    print(f"  idle, send to reply: p50 {statistics.median(taken):.2f} ms, p99 {p99:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=30_000)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--sync", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o711)
        with PostgresServer(directory / "pg") as postgres, KafkaServer(directory / "kafka") as kafka:
            url = postgres.create_database("bench")
            with Asker(kafka.bootstrap, "bench") as asker:
                process = shop(url, kafka.bootstrap, "bench", sync=options.sync)
                try:
                    asker.ask(Order(id="warm"))
                    latency(asker, options.rounds)
                    for _ in range(3):
                        throughput(asker, process.pid, options.commands)
                    latency(asker, options.rounds)
                finally:
                    process.terminate()
                    process.wait(30)


if __name__ == "__main__":
    main()
