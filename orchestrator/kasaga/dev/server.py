"""What both development servers have in common: start, stop, kill, freeze, and start again.

`postgres.py` and `kafka.py` say how; this says when, waits, and explains what went wrong.
"""

from __future__ import annotations

import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from kasaga.dev.lock import FolderLock, lock_data
from kasaga.dev.ports import free_port
from kasaga.dev.process import POLL_SECONDS, Process, ServerError

Progress = Callable[[str], None]
"""Told, in a few words, about anything that takes longer than a moment."""

START_SECONDS = 60.0
"""How long a server may take until it answers, on a laptop that does other things too."""

STOP_SECONDS = 30.0
"""How long a server may take to end in order; then it is killed."""

PORT_TRIES = 3
"""How many ports are tried when somebody else takes the one we chose before our server has it."""


def silent(_: str) -> None:
    """Shows no progress."""


def nothing() -> None:
    """Does nothing while a server starts."""


class Server(ABC):
    """A server on loopback whose data lives in one directory and outlives it."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]
    port_taken: ClassVar[str]
    """What the server's log says when its port is in use."""

    def __init__(self, directory: Path, port: int | None, progress: Progress) -> None:
        self.directory = Path(directory).absolute()
        self.port = free_port() if port is None else port
        self._port_is_ours = port is None
        self._progress = progress
        self._process: Process | None = None
        self._lock: FolderLock | None = None
        self._log_began = 0

    @abstractmethod
    def _prepare(self) -> None:
        """Finds the binaries and makes the data directory, if that has not been done."""

    @abstractmethod
    def _launch(self) -> Process:
        """Starts the process."""

    @abstractmethod
    def _answers(self) -> bool:
        """Says whether the server serves."""

    @property
    def log(self) -> Path:
        """Where the server's own log goes."""
        return self.directory / f"{self.name.lower()}.log"

    @property
    def output(self) -> Path:
        """Where what the process prints goes, if that is another file than its log."""
        return self.log

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        return self._running().pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there (frozen or not)."""
        return self._process is not None and self._process.ended() is None

    def ended(self) -> int | None:
        """Gives the exit status of a server that was started and has ended by itself, else None."""
        return None if self._process is None else self._process.ended()

    def start(self, meanwhile: Callable[[], None] = nothing) -> Self:
        """Starts the server and waits until it serves; does nothing if it runs already.

        Calls `meanwhile` each time that it doesn't serve yet. Raises FolderInUse where another server has
        the directory, before anything in it is written, and ServerError.
        """
        if self.is_running:
            return self
        self.directory.mkdir(parents=True, exist_ok=True)
        if self._lock is None:
            self._lock = lock_data(self.name, self.directory)
        try:
            self._prepare()
            for attempt in range(PORT_TRIES):
                if self._start_once(meanwhile, last=attempt == PORT_TRIES - 1):
                    self._port_is_ours = False  # clients know it by now
                    return self
                self._move()
        except BaseException:
            self._let_go()
            raise
        raise AssertionError("the last attempt raises")

    def stop(self) -> None:
        """Ends the server in order; does nothing if it does not run."""
        if self._process is not None:
            self._process.stop(self.stop_signal, STOP_SECONDS)
            self._process = None
        self._let_go()

    def kill(self) -> None:
        """Kills the server as a crash would: at once, with nothing flushed or said."""
        if self._process is not None:
            self._process.kill()
            self._process = None
        self._let_go()

    def restart(self) -> None:
        """Ends the server in order if it runs, and starts it again on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freezes the server: connections stay open, nothing is answered."""
        self._running().pause()

    def resume(self) -> None:
        """Lets a frozen server go on."""
        self._running().resume()

    def __enter__(self) -> Self:
        """Starts the server."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the server."""
        self.stop()

    def _running(self) -> Process:
        if self._process is None:
            raise ServerError(f"{self.name} is not running.", remedy="Call start() first.")
        return self._process

    @property
    def _kept(self) -> tuple[int, ...]:
        """What processes that work on the data have open: the lock on it, which so lasts as long as they."""
        return () if self._lock is None else (self._lock.descriptor,)

    def _let_go(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.close()

    def _move(self) -> None:
        """Takes another port, since somebody was faster on the first."""
        self.port = free_port()

    def _start_once(self, meanwhile: Callable[[], None], *, last: bool) -> bool:
        """Gives whether the server serves now; not, if its port was taken and another may be tried."""
        self._log_began = before = self.log.stat().st_size if self.log.exists() else 0
        self._process = process = self._launch()
        started = time.monotonic()
        try:
            if self._lock is not None:
                self._lock.note(process.pid)
            while not self._answers():
                waited = time.monotonic() - started
                if (status := process.ended()) is not None:
                    if self._port_is_ours and not last and self.port_taken in self._log_since(before):
                        return False
                    raise ServerError(
                        f"{self.name} ended with status {status} before it served.",
                        remedy=f"Is another one running in {self.directory}, or on port {self.port}?",
                        log=self.telling_log,
                    )
                if waited > START_SECONDS:
                    raise ServerError(
                        f"{self.name} did not serve within {START_SECONDS:.0f} s.",
                        remedy="Is the machine out of memory or of disk?",
                        log=self.telling_log,
                    )
                meanwhile()
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.kill()
            raise
        return True

    @property
    def telling_log(self) -> Path:
        """The log if the last start wrote to it, else the output: a process that can't start has no log."""
        return self.log if self._log_since(self._log_began) else self.output

    def _log_since(self, position: int) -> str:
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(position)
            return log.read().decode(errors="replace")
