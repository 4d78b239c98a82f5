"""Events that sagas await by a key, in memory: `hearing.Hearing`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice

from kasaga.store.base import OutboxRow, RowKind
from kasaga.store.hearing import MOST_OF_WAIT, Arrived, Kept, Waiter
from kasaga.store.memory_tables import Tables


class MemoryHearing:
    """The part of `memory.MemoryStore` that the listener and waiting sagas meet in."""

    _lock: threading.RLock
    _tables: Tables
    _clock: Callable[[], datetime]
    _fault: Callable[[str], None]

    def hear(self, kept: Sequence[Kept]) -> list[Waiter]:
        """See `hearing.Hearing.hear`."""
        self._fault("hear")
        with self._lock:
            now = self._clock()
            for each in kept:
                until = now + timedelta(seconds=each.seconds)
                self._tables.heard.setdefault((each.name, each.position), (until, each))
        self._fault("hear.kept")
        with self._lock:
            names = {each.name.encode(): each.name for each in kept}
            waits = (
                (names.get(row.key or b""), row)
                for rows in self._tables.outbox.values()
                for row in rows.values()
            )
            found = {
                Waiter(name, self._tables.sagas[row.run_id].saga_id)
                for name, row in waits
                if name is not None and _waits(row) and row.run_id is not None
            }
            return sorted(found)

    def arrived(self, shard: int, seqs: Sequence[int]) -> list[Arrived]:
        """See `hearing.Hearing.arrived`."""
        self._fault("arrived")
        with self._lock:
            outbox = self._tables.outbox.get(shard, {})
            rows = [outbox[seq] for seq in seqs if seq in outbox]
            found = [
                (number, row.seq, Arrived(row.seq, row.run_id, saga.saga_id, *each[1:5]))
                for row in rows
                if row.run_id is not None and (saga := self._tables.sagas.get(row.run_id)) is not None
                for number, each in islice(self._kept_for(row), MOST_OF_WAIT)
            ]
            return [arrived for _, _, arrived in sorted(found, key=lambda each: each[:2])]

    def awaited(self, shard: int) -> list[int]:
        """See `hearing.Hearing.awaited`."""
        self._fault("awaited")
        with self._lock:
            rows = self._tables.outbox.get(shard, {}).values()
            return sorted(row.seq for row in rows if _waits(row) and any(self._kept_for(row)))

    def unhear(self, most: Mapping[str, int]) -> int:
        """See `hearing.Hearing.unhear`."""
        self._fault("unhear")
        with self._lock:
            heard, now = self._tables.heard, self._clock()
            gone = [key for key, (until, _) in heard.items() if until <= now]
            for event, number in most.items():
                of = [key for key, (_, each) in heard.items() if each.event == event]
                gone += of[: max(0, len(of) - number)]
            for key in set(gone):
                del heard[key]
            return len(set(gone))

    def _kept_for(self, row: OutboxRow) -> Iterator[tuple[int, Kept]]:
        name, now = (row.key or b"").decode(), self._clock()
        for number, (until, each) in enumerate(self._tables.heard.values()):
            if each.name == name and until > now:
                yield number, each


def _waits(row: OutboxRow) -> bool:
    return row.kind is RowKind.TIMER and row.key is not None and row.run_id is not None
