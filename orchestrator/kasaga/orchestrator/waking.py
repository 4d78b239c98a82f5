"""Which sagas of a shard go on because its new owner has their code."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from ..engine.decide import Definitions
from ..engine.model import CodeArrived
from ..store.base import OutboxRow
from .intake import TIMER, Item
from .rows import awaited


def woken(shard: int, rows: Iterable[OutboxRow], parked: Iterable[UUID], defs: Definitions) -> list[Item]:
    """Return what wakes the parked sagas, and by their open rows those whose version is here."""
    found = [row.run_id for row in rows if awaited(row) in defs.sagas]
    event = CodeArrived(defs.fingerprint)
    return [Item(TIMER, shard, str(run_id), "", event, None) for run_id in (*found, *parked)]
