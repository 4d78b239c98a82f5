"""JSON to a payload by a published schema alone: the way back from `codec.to_json`.

Station: whoever starts sagas without the author's code, as the HTTP API does. The bytes are those that the
author's model would become, so that the same input is the same saga whoever sends it. Strict as `codec`
is: nothing is rounded, cut or left out; a field that the schema doesn't have is refused.

What JSON can't say is text, as `people.shown` writes it: base64 for bytes, RFC 3339 for times, digits for
decimals. Compiled once per schema, into closures `(JSON value, depth) -> datum`.
"""

from __future__ import annotations

import base64
import binascii
import decimal
import functools
import io
import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any
from uuid import UUID

import fastavro

from . import leaves, nodes
from .errors import EncodeError
from .nodes import Bad, Json, is_list, is_object
from .reading import MAX_DEPTH, PRIMITIVES, Names, kind_of
from .schema import Schema, names_of, without_logic

Parse = Callable[[Any, int], Any]
_fastavro: Any = fastavro  # its types are partly unknown

_FINE = re.compile(r"\.\d{7}")
"""Digits behind the microseconds, which Python's parser would drop."""

_RECORD = 1
_RANKS = {"string": 0, "int": 2, "long": 2, "float": 3, "double": 3, "bytes": 3, "array": 3, "map": 3}
"""In a union a text is text before it is bytes or a time, and a whole number is one before it is a float."""

_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
_LONGEST = 10**100
"""Whole numbers beyond it aren't looked at: no decimal has so many digits."""

_FLOATS = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}


def from_json(value: object, schema: Schema, where: str = "input") -> bytes:
    """Return the payload of a JSON value, already parsed.

    `where` begins the paths of errors. Raises EncodeError naming the field, never the value.
    """
    parse, wire = _compiled(schema.json)
    out = io.BytesIO()
    out.write(schema.prefix)
    try:
        datum = parse(value, 0)
        nodes.find_unwritable(datum)
        _fastavro.schemaless_writer(out, wire, datum)
    except Bad as bad:
        raise EncodeError(bad.path(where), bad.message, remedy=bad.remedy) from None
    except RecursionError:
        raise EncodeError(where, "nested too deep") from None
    return out.getvalue()


@functools.lru_cache(maxsize=256)
def _compiled(text: str) -> tuple[Parse, Any]:
    names = names_of(text)
    return _Compiler(names).compile(names.root), _fastavro.parse_schema(without_logic(json.loads(text)))


