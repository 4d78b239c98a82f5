"""The log's lines about sagas that need somebody, or will; when there are very many, their number."""

from __future__ import annotations

import logging

from ..engine.lifecycle import STUCK
from ..engine.model import Move
from ..engine.renewals import Swell
from ..engine.renewing import REMEDY, told
from . import about
from .work import Happened

log = logging.getLogger("kasaga.orchestrator")

STUCK_LINES, STUCK_SECONDS = 100, 10.0
"""Lines in so many seconds; a bad deployment can stop a hundred thousand sagas."""


class StuckLines:
    """Of one process; the loop's thread alone uses it."""

    def __init__(self) -> None:
        self._since = 0.0
        self._lines = 0

    def tell(self, happened: Happened, now: float) -> None:
        """Write the line, if this record made it STUCK, or its history long. `now`: monotonic seconds."""
        for decision in happened.record.decisions:
            if isinstance(decision, Swell) and self._due(now):
                of = about.saga(happened.run.state)
                log.warning("a history is long", extra={**of, "reason": told(decision), "remedy": REMEDY})
            if isinstance(decision, Move) and decision.state == STUCK:
                if self._due(now):
                    of = {name: getattr(decision, name) for name in ("code", "reason", "remedy", "step")}
                    said = {name: text for name, text in of.items() if text}
                    log.warning("saga stuck", extra={**about.saga(happened.run.state), **said})
                return

    def _due(self, now: float) -> bool:
        if now - self._since > STUCK_SECONDS:
            if self._lines > STUCK_LINES:
                log.warning("more sagas stuck", extra={"sagas": self._lines - STUCK_LINES})
            self._since, self._lines = now, 0
        self._lines += 1
        return self._lines <= STUCK_LINES
