"""Deletes finished sagas after their time, in small slices, off the loop's thread.

Only the owner of shard 0 does it, so that one process at a time does. What is left of a deleted
saga is its id and outcome, until nobody can start it a second time by a late duplicate.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from kasaga_wire.errors import KasagaError

from ..store.base import Store, StoreUnavailable

log = logging.getLogger("kasaga.orchestrator")

ROUND_SECONDS = 60.0
PAUSE_SECONDS = 0.2
"""Between two slices: the loop's commits go first."""
SLICE = 500
"""Sagas looked at in one slice."""


class Retention:
    """A thread that purges while `on_duty` says so."""

    def __init__(
        self, store: Store, on_duty: Callable[[], bool], *, keep: timedelta, remember: timedelta
    ) -> None:
        """`keep` finished sagas so long, `remember` their ids so long after that."""
        self._store, self._on_duty = store, on_duty
        self._keep, self._remember = keep, remember
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kasaga-retention", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(ROUND_SECONDS):
            try:
                if self._on_duty():
                    self.round()
            except (StoreUnavailable, KasagaError) as error:
                log.warning("finished sagas are not deleted now", extra={"error": str(error)})

    def round(self) -> int:
        """Delete all that is old enough; returns how many sagas."""
        deleted = 0
        after: UUID | None = None
        while not self._stop.is_set():
            purged = self._store.purge(
                older_than=self._keep, forget_after=self._keep + self._remember, after=after, limit=SLICE
            )
            deleted += purged.sagas
            after = purged.after
            if after is None:
                break
            self._stop.wait(PAUSE_SECONDS)
        if deleted:
            log.info("finished sagas deleted", extra={"sagas": deleted})
        return deleted

    def close(self) -> None:
        """End the thread after the slice at hand."""
        self._stop.set()
        self._thread.join()