class _Compiler:
    """Of one schema."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._records: dict[str, list[Parse]] = {}

    def compile(self, schema: Json) -> Parse:
        """Return the parser of one schema within ours."""
        schema = self._names.look_up(schema)
        if is_list(schema):
            return self._union(schema)
        kind = kind_of(schema)
        if kind in PRIMITIVES:
            return _leaf(kind, schema if is_object(schema) else {})
        if kind == "array":
            return _array(self.compile(schema["items"]))
        if kind == "map":
            return _map(self.compile(schema["values"]))
        if kind == "enum":
            return _enum(schema["symbols"])
        if kind == "fixed":
            return _fixed(schema["size"])
        return self._record(schema)

    def _record(self, schema: Json) -> Parse:
        name: str = schema["name"]
        if name in self._records:  # it contains itself: refer to what will be there
            later = self._records[name]

            def follow(value: Any, depth: int) -> Any:
                return later[0](value, depth)

            return follow
        holder = self._records.setdefault(name, [])
        fields = {each["name"]: self.compile(each["type"]) for each in schema["fields"]}
        defaults = {
            each["name"]: self._default(each["type"], each["default"])
            for each in schema["fields"]
            if "default" in each
        }
        holder.append(_record(name.rpartition(".")[2], fields, defaults))
        return holder[0]

    def _union(self, branches: list[Json]) -> Parse:
        """The branch is the first that the value fits, in the order of `_RANKS`; of records only one may."""
        found = [(self._branch(each), self.compile(each)) for each in branches]
        found.sort(key=lambda branch: _RANKS.get(branch[0], _RECORD))
        wanted = " or ".join(name.rpartition(".")[2] for name, _ in found)

        def parse(value: Any, depth: int) -> Any:
            fits: list[tuple[str, Any]] = []
            refusals: list[Bad] = []
            for name, branch in found:
                try:
                    fits.append((name, branch(value, depth)))
                except Bad as bad:
                    refusals.append(bad)
            records = [name.rpartition(".")[2] for name, datum in fits if is_object(datum) and name != "map"]
            if len(records) > 1:
                raise Bad(
                    f"an object that fits {' and '.join(records)}", "give it a field of one of them alone"
                )
            if fits:
                return fits[0]
            closest = max(refusals, key=lambda bad: (len(bad.parts), not isinstance(bad, _Mistyped)))
            raise (
                _mistyped(value, wanted) if isinstance(closest, _Mistyped) and not closest.parts else closest
            )

        return parse

    def _branch(self, schema: Json) -> str:
        schema = self._names.look_up(schema)
        kind = kind_of(schema)
        return kind if kind in PRIMITIVES or kind in ("array", "map") else str(schema["name"])

    def _default(self, schema: Json, value: Json) -> Any:
        """A default as the schema writes it, as the datum that it stands for."""
        schema = self._names.look_up(schema)
        if is_list(schema):  # always of the first branch
            return self._branch(schema[0]), self._default(schema[0], value)
        kind = kind_of(schema)
        if kind in ("bytes", "fixed"):
            return value.encode("latin-1")
        if kind in ("double", "float"):
            return float(value)
        if kind == "array":
            return [self._default(schema["items"], each) for each in value]
        if kind == "map":
            return {key: self._default(schema["values"], each) for key, each in value.items()}
        if kind == "record":
            return {
                each["name"]: self._default(each["type"], value.get(each["name"], each.get("default")))
                for each in schema["fields"]
            }
        return value


# --- what has parts


def _record(name: str, fields: Mapping[str, Parse], defaults: Mapping[str, Any]) -> Parse:
    def parse(value: Any, depth: int) -> dict[str, Any]:
        if not is_object(value):
            raise _mistyped(value, f"an object ({name})")
        if depth >= MAX_DEPTH:
            raise Bad("records nested too deep", "send a flat list with parents' ids")
        datum: dict[str, Any] = {}
        for field, convert in fields.items():
            if field not in value:
                if field not in defaults:
                    raise Bad("is required").at("." + field)
                datum[field] = defaults[field]
                continue
            try:
                datum[field] = convert(value[field], depth + 1)
            except Bad as bad:
                raise bad.at("." + field) from None
        for field in value:
            if field not in fields:
                raise Bad(f"{name} has no such field", f"it has {', '.join(fields)}").at(f".{field:.64}")
        return datum

    return parse


def _array(item: Parse) -> Parse:
    def parse(value: Any, depth: int) -> list[Any]:
        if not is_list(value):
            raise _mistyped(value, "an array")
        datum: list[Any] = []
        try:
            for each in value:
                datum.append(item(each, depth))
        except Bad as bad:
            raise bad.at(f"[{len(datum)}]") from None
        return datum

    return parse


def _map(item: Parse) -> Parse:
    def parse(value: Any, depth: int) -> dict[str, Any]:
        if not is_object(value):
            raise _mistyped(value, "an object")
        datum: dict[str, Any] = {}
        for key, each in value.items():
            try:
                datum[nodes.check_text(key)] = item(each, depth)
            except Bad as bad:
                raise bad.at(f"[{key!a:.40}]") from None
        return datum

    return parse


# --- leaves


class _Mistyped(Bad):
    """Another type of JSON than is wanted: of a union's refusals the one that tells least."""


def _mistyped(value: object, wanted: str) -> Bad:
    """The most frequent refusal. Names the types and never the value: values are other people's data."""
    given = next((name for kind, name in _JSON_TYPES if isinstance(value, kind)), type(value).__name__)
    return _Mistyped(f"{given} where {wanted} is wanted")


_JSON_TYPES: tuple[tuple[type, str], ...] = (
    (type(None), "null"),
    (bool, "true or false"),
    (int, "a whole number"),
    (float, "a number"),
    (str, "text"),
    (list, "an array"),
    (dict, "an object"),
)


