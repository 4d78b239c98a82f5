"""What a record of a topic would begin or say, without Kafka: tests of an Event's functions.

Station: called by authors' tests; asks the same code as the listener of an orchestrator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic_core import to_json

from kasaga_wire.codec import Schemas
from kasaga_wire.kafka_records import Record
from kasaga_wire.topics import Topics

from ..orchestrator.matching import Matcher
from ..saga import App, Saga

MAX_BYTES = 900_000


class Hears(NamedTuple):
    """What comes of a record for one saga."""

    saga: str
    """The name of the saga that begins, or that declares the signal."""
    saga_id: str
    """Empty for an event that sagas await by a key: all that await it are given it."""
    signal: str
    """Empty for a start; an event's name, a colon and the key where sagas await it by that."""
    value: object
    """The input or the signal's value."""


def hear(
    sagas: Saga[Any, Any] | Iterable[Saga[Any, Any]],
    topic: str,
    event: object,
    *,
    event_type: str = "",
    headers: Mapping[str, str] | None = None,
    key: bytes | None = None,
) -> list[Hears]:
    """Say what these sagas make of a record; an empty list where it concerns none.

    Args:
        sagas: as declared, one or several.
        topic: that the record lies on.
        event: its value: bytes or text as they are, anything else as JSON.
        event_type: its `ce_type` header.
        headers: others.
        key: the record's own.

    Raises:
        EventUnusable: it would be a dead letter.
    """
    listed = [sagas] if isinstance(sagas, Saga) else list(sagas)
    value = event if isinstance(event, bytes) else to_json(event, by_alias=True)
    if isinstance(event, str):
        value = event.encode()
    sent = {**({"ce_type": event_type} if event_type else {}), **(headers or {})}
    record = Record(topic, 0, 0, key, value, [(name, text.encode()) for name, text in sent.items()], 0)
    found = Matcher(App("testing", sagas=listed), Topics("testing"), max_payload=MAX_BYTES).match(
        record, datetime.now(UTC)
    )
    if found.unusable:
        raise found.unusable[0].error
    heard = [Hears(made.route.saga.name, made.saga_id, made.route.signal, made.value) for made in found.made]
    schemas = Schemas()
    for route, kept in found.kept:
        codec = route.saga.awaited_codecs[kept.event]
        schemas.add(codec.schema)
        heard.append(Hears(route.saga.name, "", kept.name, codec.decode(kept.payload, schemas)))
    return heard
