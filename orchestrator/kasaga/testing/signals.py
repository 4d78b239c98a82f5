"""Signals and updates that a test sends to its saga while it runs.

Station: named in `About`, put into the log by `world.py` when their time has come.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from kasaga_wire.envelope import Headers
from kasaga_wire.messages import MessageEnvelope

from ..engine.awaited import signal_name
from ..listening import Event
from ..messages import message_codec


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal that comes while the saga runs.

    Attributes:
        name: of the signal; or the Event that the saga awaits by a key, with what it is.
        value: a pydantic model, or whatever else the saga awaits; None for a signal without a value.
        after: seconds of the virtual clock from the saga's start.
        key: idempotency key; one of its own by default.
        kind: `update` for an update.
    """

    name: str | Event[Any]
    value: object = None
    after: float = 0.0
    key: str = ""
    kind: Literal["signal", "update"] = "signal"

    def schema(self) -> tuple[bytes, bytes]:
        """The schema of its value, as the schemas' topic has it: key and value."""
        schema = self._codec().schema
        return str(schema.id).encode(), schema.json.encode()

    def record(self, saga_id: str, number: int, now: datetime) -> tuple[bytes, Headers]:
        """Value and headers of its record."""
        envelope = MessageEnvelope(
            kind=self.kind,
            key=self.key or f"signal-{number}",
            name=self._name(),
            source="/kasaga/testing",
            time=now,
            saga_id=saga_id,
        )
        return self._codec().encode(self.value), envelope.to_headers()

    def _codec(self) -> Any:
        return message_codec(None if self.value is None else self.value.__class__, self.kind, self._name())

    def _name(self) -> str:
        """An event is the signal of its key."""
        if isinstance(self.name, str):
            return self.name
        make = self.name.key
        return signal_name(self.name.name, make(self.value)) if make is not None else self.name.name


def in_order(signals: Iterable[Signal]) -> tuple[Signal, ...]:
    """By their times; those of one time in the order in which they were named."""
    return tuple(sorted(signals, key=lambda each: each.after))
