"""Locks in Postgres: `locks.Locks`. The queues are a table; who joins them is decided by a function."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from kasaga.store.locks import Answer, Behind, LockRow, Reply, Tokens, Wanted
from kasaga.store.readers import Readers
from kasaga.store.session import Session
from kasaga.store.statements import read_statements

_SQL = read_statements("lock")


class PostgresLocks:
    """The part of `postgres.PostgresStore` that has the queues."""

    _readers: Readers
    _session: Session

    def contend(self, tokens: Tokens, wanted: Sequence[Wanted]) -> dict[Wanted, Reply]:
        """See `locks.Locks.contend`. Sorted, so that two processes lock the shards' rows in one order."""
        if not wanted:
            return {}
        shards, held = zip(*sorted(tokens), strict=True) if tokens else ((), ())
        rows = [(n, w.shard, w.run_id, key, w.wait) for n, w in enumerate(wanted) for key in w.keys]
        found = self._session.query(_SQL["contend"].bind(shards, held, *zip(*rows, strict=True)))
        return {
            wanted[number]: Reply(Answer(answer), tuple(map(Behind, sagas, keys)))
            for number, answer, sagas, keys in found
        }

    def moved(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """See `locks.Locks.moved`."""
        if not wanted:
            return []
        rows = [(number, each.run_id, key) for number, each in enumerate(wanted) for key in each.keys]
        found = self._session.query(_SQL["moved"].bind(*zip(*rows, strict=True)))
        return [wanted[number] for (number,) in sorted(found)]

    def queues(self, keys: Sequence[str] = (), *, run_id: UUID | None = None) -> list[LockRow]:
        """See `locks.Locks.queues`."""
        return [LockRow(*row) for row in self._readers.query(_SQL["queues"].bind(list(keys), run_id))]

    def locks(self, prefix: str = "", *, after: str = "", limit: int = 100) -> list[tuple[LockRow, int]]:
        """See `locks.Locks.locks`."""
        found = self._readers.query(_SQL["locks"].bind(prefix, after, limit))
        return [(LockRow(key, 0, shard, run_id, name), behind) for key, shard, run_id, name, behind in found]
