"""Python values to Postgres's binary formats, whole columns at a time.

Station: between the rows (`commit`, `postgres`) and the wire (`session`). The types are those that the
statement names, never guessed from the values as psycopg does: one statement stays one prepared statement. A
value that has no binary form raises one of `UNENCODABLE`: content to refuse, see `commit`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

import msgpack

UNENCODABLE = (ValueError, TypeError, OverflowError, AttributeError, struct.error)

Encoder: TypeAlias = Callable[[Any], bytes]
"""A value that is not None to its binary form."""

_NULL = b"\xff\xff\xff\xff"
_LENGTH = struct.Struct(">i").pack
_HEADER = struct.Struct(">iiIii").pack
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_OIDS = {
    "bool": 16,
    "bytea": 17,
    "int8": 20,
    "int2": 21,
    "int4": 23,
    "text": 25,
    "float8": 701,
    "timestamptz": 1184,
    "uuid": 2950,
}
_ARRAY_OIDS = {
    "bool": 1000,
    "bytea": 1001,
    "int2": 1005,
    "int4": 1007,
    "text": 1009,
    "int8": 1016,
    "float8": 1022,
    "timestamptz": 1185,
    "uuid": 2951,
}
_FIXED = {"bool": "?", "int2": "h", "int4": "i", "int8": "q", "float8": "d"}


def microseconds(value: datetime) -> int:
    """Microseconds since 2000, as Postgres counts them; a naive time raises TypeError."""
    past = value - _EPOCH
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds


def from_microseconds(value: int) -> datetime:
    """The inverse of `microseconds`, in UTC; OverflowError beyond Python's years."""
    return _EPOCH + value * _MICROSECOND


def _fixed_column(code: str, size: int) -> Callable[[Iterable[Any]], list[bytes]]:
    pack = struct.Struct(f">i{code}").pack

    def column(values: Iterable[Any]) -> list[bytes]:
        return [_NULL if value is None else pack(size, value) for value in values]

    return column


def _times_column(values: Iterable[datetime | None]) -> list[bytes]:
    pack = struct.Struct(">iq").pack
    cells: list[bytes] = []
    last: datetime | None = None  # most rows of a batch carry the batch's own time
    cell = _NULL
    for value in values:
        if value is not last:
            cell = _NULL if value is None else pack(8, microseconds(value))
            last = value
        cells.append(cell)
    return cells


def _uuids_column(values: Iterable[UUID | None]) -> list[bytes]:
    return [_NULL if value is None else b"\x00\x00\x00\x10" + value.bytes for value in values]


def _texts_column(values: Iterable[str | None]) -> list[bytes]:
    cells: list[bytes] = []
    for value in values:
        if value is None:
            cells.append(_NULL)
        else:
            data = value.encode()
            cells.append(_LENGTH(len(data)) + data)
    return cells


def _bytes_column(values: Iterable[bytes | None]) -> list[bytes]:
    return [_NULL if value is None else _LENGTH(len(value)) + value for value in values]


_COLUMNS: dict[str, Callable[[Iterable[Any]], list[bytes]]] = {
    "bytea": _bytes_column,
    "text": _texts_column,
    "timestamptz": _times_column,
    "uuid": _uuids_column,
    **{name: _fixed_column(code, struct.calcsize(f">{code}")) for name, code in _FIXED.items()},
}


def _scalar(name: str) -> Encoder:
    column = _COLUMNS[name]

    def encode(value: object) -> bytes:
        return column((value,))[0][4:]

    return encode


def _array(name: str) -> Encoder:
    column = _COLUMNS[name]
    element = _OIDS[name]
    empty = struct.pack(">iiI", 0, 0, element)

    def encode(values: Sequence[object]) -> bytes:
        if not values:
            return empty
        return b"".join((_HEADER(1, 1, element, len(values), 1), *column(values)))

    return encode


def type_of(name: str) -> tuple[int, Encoder]:
    """Return the oid and the encoder of a type as the SQL files write it: `int4` or `uuid[]`."""
    if name.endswith("[]"):
        return _ARRAY_OIDS[name[:-2]], _array(name[:-2])
    return _OIDS[name], _scalar(name)


def pack_headers(headers: list[tuple[str, bytes]]) -> bytes:
    """Headers as the outbox keeps them: a third of the bytes of any array of Postgres's."""
    packed: bytes = msgpack.packb(headers)
    return packed


def unpack_headers(data: bytes) -> list[tuple[str, bytes]]:
    """Return the inverse of `pack_headers`."""
    return list(msgpack.unpackb(data, use_list=False))
