"""The threads of ctx.run, and the attempts in them.

A thread can't be ended from outside. An attempt that takes longer than it may is given up: its thread is
left to it, another takes the thread's place, and what it still answers counts for nothing.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..engine.driver import place

log = logging.getLogger("kasaga.orchestrator")


class Pool:
    """Threads that end with the process: one that works for an hour must not keep it from ending."""

    def __init__(self, threads: int, spare: int = 0) -> None:
        """They are started when there is work for them.

        Args:
            threads: that may be at work.
            spare: so many of those that are lost are replaced.
        """
        self._most, self._spare = threads, spare
        self._changed = threading.Condition()
        self._work: deque[Callable[[], None]] = deque()
        self._threads = self._idle = self._lost = 0
        self._closed = False

    @property
    def lost(self) -> int:
        """How many threads are at work that nobody waits for any more."""
        return self._lost

    @property
    def full(self) -> bool:
        """Whether every thread that there may be is lost: nothing is begun any more."""
        return self._lost >= self._most + self._spare

    def submit(self, work: Callable[[], None]) -> None:
        """Have something done as soon as a thread is free."""
        with self._changed:
            self._work.append(work)
            self._grow()
            self._changed.notify()

    def lose(self) -> None:
        """Count a thread as lost: its work doesn't end."""
        with self._changed:
            self._lost += 1
            self._grow()

    def regain(self) -> None:
        """Say, in a lost thread, that its work has ended after all. It goes on, or ends, as there is need."""
        with self._changed:
            self._lost -= 1

    def close(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def _room(self) -> int:
        return self._most + min(self._lost, self._spare)

    def _grow(self) -> None:
        while len(self._work) > self._idle and self._threads < self._room and not self._closed:
            try:
                threading.Thread(target=self._serve, name="kasaga-run", daemon=True).start()
            except RuntimeError as error:
                log.error("a thread for ctx.run can't be started", extra={"error": str(error)})
                return
            self._threads += 1
            self._idle += 1  # it is, until it has found its work

    def _serve(self) -> None:
        while True:
            with self._changed:
                while not self._work and not self._closed:
                    self._changed.wait()
                self._idle -= 1
                if self._closed:
                    return
                work = self._work.popleft()
            try:
                work()
            except BaseException:
                log.exception("a bug: a thread of ctx.run met what is no outcome of a function")
            with self._changed:
                if self._threads > self._room:
                    self._threads -= 1
                    return
                self._idle += 1


class Attempt:
    """One call of a function. Its thread ends it, or the loop gives it up: whoever is first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over = False
        self._thread_id = 0
        self._cancel: Callable[[], object] | None = None
        self.began = 0.0
        """When its thread began with it. In real time, which functions take whatever a test's clock says."""

    def begin(self) -> None:
        """Note that a thread has begun with it; call it there."""
        self._thread_id = threading.get_ident()
        self.began = time.monotonic()

    def cancel_by(self, cancel: Callable[[], object]) -> bool:
        """Say how it can be cancelled; False if it is given up already."""
        with self._lock:
            self._cancel = cancel
            return not self._over

    def end(self) -> bool:
        """Say that it has ended; False if it was given up before, so that nobody wants to know."""
        return self._finish()

    def give_up(self) -> bool:
        """Don't wait for it any longer, and cancel it if it can be; False if it has just ended."""
        if not self._finish():
            return False
        with self._lock:
            cancel = self._cancel
        if cancel is not None:
            with suppress(RuntimeError):  # its event loop is closed: it is about to end
                cancel()
        return True

    def _finish(self) -> bool:
        with self._lock:
            first, self._over = not self._over, True
            return first

    @property
    def line(self) -> str:
        """The line of code at which its thread is."""
        frame = sys._current_frames().get(self._thread_id)  # pyright: ignore[reportPrivateUsage]
        return place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name) if frame else ""
