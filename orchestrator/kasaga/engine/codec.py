"""Records to bytes and back: one msgpack array, so that payloads stay bytes and reading is cheap.

Layout: `[format, at, row, [event code, …fields], [[decision code, …fields], …]]`. Codes are never
used again. A field that is new in a release stands at the end and has a default, so older rows are
read as they are; a row with more fields than this release knows was written by a newer one and is
refused by name.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]

from kasaga_wire.errors import KasagaError

from .model import (
    Asked,
    Clear,
    CodeArrived,
    Deadline,
    Decision,
    Event,
    Faulted,
    Fired,
    Move,
    Policy,
    Ran,
    Record,
    Replied,
    Resume,
    Return,
    RunLocal,
    Send,
    Settle,
    Sleep,
    Started,
    Tell,
    Undeliverable,
)

FORMAT = 1

_EVENTS: dict[int, type[NamedTuple]] = {
    1: Started,
    2: Replied,
    3: Fired,
    4: Ran,
    5: Undeliverable,
    6: Asked,
    7: Faulted,
    8: CodeArrived,
}
_DECISIONS: dict[int, type[NamedTuple]] = {
    1: Resume,
    2: Send,
    3: Sleep,
    4: Deadline,
    5: RunLocal,
    6: Settle,
    7: Clear,
    8: Return,
    9: Move,
    10: Tell,
}
_CODES: dict[type, int] = {kind: code for table in (_EVENTS, _DECISIONS) for code, kind in table.items()}
_DEFAULTS: dict[type, tuple[Any, ...]] = {
    kind: tuple(kind._field_defaults.values()) for kind in (*_EVENTS.values(), *_DECISIONS.values())
}


class HistoryUnreadable(KasagaError):
    """A history row isn't what this release can read."""

    code = "KSG-211"
    default_remedy = "It was written by a newer release, or damaged: run the newer release, or restore the row."


def _flat(item: Event | Decision) -> list[Any]:
    """One item as a list, without the defaults at its end."""
    kind = type(item)
    fields = cast("tuple[Any, ...]", item)
    defaults = _DEFAULTS[kind]
    end = len(fields)
    least = end - len(defaults)
    while end > least and fields[end - 1] == defaults[end - 1 - least]:
        end -= 1
    return [_CODES[kind], *fields[:end]]


def encode(record: Record) -> bytes:
    """Return the body of a history row."""
    body = [FORMAT, record.at, record.row, _flat(record.event), [_flat(item) for item in record.decisions]]
    return cast("bytes", msgpack.packb(body))


def decode(seq: int, body: bytes) -> Record:
    """Read the body of history row `seq`; raises HistoryUnreadable."""
    try:
        version, at, row, event, decisions = cast("tuple[int, int, int, list[Any], list[Any]]", msgpack.unpackb(body))
        if version != FORMAT:
            raise HistoryUnreadable(f"row {seq} has format {version}; this release reads {FORMAT}")
        return Record(seq, at, row, _read(_EVENTS, event), tuple(_read(_DECISIONS, item) for item in decisions))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise HistoryUnreadable(f"row {seq} can't be read: {error}") from error


def _read(table: dict[int, type[NamedTuple]], fields: list[Any]) -> Any:
    kind = table[fields[0]]
    values = fields[1:]
    if kind is Send or kind is RunLocal:
        values = [Policy(*_tuples(value)) if isinstance(value, list) else value for value in values]
    return kind(*values)


def _tuples(values: list[Any]) -> list[Any]:
    return [tuple(cast("list[Any]", value)) if isinstance(value, list) else value for value in values]
