"""Waiting for sagas: one question to Postgres for all that wait, again and again.

Station: of one process and event loop; `start`, `result` wait here. Nothing is asked of the orchestrator, and
the saga's end costs it nothing, however many wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kasaga_wire.errors import KasagaError
from kasaga_wire.kafka import partition_for

from ..store.base import FINAL_STATES, SagaRow, SagaState
from .errors import Busy
from .metrics import ApiMetrics

if TYPE_CHECKING:
    from .backend import Backend

log = logging.getLogger("kasaga.api")

SHORTEST_PAUSE = 0.05
"""Seconds between two questions."""

PAUSE_FACTOR = 5.0
"""A question that takes long is put the less often: a sixth of the time at most."""

AWAY_SECONDS = 1.0
"""The pause after a question that wasn't answered."""


def over(row: SagaRow) -> bool:
    """The saga goes nowhere by itself: it has ended, or needs a person."""
    return row.state in FINAL_STATES or row.state is SagaState.STUCK


@dataclass(eq=False, slots=True)
class _Waiter:
    saga_id: str
    told: asyncio.Future[None]
    row: SagaRow | None = None


class Ends:
    """Who waits for which saga."""

    def __init__(self, backend: Backend, *, places: int, metrics: ApiMetrics) -> None:
        self._backend = backend
        self._places = places
        self._metrics = metrics
        self.taken = 0
        """So many wait."""
        self._waiting: set[_Waiter] = set()
        self._some = asyncio.Event()
        self._asking: asyncio.Task[None] | None = None
        self._closed = False

    @contextlib.contextmanager
    def place(self) -> Generator[None]:
        """Take a place among those who wait; raises Busy where there is none."""
        if self.taken >= self._places:
            raise Busy(f"{self._places} requests are waiting already")
        self.taken += 1
        self._metrics.waiting(self.taken)
        try:
            yield
        finally:
            self.taken -= 1
            self._metrics.waiting(self.taken)

    async def wait(self, saga_id: str, seconds: float) -> SagaRow | None:
        """Return the saga's row when it is over, or after so many seconds.

        None where no such saga has been seen by then.
        """
        waiter = _Waiter(saga_id, asyncio.get_running_loop().create_future())
        if self._closed:
            return None
        self._waiting.add(waiter)
        self._some.set()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name="kasaga-api-ends")
        try:
            async with asyncio.timeout(seconds):
                await waiter.told
        except TimeoutError:
            pass
        finally:
            self._waiting.discard(waiter)
        return waiter.row

    def stop(self) -> None:
        """Let everybody go: the process ends."""
        self._closed = True
        for waiter in self._waiting:
            _tell(waiter)

    async def close(self) -> None:
        """Stop asking."""
        self.stop()
        if self._asking is not None:
            self._asking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._asking

    async def _ask(self) -> None:
        away = False
        while True:
            await self._some.wait()
            began = time.monotonic()
            try:
                await self._once()
                away, pause = False, max(SHORTEST_PAUSE, PAUSE_FACTOR * (time.monotonic() - began))
            except KasagaError as error:
                if not away:
                    log.warning("sagas that are waited for can't be read", extra={"error": str(error)})
                away, pause = True, AWAY_SECONDS
            if not self._waiting:
                self._some.clear()
            await asyncio.sleep(pause)

    async def _once(self) -> None:
        shards = await self._backend.shards()
        wanted = {waiter.saga_id for waiter in self._waiting}
        keys = [(partition_for(saga_id.encode(), shards), saga_id) for saga_id in wanted]
        rows = await self._backend.read(lambda store: store.find(keys))
        for waiter in self._waiting:
            waiter.row = rows.get(waiter.saga_id, waiter.row)
            if waiter.row is not None and over(waiter.row):
                _tell(waiter)


def _tell(waiter: _Waiter) -> None:
    if not waiter.told.done():
        waiter.told.set_result(None)
