"""What the real modules see of time, threads and event loops inside of the simulator.

Station: put in the place of `time`, `threading`, `asyncio` and `random` in modules of the participant, and of
`crash_point` everywhere. Nothing here is drawn by anything but the clock and the seed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from simulator.machine import NEVER, SECOND, Died, Machine, Process, Signal, Task

EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
FIRST = 5 * SECOND
"""What monotonic clocks show at the beginning: 0 means `never` to some."""


class Clocks:
    """The clocks of the process whose turn it is: what is put in the place of `time` and `random`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def _monotonic(self) -> float:
        process = self._machine.process
        drift = process.drift if process is not None else 0.0
        return FIRST + self._machine.now + (self._machine.now - self._machine.jumped) * drift

    def monotonic(self) -> float:
        return self._monotonic() / SECOND

    def ticks(self) -> int:
        return int(self._monotonic() * 1000)

    def time(self) -> float:
        return self.wall().timestamp()

    def wall(self) -> datetime:
        """With the process's own error."""
        process = self._machine.process
        skew = process.skew if process is not None else 0
        return EPOCH + timedelta(microseconds=self._machine.now + skew)

    def now(self, tz: object = None) -> datetime:
        """In the place of `datetime.now`."""
        return self.wall()

    def uniform(self, low: float, high: float) -> float:
        """In the place of `random.uniform`: back-off needs no chance here."""
        return (low + high) / 2

    def true_time(self) -> datetime:
        """Without anybody's error: the database's."""
        return EPOCH + timedelta(microseconds=self._machine.now)


class Threading:
    """In the place of `threading`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def Event(self) -> Event:  # noqa: N802 (the real one's name)
        return Event(self._machine)

    def Condition(self) -> Condition:  # noqa: N802
        return Condition(self._machine)

    def Thread(self, target: Callable[[], None], **named: object) -> Thread:  # noqa: N802
        return Thread(self._machine, target)


class Event:
    """`threading.Event`."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._set, self._signal = machine, False, Signal()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        self._signal.fire()

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        task = self._machine.current
        if not self._set and task is not None:
            task.wait_for(self._signal, SECOND * 3600 if timeout is None else int(timeout * SECOND))
        return self._set


class Condition:
    """`threading.Condition`, of one thread at a time."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._signal = machine, Signal()

    def __enter__(self) -> Condition:
        return self

    def __exit__(self, *about: object) -> None:
        pass

    def notify_all(self) -> None:
        self._signal.fire()

    def wait_for(self, predicate: Callable[[], bool], timeout: float) -> bool:
        task = self._machine.current
        until = self._machine.now + int(timeout * SECOND)
        while not predicate() and task is not None and self._machine.now < until:
            task.wait_for(self._signal, until - self._machine.now)
        return predicate()


class Thread:
    """`threading.Thread`, as far as starting one goes."""

    def __init__(self, machine: Machine, target: Callable[[], None]) -> None:
        self._machine, self._target = machine, target

    def start(self) -> None:
        process = self._machine.process
        assert process is not None, "a process starts its threads"
        self._machine.begin(process, self._target)


class Inline:
    """In the place of the pool of ctx.run: a function runs when it is handed in."""

    lost = 0
    full = False

    def __init__(self, threads: int, spare: int = 0) -> None:
        """The numbers don't matter."""

    def submit(self, work: Callable[[], None]) -> None:
        work()

    def lose(self) -> None:
        """Nobody is lost."""

    def regain(self) -> None:
        """Nor regained."""

    def close(self) -> None:
        """Nothing is open."""


class Turnstile:
    """In the place of `asyncio.Event` for claims: those who wait may belong to several processes."""

    def __init__(self) -> None:
        self._set = False
        self._waiting: list[asyncio.Future[None]] = []

    def set(self) -> None:
        self._set = True
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def wait(self) -> bool:
        if not self._set:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            await future
        return True


class Asyncio:
    """In the place of `asyncio` where claims wait for each other."""

    Event = Turnstile
    CancelledError = asyncio.CancelledError

    @staticmethod
    def current_task() -> asyncio.Task[Any] | None:
        return asyncio.current_task()


class Loop:
    """The event loop of one simulated process, driven by a task of the machine.

    It has what asyncio's tasks, futures and sleeps ask of a loop, and nothing for files or sockets.
    """

    def __init__(self, machine: Machine, process: Process) -> None:
        self._machine, self._process = machine, process
        self._ready: deque[asyncio.Handle] = deque()
        self._later: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._orders = 0
        self._signal = Signal()
        self._closed = False
        self.errors: list[dict[str, Any]] = []
        self._tasks: dict[asyncio.Task[Any], tuple[Coroutine[Any, Any, Any], Context]] = {}

    def dispose(self) -> None:
        """The process is dead: end its coroutines here, and not whenever the collector comes."""
        tasks, self._tasks = self._tasks, {}
        for coro, context in tasks.values():
            with contextlib.suppress(ValueError, RuntimeError, Died):  # the one at work ends by Died
                context.run(coro.close)

    def life(self) -> None:
        """Run callbacks until the process dies or the loop is closed."""
        task = self._machine.current
        assert task is not None
        while not self._closed:
            self._turn()
            if not self._process.alive:
                raise Died
            if not self._ready and not self._closed:
                self._wait(task)

    def _wait(self, task: Task) -> None:
        while self._later and self._later[0][2].cancelled():
            heapq.heappop(self._later)
        if not self._later:
            task.wait_for(self._signal, 3600 * SECOND, idle_until=NEVER)
            return
        left = int((self._later[0][0] - self.time()) * SECOND) + 1
        task.wait_for(self._signal, max(left, 0))

    def _turn(self) -> None:
        now = self.time()
        while self._later and self._later[0][0] <= now:
            handle = heapq.heappop(self._later)[2]
            if not handle.cancelled():
                self._ready.append(handle)
        for _ in range(len(self._ready)):
            ready = self._ready.popleft()
            if ready.cancelled():
                continue
            events._set_running_loop(self._as_loop)
            try:
                ready._run()
            finally:
                events._set_running_loop(None)
            if not self._process.alive:
                return

    # --- what asyncio asks of a loop

    @property
    def _as_loop(self) -> asyncio.AbstractEventLoop:
        return cast("asyncio.AbstractEventLoop", self)

    def time(self) -> float:
        machine = self._machine
        return (FIRST + machine.now + (machine.now - machine.jumped) * self._process.drift) / SECOND

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self._as_loop, context)
        self._ready.append(handle)
        self._signal.fire()
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self._as_loop, context)
        self._orders += 1
        heapq.heappush(self._later, (when, self._orders, handle))
        self._signal.fire()
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is dropped when it comes up."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self._as_loop)

    def create_task(
        self, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **named: Any
    ) -> asyncio.Task[Any]:
        context = named.pop("context", None) or copy_context()
        work = cast("Coroutine[Any, Any, Any]", coro)
        task: asyncio.Task[Any] = asyncio.Task(work, loop=self._as_loop, context=context, **named)
        self._tasks[task] = (work, context)
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    def is_running(self) -> bool:
        return cast("object", events._get_running_loop()) is self

    def is_closed(self) -> bool:
        return self._closed

    def get_debug(self) -> bool:
        return False

    def close(self) -> None:
        self._closed = True
        self._signal.fire()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if self._process.alive and not isinstance(error, Died):
            self.errors.append(context)
