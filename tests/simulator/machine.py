"""Virtual time, and what runs in it: one thread, one greenlet for each thread of a simulated process.

Station: below everything of the simulator; knows nothing of Kafka, Postgres or sagas. Whoever waits gives the
floor to the hub, which goes on with whatever comes next by the clock. Where two come at once, the one that
asked first goes on: nothing depends on anything but the seed.

A process dies anywhere: from then on all that it asks of the world raises `Died`, also in its `finally`. One
that is frozen isn't given the floor until it thaws.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from greenlet import GreenletExit, getcurrent, greenlet

SECOND = 1_000_000
"""In microseconds, the unit of this clock."""
NEVER = 1 << 62
IDLE_JUMP = 2 * SECOND
"""When nobody has anything to do for longer than this, the clock jumps."""


class Died(BaseException):
    """The process is dead: whatever it wanted doesn't happen."""


@dataclass(eq=False)
class Process:
    """What dies and freezes as one: an orchestrator, a participant, or (never) the world itself."""

    name: str
    host: str = ""
    """What it is: `orchestrator` or `participant`."""
    skew: int = 0
    """Microseconds by which its wall clock is ahead."""
    drift: float = 0.0
    """By how much its monotonic clock is too fast."""
    alive: bool = True
    frozen_until: int = 0
    tasks: list[Task] = field(default_factory=list["Task"])
    on_end: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])
    """Called when it is dead: what the world notices of it."""


class _Entry(NamedTuple):
    """What the hub goes on with."""

    at: int
    order: int
    process: Process | None
    go: Callable[[], None]
    idle_until: int
    """Of a wait in which nothing happens by itself before that time; 0 for all others."""
    token: list[bool]
    """Emptied when it is called off."""


class Signal:
    """What tasks wait for."""

    def __init__(self) -> None:
        self.waiting: list[Task] = []

    def fire(self) -> None:
        """Wake all who wait."""
        waiting, self.waiting = self.waiting, []
        for task in waiting:
            task.wake()


class Task:
    """One thread of a process."""

    def __init__(self, machine: Machine, process: Process, work: Callable[[], None]) -> None:
        self._machine, self.process = machine, process
        self._woken = False
        self._timer: list[bool] = []
        self._greenlet = greenlet(lambda: self._run(work), parent=machine.hub)
        self.over = False

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except (Died, GreenletExit):
            pass
        except Exception as error:  # noqa: BLE001 (whatever a process dies of is the world's to judge)
            self._machine.broken.append((self.process, error))
        finally:
            self.over = True

    def go(self) -> None:
        """Give it the floor."""
        if not self.over:
            self._machine.current = self
            self._greenlet.switch()
            self._machine.current = None

    def wait(self, micros: int, idle_until: int = 0) -> bool:
        """Give up the floor, for so long at most; says whether somebody woke it."""
        machine = self._machine
        assert machine.current is self, "a task waits for itself alone"
        if not self.process.alive:
            raise Died
        self._woken = False
        self._timer = machine.at(machine.now + max(micros, 0), self.go, self.process, idle_until)
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            machine.hub.switch()
        finally:
            asyncio._set_running_loop(loop)
            machine.current = self
        if not self.process.alive:
            raise Died
        return self._woken

    def wait_for(self, signal: Signal, micros: int, idle_until: int = 0) -> bool:
        """Wait for a signal, so long at most."""
        signal.waiting.append(self)
        try:
            return self.wait(micros, idle_until)
        finally:
            if self in signal.waiting:
                signal.waiting.remove(self)

    def wake(self) -> None:
        """Let it go on now."""
        if self._timer:
            self._timer.clear()
            self._woken = True
            self._timer = self._machine.at(self._machine.now, self.go, self.process)

    def kill(self) -> None:
        """Unwind it, if it is somewhere."""
        machine = self._machine
        if self.over or self._greenlet is getcurrent():
            return
        if not self._greenlet:  # it has never run: greenlet would throw in whoever kills it
            self.over = True
            return
        before, machine.current = machine.current, self
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        self._greenlet.parent = getcurrent()
        try:
            self._greenlet.throw(Died)
        finally:
            machine.current = before
            asyncio._set_running_loop(loop)
            self.over = True


