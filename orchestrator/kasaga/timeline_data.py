"""The entries of a saga's story as JSON-able values. Pure. Part of `timeline`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from kasaga_wire.codec import Schemas, to_json
from kasaga_wire.errors import KasagaError
from kasaga_wire.schema import schema_id
from kasaga_wire.sealing import is_sealed, key_of

from .timeline_entries import Attempt, Entry
from .wording import printable, rfc3339, shortened

Decode = Callable[[bytes], object]
"""A payload as JSON-able values."""


def decoder(schemas: Schemas) -> Decode:
    """Return a Decode that says so where it can't: showing a history never fails."""

    def decode(data: bytes) -> object:
        if not data:
            return None
        if is_sealed(data):
            return f"<{len(data)} bytes encrypted with key {key_of(data) or '-'}>"
        try:
            return to_json(data, schemas) if data[0] == 0 else json.loads(data)  # JSON begins with no NUL
        except ValueError:
            return f"<{len(data)} bytes that can't be shown>"
        except KasagaError:
            try:
                return f"<{len(data)} bytes of schema {schema_id(data)}, which isn't known here>"
            except KasagaError:
                return f"<{len(data)} bytes that can't be shown>"

    return decode


def as_json(entries: Sequence[Entry], decode: Decode) -> list[dict[str, Any]]:
    """The entries as JSON-able objects. Keys are stable; those that say nothing are left out."""
    return [_entry_json(entry, decode) for entry in entries]


def _entry_json(entry: Entry, decode: Decode) -> dict[str, Any]:
    made: dict[str, Any] = {"at": rfc3339(entry.at), "kind": entry.kind, "name": entry.name}
    given = {
        "step": entry.step,
        "ended_at": rfc3339(entry.ended) if entry.ended else "",
        "outcome": entry.outcome,
        "code": entry.code,
        "reason": entry.reason,
        "by": entry.by,
        "deferred_at": rfc3339(entry.deferred_at) if entry.deferred_at else "",
        "heartbeats": entry.heartbeats,
        "progress": entry.progress,
    }
    made.update((key, value) for key, value in given.items() if value)
    if entry.value:
        made["input"] = decode(entry.value)
    if entry.result:
        made["result"] = decode(entry.result)
    if entry.attempts:
        made["attempts"] = [_attempt_json(attempt) for attempt in entry.attempts]
    return made


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    made: dict[str, Any] = {"attempt": attempt.number, "at": rfc3339(attempt.at)}
    if attempt.ended is not None:
        made["ended_at"] = rfc3339(attempt.ended)
    if attempt.outcome:
        made["outcome"] = attempt.outcome
    if attempt.error:
        made["error"] = attempt.error
    return made


def payload_lines(
    entry: Entry, decode: Decode, indent: str, width: int, *, full: bool, known: object
) -> list[str]:
    """What went in and came out of an entry, as lines."""
    lines: list[str] = []
    for word, data in (("in ", entry.value), ("out", entry.result)):
        if not data or (entry.kind in ("undo", "void") and not full):
            continue  # an undo carries what its step shows already
        value = decode(data)
        if value is None:
            continue
        if value == known:
            lines.append(f"{indent}{word} the saga's input")
        elif full:
            text = printable(json.dumps(value, ensure_ascii=False, indent=2)).splitlines()
            lines += [f"{indent}{word if number == 0 else '   '} {line}" for number, line in enumerate(text)]
        else:
            room = max(40, width - len(indent) - len(word) - 1)
            lines.append(
                f"{indent}{word} {shortened(printable(json.dumps(value, ensure_ascii=False)), room)}"
            )
    return lines
