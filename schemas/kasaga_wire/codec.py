"""Codecs: a value of one annotation to bytes and back, strictly.

Station: contracts, sagas and the envelope's bodies are encoded here, once, when they are decided;
everything an author receives has come through `decode`, live too. Calls `avro.py` to compile, fastavro to
move bytes, pydantic to validate.

A payload is `0x00`, four bytes of schema id, the Avro body: the Confluent wire format.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import fastavro
import pydantic

from . import nodes
from .avro import Builder, avro_namespace
from .errors import CodecError, DecodeError, EncodeError
from .nodes import Bad, Json, Node
from .people import shown
from .reading import Names, Read, Resolver
from .schema import MAGIC, PREFIX_BYTES, Schema, Schemas, canonical, names_of, schema_id, without_logic

__all__ = ["MAGIC", "Codec", "Schema", "Schemas", "canonical", "codec_for", "schema_id", "to_json"]

T = TypeVar("T")
_fastavro: Any = fastavro  # its types are partly unknown

# No payload is ever longer, whatever the brokers allow. The limit per record, 900 kB, is the saga's.
MAX_PAYLOAD_BYTES = 8 * 1024 * 1024
MAX_FOREIGN_READERS = 256  # compiled readers of other writers' schemas that one codec keeps


class Codec(Generic[T]):
    """Encodes and decodes the values of one annotation.

    Made by `codec_for`; safe to use from several threads.
    """

    def __init__(self, annotation: Any, node: Node, builder: Builder, where: str) -> None:
        self.annotation: Any = annotation
        self.where = where
        self.node = node
        full: Json = node.emit(set())
        self.schema = Schema.of(canonical(full))
        self._prefix = self.schema.prefix
        self._names = names_of(self.schema.json)
        self._wire: Any = fastavro.parse_schema(without_logic(full))
        self._prepare = node.prepare
        self._revive = node.revive
        self._validate = _validator(annotation)
        self._tagged = builder.tagged
        self._careful: Read | None = Resolver(self._names).compile() if builder.recursive else None
        self._foreign: dict[int, Read] = {}

    def __repr__(self) -> str:
        return f"<Codec of {self.where}, schema {self.schema.id}>"

    def encode(self, value: T) -> bytes:
        """The payload, or EncodeError with the field's path.

        Nothing is converted that would lose anything.
        """
        datum: Any = None
        out = io.BytesIO()
        out.write(self._prefix)
        try:
            datum = self._prepare(value)
            _fastavro.schemaless_writer(out, self._wire, datum)
        except Bad as bad:
            raise self._refused(bad) from None
        except Exception as error:  # noqa: BLE001 (the C writer raises whatever Python raised, without the place)
            raise self._unwritable(datum, error) from None
        data = out.getvalue()
        if len(data) > MAX_PAYLOAD_BYTES:
            raise EncodeError(self.where, f"{len(data)} bytes; {MAX_PAYLOAD_BYTES} are the most")
        if self._careful is not None:
            self._check_depth(data)
        return data

    def _refused(self, bad: Bad) -> EncodeError:
        return EncodeError(bad.path(self.where), bad.message, remedy=bad.remedy)

    def _unwritable(self, datum: Any, error: Exception) -> EncodeError:
        try:
            nodes.find_unwritable(datum)
        except Bad as bad:
            return self._refused(bad)
        except RecursionError:
            pass
        if isinstance(error, RecursionError):
            return EncodeError(
                self.where, "records nested too deep", remedy="send a flat list with parents' ids"
            )
        return EncodeError(self.where, f"{type(error).__name__}: {error}")

    def _check_depth(self, data: bytes) -> None:
        try:
            cast(Read, self._careful)(data, PREFIX_BYTES, 0)
        except DecodeError as error:
            raise EncodeError(
                self.where, error.message, remedy="send a flat list with parents' ids"
            ) from None

    def decode(self, data: bytes, schemas: Schemas) -> T:
        """The value, validated by the model. UnknownSchema is worth a retry, DecodeError is not."""
        return cast(T, self.validate(self.read(data, schemas)))

    def read(self, data: bytes, schemas: Schemas) -> Any:
        """The bytes as a datum, not validated yet."""
        if data[:PREFIX_BYTES] == self._prefix and self._careful is None:
            return self._read_own(data)
        return self._read_foreign(data, schemas)

    def _read_own(self, data: bytes) -> Any:
        if len(data) > MAX_PAYLOAD_BYTES:
            raise DecodeError(f"{self.where}: {len(data)} bytes; {MAX_PAYLOAD_BYTES} are the most")
        source = io.BytesIO(data)
        source.seek(PREFIX_BYTES)
        try:
            if self._tagged:
                datum = _fastavro.schemaless_reader(
                    source, self._wire, None, return_record_name=True, return_record_name_override=True
                )
            else:
                datum = _fastavro.schemaless_reader(source, self._wire, None)
        except Exception as error:  # noqa: BLE001 (bytes of strangers: whatever the C reader raises)
            raise DecodeError(f"{self.where}: the bytes are no {self._named()}: {_reason(error)}") from None
        if source.tell() != len(data):
            raise DecodeError(f"{self.where}: {len(data) - source.tell()} bytes are left over")
        return datum

    def _read_foreign(self, data: bytes, schemas: Schemas) -> Any:
        if len(data) > MAX_PAYLOAD_BYTES:
            raise DecodeError(f"{self.where}: {len(data)} bytes; {MAX_PAYLOAD_BYTES} are the most")
        writer_id = schema_id(data)
        try:
            if writer_id == self.schema.id and self._careful is not None:
                read = self._careful
            elif (found := self._foreign.get(writer_id)) is not None:
                read = found
            else:
                read = self._compile_foreign(schemas.require(writer_id))
            datum, end = read(data, PREFIX_BYTES, 0)
        except DecodeError as error:
            raise type(error)(f"{self.where}: {error.message}", remedy=error.remedy) from None
        except (RecursionError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise DecodeError(
                f"{self.where}: the schema {writer_id} can't be read: {_reason(error)}"
            ) from None
        if end != len(data):
            raise DecodeError(f"{self.where}: {len(data) - end} bytes are left over")
        return datum

    def _compile_foreign(self, writer: Schema) -> Read:
        read = Resolver(names_of(writer.json), self._names).compile()
        if len(self._foreign) >= MAX_FOREIGN_READERS:
            self._foreign.clear()
        self._foreign[writer.id] = read
        return read

    def _named(self) -> str:
        return self.node.branch or "union"

    def from_json(self, text: str) -> T:
        """A value from JSON text as a person types it; DecodeError names the field."""
        try:
            return cast(T, pydantic.TypeAdapter[Any](self.annotation).validate_json(text))
        except pydantic.ValidationError as error:
            raise DecodeError(_first_error(self.where, error)) from None
        except Exception as error:  # a validator of the author's
            raise DecodeError(f"{self.where}: {type(error).__name__} in a validator: {error}") from error

    def validate(self, datum: Any) -> Any:
        """A datum as a value that the model has accepted."""
        try:
            if self._revive is not None:
                datum = self._revive(datum)
            return self._validate(datum)
        except Bad as bad:
            raise DecodeError(f"{bad.path(self.where)}: {bad.message}", remedy=bad.remedy) from None
        except pydantic.ValidationError as error:
            raise DecodeError(_first_error(self.where, error)) from None
        except CodecError:
            raise
        except Exception as error:  # a validator of the author's
            raise DecodeError(f"{self.where}: {type(error).__name__} in a validator: {error}") from error


def _validator(annotation: Any) -> Callable[[Any], Any]:
    if annotation is None or annotation is type(None):
        return lambda value: value
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        validator = annotation.__pydantic_validator__
    else:
        validator = pydantic.TypeAdapter[Any](cast(Any, annotation)).validator
    validate = validator.validate_python
    return lambda value: validate(value, by_alias=False, by_name=True)


def _reason(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text:.200}" if text else type(error).__name__


def _first_error(where: str, error: pydantic.ValidationError) -> str:
    """Where and why, without the value: payloads are other people's data."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in errors[0]["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{where}{place}: {errors[0]['msg']}{more}"


