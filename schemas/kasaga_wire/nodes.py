"""What a compiled annotation consists of: nodes that turn a value into an Avro datum, and a datum back.

Station: `avro.py` builds trees of nodes, `codec.py` runs them. A datum holds nothing but None, bool, int,
float, str, bytes, list, dict and, in unions, `(branch, datum)`: logical types are converted here and not by
fastavro, so that nothing is lost without a word. fastavro's C code then moves the datum into bytes.

`prepare` is strict and raises `Bad`. A value whose type is exactly `exact` may skip it: what can still be
wrong with such a value (an int beyond 64 bits, a lone surrogate) the C writer refuses, and
`find_unwritable` then finds the place.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard, cast

from pydantic import BaseModel

Json = Any  # a JSON value: typing it recursively buys nothing where every reader looks at it dynamically
Convert = Callable[[Any], Any]
Emit = Callable[[set[str]], Json]

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1


def is_list(value: object) -> TypeGuard[list[Any]]:
    """A list of whatever."""
    return isinstance(value, list)


def is_object(value: object) -> TypeGuard[dict[str, Any]]:
    """A JSON object, or a record's datum."""
    return isinstance(value, dict)


def is_tagged(value: object) -> TypeGuard[tuple[str, Any]]:
    """A union's datum that says its branch."""
    return isinstance(value, tuple)


class Bad(Exception):
    """A value that doesn't fit. Raised at the leaf, each level on the way up adds its part of the path."""

    def __init__(self, message: str, remedy: str = "") -> None:
        """Start with an empty path."""
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.parts: list[str] = []

    def at(self, part: str) -> Bad:
        """Add the outer part of the path."""
        self.parts.append(part)
        return self

    def path(self, root: str) -> str:
        """The path as people write it: `order.items[3].price`."""
        return root + "".join(reversed(self.parts))


def mistyped(value: object, wanted: str) -> Bad:
    """The most frequent refusal. Names the types and never the value: values are other people's data."""
    given = type(value).__qualname__
    return Bad(f"{'another class called ' if given == wanted else ''}{given} where {wanted} is wanted")


@dataclass(slots=True, eq=False)
class Node:
    """One compiled annotation."""

    emit: Emit  # the full Avro schema; a named type is defined once and then referred to
    branch: str  # its name in a union
    raw: str  # what the datum is: null, boolean, int, float, str, bytes, list, map, record
    types: tuple[type, ...]  # the values' types, by which a union picks this branch
    prepare: Convert
    exact: type | None = None
    revive: Convert | None = None  # None: the datum is the value
    empty: bool = False  # encodes to no bytes at all
    branches: tuple[Node, ...] = ()  # of a union


