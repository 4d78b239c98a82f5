"""Events that came before their sagas awaited them: looked for when a wait is committed, given as signals.

Called by the loop before it reads. A record is kept in the store before the listener looks who waits for it,
and a wait is committed before it is looked for here (store/hearing.py); what both find is one signal. Whoever
takes a shard looks for all its waits: its last owner may have died before it did.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from kasaga_wire.errors import CodecError
from kasaga_wire.sealing import MAGIC, Sealer, place

from ..engine.model import Asked, Signalled
from ..saga import App
from ..store.base import Store
from ..store.hearing import Arrived
from .intake import CONTROL, Item
from .shards import Shard

log = logging.getLogger("kasaga.orchestrator")

MOST = 200
"""Waits that are looked for at once: each may have a mailbox full of records."""


class Arrivals:
    """Of one loop, in its thread."""

    def __init__(self, store: Store, app: App, sealer: Sealer) -> None:
        self._store, self._sealer = store, sealer
        self._awaits = any(saga.awaits for saga in app.sagas.values())

    def look(self, shards: Mapping[int, Shard]) -> list[Item]:
        """Return what has come for waits that were committed since. Raises StoreUnavailable."""
        found: list[Item] = []
        for shard in shards.values() if self._awaits else ():
            if shard.looks:
                shard.unlooked.update(self._store.awaited(shard.number))
                shard.looks = False
            if shard.unlooked:
                seqs = sorted(shard.unlooked)[:MOST]
                found += self._items(shard, self._store.arrived(shard.number, seqs))
                shard.unlooked.difference_update(seqs)
        return found

    def _items(self, shard: Shard, arrived: list[Arrived]) -> Iterator[Item]:
        for each in arrived:
            try:
                payload = opened(self._sealer, each)
            except CodecError as error:
                extra = {"saga_id": each.saga_id, "event": each.name, "error": str(error)}
                log.error("an event that was kept can't be opened: the saga waits on", extra=extra)
                continue
            event = Signalled(each.position, each.name, payload, each.source)
            ask = Asked(each.position, "signal", each.source, "", "", "", "")
            yield Item(CONTROL, shard.number, "", each.saga_id, event, None, ask, keep_for=0)


def opened(sealer: Sealer, kept: Arrived) -> bytes:
    """The payload of a record that was kept. Raises CodecError."""
    if kept.payload[:2] != MAGIC:
        return kept.payload
    return sealer.open(place("heard", kept.name, kept.position), kept.payload)