_cache: dict[Any, Codec[Any]] = {}
_cache_lock = threading.Lock()


def codec_for(annotation: object, *, name: str, where: str | None = None) -> Codec[Any]:
    """The codec of an annotation, compiled once.

    `name` is the namespace of the models' names in Avro: the contract's or the saga's name. `where` begins
    the paths in error messages. UnsupportedType names the field and the remedy.
    """
    key: Any = (annotation, name, where)
    try:
        found = _cache.get(key)
    except TypeError:  # metadata that can't be hashed: don't cache
        key, found = None, None
    if found is not None:
        return found
    with _cache_lock:
        builder = Builder(avro_namespace(name))
        made = build_codec(annotation, builder, where or name)
        return made if key is None else _cache.setdefault(key, made)


def build_codec(annotation: object, builder: Builder, where: str) -> Codec[Any]:
    """Compile with a builder that may know names already, as an undo's does."""
    return Codec(annotation, builder.build(annotation, where), builder, where)


def to_json(data: bytes, schemas: Schemas) -> object:
    """A payload as people read it: JSON-able, with the writer's own schema.

    Decimals, dates and ids become text.
    """
    names: Names = names_of(schemas.require(schema_id(data)).json)
    try:
        datum, end = Resolver(names, leaf=shown).compile()(data, PREFIX_BYTES, 0)
    except (RecursionError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DecodeError(f"the payload can't be shown: {_reason(error)}") from None
    if end != len(data):
        raise DecodeError(f"{len(data) - end} bytes are left over")
    return json.loads(json.dumps(datum))
