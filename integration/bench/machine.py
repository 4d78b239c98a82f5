"""The machine: what it is, how fast it is right now, and who uses it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from kasaga.dev.jars import KAFKA_VERSION
from kasaga.dev.postgres import find_postgres
from kasaga_wire.interpreter import build

TICK = os.sysconf("SC_CLK_TCK")


def describe() -> dict[str, object]:
    """What a figure's line says of the machine. Fails where there is no /proc: the bench needs Linux."""
    cpu = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu[0].partition(":")[2].strip() if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "kasaga": build(),
        "postgres": _postgres().split()[-1],
        "kafka": KAFKA_VERSION,
    }


def _postgres() -> str:
    """`postgres (PostgreSQL) 15.14`, or with the packager's own words behind it."""
    said = subprocess.run([find_postgres() / "postgres", "-V"], check=True, capture_output=True, text=True)
    return said.stdout.partition(" (Debian")[0].strip()


def pin(cores: int) -> None:
    """Keep this process, and all that it starts from now on, on so many cores; 0: on all."""
    allowed = sorted(os.sched_getaffinity(0))
    if 0 < cores < len(allowed):
        os.sched_setaffinity(0, allowed[:cores])


def speed() -> float:
    """Million additions a second on one core, now: shows how the machine changes from run to run."""
    begun = time.perf_counter()
    total = 0
    for number in range(3_000_000):
        total += number
    return 3 / (time.perf_counter() - begun)


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [pid]
    while queue:
        at = queue.pop()
        found.append(at)
        queue += children.get(at, [])
    return found


def cpu_seconds(pid: int) -> float:
    """CPU of a process tree so far, of children that have ended too."""
    return sum(sum(int(each) for each in fields[11:15]) for one in tree(pid) if (fields := _stat(one))) / TICK


def resident_bytes(pid: int) -> int:
    """Memory of one process that is its own: anonymous pages, so that shared buffers count for nobody."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def busy_seconds() -> float:
    """CPU that the whole machine has used so far, by anybody: user, nice, system, interrupts, stolen."""
    fields = [int(each) for each in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:3]) + sum(fields[5:8])) / TICK


class Meter:
    """CPU seconds by process between its making and `stop`, and how many cores everybody else has used."""

    def __init__(self, pids: Mapping[str, Iterable[int]]) -> None:
        self._pids = {name: list(each) for name, each in pids.items()}
        self._before = self._read()
        self._busy = busy_seconds()
        self._begun = time.perf_counter()
        self.cpu: dict[str, float] = {}
        self.others = 0.0

    def stop(self) -> None:
        """Take the difference."""
        now = self._read()
        self.cpu = {name: now[name] - self._before[name] for name in now}
        seconds = time.perf_counter() - self._begun
        self.others = max(0.0, busy_seconds() - self._busy - sum(self.cpu.values())) / seconds

    def _read(self) -> dict[str, float]:
        return {name: sum(map(cpu_seconds, pids)) for name, pids in self._pids.items()}


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none if the process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
