"""The live sagas of this process: bounded, least recently used first to go, loaded by the batch."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable
from uuid import UUID

from ..engine.codec import HistoryUnreadable, decode
from ..engine.decide import Run
from ..engine.driver import GRAVEYARD
from ..engine.model import Record
from ..store.base import Store
from . import about
from .unread import Unread
from .work import Key

log = logging.getLogger("kasaga.orchestrator")


class Runs:
    """Runs by id. The loop's thread alone uses it; evicting closes a coroutine in that thread."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self.reopen: Callable[[str, Record], Record] | None = None
        """Opens what was recorded while its key was missing."""
        self._limit = limit
        self._runs: OrderedDict[tuple[int, str], Run] = OrderedDict()
        """By shard and run id: whoever uses one run's id for another saga reaches that one alone."""
        self._by_saga: dict[str, str] = {}
        self._clingy: set[str] = set()
        """Names of sagas whose code refuses to end: one line for each is enough."""
        self.loaded = 0

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, shard: int, run_id: str) -> Run | None:
        """Return a run that is in memory, and count that as a use."""
        found = self._runs.get((shard, run_id))
        if found is not None:
            self._runs.move_to_end((shard, run_id))
        return found

    def id_of(self, saga_id: str) -> str | None:
        """Return the run id of a saga that is in memory."""
        return self._by_saga.get(saga_id)

    def add(self, shard: int, run: Run) -> None:
        """Keep a run that was just begun."""
        self._runs[shard, run.state.run_id] = run
        if run.state.saga_id:
            self._by_saga[run.state.saga_id] = run.state.run_id

    def started(self, run: Run) -> None:
        """Note the saga's id of a run that has just learned it."""
        if run.state.saga_id:
            self._by_saga[run.state.saga_id] = run.state.run_id

    def load(self, wanted: Iterable[Key]) -> dict[Key, Unread]:
        """Bring runs into memory from history, in one query; return those that can't be read, or have none.

        Raises StoreUnavailable.
        """
        unread: dict[Key, Unread] = {}
        missing: dict[str, int] = {}
        again: list[Key] = []
        for shard, run_id in wanted:
            if (shard, run_id) in self._runs:
                continue
            if missing.setdefault(run_id, shard) != shard:
                again.append((shard, run_id))
        if not missing:
            return unread
        histories = self._store.load([(shard, UUID(run_id)) for run_id, shard in missing.items()])
        for run_id, shard in missing.items():
            rows = histories.get(UUID(run_id), [])
            try:
                if not rows:
                    raise HistoryUnreadable("it has no rows")
                records = [decode(row.seq, row.body) for row in rows]
                if self.reopen is not None:
                    records = [self.reopen(run_id, record) for record in records]
                run = Run(run_id, records)
                run.state.size = sum(len(row.body) for row in rows)
                self.add(shard, run)
            except HistoryUnreadable as error:
                unread[shard, run_id] = Unread(rows, error)
            else:
                self.loaded += 1
        return {**unread, **self.load(again)} if again else unread

    def drop(self, shard: int, run_id: str) -> None:
        """Evict one run: it ended, or its live state is not to be trusted."""
        run = self._runs.pop((shard, run_id), None)
        if run is not None:
            if self._by_saga.get(run.state.saga_id) == run_id:
                del self._by_saga[run.state.saga_id]
            kept = len(GRAVEYARD)
            run.evict()
            if len(GRAVEYARD) > kept and run.state.name not in self._clingy:
                self._clingy.add(run.state.name)
                log.warning(
                    "a saga's code can't be closed: it swallows BaseException", extra=about.saga(run.state)
                )

    def drop_shard(self, shard: int) -> None:
        """Evict all runs of a shard that isn't ours any more."""
        for of, run_id in [key for key in self._runs if key[0] == shard]:
            self.drop(of, run_id)

    def trim(self) -> None:
        """Evict what is over the limit. Call it between batches: a batch's runs must stay."""
        while len(self._runs) > self._limit:
            self.drop(*next(iter(self._runs)))

    def close(self) -> None:
        """Evict everything, in this thread."""
        for key in list(self._runs):
            self.drop(*key)