def _leaf(kind: str, schema: Mapping[str, Json]) -> Parse:
    logical = schema.get("logicalType", "")
    if logical == "decimal" and kind == "bytes":
        prepare = leaves.decimal_node(schema["precision"], schema.get("scale", 0)).prepare
        return lambda value, depth: prepare(_decimal(value))
    convert = _LEAVES.get(f"{kind} {logical}") or _LEAVES[kind]
    return lambda value, depth: convert(value)


def _null(value: Any) -> None:
    if value is not None:
        raise _mistyped(value, "null")


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise _mistyped(value, "true or false")
    return value


def _long(value: Any) -> int:
    if type(value) is not int:
        raise _mistyped(value, "a whole number")
    if not nodes.LONG_MIN <= value <= nodes.LONG_MAX:
        raise Bad("a number beyond 64 bits")
    return value


def _int(value: Any) -> int:
    if not _INT_MIN <= _long(value) <= _INT_MAX:
        raise Bad("a number beyond 32 bits")
    return int(value)


def _double(value: Any) -> float:
    if isinstance(value, str) and value in _FLOATS:
        return _FLOATS[value]
    if type(value) not in (int, float):
        raise _mistyped(value, "a number")
    number: float = leaves.DOUBLE.prepare(value)
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise _mistyped(value, "text")
    return nodes.check_text(value)


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except (binascii.Error, ValueError):
        raise Bad("text that isn't base64") from None


def _fixed(size: int) -> Parse:
    def parse(value: Any, depth: int) -> bytes:
        data = _bytes(value)
        if len(data) != size:
            raise Bad(f"{len(data)} bytes where {size} are wanted")
        return data

    return parse


def _enum(symbols: list[str]) -> Parse:
    known = frozenset(symbols)

    def parse(value: Any, depth: int) -> str:
        if _text(value) not in known:
            raise Bad("is none of the symbols", f"it is one of {', '.join(symbols)}")
        return str(value)

    return parse


def _decimal(value: Any) -> decimal.Decimal:
    """From digits in a text, or a whole number: one with a point would have been rounded on its way here."""
    if type(value) is int:
        value = str(value) if abs(value) < _LONGEST else ""
    if not isinstance(value, str):
        raise _mistyped(value, "a decimal in a text")
    try:
        return decimal.Decimal(value)
    except decimal.InvalidOperation:
        raise Bad("text that isn't a decimal", 'write "12.50"') from None


def _uuid(value: Any) -> str:
    try:
        return str(UUID(_text(value)))
    except ValueError:
        raise Bad("text that isn't a UUID") from None


def _timestamp(value: Any) -> int:
    text = _text(value)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise Bad("text that isn't a time", "write 2026-01-31T10:00:00Z") from None
    _no_finer(text)
    micros: int = leaves.TIMESTAMP.prepare(moment)
    return micros


def _date(value: Any) -> int:
    try:
        days: int = leaves.DATE.prepare(date.fromisoformat(_text(value)))
    except ValueError:
        raise Bad("text that isn't a date", "write 2026-01-31") from None
    return days


def _time(value: Any) -> int:
    text = _text(value)
    try:
        moment = time.fromisoformat(text)
    except ValueError:
        raise Bad("text that isn't a time of day", "write 10:00:00") from None
    _no_finer(text)
    micros: int = leaves.TIME.prepare(moment)
    return micros


def _no_finer(text: str) -> None:
    if _FINE.search(text):
        raise Bad("a time finer than a microsecond", "round it to microseconds")


def _in_millis(convert: Callable[[Any], int]) -> Callable[[Any], int]:
    def whole(value: Any) -> int:
        millis, rest = divmod(convert(value), 1000)
        if rest:
            raise Bad("a time finer than a millisecond", "round it to milliseconds")
        return millis

    return whole


_LEAVES: Mapping[str, Callable[[Any], Any]] = {
    "null": _null,
    "boolean": _boolean,
    "int": _int,
    "long": _long,
    "float": _double,
    "double": _double,
    "string": _text,
    "bytes": _bytes,
    "string uuid": _uuid,
    "int date": _date,
    "long timestamp-micros": _timestamp,
    "long timestamp-millis": _in_millis(_timestamp),
    "long time-micros": _time,
    "int time-millis": _in_millis(_time),
}
