"""Runs the functions of ctx.run in threads of their own, off the shard's loop.

An open LOCAL row is the order to run it; the answer is an event like any other. At least once: a
process that dies in the middle leaves the row open, and the next owner runs it again. The function
itself is a closure of the saga's code, so a new owner first rebuilds the coroutine by replay.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib
import inspect
import itertools
import logging
import queue
import time
import typing
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

from opentelemetry import context, trace

from kasaga_wire import logs
from kasaga_wire.codec import Codec, Schemas, codec_for
from kasaga_wire.errors import KasagaError
from kasaga_wire.records import clean_error

from ..engine.decide import Definitions, Run
from ..engine.driver import TIMED_OUT, Guard
from ..engine.model import DONE, LOCAL, UNDO, Ran
from ..engine.requests import LocalCall
from ..engine.state import State
from ..errors import SagaCodeError, SagaOutcome
from ..settings import Settings
from ..store.base import OutboxRow
from . import about, traceids
from .clock import to_micros
from .intake import REPLY, Item
from .rows import split_step
from .threads import Attempt, Pool
from .traceids import EVERY_SAGA, Sampling

log = logging.getLogger("kasaga.orchestrator")


class _Running(NamedTuple):
    """An attempt that somebody waits for, and what is to be said of it."""

    attempt: Attempt
    shard: int
    run_id: str
    saga_id: str
    step: str
    form: str
    number: int
    seconds: float
    """That it may take; 0 for no limit."""
    about: dict[str, object]

    def item(self, event: Ran) -> Item:
        """What has become of it, for its saga."""
        return Item(REPLY, self.shard, self.run_id, self.saga_id, event, None)

    @property
    def timed_out(self) -> Ran:
        """The end of it that nobody has seen."""
        said = f"attempt {self.number} didn't end within {self.seconds:g} s"
        return Ran(self.step, self.form, self.number, False, b"", TIMED_OUT, said)


class Functions:
    """The functions of one process. All but what runs in the threads is called by the loop's thread."""

    def __init__(
        self,
        threads: int,
        schemas: Schemas,
        max_payload: int,
        sampling: Sampling = EVERY_SAGA,
        spare: int = 0,
    ) -> None:
        """`threads` may be at work at once; `spare` of those that hang are replaced."""
        self._pool = Pool(threads, spare)
        self._schemas = schemas
        self._max_payload = max_payload
        self._sampling = sampling
        self._begun: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Ran]] = queue.SimpleQueue()
        self._running: dict[int, _Running] = {}
        self._limits: list[tuple[float, int]] = []
        """A heap of (until when, which); those that have ended are dropped when they come up."""
        self._numbers = itertools.count()
        self._stalled = False
        self._rows: dict[tuple[int, int], OutboxRow] = {}
        """What isn't started yet, by shard and sequence number."""
        self._later: list[tuple[int, int, int]] = []
        """A heap of (when, shard, seq); an entry whose row is gone is dropped when it comes up."""
        self._held: dict[tuple[int, str], list[OutboxRow]] = {}
        """Due while its saga is held, by shard and run id: to find a function is to run the saga's code."""

    @classmethod
    def of(cls, settings: Settings, schemas: Schemas, sampling: Sampling) -> Functions:
        """Of a process with these settings."""
        threads, spare = settings.run_threads, settings.run_abandoned
        return cls(threads, schemas, settings.max_payload_bytes, sampling, spare)

    @property
    def running(self) -> int:
        """How many are waited for."""
        return len(self._running)

    @property
    def abandoned(self) -> int:
        """How many are at work that nobody waits for: each keeps a thread."""
        return self._pool.lost

    def add(self, row: OutboxRow) -> None:
        """Take a committed LOCAL row; it is started by `start_due`."""
        when = to_micros(row.send_at) if row.send_at is not None else 0
        self._rows[row.shard, row.seq] = row
        heapq.heappush(self._later, (when, row.shard, row.seq))

    def drop_shard(self, shard: int) -> None:
        """Forget what isn't started yet of a shard that isn't ours any more."""
        self._rows = {key: row for key, row in self._rows.items() if key[0] != shard}
        self._held = {key: rows for key, rows in self._held.items() if key[0] != shard}

    def hold(self, row: OutboxRow) -> None:
        """Keep a row until its saga isn't parked or paused any more."""
        self._held.setdefault((row.shard, str(row.run_id)), []).append(row)

    def went_on(self, shard: int, run_id: str) -> None:
        """Let what was held of a saga be started: it isn't parked or paused any more."""
        for row in self._held.pop((shard, run_id), ()):
            self.add(row)

    @property
    def holds(self) -> bool:
        """Whether anything is held."""
        return bool(self._held)

    @property
    def next_due(self) -> int | None:
        """When the next function is to be started, in microseconds."""
        while self._later and self._later[0][1:] not in self._rows:
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def due(self, now: int) -> list[OutboxRow]:
        """Take the rows whose time has come."""
        rows: list[OutboxRow] = []
        while self._later and self._later[0][0] <= now:
            row = self._rows.pop(heapq.heappop(self._later)[1:], None)
            if row is not None:
                rows.append(row)
        return rows

    def start(self, row: OutboxRow, run: Run, defs: Definitions, guard: Guard) -> None:
        """Start one function, unless its step has been decided meanwhile; hold it while its saga is held.

        Raises SagaCodeError when the saga's code can't be brought back to its call; it is held then, too.
        """
        path, form = split_step(row.step)
        step = run.state.steps.get(path)
        if step is None or row.seq not in (step.row, step.undo_row):
            return
        if run.state.held:
            self.hold(row)
            return
        if form == UNDO:
            function, codec = _undo(
                step.compensation, step.result if step.outcome == DONE else b"", self._schemas
            )
        else:
            try:
                waiting = run.live(defs, guard).requests.get(path)
                if not isinstance(waiting, LocalCall):
                    raise SagaCodeError(f"the saga's code doesn't wait for ctx.run at step {path} any more")
            except SagaCodeError:
                self.hold(row)
                raise
            function, codec = waiting.function, waiting.result
        policy = step.undo_policy if form == UNDO else step.policy
        running = _Running(
            Attempt(),
            row.shard,
            run.state.run_id,
            run.state.saga_id,
            path,
            UNDO if form == UNDO else LOCAL,
            row.attempt,
            policy.timeout / 1e6 if policy is not None else 0.0,
            {**about.saga(run.state), "step": row.step, "attempt": row.attempt},
        )
        number = next(self._numbers)
        self._running[number] = running
        self._pool.submit(partial(self._work, number, running, self._around(run.state, row), function, codec))

    def _work(
        self,
        number: int,
        running: _Running,
        around: AbstractContextManager[None],
        function: Callable[[], Any],
        codec: Codec[Any],
    ) -> None:
        """Do it, in a thread."""
        attempt = running.attempt
        attempt.begin()
        self._begun.put(number)
        with around:
            event = self._call(function, codec, running)
        if attempt.end():
            self._done.put((number, event))
            return
        self._pool.regain()
        took = round(time.monotonic() - attempt.began, 1)
        extra = {**running.about, "seconds": took, "error": event.error_type}
        log.warning("a function of ctx.run has ended long after it was given up", extra=extra)

    @contextmanager
    def _around(self, state: State, row: OutboxRow) -> Generator[None]:
        """Let what the function logs and sends belong to the saga, its step and its trace."""
        parent = traceids.context(state, f"{state.run_id}.{row.step}.{row.attempt}", self._sampling)
        token = context.attach(trace.set_span_in_context(trace.NonRecordingSpan(parent)))
        try:
            with logs.about(**about.saga(state), step=row.step, attempt=row.attempt):
                yield
        finally:
            context.detach(token)

    def take(self) -> list[Item]:
        """Return what has ended since the last call, and what has taken longer than it may."""
        now = time.monotonic()
        while not self._begun.empty():
            number = self._begun.get()
            running = self._running.get(number)
            if running is not None and running.seconds:
                heapq.heappush(self._limits, (running.attempt.began + running.seconds, number))
        items: list[Item] = []
        while not self._done.empty():
            number, event = self._done.get()
            items.append(self._running.pop(number).item(event))
        while self._limits and self._limits[0][0] <= now:
            number = heapq.heappop(self._limits)[1]
            running = self._running.get(number)
            if running is not None and running.attempt.give_up():
                del self._running[number]
                items.append(running.item(running.timed_out))
                self._lose(running)
        return items

    def _lose(self, running: _Running) -> None:
        """Leave a thread to a function that hangs."""
        self._pool.lose()
        extra = {**running.about, "seconds": running.seconds, "line": running.attempt.line}
        log.warning("a function of ctx.run is given up: its thread goes on", extra=extra)
        if self._pool.full and not self._stalled:
            log.error(
                "all threads of ctx.run hang: nothing of it begins any more",
                extra={"threads": self.abandoned},
            )
        self._stalled = self._pool.full

    def _call(self, function: Callable[[], Any], codec: Codec[Any], running: _Running) -> Ran:
        path, form, attempt = running.step, running.form, running.number
        try:
            value = function()
            if inspect.isawaitable(value):
                value = asyncio.run(_wait(value, running.attempt))
            payload = codec.encode(None if codec.annotation in (None, type(None)) else value)
            if len(payload) > self._max_payload:
                raise ValueError(f"the result has {len(payload)} bytes, over {self._max_payload}")
            return Ran(path, form, attempt, True, payload)
        except BaseException as error:  # noqa: BLE001 - whatever the author's function raises is its outcome
            name = "SagaFailed" if isinstance(error, SagaOutcome) else type(error).__name__
            said = clean_error(name, error.message if isinstance(error, KasagaError) else str(error))
            return Ran(path, form, attempt, False, b"", said.type, said.message)

    def close(self) -> None:
        """Let go of the threads; what runs is run again by the next owner."""
        self._pool.close()


async def _wait(value: Awaitable[Any], attempt: Attempt) -> Any:
    """Await what a function gave; it is cancelled when it is given up."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    if not attempt.cancel_by(lambda: loop.call_soon_threadsafe(task.cancel)):
        if inspect.iscoroutine(value):
            value.close()
        raise asyncio.CancelledError
    return await value


def _undo(name: str, result: bytes, schemas: Schemas) -> tuple[Callable[[], Any], Codec[Any]]:
    """Find the undo of a ctx.run by its name; it is called with the result, or None."""

    def call() -> Any:
        module, _, path = name.partition(":")
        function: Any = importlib.import_module(module)
        for part in path.split("."):
            function = getattr(function, part)
        parameter = next(iter(inspect.signature(function).parameters.values()), None)
        if parameter is None:
            return function()
        hints = typing.get_type_hints(function, include_extras=True)
        annotation = hints.get(parameter.name)
        if not result or annotation is None:
            return function(None)
        return function(codec_for(annotation, name="result").decode(result, schemas))

    return call, codec_for(None, name="result")
