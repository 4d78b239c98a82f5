"""Finds a saga whose code doesn't come back to an await, and breaks it off.

The loop steps a saga through `guard`. A thread looks at the clock; past the limit it raises
HangInterrupt into the loop's thread, which the driver turns into STUCK with the line. Code that is
inside a C call (`time.sleep`, a query) sees the interrupt only when the call returns: the thread
then says in the log where it stands, and after `kill_after` ends the process, so that another
owner goes on; two such deaths put the shard into suspect mode (shards.py).
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from kasaga_wire.logs import here

from ..engine.driver import HangInterrupt, place
from ..engine.state import State
from ..errors import Evicted
from . import about

log = logging.getLogger("kasaga.orchestrator")


class Spent:
    """How long a call has taken, without the time in which its thread could not run.

    A process that is stopped, or gets no processor, must not look like a saga that hangs. So the clock is
    read often: where nobody could look for longer, most of that time doesn't count; and the system knows how
    long the thread has waited for a processor.
    """

    def __init__(self, tick: float) -> None:
        self._most = 2 * tick
        self._since = self._looked = self._waited = 0.0
        self.seconds = 0.0

    def look(self, now: float, since: float, waited: float) -> float:
        """Adds the time since the last look.

        `now` by the monotonic clock, `since` when the call began (0.0: there is none), `waited` how long the
        thread has waited for a processor in all. Gives the seconds of this call so far.
        """
        if since != self._since:
            self._since, self.seconds = since, 0.0
        if since:
            passed = min(now - max(since, self._looked), self._most)
            self.seconds += max(0.0, passed - (waited - self._waited))
        self._looked, self._waited = now, waited
        return self.seconds


def waited_for_processor(native_id: int) -> float:
    """How long a thread of this process could have run and did not, in seconds; 0.0 where no system tells."""
    try:
        with open(f"/proc/self/task/{native_id}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


class Watchdog:
    """One per loop thread; `start` it from that thread.

    Args:
        limit: seconds a saga's code may run between two awaits; see `Spent` for what counts.
        kill_after: seconds after which a thread that can't be interrupted costs the process.
        culprit: whose code runs in it, for the log.
    """

    def __init__(self, *, limit: float = 1.0, kill_after: float = 30.0, culprit: str = "a saga") -> None:
        self._limit = limit
        self._culprit = culprit
        self._kill_after = kill_after
        self._lock = threading.Lock()
        self._thread_id = self._native_id = 0
        self._since = 0.0
        self._fired = False
        self._reported = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.stepping: State | None = None
        """The saga being stepped, for the log."""

    def start(self) -> None:
        """Watch the calling thread."""
        self._thread_id, self._native_id = threading.get_ident(), threading.get_native_id()
        self._thread = threading.Thread(target=self._watch, name="kasaga-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the watching thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def guard(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Call `function(argument)`; raises HangInterrupt inside it when it takes too long.

        What an evicted coroutine says is left out of the logs: its saga goes on, whatever its code cleans up.
        """
        with self._lock:
            self._since = time.monotonic()
        here.muted = isinstance(argument, Evicted)
        try:
            try:
                return function(argument)
            finally:
                here.muted = False
                self._disarm()
        except HangInterrupt:
            self._disarm()  # it may have come between the two lines above
            raise

    def _disarm(self) -> None:
        """Make sure that no interrupt reaches the loop itself, also one that is on its way."""
        while True:
            try:
                with self._lock:
                    self._since = 0.0
                    fired, self._fired, self._reported = self._fired, False, False
                if fired and self._thread_id:
                    # Takes back one that was set and not raised yet (CPython: C API, thread state).
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), None)
                return
            except HangInterrupt:
                continue

    def _watch(self) -> None:
        tick = self._limit / 4
        spent = Spent(tick)
        while not self._stop.wait(tick):
            waited = waited_for_processor(self._native_id)
            with self._lock:
                took = spent.look(time.monotonic(), self._since, waited)
                if took > self._limit and not self._fired:
                    self._fired = True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self._thread_id), ctypes.py_object(HangInterrupt)
                    )
            if took > 2 * self._limit and not self._reported:
                self._reported = True
                log.error(
                    f"{self._culprit} blocks the loop and can't be interrupted",
                    extra={**self._about(), "line": self._line(), "seconds": round(took, 1)},
                )
            if took > self._kill_after:
                log.critical(f"ending the process: {self._culprit} blocks it", extra=self._about())
                os.kill(os.getpid(), signal.SIGKILL)

    def _about(self) -> dict[str, object]:
        return about.saga(self.stepping) if self.stepping is not None else {}

    def _line(self) -> str:
        frame = sys._current_frames().get(self._thread_id)  # pyright: ignore[reportPrivateUsage]
        return place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name) if frame else ""
