"""From a Python annotation to a compiled node, or to a refusal that says what to do instead.

Station: `codec.py` calls `Builder.build` once per type, when a contract or a saga is declared. Everything
that would lose something is refused here, with the field's path and a remedy, so that it can't be met at
three in the morning.
"""

from __future__ import annotations

import decimal
import enum
import math
import re
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from typing import Any, NoReturn, cast

import pydantic
from pydantic.fields import FieldInfo

from . import leaves, nodes
from .errors import ContractError, NameClash, UnsupportedType
from .nodes import Bad, Convert, FieldNode, Node, Record

_AVRO_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_FULL_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*\Z")

_LEAVES: dict[object, Node] = {
    None: leaves.NULL,
    type(None): leaves.NULL,
    str: leaves.STRING,
    pydantic.EmailStr: leaves.STRING,
    int: leaves.LONG,
    float: leaves.DOUBLE,
    bool: leaves.BOOL,
    bytes: leaves.BYTES,
    pydantic.AwareDatetime: leaves.TIMESTAMP,
    date: leaves.DATE,
    pydantic.PastDate: leaves.DATE,
    pydantic.FutureDate: leaves.DATE,
    time: leaves.TIME,
    uuid.UUID: leaves.UUID_TEXT,
}

_AWARE = "annotate as pydantic.AwareDatetime"
_SET = "use list: a set has no order that is the same in every process"
_NAMED_TYPE = "name the type; for data of any shape use str and put JSON text into it"
_REMEDIES: dict[object, tuple[str, str]] = {
    Any: ("Any", _NAMED_TYPE),
    object: ("object", _NAMED_TYPE),
    datetime: ("a datetime that may be naive", _AWARE),
    pydantic.NaiveDatetime: ("a naive datetime", _AWARE),
    pydantic.PastDatetime: ("a datetime that may be naive", _AWARE),
    pydantic.FutureDatetime: ("a datetime that may be naive", _AWARE),
    timedelta: ("timedelta", "use a number with its unit in the field's name, such as delay_s: float"),
    set: ("set", _SET),
    frozenset: ("frozenset", _SET),
    list: ("a list of anything", "name the items' type: list[str]"),
    tuple: ("a tuple of anything", "name the items' type: tuple[str, ...]"),
    dict: ("a dict of anything", "name the types: dict[str, str]"),
    complex: ("complex", "use a model with two floats"),
    bytearray: ("bytearray", "use bytes"),
    memoryview: ("memoryview", "use bytes"),
}
_PURE_FACTORIES = (list, dict, tuple, str, bytes, int, float, bool)
# After decoding these would convert once more what is already converted.
_NOT_IDEMPOTENT: tuple[Any, ...] = (pydantic.Json, pydantic.EncodedBytes, pydantic.EncodedStr)


def _refuse(path: str, message: str, remedy: str) -> NoReturn:
    raise UnsupportedType(path, message, remedy=remedy)


def avro_namespace(name: str) -> str:
    """The Avro namespace for a contract's or saga's name: Avro knows no '-'."""
    namespace = name.replace("-", "_")
    if not _FULL_NAME.match(namespace):
        raise ContractError(
            f"{name!r} can't be an Avro namespace",
            remedy="use letters, digits, '_' and '-', parts joined by '.', none beginning with a digit",
        )
    return namespace


def _unwrap(annotation: object, path: str) -> tuple[object, list[object]]:
    """Take Annotated, NewType and type aliases off; gather the metadata on the way."""
    metadata: list[object] = []
    for _ in range(100):
        if typing.get_origin(annotation) is typing.Annotated:
            annotation, *more = typing.get_args(annotation)
            for each in more:
                metadata.extend(each.metadata if isinstance(each, FieldInfo) else [each])
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif type(annotation).__name__ == "TypeAliasType":
            annotation = cast(Any, annotation).__value__
        else:
            return annotation, metadata
    _refuse(path, "an alias of itself", "only models can contain themselves: make it a model")


def _members(annotation: object) -> tuple[object, ...]:
    """The members of a union, none for everything else. `Literal["a", None]` is a union too."""
    origin = typing.get_origin(annotation)
    args = typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return args
    if origin is typing.Literal and None in args and len(args) > 1:
        return typing.Literal[tuple(each for each in args if each is not None)], None
    return ()


@dataclass(slots=True)
class _Pending:
    """A default that is encoded when all records are complete."""

    field: FieldNode
    value: object
    path: str


