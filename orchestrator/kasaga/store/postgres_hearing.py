"""Events that sagas await by a key, in Postgres: `hearing.Hearing`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kasaga.store.hearing import MOST_OF_WAIT, Arrived, Kept, Waiter
from kasaga.store.session import Session
from kasaga.store.statements import read_statements

_SQL = read_statements("hearing")

_SLICE = 1_000
"""Rows deleted by one statement."""


class PostgresHearing:
    """The part of `postgres.PostgresStore` that the listener and waiting sagas meet in."""

    _session: Session
    _hearer: Session
    """The listener's; connects at the first call."""

    def hear(self, kept: Sequence[Kept]) -> list[Waiter]:
        """See `hearing.Hearing.hear`."""
        if not kept:
            return []
        events, names, positions, sources, payloads, seconds = zip(*kept, strict=True)
        keys = [name.encode() for name in names]
        self._hearer.run(_SQL["keep"].bind(events, keys, positions, sources, payloads, seconds))
        found = self._hearer.query(_SQL["waiters"].bind(keys))
        return sorted(Waiter(bytes(name).decode(), saga_id) for name, saga_id in found)

    def arrived(self, shard: int, seqs: Sequence[int]) -> list[Arrived]:
        """See `hearing.Hearing.arrived`."""
        found = self._session.query(_SQL["arrived"].bind(shard, list(seqs), MOST_OF_WAIT))
        return [
            Arrived(seq, run_id, saga_id, bytes(name).decode(), position, source, bytes(payload))
            for seq, run_id, saga_id, name, position, source, payload in found
        ]

    def awaited(self, shard: int) -> list[int]:
        """See `hearing.Hearing.awaited`."""
        return [seq for (seq,) in self._session.query(_SQL["awaited"].bind(shard))]

    def unhear(self, most: Mapping[str, int]) -> int:
        """See `hearing.Hearing.unhear`; so many at a time that nobody waits for it."""
        calls = [_SQL["forget_above"].bind(event, number, _SLICE) for event, number in sorted(most.items())]
        results = self._hearer.run(_SQL["forget"].bind(_SLICE), *calls)
        return sum(result.command_tuples or 0 for result in results)