class Machine:
    """The clock, and who is next."""

    def __init__(self) -> None:
        self.now = 0
        self.hub = getcurrent()
        self.current: Task | None = None
        self.turns = 0
        self.jumped = 0
        """Microseconds that were left out. Clocks don't drift in them: everybody would have set his clock."""
        self.broken: list[tuple[Process, Exception]] = []
        """Processes that ended by an error of their own, and that error."""
        self.on_jump: Callable[[int], None] = lambda micros: None
        """Told that nothing will happen for so long."""
        self._heap: list[_Entry] = []
        self._orders = 0
        self._looked = 0
        self.processes: list[Process] = []

    @property
    def process(self) -> Process | None:
        """Whose turn it is."""
        return self.current.process if self.current is not None else None

    def at(
        self, when: int, go: Callable[[], None], process: Process | None = None, idle_until: int = 0
    ) -> list[bool]:
        """Have something done at a time; empty what is returned to call it off."""
        self._orders += 1
        token = [True]
        heapq.heappush(self._heap, _Entry(when, self._orders, process, go, idle_until, token))
        return token

    def after(self, micros: int, go: Callable[[], None], process: Process | None = None) -> list[bool]:
        """The same, some time from now."""
        return self.at(self.now + micros, go, process)

    def begin(self, process: Process, work: Callable[[], None]) -> Task:
        """Begin a thread of a process."""
        if process not in self.processes:
            self.processes.append(process)
        task = Task(self, process, work)
        process.tasks.append(task)
        self.at(self.now, task.go, process)
        return task

    def sleep(self, micros: int) -> None:
        """Have the running task wait; what isn't in a task waits for nothing."""
        if self.current is not None:
            self.current.wait(micros)

    def check(self) -> None:
        """Raise Died in a process that is dead."""
        process = self.process
        if process is not None and not process.alive:
            raise Died

    def freeze(self, process: Process, micros: int) -> None:
        """Keep the floor from a process."""
        process.frozen_until = max(process.frozen_until, self.now + micros)

    def kill(self, process: Process) -> None:
        """End a process without a word. Whoever kills itself has to raise Died then."""
        if not process.alive:
            return
        process.alive = False
        self.processes.remove(process)
        for task in list(process.tasks):
            task.kill()
        for end in list(process.on_end):
            end()

    def run(self, over: Callable[[], bool], most: int) -> bool:
        """Go on until it is over; False: that took more turns than `most`, or nothing is left to do."""
        while self._heap:
            if over():
                return True
            self.turns += 1
            if self.turns > most:
                return False
            self._turn(heapq.heappop(self._heap))
        return over()

    def _turn(self, entry: _Entry) -> None:
        process = entry.process
        if not entry.token or (process is not None and not process.alive):
            return
        if entry.idle_until and entry.at >= self._looked:
            self._looked = self.now + IDLE_JUMP // 4
            ahead = self._next_busy(entry) - max(self.now, entry.at)
            if IDLE_JUMP < ahead < NEVER // 2:
                self.on_jump(ahead - SECOND // 2)
                self.now = max(self.now, entry.at) + ahead - SECOND // 2
                self.jumped += ahead - SECOND // 2
        self.now = max(self.now, entry.at)
        if process is not None and process.frozen_until > self.now:
            self._orders += 1
            again = entry._replace(at=process.frozen_until, order=self._orders, idle_until=0)
            heapq.heappush(self._heap, again)
            return
        entry.token.clear()
        entry.go()

    def _next_busy(self, first: _Entry) -> int:
        return min(_busy_at(entry) for entry in [first, *self._heap] if entry.token)

    def end(self) -> None:
        """Unwind whatever is left."""
        for process in list(self.processes):
            self.kill(process)
        self._heap.clear()


def _busy_at(entry: _Entry) -> int:
    process = entry.process
    if process is not None and not process.alive:
        return NEVER
    at = entry.idle_until or entry.at
    return at if process is None else max(at, process.frozen_until)


def alive(processes: Iterable[Process]) -> list[Process]:
    """Those that live."""
    return [process for process in processes if process.alive]