@dataclass(slots=True)
class Builder:
    """Builds the nodes of one schema. Names are unique within it."""

    namespace: str
    names: dict[str, object] = field(default_factory=dict[str, object])
    records: dict[type, Record] = field(default_factory=dict[type, Record])
    tagged: bool = False  # some union has several records: readers must say which one they met
    recursive: bool = False  # some record contains itself
    _open: set[type] = field(default_factory=set[type])
    _literals: dict[str, Node] = field(default_factory=dict[str, Node])
    _pending: list[_Pending] = field(default_factory=list[_Pending])

    def build(self, annotation: object, path: str) -> Node:
        """Compile one annotation, and then the defaults of all models in it."""
        node = self._node(annotation, path, (), hint="Value")
        while self._pending:
            self._set_default(self._pending.pop())
        return node

    def _claim(self, name: str, owner: object, path: str) -> str:
        if not _FULL_NAME.match(name):
            _refuse(
                path,
                f"the name {name!r} can't be an Avro name",
                "give a generic model a plain name, class OrderPage(Page[Order]): ..., or set __avro_name__",
            )
        if self.names.setdefault(name, owner) != owner:
            raise NameClash(
                f"{path}: two different types are called {name}",
                remedy="rename one, or give it __avro_name__: ClassVar[str] = 'some.other.Name'",
            )
        return name

    def _class_name(self, cls: type, path: str) -> str:
        own: object = cls.__dict__.get("__avro_name__")
        return self._claim(own if isinstance(own, str) else f"{self.namespace}.{cls.__name__}", cls, path)

    def _node(
        self, annotation: object, path: str, metadata: Sequence[object], *, hint: str, default: object = None
    ) -> Node:
        annotation, more = _unwrap(annotation, path)
        metadata = [*metadata, *more]
        for each in metadata:
            if isinstance(each, _NOT_IDEMPOTENT) or any(each is kind for kind in _NOT_IDEMPOTENT):
                _refuse(
                    path, f"{each!r} converts again on each decoding", "use the type of the converted value"
                )
        try:
            leaf = _LEAVES.get(annotation)
        except TypeError:  # unhashable: no leaf
            leaf = None
        if leaf is not None:
            return leaf
        if annotation is decimal.Decimal:
            return self._decimal(metadata, path)
        if _members(annotation):
            return self._union(annotation, path, metadata, hint, default)
        origin = typing.get_origin(annotation)
        if origin is typing.Literal:
            return self._literal(annotation, path, hint)
        if origin in (list, tuple, dict):
            return self._container(origin, typing.get_args(annotation), path, hint)
        if isinstance(annotation, type) and origin is None:
            if issubclass(annotation, enum.Enum):
                return self._enum(annotation, path)
            if issubclass(annotation, pydantic.BaseModel):
                return self._record(annotation, path)
        return _refuse_unknown(annotation, origin, path)

    def _decimal(self, metadata: Iterable[object], path: str) -> Node:
        digits = places = None
        for each in metadata:
            digits = getattr(each, "max_digits", digits)
            places = getattr(each, "decimal_places", places)
        if digits is None or places is None:
            _refuse(
                path,
                "a Decimal without bounds",
                "bound it: Annotated[Decimal, Field(max_digits=18, decimal_places=2)]",
            )
        if not 0 <= places <= digits or digits < 1:
            _refuse(
                path,
                f"a Decimal of {digits} digits, {places} behind the point",
                "decimal_places <= max_digits",
            )
        return leaves.decimal_node(digits, places)

    def _enum(self, cls: type[enum.Enum], path: str) -> Node:
        values: list[object] = [member.value for member in cls]
        if not values or not all(isinstance(value, str) for value in values):
            _refuse(
                path, f"{cls.__name__} is no Enum of strings", "make it a str Enum: class Color(str, Enum)"
            )
        self._symbols(cast(list[str], values), path)
        return nodes.enum_node(self._class_name(cls, path), cls)

    def _literal(self, annotation: object, path: str, hint: str) -> Node:
        values = typing.get_args(annotation)
        strings = [value for value in values if type(value) is str]
        if len(strings) != len(values):
            _refuse(
                path,
                "a Literal of something else than strings",
                "use a Literal of strings, or the type itself",
            )
        name = self._claim(f"{self.namespace}.{hint}", frozenset(strings), path)
        return self._literals.setdefault(name, nodes.literal_node(name, self._symbols(strings, path)))

    def _symbols(self, values: list[str], path: str) -> list[str]:
        for value in values:
            if not _AVRO_NAME.match(value):
                _refuse(
                    path,
                    f"{value!r} can't be a symbol of an Avro enum",
                    "use letters, digits and '_' and begin with no digit, or annotate as str",
                )
        return values

    def _container(self, origin: object, args: tuple[object, ...], path: str, hint: str) -> Node:
        if origin is dict:
            key, _ = _unwrap(args[0], path)
            if key is not str:
                _refuse(path, "a dict whose keys are not str", "make the keys str, or send a list of models")
            return nodes.map_node(self._node(args[1], f"{path}[str]", (), hint=hint))
        if origin is tuple and (len(args) != 2 or args[1] is not Ellipsis):
            _refuse(
                path,
                "a tuple of fixed length",
                "use tuple[X, ...] for a row of X, or a model with named fields",
            )
        item = self._node(args[0], f"{path}[]", (), hint=hint)
        if item.empty:
            _refuse(path, "a list of items without content", "send their number as an int")
        return nodes.array_node(item, as_tuple=origin is tuple)

    def _union(
        self, annotation: object, path: str, metadata: Sequence[object], hint: str, default: object
    ) -> Node:
        found: dict[str, Node] = {}
        for each in _flatten(annotation, path):
            node = self._node(each, path, metadata, hint=hint)
            same = found.setdefault(node.branch, node)
            if same.raw != "record" and same is not node:
                _refuse_alike(path, same, node)
        _check_distinct(path, list(found.values()))
        # Sorted: typing caches unions, so their order depends on what was imported first.
        branches = sorted(found.values(), key=lambda node: (node.raw != "null", node.branch))
        if default is not None:  # Avro wants a default to be of the first branch
            branches.sort(key=lambda node: not any(isinstance(default, t) for t in node.types))
        records = [node for node in branches if node.raw == "record"]
        build = {node.branch: _instance_maker(node) for node in records} if len(records) > 1 else {}
        self.tagged = self.tagged or bool(build)
        return nodes.union_node(branches, build)

    def _record(self, cls: type[pydantic.BaseModel], path: str) -> Node:
        if cls in self.records:
            self.recursive = self.recursive or cls in self._open
            return self.records[cls].node()
        if issubclass(cls, pydantic.RootModel):
            _refuse(
                path,
                f"{cls.__name__} is a RootModel",
                "use the type inside of it, or a model with a named field",
            )
        if cls.model_config.get("extra") == "allow":
            _refuse(
                path,
                f"{cls.__name__} allows extra fields, which would be lost",
                "declare them, or drop 'allow'",
            )
        if not cls.__pydantic_complete__:
            _complete(cls, path)
        record = Record(self._class_name(cls, path), cls)
        self.records[cls] = record
        self._open.add(cls)
        fields = [self._field(cls, name, info, f"{path}.{name}") for name, info in cls.model_fields.items()]
        _check_aliases(fields, path)
        record.fill(fields)
        self._open.discard(cls)
        return record.node()

    def _field(self, cls: type, name: str, info: FieldInfo, path: str) -> FieldNode:
        if not _AVRO_NAME.match(name):
            _refuse(
                path, f"the field's name {name!r} can't be an Avro name", "use ASCII letters, digits and '_'"
            )
        if info.exclude:
            _refuse(
                path,
                "the field is excluded from serialization and would be lost",
                "drop exclude=, or the field",
            )
        value, has_default = _default_of(info, path)
        hint = f"{cls.__name__}_{name}"
        node = self._node(info.annotation, path, info.metadata, hint=hint, default=value)
        made = FieldNode(name, node, has_default, aliases=_former_names(info))
        if has_default:
            self._pending.append(_Pending(made, value, path))
        return made

    def _set_default(self, pending: _Pending) -> None:
        try:
            datum = pending.field.node.prepare(pending.value)
            nodes.find_unwritable(datum)
        except Bad as bad:
            raise UnsupportedType(
                bad.path(pending.path),
                f"the default doesn't fit: {bad.message}",
                remedy="write the default in the field's own type",
            ) from None
        if _has_no_json(datum):
            _refuse(
                pending.path, "the default is a float that JSON doesn't know", "use a finite number, or None"
            )
        pending.field.default = datum


