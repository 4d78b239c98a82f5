"""Keeps in memory the sleeping rows of each shard that come next; the store has all of them.

A row sleeps that nobody is to answer: `ctx.sleep`, the time-out of a wait for a signal, a saga's deadline.
There may be millions, for years. A shard with more than a limit forgets those that come last; its `horizon`
says behind which row. A row that is opened behind it isn't remembered either, and when few are left before
it, the next ones are read, in the order in which they are due. So memory is bounded, and a shard with few of
them asks the store for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..store.base import OutboxRow, Store
from .clock import to_datetime, to_micros
from .shards import Shard


class Sleepers:
    """Of one loop, in its thread and between two commits: then the store has what the shards know of."""

    def __init__(self, store: Store, most: int) -> None:
        """`most`: sleeping rows of one shard in memory."""
        self._store, self._most = store, most
        self._page, self._few = max(most // 2, 1), max(most // 4, 1)

    def first(self, shard: Shard) -> Sequence[OutboxRow]:
        """Return those of a shard just claimed that come first. Raises StoreUnavailable."""
        rows = self._store.timers(shard.number, None, self._page)
        self._set_horizon(shard, rows)
        return rows

    def keep(self, shards: Mapping[int, Shard]) -> None:
        """Forget what comes last where there are many, read on where few are. Raises StoreUnavailable."""
        for shard in shards.values():
            if len(shard.asleep) > self._most:
                shard.shed(self._page)
            elif shard.horizon is not None and len(shard.asleep) < self._few:
                at, row = shard.horizon
                rows = self._store.timers(shard.number, (to_datetime(at), row), self._page)
                self._set_horizon(shard, rows)
                for each in rows:
                    shard.opened(each)

    def _set_horizon(self, shard: Shard, rows: Sequence[OutboxRow]) -> None:
        shard.horizon = None
        if len(rows) == self._page and (due_at := rows[-1].due_at) is not None:
            shard.horizon = to_micros(due_at), rows[-1].seq
