"""Reading Avro bytes that were written with another schema than ours, in plain Python.

Station: `codec.py` calls it for foreign schemas, for models that contain themselves (fastavro's C code
follows nesting down until the process dies; this file counts), and to show payloads to people. The rules
are those of Avro's schema resolution, stricter in three points: a long becomes a double only without loss,
logical types must agree, and a list can't claim more items than there are bytes left.

A reader is a closure `(data, position, depth) -> (datum, next position)`, compiled once per pair of
schemas.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from typing import Any, cast

from .errors import DecodeError, SchemaMismatch
from .nodes import Json, is_list, is_object

MAX_DEPTH = 100  # records within records
Read = Callable[[bytes, int, int], tuple[Any, int]]
Leaf = Callable[[str, Any], Any]  # (logical type, raw value) -> what people see

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_LOGICAL_KEPT = {"date", "time-micros", "timestamp-micros", "decimal"}
_MILLIS = {"time-millis": "time-micros", "timestamp-millis": "timestamp-micros"}
_PROMOTIONS = {("int", "long"), ("bytes", "string"), ("string", "bytes")} | {
    (narrow, wide) for narrow in ("int", "long", "float") for wide in ("float", "double")
}
_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")
_MAX_VARINT_BYTES = 10


def read_long(data: bytes, at: int) -> tuple[int, int]:
    """A zigzag varint."""
    shift = result = 0
    for place in range(at, at + _MAX_VARINT_BYTES):
        if place >= len(data):
            raise DecodeError("the bytes end in the middle of a number")
        byte = data[place]
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            if result >= 1 << 64:
                break
            return (result >> 1) ^ -(result & 1), place + 1
        shift += 7
    raise DecodeError("a number beyond 64 bits")


def _take(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = read_long(data, at)
    if not 0 <= size <= len(data) - at:
        raise DecodeError("the bytes end in the middle of a text")
    return data[at : at + size], at + size


def _read_null(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    return None, at


def _read_boolean(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if data[at : at + 1] not in (b"\0", b"\1"):
        raise DecodeError("a boolean that is neither 0 nor 1")
    return data[at] == 1, at + 1


def _read_int(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    return read_long(data, at)


def _read_packed(packed: struct.Struct) -> Read:
    def read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        if len(data) - at < packed.size:
            raise DecodeError("the bytes end in the middle of a number")
        return packed.unpack_from(data, at)[0], at + packed.size

    return read


def _read_bytes(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    return _take(data, at)


def _read_string(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    raw, at = _take(data, at)
    return _text(raw), at


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise DecodeError("a text that isn't UTF-8") from None


_PRIMITIVE_READERS: dict[str, Read] = {
    "null": _read_null,
    "boolean": _read_boolean,
    "int": _read_int,
    "long": _read_int,
    "float": _read_packed(_FLOAT),
    "double": _read_packed(_DOUBLE),
    "bytes": _read_bytes,
    "string": _read_string,
}


def _exact_float(value: int) -> float:
    converted = float(value)
    if int(converted) != value:  # as ints: compared as floats, what differs would look equal
        raise DecodeError("an int that no float equals")
    return converted


def _converter(writer: str, reader: str) -> Callable[[Any], Any] | None:
    if (writer, reader) == ("bytes", "string"):
        return _text
    if (writer, reader) == ("string", "bytes"):
        return str.encode
    return _exact_float if writer in ("int", "long") and reader in ("float", "double") else None


def kind_of(schema: Json) -> str:
    """`record`, `union`, `long`, … or the name that a reference refers to."""
    if isinstance(schema, str):
        return schema
    if is_list(schema):
        return "union"
    kind: Json = schema.get("type")
    if isinstance(kind, str):
        return kind
    if isinstance(kind, (dict, list)):  # {"type": {"type": "string"}} is legal
        return kind_of(kind)
    raise DecodeError("a schema without a type")


class Names:
    """The named types of one schema, with full names: Avro lets a definition leave its namespace out."""

    def __init__(self, schema: Json) -> None:
        """Walk the whole schema once."""
        self.types: dict[str, Json] = {}
        self._empty: dict[int, bool] = {}
        self.root = self._expand(schema, "")

    def _full(self, name: str, namespace: str) -> str:
        return name if "." in name or not namespace else f"{namespace}.{name}"

    def _expand(self, schema: Json, namespace: str) -> Json:
        if isinstance(schema, str):
            return schema if schema in PRIMITIVES else self._full(schema, namespace)
        if is_list(schema):
            return [self._expand(each, namespace) for each in schema]
        if not is_object(schema):
            raise DecodeError("a schema that is neither text, list nor object")
        made = dict(schema)
        kind = made.get("type")
        if kind in ("record", "error", "enum", "fixed"):
            return self._named(made, namespace)
        if kind == "array":
            made["items"] = self._expand(made.get("items"), namespace)
        elif kind == "map":
            made["values"] = self._expand(made.get("values"), namespace)
        elif isinstance(kind, (dict, list)) or kind not in PRIMITIVES:
            return self._expand(kind, namespace)
        return made

    def _named(self, made: dict[str, Json], namespace: str) -> Json:
        name = made.get("name")
        if not isinstance(name, str):
            raise DecodeError("a named type without a name")
        own: Json = made.get("namespace", namespace)
        full = self._full(name, own if isinstance(own, str) else "")
        made["name"] = full
        if made["type"] == "error":
            made["type"] = "record"
        self.types[full] = made
        if made["type"] == "record":
            inner = full.rpartition(".")[0]
            fields = cast(list[dict[str, Json]], made["fields"])
            made["fields"] = [{**each, "type": self._expand(each["type"], inner)} for each in fields]
        return made

    def is_empty(self, schema: Json) -> bool:
        """Whether its values take no bytes at all: nulls, and records of nothing else."""
        schema = self.look_up(schema)
        if schema == "null" or not is_object(schema) or schema["type"] != "record":
            return bool(schema == "null")
        if id(schema) not in self._empty:
            self._empty[id(schema)] = False  # a record that contains itself has no end without bytes
            self._empty[id(schema)] = all(self.is_empty(each["type"]) for each in schema["fields"])
        return self._empty[id(schema)]

    def look_up(self, schema: Json) -> Json:
        """The definition behind a reference; anything else is returned as it is."""
        if isinstance(schema, str) and schema not in PRIMITIVES:
            try:
                return self.types[schema]
            except KeyError:
                raise DecodeError(f"a schema that refers to {schema} and doesn't define it") from None
        return schema


class Resolver:
    """Compiles the reader for one pair of schemas. Without a reader's schema it reads as the writer wrote."""

    def __init__(self, writer: Names, reader: Names | None = None, leaf: Leaf | None = None) -> None:
        """`leaf` converts leaves for people; without it they stay raw."""
        self._writer = writer
        self._reader = writer if reader is None else reader
        self._leaf = leaf
        self._memo: dict[tuple[int, int], list[Read]] = {}

    def compile(self) -> Read:
        """The reader of a whole payload."""
        return self._compile(self._writer.root, self._reader.root)

    def _compile(self, writer: Json, reader: Json) -> Read:
        writer, reader = self._writer.look_up(writer), self._reader.look_up(reader)
        if is_list(writer):
            return self._writer_union(writer, reader)
        if is_list(reader):
            branch = self._choose(writer, reader)
            return self._tagging(branch, reader, self._compile(writer, branch))
        written, wanted = kind_of(writer), kind_of(reader)
        if written in PRIMITIVES and wanted in PRIMITIVES:
            return self._primitive(writer, reader, written, wanted)
        if written != wanted:
            raise SchemaMismatch(f"{written} is written where {wanted} is read")
        if written == "array":
            return _array(self._compile(writer["items"], reader["items"]))
        if written == "map":
            return _map(self._compile(writer["values"], reader["values"]))
        if not _same_name(writer, reader):
            raise SchemaMismatch(f"{writer['name']} is written where {reader['name']} is read")
        if written == "record":
            return self._record(writer, reader)
        if written == "enum":
            return _enum(writer["symbols"], reader)
        return self._fixed(writer, reader)

    def _primitive(self, writer: Json, reader: Json, written: str, wanted: str) -> Read:
        if written != wanted and (written, wanted) not in _PROMOTIONS:
            raise SchemaMismatch(f"{written} is written where {wanted} is read")
        read = _PRIMITIVE_READERS[written]
        if self._leaf is not None:
            return _mapped(read, _shown(self._leaf, writer))
        convert = _converter(written, wanted)
        factor = _check_logical(writer, reader)
        if factor != 1:
            return _mapped(read, lambda value: value * factor)
        return read if convert is None else _mapped(read, convert)

    def _fixed(self, writer: Json, reader: Json) -> Read:
        size = cast(int, writer["size"])
        if size != reader["size"]:
            raise SchemaMismatch(f"{writer['name']} has another size")

        def read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
            if len(data) - at < size:
                raise DecodeError("the bytes end in the middle of a fixed")
            return data[at : at + size], at + size

        return read if self._leaf is None else _mapped(read, _shown(self._leaf, writer))

    def _writer_union(self, branches: list[Json], reader: Json) -> Read:
        reads: list[Read | SchemaMismatch] = []
        for branch in branches:
            same = branch if self._reader is self._writer else None
            try:
                if same is not None and is_list(reader):
                    reads.append(self._tagging(same, reader, self._compile(same, same)))
                else:
                    reads.append(self._compile(branch, reader))
            except SchemaMismatch as error:  # only wrong if this branch is ever written
                reads.append(error)

        def read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
            index, at = read_long(data, at)
            if not 0 <= index < len(reads):
                raise DecodeError("a union's branch that doesn't exist")
            chosen = reads[index]
            if isinstance(chosen, SchemaMismatch):
                raise SchemaMismatch(chosen.message)
            return chosen(data, at, depth)

        return read

    def _choose(self, writer: Json, branches: list[Json]) -> Json:
        """The reader's branch for what was written: the same type, else one that it can be promoted to."""
        written = kind_of(writer)
        found = [self._reader.look_up(branch) for branch in branches]
        for branch in found:
            if kind_of(branch) == written and (written in PRIMITIVES or _same_name(writer, branch)):
                return branch
        for branch in found:
            if (written, kind_of(branch)) in _PROMOTIONS:
                return branch
        raise SchemaMismatch(f"{written} is written where none of the union's branches fits")

    def _tagging(self, branch: Json, branches: list[Json], read: Read) -> Read:
        """Say which record it is, where a union has several; so does fastavro when asked."""
        records = [each for each in map(self._reader.look_up, branches) if kind_of(each) == "record"]
        branch = self._reader.look_up(branch)
        if len(records) < 2 or kind_of(branch) != "record" or self._leaf is not None:
            return read
        name = branch["name"]
        return _mapped(read, lambda datum: (name, datum))

    def _record(self, writer: Json, reader: Json) -> Read:
        key = (id(writer), id(reader))
        if key in self._memo:  # it contains itself: refer to what will be there
            later = self._memo[key]

            def follow(data: bytes, at: int, depth: int) -> tuple[Any, int]:
                return later[0](data, at, depth)

            return follow
        if self._writer.is_empty(writer) and sum(kind_of(f["type"]) != "null" for f in writer["fields"]) > 1:
            # Thirty of these within each other are a billion values in no bytes.
            raise SchemaMismatch(f"{writer['name']} has several fields of records without content")
        holder = self._memo.setdefault(key, [])
        wanted: dict[str, Json] = {}
        for each in reader["fields"]:
            wanted.update(dict.fromkeys([*each.get("aliases", ()), each["name"]], each))
        rows: list[tuple[str | None, Read]] = []
        missing = {each["name"]: each for each in reader["fields"]}
        for each in writer["fields"]:
            target = wanted.get(each["name"])
            if target is None or missing.pop(target["name"], None) is None:
                rows.append((None, self._skipper(each["type"])))
                continue
            try:
                rows.append((target["name"], self._compile(each["type"], target["type"])))
            except SchemaMismatch as error:
                raise SchemaMismatch(f"{reader['name']}.{target['name']}: {error.message}") from None
        holder.append(_record_reader(rows, self._defaults(reader["name"], missing)))
        return holder[0]

    def _skipper(self, writer: Json) -> Read:
        return Resolver(self._writer)._compile(writer, writer)

    def _defaults(self, record: str, missing: dict[str, Json]) -> list[tuple[str, Any]]:
        defaults: list[tuple[str, Any]] = []
        for name, each in missing.items():
            if "default" not in each:
                raise SchemaMismatch(
                    f"{record}.{name} was not written and has no default",
                    remedy="give the new field a default: only then can older records be read",
                )
            defaults.append((name, self._default(each["type"], each["default"])))
        return defaults

    def _default(self, schema: Json, value: Json) -> Any:
        """A default in JSON as the datum that it stands for."""
        schema = self._reader.look_up(schema)
        kind = kind_of(schema)
        if kind == "union":
            first = self._reader.look_up(schema[0])
            tagged = (
                kind_of(first) == "record"
                and sum(kind_of(self._reader.look_up(b)) == "record" for b in schema) > 1
            )
            return (first["name"], self._default(first, value)) if tagged else self._default(first, value)
        if kind == "bytes":
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