def _flatten(annotation: object, path: str) -> list[object]:
    """The members of a union, those of unions inside of it too."""
    members: list[object] = []
    for each in _members(annotation):
        inner, metadata = _unwrap(each, path)
        members.extend(_flatten(inner, path) if _members(inner) and not metadata else [each])
    literals = [each for each in members if typing.get_origin(each) is typing.Literal]
    if len(literals) > 1:  # Literal["a"] | Literal["b"] is one enum
        values = tuple(value for each in literals for value in typing.get_args(each))
        members = [typing.Literal[values], *(each for each in members if each not in literals)]
    return members


def _check_distinct(path: str, branches: Sequence[Node]) -> None:
    """Refuse what can't be told apart by Avro's base type."""
    seen: dict[str, Node] = {}
    for node in branches:
        if node.raw == "union":
            _refuse(
                path, "a union with constraints inside of a union", "write one union, constrain its members"
            )
        if node.raw == "record":
            continue
        if (other := seen.setdefault(node.raw, node)) is not node:
            _refuse_alike(path, other, node)
    if "map" in seen and any(node.raw == "record" for node in branches):
        _refuse(path, "a union of a dict and a model", "wrap the dict in a model of its own")


def _refuse_alike(path: str, one: Node, other: Node) -> NoReturn:
    names = " and ".join(sorted({t.__name__ for t in one.types[:1] + other.types[:1]}))
    _refuse(
        path,
        f"members of a union that look alike in Avro: {names}",
        "wrap them in models with different names",
    )


