"""The live sagas of this process: bounded, least recently used first to go, loaded by the batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from uuid import UUID

from ..engine.codec import decode
from ..engine.decide import Run
from ..store.base import Store


class Runs:
    """Runs by id. The loop's thread alone uses it; evicting closes a coroutine in that thread."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._runs: OrderedDict[str, tuple[int, Run]] = OrderedDict()
        self._by_saga: dict[str, str] = {}
        self.loaded = 0

    def __len__(self) -> int:
        return len(self._runs)

    def get(self, run_id: str) -> Run | None:
        """Return a run that is in memory, and count that as a use."""
        found = self._runs.get(run_id)
        if found is None:
            return None
        self._runs.move_to_end(run_id)
        return found[1]

    def id_of(self, saga_id: str) -> str | None:
        """Return the run id of a saga that is in memory."""
        return self._by_saga.get(saga_id)

    def add(self, shard: int, run: Run) -> None:
        """Keep a run that was just begun."""
        self._runs[run.state.run_id] = (shard, run)
        if run.state.saga_id:
            self._by_saga[run.state.saga_id] = run.state.run_id

    def started(self, run: Run) -> None:
        """Note the saga's id of a run that has just learned it."""
        self._by_saga[run.state.saga_id] = run.state.run_id

    def load(self, wanted: Iterable[tuple[int, str]]) -> None:
        """Bring runs into memory from history, in one query; those that don't exist are left out.

        Raises HistoryUnreadable for a history that this release can't read, StoreUnavailable.
        """
        missing = {run_id: shard for shard, run_id in wanted if run_id not in self._runs}
        if not missing:
            return
        histories = self._store.load([(shard, UUID(run_id)) for run_id, shard in missing.items()])
        for found, rows in histories.items():
            run_id = str(found)
            self.add(missing[run_id], Run(run_id, [decode(row.seq, row.body) for row in rows]))
            self.loaded += 1

    def drop(self, run_id: str) -> None:
        """Evict one run: it ended, or its live state is not to be trusted."""
        found = self._runs.pop(run_id, None)
        if found is not None:
            run = found[1]
            if self._by_saga.get(run.state.saga_id) == run_id:
                del self._by_saga[run.state.saga_id]
            run.evict()

    def drop_shard(self, shard: int) -> None:
        """Evict all runs of a shard that isn't ours any more."""
        for run_id in [run_id for run_id, (of, _) in self._runs.items() if of == shard]:
            self.drop(run_id)

    def trim(self) -> None:
        """Evict what is over the limit. Call it between batches: a batch's runs must stay."""
        while len(self._runs) > self._limit:
            run_id = next(iter(self._runs))
            self.drop(run_id)

    def close(self) -> None:
        """Evict everything, in this thread."""
        for run_id in list(self._runs):
            self.drop(run_id)