def clean_text(text: str, limit: int) -> str:
    """Text for a reason or a message: no NUL, no lone surrogates, not longer than `limit` characters.

    Both are refused by Postgres, and a text that says why something failed must not fail itself.
    """
    text = text[:limit]
    if "\0" in text:
        text = text.replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def check_text(value: str) -> str:
    """Refuse text that has no UTF-8 form."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise Bad(
                f"a lone surrogate at character {error.start}", "clean the text where it comes in"
            ) from None
    return value


# --- named types


def named(name: str, definition: Callable[[set[str]], Json]) -> Emit:
    """Define the type where it is met first, refer to it by its name from then on."""

    def emit(seen: set[str]) -> Json:
        if name in seen:
            return name
        seen.add(name)
        return definition(seen)

    return emit


def _enum_emit(name: str, symbols: Sequence[str]) -> Emit:
    return named(name, lambda seen: {"type": "enum", "name": name, "symbols": list(symbols)})


def enum_node(name: str, cls: type[enum.Enum]) -> Node:
    """A str Enum; its values are the symbols.

    A plain str is accepted too: models with `use_enum_values` hold those.
    """
    symbols = [cast(str, member.value) for member in cls]
    members = {symbol: cls(symbol) for symbol in symbols}

    def prepare(value: object) -> str:
        symbol = value.value if isinstance(value, cls) else value
        if type(symbol) is not str or symbol not in members:
            raise Bad(f"{type(value).__qualname__} that is no member of {cls.__name__}")
        return symbol

    def revive(datum: Any) -> enum.Enum:
        try:
            return members[datum]
        except KeyError:
            raise Bad(f"a symbol that {cls.__name__} doesn't have") from None

    return Node(_enum_emit(name, symbols), name, "str", (cls, str), prepare, revive=revive)


def literal_node(name: str, symbols: Sequence[str]) -> Node:
    """A Literal of strings.

    The symbols are sorted: typing caches `Literal["a", "b"]` and may hand it out for `["b", "a"]`.
    """
    known = frozenset(symbols)

    def prepare(value: object) -> str:
        if type(value) is not str or value not in known:
            raise Bad(f"{type(value).__qualname__} that is none of the literals")
        return value

    return Node(_enum_emit(name, sorted(known)), name, "str", (str,), prepare)


@dataclass(slots=True)
class FieldNode:
    """One field of a record. `default` is the datum of its default, behind `has_default`."""

    name: str
    node: Node
    has_default: bool = False
    default: Json = None
    aliases: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class Record:
    """A pydantic model. Filled after it is made known, so that it can contain itself."""

    name: str
    model: type[BaseModel]
    fields: list[FieldNode] = field(default_factory=list[FieldNode])
    _rows: tuple[tuple[str, type | None, Convert], ...] = ()
    _flat: tuple[tuple[str, type], ...] | None = None
    _revivers: tuple[tuple[str, Convert], ...] | None = None  # None: not filled yet

    def fill(self, fields: list[FieldNode]) -> None:
        """Set the fields and choose the fast path, once all of them are compiled."""
        self.fields = fields
        self._rows = tuple((f.name, f.node.exact, f.node.prepare) for f in fields)
        direct = [(f.name, f.node.exact) for f in fields if f.node.exact is not None]
        self._flat = tuple(direct) if len(direct) == len(fields) else None
        self._revivers = tuple((f.name, f.node.revive) for f in fields if f.node.revive is not None)

    def node(self) -> Node:
        """The node that stands for this record wherever it occurs."""
        return Node(
            named(self.name, self._definition),
            self.name,
            "record",
            (self.model,),
            self.prepare,
            revive=None if self._revivers == () else self.revive,
            empty=self._revivers is not None and all(f.node.empty for f in self.fields),
        )

    def _definition(self, seen: set[str]) -> Json:
        fields: list[Json] = []
        for each in self.fields:
            entry: dict[str, Json] = {"name": each.name, "type": each.node.emit(seen)}
            if each.has_default:
                entry["default"] = as_default(each.default)
            if each.aliases:
                entry["aliases"] = list(each.aliases)
            fields.append(entry)
        return {"type": "record", "name": self.name, "fields": fields}

    def prepare(self, value: Any) -> dict[str, Any]:
        """Read the fields straight from the instance's dictionary."""
        if type(value) is not self.model:
            bad = mistyped(value, self.model.__qualname__)
            if isinstance(value, self.model):
                bad.remedy = f"send a {self.model.__qualname__} itself: what the subclass adds would be lost"
            raise bad
        values: dict[str, Any] = vars(value)
        name = ""
        try:
            if self._flat is not None:
                for name, only in self._flat:
                    if type(values[name]) is not only:
                        break
                else:
                    return values
            datum: dict[str, Any] = {}
            for name, exact, prepare in self._rows:
                item = values[name]
                datum[name] = item if type(item) is exact else prepare(item)
            return datum
        except KeyError:
            raise Bad("has no value").at("." + name) from None
        except Bad as bad:
            raise bad.at("." + name) from None

    def revive(self, datum: Any) -> Any:
        """Convert the fields that need it, in place; pydantic makes the instance later."""
        name = ""
        try:
            for name, convert in self._revivers or ():
                datum[name] = convert(datum[name])
        except Bad as bad:
            raise bad.at("." + name) from None
        return datum


# --- containers and unions


def array_node(item: Node, *, as_tuple: bool) -> Node:
    """A list, or a tuple of any length. Only the type that the annotation names is accepted."""
    kind: type = tuple if as_tuple else list
    exact, prepare_item, revive_item = item.exact, item.prepare, item.revive

    def prepare(value: Any) -> list[Any]:
        if not isinstance(value, kind):
            raise mistyped(value, kind.__name__)
        datum: list[Any] = []
        each: Any
        try:
            for each in cast(Iterable[Any], value):
                datum.append(each if type(each) is exact else prepare_item(each))
        except Bad as bad:
            raise bad.at(f"[{len(datum)}]") from None
        return datum

    def revive(datum: Any) -> Any:
        if revive_item is not None:
            done = 0
            try:
                for done, each in enumerate(datum):
                    datum[done] = revive_item(each)
            except Bad as bad:
                raise bad.at(f"[{done}]") from None
        return tuple(datum) if as_tuple else datum

    emit: Emit = lambda seen: {"type": "array", "items": item.emit(seen)}  # noqa: E731
    return Node(emit, "array", "list", (kind,), prepare, revive=revive if revive_item or as_tuple else None)


