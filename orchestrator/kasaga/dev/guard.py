"""The guard of a development server: kills it when the process that started it is gone.

Run as a script beside each server, by `process.py`, with a pipe as its standard input. The pipe's first
line is the server's process id. When its other end closes without another word, because its owner was
killed, the guard kills the server and its children. It imports nothing but the standard library, so that it
starts in an instant.

Linux' parent-death signal is no substitute: it fires when the *thread* that forked ends, and macOS has none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path


def kill_tree(pid: int) -> list[int]:
    """Kills a process and everything under it; frozen first, so that nothing new is born. Gives their ids."""
    tree = signal_tree(pid, signal.SIGSTOP)
    for each in reversed(tree):
        _signal(each, signal.SIGKILL)
    return tree


def signal_tree(pid: int, what: signal.Signals) -> list[int]:
    """Signals a process and everything under it, parents first. Gives their ids.

    By parent and not by process group: each of PostgreSQL's children has a group of its own.
    """
    _signal(pid, what)
    reached = [pid]
    for each in reached:
        for child in _children(each):
            _signal(child, what)
            reached.append(child)
    return reached


def alive(pid: int) -> bool:
    """Says whether a process exists and is not merely waiting to be buried."""
    return _states().get(pid, ("Z", 0))[0] != "Z"


def _signal(pid: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, what)


def _children(pid: int) -> list[int]:
    return [each for each, (_, parent) in _states().items() if parent == pid]


def _states() -> dict[int, tuple[str, int]]:
    """Gives each process' state letter and parent: from /proc where there is one, else from ps."""
    found: dict[int, tuple[str, int]] = {}
    if Path("/proc/self/stat").exists():
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    state, parent = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[:2]
                    found[int(entry)] = (state, int(parent))
        return found
    listing = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True
    )
    for line in listing.stdout.splitlines():
        pid, parent, state = line.split()[:3]
        found[int(pid)] = (state[0], int(parent))
    return found


def main() -> None:
    """Waits for the end of the pipe, and kills the server unless told that it has ended."""
    first = sys.stdin.buffer.readline()
    rest = sys.stdin.buffer.read()
    if first.strip().isdigit() and not rest:
        kill_tree(int(first))


if __name__ == "__main__":
    main()
