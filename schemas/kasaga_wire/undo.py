"""The payload of an undo: the input and the result of what is undone, and why.

Station: the engine builds it from payloads that are already encoded, so nothing is decoded that nobody
looks at; the participant decodes it for the handler of the compensation.

The record is `<participant>.<compensation>.Undo {input, result: ["null", …], reason, failed_step}`. Avro's
bytes don't depend on names, so a payload of the contract's own schema is spliced in as it is; an older one
is converted first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from . import leaves, nodes
from .avro import Builder, avro_namespace
from .codec import Codec, build_codec
from .errors import EncodeError
from .nodes import Bad, Emit, Json, Node
from .reading import read_long
from .schema import PREFIX_BYTES, Schema, Schemas

I = TypeVar("I")  # noqa: E741 (input)
R = TypeVar("R")

MAX_REASON_CHARACTERS = 4_000


@dataclass(frozen=True, slots=True)
class Undo(Generic[I, R]):
    """What a compensation's handler is called with, and what it may want to log."""

    input: I
    result: R | None
    reason: str
    failed_step: str | None


def _write_long(value: int) -> bytes:
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value & ~0x7F:
        out.append((value & 0x7F) | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _write_text(value: str) -> bytes:
    data = value.encode()
    return _write_long(len(data)) + data


class UndoCodec:
    """Encodes and decodes the undo of one command."""

    def __init__(self, name: str, input_type: object, result_type: object, where: str) -> None:
        """`name` is `<participant>.<compensation>`; the models inside keep the participant's namespace."""
        self.where = where
        builder = Builder(avro_namespace(name.rpartition(".")[0]))
        self.input: Codec[Any] = build_codec(input_type, builder, f"{where}.input")
        self.result: Codec[Any] = build_codec(result_type, builder, f"{where}.result")
        self._branches = _branch_map(self.result.node)
        self._null_result = self.result.node.raw == "null"
        node = _undo_node(f"{avro_namespace(name)}.Undo", self.input.node, self.result.node)
        self._record: Codec[Any] = Codec(dict[str, Any], node, builder, where)

    @property
    def schema(self) -> Schema:
        """The schema of the whole record."""
        return self._record.schema

    def encode(
        self,
        input_bytes: bytes,
        input_schema: Schema,
        result_bytes: bytes | None,
        result_schema: Schema | None,
        reason: str,
        failed_step: str | None,
    ) -> bytes:
        """The payload, from payloads as the history holds them.

        `result_bytes` None: nobody knows the result.
        """
        parts = [self.schema.prefix, self._body(self.input, input_bytes, input_schema)]
        if result_bytes is None:
            parts.append(b"" if self._null_result else b"\x00")
        elif result_schema is None:
            raise EncodeError(f"{self.where}.result", "a result without its schema")
        else:
            parts.append(self._result(self._body(self.result, result_bytes, result_schema)))
        parts.append(_write_text(nodes.clean_text(reason, MAX_REASON_CHARACTERS)))
        step = None if failed_step is None else nodes.clean_text(failed_step, MAX_REASON_CHARACTERS)
        parts.append(b"\x00" if step is None else b"\x02" + _write_text(step))
        return b"".join(parts)

    def _body(self, codec: Codec[Any], data: bytes, schema: Schema) -> bytes:
        if schema.hash != codec.schema.hash:
            known = Schemas()
            known.add(schema)
            data = codec.encode(codec.decode(data, known))
        elif data[:PREFIX_BYTES] != schema.prefix:
            raise EncodeError(codec.where, "a payload that isn't of the schema that is said to be its own")
        return data[PREFIX_BYTES:]

    def _result(self, body: bytes) -> bytes:
        """The result in a union with null: a union's branches move, anything else gets a branch's number."""
        if self._null_result:
            return b""
        if self._branches is None:
            return b"\x02" + body
        index, rest = read_long(body, 0)
        return _write_long(self._branches[index]) + body[rest:]

    def decode(self, data: bytes, schemas: Schemas) -> Undo[Any, Any]:
        """What the compensation's handler is called with."""
        datum = cast(dict[str, Any], self._record.read(data, schemas))
        result = datum["result"]
        if result is not None:
            result = self.result.validate(result)
        step = datum["failed_step"]
        return Undo(self.input.validate(datum["input"]), result, datum["reason"], step)


def _branch_map(result: Node) -> Sequence[int] | None:
    """Where each branch of the result's union is in the undo's, in which null comes first."""
    if not result.branches:
        return None
    order = ["null", *(node.branch for node in result.branches if node.raw != "null")]
    return [order.index(node.branch) for node in result.branches]


def _undo_node(name: str, input_node: Node, result_node: Node) -> Node:
    def result_schema(seen: set[str]) -> Json:
        if result_node.raw == "null":
            return "null"
        others = [node for node in result_node.branches or (result_node,) if node.raw != "null"]
        return ["null", *(node.emit(seen) for node in others)]

    def definition(seen: set[str]) -> Json:
        fields: list[tuple[str, Emit]] = [
            ("input", input_node.emit),
            ("result", result_schema),
            ("reason", leaves.STRING.emit),
            ("failed_step", lambda seen: ["null", "string"]),
        ]
        return {
            "type": "record",
            "name": name,
            "fields": [{"name": field, "type": emit(seen)} for field, emit in fields],
        }

    def prepare(value: object) -> Any:
        raise Bad("an undo is encoded from its parts", "use UndoCodec.encode")

    return Node(nodes.named(name, definition), name, "record", (dict,), prepare)
