"""What a log line is about: the saga, its run and its trace. Asked only for lines that are written."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..engine.lifecycle import STUCK
from ..engine.model import Move
from ..engine.state import State
from .traceids import trace_id

if TYPE_CHECKING:
    from .work import Happened

log = logging.getLogger("kasaga.orchestrator")

STUCK_LINES, STUCK_SECONDS = 100, 10.0
"""Lines about stuck sagas in so many seconds; a bad deployment can stop a hundred thousand of them."""


def saga(state: State) -> dict[str, object]:
    """Of a saga in memory."""
    if not state.saga_id:
        return {"run_id": state.run_id}
    return {
        "saga": state.name,
        "saga_id": state.saga_id,
        "run_id": state.run_id,
        "trace_id": trace_id(state),
    }


def headers(found: Iterable[tuple[str, bytes | None]]) -> dict[str, object]:
    """Of a record's headers, whoever wrote them; what can't be read is left out."""
    values = {name: value.decode("utf-8", "replace") for name, value in found if value}
    fields: dict[str, object] = {}
    if saga_id := values.get("ce_subject"):
        fields["saga_id"] = saga_id
    if command_id := values.get("ce_kasagacommand"):
        fields["command_id"] = command_id
        fields["run_id"] = command_id.partition(".")[0]
    elif values.get("ce_type") == "kasaga.start":
        fields["run_id"] = values.get("ce_id", "")
    if trace := values.get("traceparent"):
        fields["trace_id"] = trace[3:35]
    return fields


class StuckLines:
    """A line for each saga that needs somebody; when there are very many, their number."""

    def __init__(self) -> None:
        self._since = 0.0
        self._lines = 0

    def tell(self, happened: Happened, now: float) -> None:
        """Write the line, if this is the record that it was stuck by. `now`: monotonic seconds."""
        for decision in happened.record.decisions:
            if isinstance(decision, Move) and decision.state == STUCK:
                if self._due(now):
                    of = {name: getattr(decision, name) for name in ("code", "reason", "remedy", "step")}
                    said = {name: text for name, text in of.items() if text}
                    log.warning("saga stuck", extra={**saga(happened.run.state), **said})
                return

    def _due(self, now: float) -> bool:
        if now - self._since > STUCK_SECONDS:
            if self._lines > STUCK_LINES:
                log.warning("more sagas stuck", extra={"sagas": self._lines - STUCK_LINES})
            self._since, self._lines = now, 0
        self._lines += 1
        return self._lines <= STUCK_LINES
