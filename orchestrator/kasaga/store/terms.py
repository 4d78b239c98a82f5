"""Search attributes as bytes that sort as the values do: the key of the index by which sagas are found.

Station: `commit` writes terms, `search` asks for them, `rows` reads them back. A term is the name, a NUL, a
letter for the kind and the value. So a value is one key, a comparison or a prefix is one range, and an
attribute that is there at all is a range, too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from kasaga_wire.attributes import LARGEST_INTEGER, Stored

Range = tuple[bytes, bytes]
"""From the first, which is in it, to the second, which isn't."""

TEXT, NUMBER, BOOL, TIME = b"s", b"n", b"b", b"t"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DOUBLE = struct.Struct(">d")
_WHOLE = struct.Struct(">Q")
_SIGN = 1 << 63
_ALL = (1 << 64) - 1

Scalar = str | int | float | bool | datetime


def prefix(name: str) -> bytes:
    """What all terms of an attribute begin with."""
    return name.encode() + b"\0"


def term(name: str, value: Scalar) -> bytes:
    """One value of an attribute."""
    kind, data = _coded(value)
    return prefix(name) + kind + data


def terms(name: str, value: Stored) -> list[bytes]:
    """All terms of an attribute: one, or one for each string of a list."""
    return [term(name, each) for each in value] if isinstance(value, tuple) else [term(name, value)]


def there(name: str) -> Range:
    """All that an attribute can be."""
    return prefix(name), name.encode() + b"\x01"


def beginning(name: str, text: str) -> Range:
    """All strings that begin so."""
    first = term(name, text)
    return first, first + b"\xff"  # no UTF-8 has this byte


def compared(name: str, op: str, value: Scalar) -> Range:
    """All values of the same kind that are `<`, `<=`, `>` or `>=` this one."""
    at = term(name, value)
    kind = prefix(name) + _coded(value)[0]
    behind = at + b"\0"  # the next that there can be
    if op in ("<", "<="):
        return kind, behind if op == "<=" else at
    return behind if op == ">" else at, kind[:-1] + bytes([kind[-1] + 1])


def values(found: Iterable[bytes]) -> dict[str, Stored]:
    """Attributes from their terms."""
    collected: dict[str, list[Scalar]] = {}
    for each in sorted(found):
        name, _, data = each.partition(b"\0")
        collected.setdefault(name.decode(), []).append(_value(data[:1], data[1:]))
    return {
        name: given[0] if len(given) == 1 else tuple(str(each) for each in given)
        for name, given in collected.items()
    }


def all_terms(attributes: Mapping[str, Stored]) -> list[bytes]:
    """The terms of all attributes of a saga."""
    return [each for name, value in attributes.items() for each in terms(name, value)]


def _coded(value: Scalar) -> tuple[bytes, bytes]:
    if isinstance(value, str):
        return TEXT, value.encode()
    if isinstance(value, bool):
        return BOOL, b"1" if value else b"0"
    if isinstance(value, datetime):
        return TIME, _WHOLE.pack((value - _EPOCH) // _MICROSECOND + _SIGN)
    (bits,) = _WHOLE.unpack(_DOUBLE.pack(value + 0.0))
    return NUMBER, _WHOLE.pack(bits ^ _ALL if bits & _SIGN else bits | _SIGN)


def _value(kind: bytes, data: bytes) -> Scalar:
    if kind == TEXT:
        return data.decode()
    if kind == BOOL:
        return data == b"1"
    bits: int = _WHOLE.unpack(data)[0]
    if kind == TIME:
        return _EPOCH + (bits - _SIGN) * _MICROSECOND
    return _number(*_DOUBLE.unpack(_WHOLE.pack(bits & ~_SIGN if bits & _SIGN else bits ^ _ALL)))


def _number(value: float) -> int | float:
    return int(value) if value.is_integer() and abs(value) <= LARGEST_INTEGER else value
