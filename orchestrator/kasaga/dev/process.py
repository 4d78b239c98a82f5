"""Child processes that end when we do, even if we are killed.

Called by `postgres.py` and `kafka.py`. Beside each server runs a *guard*: this very file as a script, which
holds the reading end of a pipe. When our end closes without a word, because we were killed, the guard kills
the server and its children. Linux' parent-death signal is no substitute: it fires when the *thread* that
forked ends, and macOS has none.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

KILL_WAIT_SECONDS = 10.0
"""How long SIGKILL may take to be carried out; longer means a process stuck in the kernel."""

POLL_SECONDS = 0.02
"""How often a process that starts or ends is looked at."""

LOG_TAIL_LINES = 25
"""How much of a server's log an error shows."""


class ServerError(RuntimeError):
    """A development server could not be started, stopped or found; the message says why and what to do."""

    code = "KASAGA_DEV_SERVER"

    def __init__(self, problem: str, *, remedy: str, log: Path | None = None) -> None:
        self.problem = problem
        self.remedy = remedy
        self.log = log
        text = f"{problem}\n{remedy}"
        if log is not None and (tail := log_tail(log)):
            text += f"\nThe end of {log}:\n{tail}"
        super().__init__(text)


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Gives the last lines of a log, or nothing if there is none yet."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


class Process:
    """One running server, in a session of its own so that Ctrl-C reaches us and not it, and its guard."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        cwd: Path,
        uid: int | None = None,
        gid: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__], stdin=subprocess.PIPE, start_new_session=True
        )
        try:
            with log.open("ab") as output:
                self._child = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=None if env is None else dict(env),
                    start_new_session=True,
                    user=uid,
                    group=gid,
                    extra_groups=None if uid is None else (),
                )
        except BaseException:
            self._release(b"")
            raise
        stdin = self._guard.stdin
        if stdin is not None:
            stdin.write(b"%d\n" % self._child.pid)
            stdin.flush()

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._child.pid

    def ended(self) -> int | None:
        """Gives the exit status if the server has ended, else None."""
        status = self._child.poll()
        if status is not None:
            self._release(b"ended")
        return status

    def stop(self, how: signal.Signals, patience: float) -> bool:
        """Asks the server to end and waits. Gives whether it did; kills it if it did not."""
        self.resume()
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(how)
        try:
            self._child.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        self._release(b"ended")
        return True

    def kill(self) -> None:
        """Kills the server and its children, at once, and waits until they are gone."""
        killed = [] if self._child.returncode is not None else kill_tree(self._child.pid)
        self._child.wait(KILL_WAIT_SECONDS)
        self._release(b"ended")
        wait_until(lambda: not any(map(alive, killed)), KILL_WAIT_SECONDS)

    def pause(self) -> None:
        """Freezes the server and its children; their connections stay open and silent."""
        signal_tree(self._child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Lets a frozen server go on."""
        if self._child.poll() is None:
            signal_tree(self._child.pid, signal.SIGCONT)

    def _release(self, word: bytes) -> None:
        """Tells the guard that it is not needed any more, and waits for it."""
        stdin = self._guard.stdin
        if stdin is not None and not stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                stdin.write(word)
                stdin.flush()
            with contextlib.suppress(BrokenPipeError):
                stdin.close()
        self._guard.wait()


def wait_until(ready: Callable[[], bool], patience: float) -> bool:
    """Asks again and again until the answer is yes, or patience ends. Gives the last answer."""
    deadline = time.monotonic() + patience
    while not ready():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


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


def _guard() -> None:
    """Waits for the end of our parent's pipe, and kills the server unless told that it has ended."""
    first = sys.stdin.buffer.readline()
    rest = sys.stdin.buffer.read()
    if first.strip().isdigit() and not rest:
        kill_tree(int(first))


if __name__ == "__main__":
    _guard()
