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
import logging
import queue
import threading
import typing
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any

from opentelemetry import context, trace

from kasaga_wire import logs
from kasaga_wire.codec import Codec, Schemas, codec_for
from kasaga_wire.errors import KasagaError
from kasaga_wire.records import clean_error

from ..engine.decide import Definitions, Run
from ..engine.driver import Guard
from ..engine.model import DONE, LOCAL, UNDO, Ran
from ..engine.requests import LocalCall
from ..engine.state import State
from ..errors import SagaCodeError, SagaOutcome
from ..store.base import OutboxRow
from . import about, traceids
from .clock import to_micros
from .intake import REPLY, Item
from .rows import split_step
from .traceids import EVERY_SAGA, Sampling

log = logging.getLogger("kasaga.orchestrator")


class Pool:
    """Threads that end with the process: one that works for an hour must not keep it from ending."""

    def __init__(self, threads: int) -> None:
        """They are started when there is work for them."""
        self._most = threads
        self._threads: list[threading.Thread] = []
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._closed = False

    def submit(self, work: Callable[[], None]) -> None:
        """Have something done as soon as a thread is free."""
        self._work.put(work)
        if not self._idle.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._serve, name="kasaga-run", daemon=True)
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Begin nothing more."""
        self._closed = True
        for _ in self._threads:
            self._work.put(None)

    def _serve(self) -> None:
        while True:
            work = self._work.get()
            if work is None or self._closed:
                return
            work()
            self._idle.release()


class Functions:
    """The threads of one process. `start_due` and `take` are called by the loop's thread."""

    def __init__(
        self, threads: int, schemas: Schemas, max_payload: int, sampling: Sampling = EVERY_SAGA
    ) -> None:
        self._pool = Pool(threads)
        self._schemas = schemas
        self._max_payload = max_payload
        self._sampling = sampling
        self._done: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._rows: dict[tuple[int, int], OutboxRow] = {}
        """What isn't started yet, by shard and sequence number."""
        self._later: list[tuple[int, int, int]] = []
        """A heap of (when, shard, seq); an entry whose row is gone is dropped when it comes up."""
        self._held: dict[tuple[int, str], list[OutboxRow]] = {}
        """Due while its saga is parked, by shard and run id: to find a function is to run the saga's code."""
        self.running = 0

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
        """Keep a row until its saga isn't parked any more."""
        self._held.setdefault((row.shard, str(row.run_id)), []).append(row)

    def went_on(self, shard: int, run_id: str) -> None:
        """Let what was held of a saga be started: it isn't parked any more."""
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
        """Start one function, unless its step has been decided meanwhile; hold it while its saga is parked.

        Raises SagaCodeError when the saga's code can't be brought back to its call; it is held then, too.
        """
        path, form = split_step(row.step)
        step = run.state.steps.get(path)
        if step is None or row.seq not in (step.row, step.undo_row):
            return
        if run.state.parked:
            self.hold(row)
            return
        if form == UNDO:
            function, codec = _undo(
                step.compensation, step.result if step.outcome == DONE else b"", self._schemas
            )
        else:
            try:
                waiting = run.live(defs, guard).waiting
                if not isinstance(waiting, LocalCall):
                    raise SagaCodeError(f"the saga's code doesn't wait for ctx.run at step {path} any more")
            except SagaCodeError:
                self.hold(row)
                raise
            function, codec = waiting.function, waiting.result
        event_form = UNDO if form == UNDO else LOCAL
        self.running += 1
        saga_id, run_id, shard, attempt = run.state.saga_id, run.state.run_id, row.shard, row.attempt

        around = self._around(run.state, row)

        def work() -> None:
            with around:
                event = self._call(function, codec, path, event_form, attempt)
            self._done.put(Item(REPLY, shard, run_id, saga_id, event, None))

        self._pool.submit(work)

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
        """Return what has ended since the last call."""
        items: list[Item] = []
        while not self._done.empty():
            items.append(self._done.get())
            self.running -= 1
        return items

    def _call(
        self, function: Callable[[], Any], codec: Codec[Any], path: str, form: str, attempt: int
    ) -> Ran:
        try:
            value = function()
            if inspect.isawaitable(value):
                value = asyncio.run(_wait(value))
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


async def _wait(value: Awaitable[Any]) -> Any:
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
