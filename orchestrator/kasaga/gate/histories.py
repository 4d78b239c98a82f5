"""Histories as they are taken along: one saga each, its rows as the store keeps them.

A file of histories is JSON lines: first what it is, then the schemas that its payloads were written
with, then a saga a line. Unknown keys are skipped, so that older releases read what newer ones add.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from kasaga_wire import __version__
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import KasagaError

from ..store.base import SagaRow, Store
from .errors import FileUnreadable

FORMAT = 1

MAX_LINE_BYTES = 256 * 1024 * 1024
"""One saga may have 50,000 steps; a longer line isn't one saga."""

MAX_LINES = 1_000_000
"""Of one file; more would be replayed for hours."""

HEAD = "histories"


@dataclass(frozen=True, slots=True)
class History:
    """One saga's history, and what the store said of the saga when it was read."""

    saga_id: str
    run_id: str
    name: str
    version: int
    state: str
    rows: tuple[tuple[int, bytes], ...]
    """Sequence number and body; empty: the history has been purged."""
    code: str = ""
    """Why the saga is STUCK, or was undone."""

    @classmethod
    def of(cls, store: Store, row: SagaRow) -> History:
        """Read one saga's history, by pages."""
        rows = tuple((entry.seq, entry.body) for entry in store.history(row))
        return cls(row.saga_id, str(row.run_id), row.name, row.version, row.state.value, rows, row.code)


def write_file(file: BinaryIO, schemas: Iterable[str], histories: Iterable[History]) -> int:
    """Write a file of histories; returns how many."""
    written = 0
    _write(file, {"kasaga": HEAD, "format": FORMAT, "release": __version__})
    for text in schemas:
        _write(file, {"schema": text})
    for history in histories:
        _write(
            file,
            {
                "saga_id": history.saga_id,
                "run_id": history.run_id,
                "name": history.name,
                "version": history.version,
                "state": history.state,
                "code": history.code,
                "rows": [[seq, base64.b64encode(body).decode("ascii")] for seq, body in history.rows],
            },
        )
        written += 1
    return written


def _write(file: BinaryIO, value: object) -> None:
    file.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


def read_file(file: BinaryIO, name: str, schemas: Schemas) -> Iterator[History]:
    """Read a file of histories; its schemas are added to `schemas`. Raises FileUnreadable with the line."""
    for number in range(1, MAX_LINES + 2):
        line = file.readline(MAX_LINE_BYTES + 1)
        if not line:
            if number == 1:
                raise FileUnreadable(f"{name} is empty")
            return
        if number > MAX_LINES or len(line) > MAX_LINE_BYTES:
            raise FileUnreadable(f"{name}:{number}: more than a file of histories may hold")
        try:
            found = _line(line, number == 1, schemas)
        except FileUnreadable as error:
            raise FileUnreadable(f"{name}:{number}: {error.message}") from None
        if found is not None:
            yield found


def _line(line: bytes, first: bool, schemas: Schemas) -> History | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise FileUnreadable("this is no JSON") from None
    if not isinstance(value, dict):
        raise FileUnreadable("this is no JSON object")
    fields = cast("dict[str, Any]", value)
    if first:
        if fields.get("kasaga") != HEAD:
            raise FileUnreadable("this is no file of histories")
        if fields.get("format") != FORMAT:
            raise FileUnreadable(f"it has format {fields.get('format')!r}; this release reads {FORMAT}")
        return None
    if "schema" in fields:
        try:
            schemas.add(_text(fields, "schema"))
        except KasagaError as error:
            raise FileUnreadable(error.message) from None
        return None
    version = fields.get("version")
    if not isinstance(version, int) or isinstance(version, bool):
        raise FileUnreadable("version is no whole number")
    saga_id, run_id, name, state = (_text(fields, each) for each in ("saga_id", "run_id", "name", "state"))
    code = _text({"code": "", **fields}, "code")
    return History(saga_id, run_id, name, version, state, tuple(_rows(fields.get("rows"))), code)


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise FileUnreadable(f"{name} is no text")
    return value


def _rows(value: object) -> Iterator[tuple[int, bytes]]:
    if not isinstance(value, list):
        raise FileUnreadable("rows is no list")
    for row in _members(value):
        try:
            seq, body = row
            if not isinstance(seq, int) or isinstance(seq, bool) or not isinstance(body, str):
                raise ValueError
            yield seq, base64.b64decode(body, validate=True)
        except (ValueError, TypeError, binascii.Error):
            raise FileUnreadable("a row is no pair of number and base64") from None


def _members(found: Any) -> Iterator[Any]:
    return iter(found)
