"""Counts what the loop has no time for: a thread that asks the store and looks at the loop's own numbers.

Started and ended by the process; what it finds goes into the metrics. It never waits for the loop, and the
loop never for it.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence

from kasaga_wire.errors import KasagaError

from ..store.base import Offsets, Store
from .clock import to_datetime
from .metrics import Metrics
from .shards import Shard

log = logging.getLogger("kasaga.orchestrator")

CENSUS_SECONDS = 10.0


class Census:
    """A thread that counts every ten seconds."""

    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        shards: Callable[[], Sequence[Shard]],
        lag: Callable[[int, Offsets], Mapping[str, int]],
        *,
        interval: float = CENSUS_SECONDS,
    ) -> None:
        """`shards`: those that are owned now; `lag`: records that wait behind a shard's offsets, by topic."""
        self._store, self._metrics, self._shards, self._lag = store, metrics, shards, lag
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kasaga-census", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            try:
                self.round()
            except KasagaError as error:
                log.debug("sagas are not counted now", extra={"error": str(error)})

    def round(self) -> None:
        """Count once. Raises StoreUnavailable."""
        shards = self._shards()
        lag: Tally[str] = Tally({"sagas": 0, "replies": 0, "control": 0})
        waiting: set[object] = set()
        for shard in shards:
            lag.update(self._lag(shard.number, shard.offsets))
            # One C call, so that the loop's thread can't change the dict in its middle.
            waiting.update(list(shard.open.values()))
        places = [
            (shard.number, to_datetime(at[0]), at[1]) for shard in shards if (at := shard.horizon) is not None
        ]
        far = self._store.timers_behind(places) if places else 0
        attention = self._store.attention([shard.number for shard in shards]) if shards else []
        self._metrics.sampled(attention, len(waiting), far, lag)

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()
