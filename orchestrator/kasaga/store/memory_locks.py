"""Locks in memory: `locks.Locks` over the tables of `memory.MemoryStore`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from uuid import UUID

from kasaga.store.locks import Answer, Behind, LockRow, Reply, Tokens, Wanted
from kasaga.store.memory_tables import MemoryShard, Place, Tables


class MemoryLocks:
    """The part of `memory.MemoryStore` that has the queues."""

    _lock: threading.RLock
    _tables: Tables
    _shards: dict[int, MemoryShard]
    _fault: Callable[[str], None]

    def contend(self, tokens: Tokens, wanted: Sequence[Wanted]) -> dict[Wanted, Reply]:
        """See `locks.Locks.contend`."""
        self._fault("contend")
        with self._lock:
            held = {number for number, token in tokens if self._shards[number].token == token}
            replies = {each: self._contend(each) for each in wanted if each.shard in held}
        self._fault("contend.done")
        return {each: reply for each, reply in replies.items() if reply is not None}

    def _contend(self, wanted: Wanted) -> Reply | None:
        queues = self._tables.locks
        added = [key for key in wanted.keys if wanted.run_id not in queues.get(key, {})]
        for key in added:
            queues.setdefault(key, {})[wanted.run_id] = Place(wanted.shard)
        ahead = [(key, before) for key in wanted.keys if (before := self._ahead(key, wanted.run_id))]
        if not ahead:
            return Reply(Answer.GRANTED)
        reply = None
        if not wanted.wait:
            key, before = ahead[0]
            reply = Reply(Answer.REFUSED, (Behind(self._name(before[0]), key),))
        elif added and (cycle := self._cycle(wanted.run_id)):
            reply = Reply(Answer.DEADLOCK, cycle)
        if reply is not None:
            for key in added:
                del queues[key][wanted.run_id]
        return reply

    def _ahead(self, key: str, run_id: UUID) -> list[UUID]:
        queue = list(self._tables.locks[key])
        return queue[: queue.index(run_id)]

    def _cycle(self, run_id: UUID) -> tuple[Behind, ...]:
        """Look for a way from a run over those that it waits for to itself, the shortest one."""
        seen = {run_id}
        ways: list[tuple[UUID, tuple[Behind, ...]]] = [(run_id, ())]
        while ways:
            at, way = ways.pop(0)
            for key in sorted(key for key, queue in self._tables.locks.items() if at in queue):
                longer = (*way, Behind(self._name(at), key))
                for before in self._ahead(key, at):
                    if before == run_id:
                        return longer
                    if before not in seen:
                        seen.add(before)
                        ways.append((before, longer))
        return ()

    def _name(self, run_id: UUID) -> str:
        saga = self._tables.sagas.get(run_id)
        return saga.saga_id if saga is not None else str(run_id)

    def moved(self, wanted: Sequence[Wanted]) -> list[Wanted]:
        """See `locks.Locks.moved`."""
        self._fault("moved")
        with self._lock:
            queues = self._tables.locks
            return [
                each
                for each in wanted
                if not all(each.run_id in queues.get(key, {}) for key in each.keys)
                or not any(self._ahead(key, each.run_id) for key in each.keys)
            ]

    def queues(self, keys: Sequence[str] = (), *, run_id: UUID | None = None) -> list[LockRow]:
        """See `locks.Locks.queues`."""
        self._fault("queues")
        with self._lock:
            found = {key for key in keys if key in self._tables.locks}
            found |= {key for key, queue in self._tables.locks.items() if run_id in queue}
            return [row for key in sorted(found) for row in self._queue(key)]

    def _queue(self, key: str) -> list[LockRow]:
        return [
            LockRow(key, place, each.shard, run_id, self._name(run_id))
            for place, (run_id, each) in enumerate(self._tables.locks[key].items())
        ]

    def locks(self, prefix: str = "", *, after: str = "", limit: int = 100) -> list[tuple[LockRow, int]]:
        """See `locks.Locks.locks`."""
        self._fault("locks")
        with self._lock:
            keys = sorted(key for key, queue in self._tables.locks.items() if queue)
            found = [key for key in keys if key.startswith(prefix) and key > after][:limit]
            rows = [self._queue(key) for key in found]
            return [(queue[0], len(queue) - 1) for queue in rows]
