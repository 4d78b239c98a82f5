"""What a dead owner had committed and not exported: found in the history by the shard's next owner.

Each commit writes down from when on its shard's history may hold something that isn't exported
(`Tracer.mark`). Who takes the shard from an owner that didn't hand it over reads what was decided since,
folds those sagas without any code of their authors, and makes the spans that the dead one would have made:
same ids, same times, its name. What it had exported after its last commit comes twice, and is the same byte
for byte.

Called by the tracer's thread when it has nothing else to do, a slice at a time; on connections of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from uuid import UUID

from ..engine.codec import decode
from ..engine.state import State, extend
from ..errors import HistoryUnreadable
from ..store.base import HistoryRow, Store
from .clock import to_datetime
from .traceids import Sampling
from .tracing import Job, jobs

log = logging.getLogger("kasaga.tracing")

MAX_RUNS = 20_000
"""Sagas looked through for one shard. There are more only where nothing could be exported for minutes."""

SLICE_RUNS = 50
"""Sagas whose histories are read at a time."""


class Salvage:
    """Of one shard and one take-over."""

    def __init__(self, store: Store, shard: int, since: int, until: int, owner: str) -> None:
        """`since`, `until`: microseconds since 1970; `owner`: the process that died."""
        self.shard, self.since = shard, since
        self._store, self._until, self._owner = store, until, owner
        self._runs: list[UUID] | None = None
        self._found = self._spans = 0

    def step(self, sampling: Sampling) -> Sequence[Job] | None:
        """Return what some more sagas had ended, or None when all are through. Raises StoreUnavailable."""
        if self._runs is None:
            since, until = to_datetime(self.since), to_datetime(self._until)
            self._runs = self._store.touched(self.shard, since, until, limit=MAX_RUNS)
            self._found = len(self._runs)
            if self._found >= MAX_RUNS:
                log.warning("a dead owner has left more than is looked for", extra=self._about())
        if not self._runs:
            if self._spans:
                log.info("spans of a dead owner are exported", extra=self._about())
            return None
        histories = self._store.histories([(self.shard, run_id) for run_id in self._runs[:SLICE_RUNS]])
        del self._runs[:SLICE_RUNS]
        made = [job for run, rows in histories.items() for job in self._jobs(str(run), rows, sampling)]
        self._spans += len(made)
        return made

    def _jobs(self, run_id: str, rows: Sequence[HistoryRow], sampling: Sampling) -> list[Job]:
        state, made = State(run_id), list[Job]()
        try:
            for record in (decode(row.seq, row.body) for row in rows):
                if record.at > self._until:
                    break
                extend(state, record)
                if record.at >= self.since and sampling.keeps(state):
                    made += jobs(state, record, state.ended, state.known_steps, self._owner)
        except HistoryUnreadable as error:
            extra = {"shard": self.shard, "run_id": run_id, "error": str(error)}
            log.warning("a history can't be read: its trace may lack something", extra=extra)
        return made

    def _about(self) -> dict[str, object]:
        return {"shard": self.shard, "owner": self._owner, "sagas": self._found, "spans": self._spans}
