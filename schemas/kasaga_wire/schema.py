"""A published schema, its 31-bit id, and the map from ids to schemas.

Station: `codec.py` makes schemas from annotations; whoever reads `<namespace>.schemas` adds those of others
to `Schemas`.

The id is taken from the schema's text, as it is published, byte by byte: nobody has to allocate it, nobody
has to agree on a canonical form, and the same text has the same id in every namespace. Our own texts are
canonical (`canonical`).
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import DecodeError, SchemaCollision, UnknownSchema
from .nodes import Json, is_list, is_object
from .reading import Names

MAGIC = b"\x00"
PREFIX_BYTES = 5  # magic and id
MAX_SCHEMA_BYTES = 256 * 1024

# Avro's own canonical order, and behind it what Avro's canonical form drops and our data depends on.
_ORDER = (
    "name",
    "type",
    "fields",
    "symbols",
    "items",
    "values",
    "size",
    "logicalType",
    "precision",
    "scale",
    "aliases",
    "default",
)


def canonical(schema: Json) -> str:
    """One text for one schema: attributes in a fixed order, no spaces, only what the data depends on."""
    return json.dumps(_ordered(schema), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _ordered(schema: Json) -> Json:
    if is_list(schema):
        return [_ordered(each) for each in schema]
    if not is_object(schema):
        return schema
    given = schema
    made: dict[str, Json] = {}
    for key in _ORDER:
        if key in given:
            made[key] = given[key] if key in ("default", "symbols", "aliases") else _ordered(given[key])
    return made


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema as it is published. Equal when the text is."""

    json: str
    hash: bytes
    id: int

    @classmethod
    def of(cls, text: str) -> Schema:
        """Compute the hash and the id. The text isn't parsed here."""
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise DecodeError(f"a schema whose text can't be written as UTF-8: {error.reason}") from None
        if len(data) > MAX_SCHEMA_BYTES:
            raise DecodeError(f"a schema of {len(data)} bytes; {MAX_SCHEMA_BYTES} are allowed")
        digest = hashlib.sha256(data).digest()
        return cls(text, digest, int.from_bytes(digest[:4], "big") & 0x7FFFFFFF)

    @property
    def prefix(self) -> bytes:
        """What every payload of this schema begins with."""
        return MAGIC + self.id.to_bytes(4, "big")


@functools.lru_cache(maxsize=1024)
def names_of(text: str) -> Names:
    """The parsed schema, ready to be read with."""
    try:
        return Names(json.loads(text))
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise DecodeError(f"a schema that can't be parsed: {type(error).__name__}") from None


def schema_id(data: bytes) -> int:
    """The id in front of a payload."""
    if len(data) < PREFIX_BYTES or data[:1] != MAGIC:
        raise DecodeError(
            "the payload doesn't begin with a zero byte and a schema id",
            remedy="write the Confluent wire format: 0x00, four bytes of id, the Avro body",
        )
    return int.from_bytes(data[1:PREFIX_BYTES], "big")


class Schemas:
    """Every schema known to this process, by id. Grows by what is published; never forgets.

    Safe to use from several threads: each operation is one dictionary operation.
    """

    def __init__(self) -> None:
        """Start empty: codecs know their own schemas."""
        self._by_id: dict[int, Schema] = {}

    def add(self, schema: str | Schema) -> Schema:
        """Take a published text in, or a schema. A different one with the same id is an error."""
        schema = Schema.of(schema) if isinstance(schema, str) else schema
        known = self._by_id.setdefault(schema.id, schema)
        if known.hash != schema.hash:
            raise SchemaCollision(
                f"two different schemas have the id {schema.id}",
                remedy="change the newer one in any way: a model's name, the order of two fields",
            )
        return known

    def get(self, schema_id: int) -> Schema | None:
        """The schema, or None while nobody has published it."""
        return self._by_id.get(schema_id)

    def require(self, schema_id: int) -> Schema:
        """The schema, or UnknownSchema, which is worth a retry."""
        known = self._by_id.get(schema_id)
        if known is None:
            raise UnknownSchema(schema_id)
        return known

    def __iter__(self) -> Iterator[Schema]:
        """A snapshot of all of them."""
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_id)


def without_logic(schema: Json) -> Any:
    """The schema that fastavro moves data by: nothing in it makes it convert or default anything."""
    if is_list(schema):
        return [without_logic(each) for each in schema]
    if not is_object(schema):
        return schema
    given = schema
    if "logicalType" in given:
        return given["type"]
    made: dict[str, Json] = {key: given[key] for key in ("type", "name", "symbols", "size") if key in given}
    for key in ("items", "values"):
        if key in given:
            made[key] = without_logic(given[key])
    if "fields" in given:
        made["fields"] = [
            {"name": each["name"], "type": without_logic(each["type"])} for each in given["fields"]
        ]
    return made
