"""What must be true of search attributes: the store has what histories say, and they what was set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from kasaga.engine.attributes import SetAttributes
from kasaga.engine.model import COMMAND, Record, Send, Started
from kasaga.store.base import SagaRow

STAGES = ("begun", "reserved", "paid")
"""What `payment` sets before each of its steps."""


def given(saga_id: str) -> bytes:
    """What a client starts a saga with."""
    return json.dumps({"customer": saga_id, "stage": "ordered", "tags": ["a", "b"]}).encode()


def _folded(records: Iterable[Record]) -> dict[str, Any]:
    """One change after the other, counted here by the plainest rule there is."""
    known: dict[str, Any] = {}
    for record in records:
        event = record.event
        texts = [event.attributes] if isinstance(event, Started) and event.attributes else []
        texts += [each.changes for each in record.decisions if isinstance(each, SetAttributes)]
        for text in texts:
            known.update(json.loads(text))
    return {name: value for name, value in known.items() if value is not None}


def wrong(row: SagaRow, records: list[Record]) -> Iterator[str]:
    """What isn't as promised."""
    stored = {
        name: list(value) if isinstance(value, tuple) else value for name, value in row.attributes.items()
    }
    folded = _folded(records)
    if stored != folded:
        yield f"its attributes are {stored}, and its history says {folded}"
    begun = {
        each.step
        for record in records
        for each in record.decisions
        if isinstance(each, Send) and each.form == COMMAND
    }
    if row.name == "payment" and begun:
        stage = STAGES[len(begun) - 1]
        if folded.get("stage") != stage or ("steps" in folded) != (stage != "paid"):
            yield f"it is {row.state} after {len(begun)} steps, and its attributes say {folded}"
