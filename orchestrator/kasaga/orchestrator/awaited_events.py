"""Keeps records whose events sagas may await by a key, and finds who awaits them.

Called by the listener, in its thread, for each batch: first the records are kept, then it is looked who waits
(store/hearing.py). Each waiting saga is sent an ordinary signal, whose id is made of the record's position.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import KasagaError
from kasaga_wire.sealing import PLAIN, Sealer, place

from ..store.errors import StoreUnavailable
from ..store.hearing import Kept, Waiter

log = logging.getLogger("kasaga.listener")

TIDY_SECONDS = 10.0
"""Between two looks for records whose time is over."""

RETRY_SECONDS = 1.0
"""Between two tries to reach Postgres."""


class Keeps(Protocol):
    """What is asked of the store."""

    def hear(self, kept: Sequence[Kept]) -> list[Waiter]: ...  # noqa: D102
    def unhear(self, most: Mapping[str, int]) -> int: ...  # noqa: D102


class AwaitedEvents:
    """Of one listener."""

    def __init__(
        self,
        store: Keeps,
        most: Mapping[str, int],
        *,
        sealer: Sealer = PLAIN,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`most`: how many records of each event are kept."""
        self._store, self._most, self._sealer, self._clock = store, most, sealer, clock
        self._tidy_at = 0.0

    def waiting(self, kept: Sequence[Kept], stop: threading.Event) -> Mapping[str, list[str]] | None:
        """Keep these records, and return the ids of the sagas that wait, by the name of their signal.

        Waits for as long as Postgres is away: the records are kept before their offsets are committed. None:
        `stop` came first.
        """
        if not kept:
            return {}
        rows = [self._sealed(each) for each in kept] if self._sealer is not PLAIN else kept
        while True:
            crash_point("listener.before_keep")
            try:
                found = self._store.hear(rows)
            except StoreUnavailable as error:
                log.warning("events can't be kept at the moment", extra={"error": str(error)})
                if stop.wait(RETRY_SECONDS):
                    return None
            else:
                break
        crash_point("listener.after_keep")
        waiting: dict[str, list[str]] = {}
        for each in found:
            waiting.setdefault(each.name, []).append(each.saga_id)
        return waiting

    def tidy(self) -> None:
        """Now and then forget what nobody has awaited in time."""
        if not self._most or self._clock() < self._tidy_at:
            return
        self._tidy_at = self._clock() + TIDY_SECONDS
        try:
            self._store.unhear(self._most)
        except KasagaError as error:
            log.warning("events whose time is over are still kept", extra={"error": str(error)})

    def _sealed(self, kept: Kept) -> Kept:
        where = place("heard", kept.name, kept.position)
        return kept._replace(payload=self._sealer.seal(where, kept.payload))
