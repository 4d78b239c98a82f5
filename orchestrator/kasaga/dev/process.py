"""Child processes that end when we do, even if we are killed: each has a guard, see `guard.py`.

Called by `postgres.py` and `kafka.py`.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from kasaga.dev import guard
from kasaga.dev.guard import alive, kill_tree, signal_tree
from kasaga_wire.errors import KasagaError

KILL_WAIT_SECONDS = 10.0
"""How long SIGKILL may take to be carried out; longer means a process stuck in the kernel."""

POLL_SECONDS = 0.02
"""How often a process that starts or ends is looked at."""

LOG_TAIL_LINES = 25
"""How much of a log is shown where there is room for it."""

ERROR_LINES, ERROR_LINE_CHARACTERS = 3, 240
"""How much of a server's log an error shows: commands tell an error in one line, and it names the log."""

NOT_TELLING = re.compile(r"\s+(at |\.\.\. \d+ more)|\s*$|.*(HINT: |database system is shut down)")
"""Lines that say no reason: where in a Java traceback, Postgres' hints and its last word."""


class ServerError(KasagaError):
    """A development server could not be started, stopped or found."""

    code = "KSG-590"

    def __init__(self, message: str, *, remedy: str, log: Path | None = None) -> None:
        """Keep the end of the server's log, as it is now, with the message."""
        super().__init__(message, remedy=remedy)
        self.log = log
        self.log_tail = "" if log is None else _last_words(log)

    def __str__(self) -> str:
        """The message, the remedy and, if there is one, the end of the log."""
        text = super().__str__()
        return f"{text}\nThe end of {self.log}:\n{self.log_tail}" if self.log_tail else text


def log_tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """Gives the last lines of a log, or nothing if there is none yet."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def _last_words(log: Path) -> str:
    """Gives the last lines of a log that say something, each cut to a bearable length."""
    telling = [line for line in log_tail(log).splitlines() if not NOT_TELLING.match(line)]
    return "\n".join(line[:ERROR_LINE_CHARACTERS] for line in telling[-ERROR_LINES:])


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
        keep: Sequence[int] = (),
    ) -> None:
        """Starts both. `keep` are descriptors of ours that the server has open too."""
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__], stdin=subprocess.PIPE, start_new_session=True
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
                    pass_fds=keep,
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