def _instance_maker(node: Node) -> Convert:
    """Make the instance at once: from a bare dict pydantic could choose another member of the union."""
    model = cast(type[pydantic.BaseModel], node.types[0])
    validate = model.__pydantic_validator__.validate_python
    revive = node.revive

    def make(datum: Any) -> object:
        return validate(datum if revive is None else revive(datum), by_alias=False, by_name=True)

    return make


def _complete(cls: type[pydantic.BaseModel], path: str) -> None:
    try:
        cls.model_rebuild()
    except pydantic.errors.PydanticUndefinedAnnotation as error:
        _refuse(path, f"{cls.__name__} refers to {error.name}, which isn't defined", "define or import it")


def _default_of(info: FieldInfo, path: str) -> tuple[object, bool]:
    if info.default_factory is not None:
        factory = cast(Callable[[], object], info.default_factory)
        if factory not in _PURE_FACTORIES:
            _refuse(
                path,
                "default_factory may give another value each time: no old record could be read twice alike",
                "give a constant default, or None and fill it in where the model is made",
            )
        return cast(object, factory()), True
    if info.is_required():
        return None, False
    return info.default, True


def _former_names(info: FieldInfo) -> tuple[str, ...]:
    """`validation_alias=AliasChoices("new", "old")` names former names; they become Avro's aliases."""
    if not isinstance(info.validation_alias, pydantic.AliasChoices):
        return ()
    return tuple(c for c in info.validation_alias.choices if isinstance(c, str) and _AVRO_NAME.match(c))


def _check_aliases(fields: list[FieldNode], path: str) -> None:
    names = {each.name: each for each in fields}
    for each in fields:
        each.aliases = tuple(alias for alias in each.aliases if alias != each.name)
        for alias in each.aliases:
            if (other := names.setdefault(alias, each)) is not each:
                _refuse(
                    f"{path}.{each.name}", f"the alias {alias!r} belongs to {other.name} too", "rename one"
                )


def _has_no_json(datum: object) -> bool:
    if isinstance(datum, float):
        return not math.isfinite(datum)
    if isinstance(datum, dict):
        return any(map(_has_no_json, cast(dict[str, object], datum).values()))
    return isinstance(datum, (list, tuple)) and any(map(_has_no_json, cast(Iterable[object], datum)))


def _refuse_unknown(annotation: Any, origin: object, path: str) -> NoReturn:
    for each in (annotation, origin):
        try:
            known = _REMEDIES.get(each)
        except TypeError:
            known = None
        if known is not None:
            _refuse(path, f"{known[0]} has no lossless form in Avro", known[1])
    if isinstance(annotation, (str, typing.ForwardRef)):
        _refuse(
            path, f"{annotation!r} isn't resolved", "define or import the name where the contract is declared"
        )
    if isinstance(annotation, typing.TypeVar):
        _refuse(path, f"{annotation!r} is open", "give the generic model its parameter: Page[Order]")
    name = annotation.__qualname__ if isinstance(annotation, type) else repr(annotation)
    if isinstance(annotation, type) and (
        hasattr(annotation, "__dataclass_fields__") or _is_shape(annotation)
    ):
        _refuse(path, f"{name} is no pydantic model", f"make it one: class {name}(pydantic.BaseModel)")
    _refuse(
        path,
        f"{name} has no lossless form in Avro",
        "use a pydantic model, str, int, float, bool, bytes, Decimal with bounds, AwareDatetime, date, time, "
        "UUID, a str Enum, Literal, list, tuple[X, ...], dict[str, X], or a union of these",
    )


def _is_shape(cls: type) -> bool:
    return typing.is_typeddict(cls) or (issubclass(cls, tuple) and "_fields" in cls.__dict__)
