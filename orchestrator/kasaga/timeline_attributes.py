"""The lines of a saga's story about its search attributes and its runs. Pure. Part of `timeline`."""

from __future__ import annotations

from datetime import datetime

from kasaga_wire.attributes import from_text

from .engine.attributes import SetAttributes
from .engine.renewals import Continue, Swell
from .engine.renewing import told
from .engine.versions import Adopt, Patch
from .timeline_entries import PATCH, RECEIVED, UPDATE, Entry
from .wording import attributes_text

ATTRIBUTES = "attributes"
"""Kind of an entry: they came with the start, or the saga's code has set them."""

RUN, LONG = "run", "long"
"""Kinds of entries: the saga goes on as a new run; its history has become long."""

OTHER_MARKS = {RUN: "▶", LONG: "!", ATTRIBUTES: "#", RECEIVED: "←", UPDATE: "←"}


def named(at: datetime, changes: bytes) -> list[Entry]:
    """What was set, and taken away, in the words of a query: one entry, or none for nothing."""
    text = attributes_text(from_text(changes))
    return [Entry(at, ATTRIBUTES, ATTRIBUTES, ended=at, outcome="set", reason=text)] if text else []


def marked(decision: SetAttributes | Adopt | Patch | Continue | Swell, at: datetime) -> list[Entry]:
    """What the saga's code says of the saga itself, and what becomes of its run."""
    match decision:
        case SetAttributes(changes=changes):
            return named(at, changes)
        case Adopt(version=version):
            return [Entry(at, PATCH, f"version {version}")]
        case Patch(id=patch):
            return [Entry(at, PATCH, f"patch {patch}")]
        case Continue(input=value, number=number):
            return [Entry(at, RUN, f"run {number}", value=value)]
        case Swell():
            return [Entry(at, LONG, "history", reason=told(decision))]
