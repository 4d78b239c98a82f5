"""The lines of a saga's story about its search attributes. Pure. Part of `timeline`."""

from __future__ import annotations

from datetime import datetime

from kasaga_wire.attributes import from_text

from .timeline_entries import RECEIVED, UPDATE, Entry
from .wording import attributes_text

ATTRIBUTES = "attributes"
"""Kind of an entry: they came with the start, or the saga's code has set them."""

OTHER_MARKS = {ATTRIBUTES: "#", RECEIVED: "←", UPDATE: "←"}


def named(at: datetime, changes: bytes) -> list[Entry]:
    """What was set, and taken away, in the words of a query: one entry, or none for nothing."""
    text = attributes_text(from_text(changes))
    return [Entry(at, ATTRIBUTES, ATTRIBUTES, ended=at, outcome="set", reason=text)] if text else []
