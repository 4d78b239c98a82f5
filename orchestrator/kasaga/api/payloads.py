"""Payloads between JSON and bytes, by the schemas that the store has kept: no author's code is needed.

Station: of one process. Schemas never change, so they are read once; definitions change with each deploy.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import jsonschema
from jsonschema import exceptions

from kasaga_wire.codec import Schema, Schemas
from kasaga_wire.errors import CodecError, DecodeError
from kasaga_wire.from_json import from_json
from kasaga_wire.schema import schema_id

from ..engine.model import Started
from ..fleet import listed, newest
from ..lookup import first_record
from ..store.base import DefinitionRow, SagaRow, Store
from ..timeline_data import Decode, decoder
from .errors import InvalidRequest, UndeclaredSaga
from .problems import FIELDS_SHOWN

DEFINITIONS_SECONDS = 2.0
"""So long what can be started is taken to be what it was."""

_exceptions: Any = exceptions  # its types are partly unknown
_best_match = _exceptions.best_match

_SAID = {
    "minimum": "is less than {}",
    "exclusiveMinimum": "is not more than {}",
    "maximum": "is more than {}",
    "exclusiveMaximum": "is not less than {}",
    "multipleOf": "is no multiple of {}",
    "minLength": "has less than {} characters",
    "maxLength": "has more than {} characters",
    "pattern": "does not match {}",
    "minItems": "has less than {} items",
    "maxItems": "has more than {} items",
    "minProperties": "has less than {} entries",
    "maxProperties": "has more than {} entries",
    "enum": "is none of {}",
    "const": "is not {}",
    "type": "is not of type {}",
}
"""What is said of each bound of a form: never the value, which is other people's data."""


class Payloads:
    """Encodes inputs and shows payloads. Methods block: they are called in the threads that read."""

    def __init__(self) -> None:
        self._schemas = Schemas()
        self._hashes: dict[bytes, Schema] = {}
        self._definitions: list[DefinitionRow] = []
        self._read_at = float("-inf")
        self._forms: dict[str, Any] = {}

    # --- what can be started

    def definitions(self, store: Store) -> list[DefinitionRow]:
        """Return what can be started, as of a moment ago."""
        now = time.monotonic()
        if now - self._read_at > DEFINITIONS_SECONDS:
            self._definitions, self._read_at = store.definitions(), now
        return self._definitions

    def definition(self, store: Store, name: str, version: int | None) -> DefinitionRow:
        """Return one, the newest where no version is named; raises UndeclaredSaga."""
        known = self.definitions(store)
        fits = _fitting(known, name, version)
        if not fits:  # it may have been announced this moment
            self._read_at = float("-inf")
            known = self.definitions(store)
            fits = _fitting(known, name, version)
        if not fits:
            wanted = repr(name) if version is None else f"{name!r} version {version}"
            there = ", ".join(f"{each.name} {each.version}" for each in known[:FIELDS_SHOWN])
            raise UndeclaredSaga(
                f"no orchestrator has announced a saga {wanted}",
                remedy=f"There is {there}"
                if there
                else "Start an orchestrator: none has announced any saga yet",
            )
        if version is None:
            has = frozenset(listed((each.name, each.version) for each in fits))
            version = newest(name, has, store.fleet().values())
        return next(each for each in reversed(fits) if each.version == version)

    def schema(self, store: Store, digest: bytes) -> Schema:
        """Return the schema with a hash; raises UndeclaredSaga where the store has lost it."""
        if digest not in self._hashes:
            self._learn(store)
        if digest not in self._hashes:
            raise UndeclaredSaga(
                "the schema of the saga's input is not in the store",
                remedy="Start an orchestrator anew: it announces its sagas with their schemas",
            )
        return self._hashes[digest]

    def encode(self, store: Store, definition: DefinitionRow, value: object) -> tuple[bytes, Schema]:
        """Return an input's payload and schema.

        Raises EncodeError where a field doesn't fit the schema, InvalidRequest where it is out of the
        bounds of the author's model.
        """
        schema = self.schema(store, definition.input)
        payload = from_json(value, schema, "body.input")
        if definition.form:
            self._check(definition.form, value)
        return payload, schema

    def _check(self, form: str, value: object) -> None:
        validator: Any = self._forms.get(form)
        if validator is None:
            validator = self._forms[form] = jsonschema.Draft202012Validator(json.loads(form))
        fields: list[tuple[str, str]] = []
        try:
            for error in validator.iter_errors(value):
                # Of the branches of an `X | None` the one that was meant.
                meant = _best_match([error]) or error
                fields.append((_place(meant), _reason(meant)))
                if len(fields) == FIELDS_SHOWN:
                    break
        except RecursionError:
            return  # nested as deep as inputs may be, and the validator can't follow: the saga's model can
        if fields:
            raise InvalidRequest(
                f"{fields[0][0]} {fields[0][1]}", remedy="Mend the fields named", fields=tuple(fields)
            )

    # --- what is there

    def same_input(self, store: Store, row: SagaRow, value: object) -> bool:
        """Say whether a saga was started with this input, by the schema that it was started with.

        A release may have changed the schema since: the bytes differ then, and the input is the same.
        """
        record = first_record(store, row)
        if record is None or not isinstance(record.event, Started):
            return False
        schema = self._known(store, record.event.input)
        try:
            again = from_json(value, schema) if schema is not None else b""
        except CodecError:
            return False
        return hashlib.sha256(again).digest() == row.input_hash

    def decoder(self, store: Store) -> Decode:
        """Return a Decode that looks unknown schemas up, once."""
        plain, looked = decoder(self._schemas), False

        def decode(data: bytes) -> object:
            nonlocal looked
            if not looked and data and self._missing(data):
                self._learn(store)
                looked = True
            return plain(data)

        return decode

    def _missing(self, data: bytes) -> bool:
        try:
            return self._schemas.get(schema_id(data)) is None
        except DecodeError:
            return False

    def _known(self, store: Store, data: bytes) -> Schema | None:
        if self._missing(data):
            self._learn(store)
        try:
            return self._schemas.get(schema_id(data))
        except DecodeError:
            return None

    def _learn(self, store: Store) -> None:
        for text in store.schemas().values():
            schema = self._schemas.add(text)
            self._hashes[schema.hash] = schema


def _fitting(known: list[DefinitionRow], name: str, version: int | None) -> list[DefinitionRow]:
    return [each for each in known if each.name == name and version in (None, each.version)]


def _place(error: Any) -> str:
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    return "body.input" + "".join(parts)


def _reason(error: Any) -> str:
    said = _SAID.get(error.validator)
    return said.format(json.dumps(error.validator_value)) if said else f"doesn't fit `{error.validator}`"
