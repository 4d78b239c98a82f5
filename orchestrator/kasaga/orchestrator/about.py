"""What a log line is about: the saga, its run and its trace. Asked only for lines that are written."""

from __future__ import annotations

from collections.abc import Iterable

from ..engine.state import State
from .traceids import trace_id


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