def map_node(item: Node) -> Node:
    """A dict with str keys."""
    exact, prepare_item, revive_item = item.exact, item.prepare, item.revive

    def prepare(value: Any) -> dict[str, Any]:
        if not is_object(value):
            raise mistyped(value, "dict")
        datum: dict[str, Any] = {}
        key: object = None
        try:
            for key, each in value.items():
                if type(key) is not str:
                    raise mistyped(key, "a str key")
                datum[key] = each if type(each) is exact else prepare_item(each)
        except Bad as bad:
            raise bad.at(f"[{key!r:.40}]") from None
        return datum

    def revive(datum: Any) -> Any:
        key = ""
        try:
            for key, each in datum.items():
                datum[key] = cast(Convert, revive_item)(each)
        except Bad as bad:
            raise bad.at(f"[{key!r:.40}]") from None
        return datum

    emit: Emit = lambda seen: {"type": "map", "values": item.emit(seen)}  # noqa: E731
    return Node(emit, "map", "map", (dict,), prepare, revive=revive if revive_item else None)


_type_of: Callable[[object], type] = type
_RAW_TYPES: Mapping[str, type] = {
    "null": type(None),
    "boolean": bool,
    "int": int,
    "float": float,
    "str": str,
    "bytes": bytes,
    "list": list,
    "map": dict,
    "record": dict,
}


def union_node(branches: Sequence[Node], build: Mapping[str, Convert]) -> Node:
    """A union.

    `build` makes instances of the records among the branches where there are several: see `avro.union`.
    """
    by_type: dict[type, Node] = {}
    for branch in branches:
        for each in branch.types:
            by_type.setdefault(each, branch)

    def pick(value: object) -> Node:
        for each in _type_of(value).__mro__:
            if (found := by_type.get(each)) is not None:
                return found
        raise mistyped(value, " or ".join(sorted(t.__name__ for t in by_type)))

    def prepare(value: Any) -> tuple[str, Any]:
        node = by_type.get(_type_of(value)) or pick(value)
        return node.branch, node.prepare(value)

    revivers = {_RAW_TYPES[b.raw]: b.revive for b in branches if b.revive is not None}

    def revive(datum: Any) -> Any:
        if is_tagged(datum):
            return build[datum[0]](datum[1])
        convert = revivers.get(_type_of(datum))
        return datum if convert is None else convert(datum)

    emit: Emit = lambda seen: [b.emit(seen) for b in branches]  # noqa: E731
    return Node(
        emit,
        "",
        "union",
        tuple(by_type),
        prepare,
        revive=revive if revivers or build else None,
        branches=tuple(branches),
    )


# --- data


def as_default(datum: Json) -> Json:
    """A datum as Avro writes defaults in JSON: bytes as characters, a union's value bare."""
    if isinstance(datum, bytes):
        return datum.decode("latin-1")
    if is_tagged(datum):
        return as_default(datum[1])
    if is_list(datum):
        return [as_default(each) for each in datum]
    if is_object(datum):
        return {key: as_default(each) for key, each in datum.items()}
    return datum


def find_unwritable(datum: Json) -> None:
    """Raise Bad at the place that the C writer refused without naming it."""
    if isinstance(datum, str):
        check_text(datum)
    elif isinstance(datum, int):
        if not LONG_MIN <= datum <= LONG_MAX:
            raise Bad("an int beyond 64 bits", "annotate the field as Decimal with max_digits, or as str")
    elif is_tagged(datum):
        find_unwritable(datum[1])
    elif is_list(datum):
        for index, each in enumerate(datum):
            try:
                find_unwritable(each)
            except Bad as bad:
                raise bad.at(f"[{index}]") from None
    elif is_object(datum):
        for key, each in datum.items():
            try:
                check_text(key)
                find_unwritable(each)
            except Bad as bad:
                raise bad.at(f".{key!a}".replace("'", "")) from None