def _same_name(writer: Json, reader: Json) -> bool:
    """Avro compares the names without the namespace, and the reader's aliases."""
    if "name" not in writer or "name" not in reader:
        return kind_of(writer) in ("array", "map")
    own, aliases = writer["name"], reader.get("aliases", ())
    short = own.rpartition(".")[2]
    return short == reader["name"].rpartition(".")[2] or own in aliases or short in aliases


def _mapped(read: Read, convert: Callable[[Any], Any]) -> Read:
    def mapped(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        value, at = read(data, at, depth)
        return convert(value), at

    return mapped


def _shown(leaf: Leaf, schema: Json) -> Callable[[Any], Any]:
    logical: str = schema.get("logicalType", "") if is_object(schema) else ""
    return lambda value: leaf(logical, (value, schema) if logical == "decimal" else value)


def _check_logical(writer: Json, reader: Json) -> int:
    """What to multiply with. A unit that is misread is a lost value, so units must be stated and agree."""
    theirs, ours = (_logical_of(schema) for schema in (writer, reader))
    if theirs == ours and (theirs != "decimal" or writer.get("scale", 0) == reader.get("scale", 0)):
        return 1
    if theirs in _MILLIS and _MILLIS[theirs] == ours:
        return 1000
    raise SchemaMismatch(f"{theirs or 'a plain number'} is written where {ours or 'a plain number'} is read")


def _logical_of(schema: Json) -> str:
    logical: str = schema.get("logicalType", "") if is_object(schema) else ""
    return logical if logical in _LOGICAL_KEPT or logical in _MILLIS or logical.startswith("local-") else ""


def _blocks(data: bytes, at: int) -> tuple[int, int]:
    """The number of items in the next block; a negative one is followed by the block's size."""
    count, at = read_long(data, at)
    if count < 0:
        count = -count
        _, at = read_long(data, at)
    if count > len(data) - at:
        raise DecodeError("a list of more items than there are bytes")
    return count, at


def _array(item: Read) -> Read:
    def read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        items: list[Any] = []
        count, at = _blocks(data, at)
        while count:
            for _ in range(count):
                value, at = item(data, at, depth)
                items.append(value)
            count, at = _blocks(data, at)
        return items, at

    return read


def _map(item: Read) -> Read:
    def read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        items: dict[str, Any] = {}
        count, at = _blocks(data, at)
        while count:
            for _ in range(count):
                key, at = _take(data, at)
                items[_text(key)], at = item(data, at, depth)
            count, at = _blocks(data, at)
        return items, at

    return read


def _enum(symbols: list[str], reader: Json) -> Read:
    known = frozenset(reader["symbols"])
    default = reader.get("default")

    def read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        index, at = read_long(data, at)
        if not 0 <= index < len(symbols):
            raise DecodeError("a symbol that doesn't exist")
        symbol = symbols[index]
        if symbol not in known:
            if default is None:
                raise DecodeError(
                    f"{symbol!r} is no symbol of {reader['name']}", remedy="deploy readers before writers"
                )
            symbol = default
        return symbol, at

    return read


def _record_reader(rows: list[tuple[str | None, Read]], defaults: list[tuple[str, Any]]) -> Read:
    def read(data: bytes, at: int, depth: int) -> tuple[Any, int]:
        if depth >= MAX_DEPTH:
            raise DecodeError(f"records nested deeper than {MAX_DEPTH}")
        datum: dict[str, Any] = {}
        for name, read_field in rows:
            value, at = read_field(data, at, depth + 1)
            if name is not None:
                datum[name] = value
        for name, value in defaults:
            datum[name] = copy.deepcopy(value)
        return datum, at

    return read
