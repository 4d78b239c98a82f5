"""A value of a model, made from its schema: what a participant answers when nobody has said what.

Station: used by `services.py` for fakes that weren't given, and for a saga's input that wasn't. Plain and
always the same, so that a run can be run again: texts are their field's name, numbers the lowest that is
allowed from 1 on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic

from kasaga_wire.codec import Codec
from kasaga_wire.errors import KasagaError

FORMATS = {
    "date-time": "2030-01-01T00:00:00Z",
    "date": "2030-01-01",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "uuid": "00000000-0000-4000-8000-000000000001",
    "email": "anna@example.org",
    "uri": "https://example.org/",
}
DEPTH = 20
"""Models within models after which a model is taken to contain itself."""

Json = Mapping[str, Any]


class NoExample(KasagaError):
    """No value could be made from a model's schema: its rules go beyond it."""

    code = "KSG-701"
    default_remedy = "give the value yourself: input=…, or fakes={Contract.command: lambda order: …}"


def example(codec: Codec[Any], what: str) -> Any:
    """Make a value that the codec takes. `what` names it in the error. Raises NoExample."""
    if codec.annotation in (None, type(None)):
        return None
    adapter = pydantic.TypeAdapter[Any](codec.annotation)
    try:
        schema = adapter.json_schema()
        value = adapter.validate_python(_Maker(schema).make(schema, "value", 0), strict=False)
        codec.encode(value)
    except (pydantic.PydanticUserError, ValueError, KasagaError) as error:
        if isinstance(error, pydantic.ValidationError):
            first = error.errors(include_input=False, include_url=False)[0]
            why = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        else:
            why = str(error)
        raise NoExample(f"{what}: no value could be made: {why}") from None
    return value


class _Maker:
    """Of one JSON schema."""

    def __init__(self, root: Json) -> None:
        self._definitions: Json = root.get("$defs", {})

    def make(self, schema: Json, name: str, depth: int) -> Any:
        if depth > DEPTH:
            raise ValueError(f"{name} contains itself")
        if "$ref" in schema:
            target = str(schema["$ref"]).rpartition("/")[2]
            return self.make(self._definitions[target], name, depth + 1)
        for known in ("default", "const"):
            if known in schema:
                return schema[known]
        if "examples" in schema or "enum" in schema:
            return next(iter(schema.get("examples") or schema["enum"]))
        for choice in ("anyOf", "oneOf", "allOf"):
            if choice in schema:
                options = [each for each in schema[choice] if each.get("type") != "null"]
                return self.make(options[0], name, depth + 1)
        return self._plain(schema, name, depth)

    def _plain(self, schema: Json, name: str, depth: int) -> Any:
        kind = schema.get("type")
        if kind == "object":
            required = schema.get("required", ())
            fields: Json = schema.get("properties", {})
            return {each: self.make(fields[each], each, depth + 1) for each in required}
        if kind == "array":
            if "prefixItems" in schema:
                return [self.make(each, name, depth + 1) for each in schema["prefixItems"]]
            return [self.make(schema.get("items", {}), name, depth + 1)] * max(1, schema.get("minItems", 0))
        if kind in ("integer", "number"):
            return _number(schema, whole=kind == "integer")
        if kind == "boolean":
            return True
        if kind == "null":
            return None
        text = FORMATS.get(schema.get("format", ""), name)
        return text.ljust(schema.get("minLength", 0), "x")[: schema.get("maxLength")]


def _number(schema: Json, *, whole: bool) -> float:
    """1 where it may be, else the number nearest to it."""
    step = schema.get("multipleOf", 1 if whole else 0)
    number = step or 1
    least, over = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, under = schema.get("maximum"), schema.get("exclusiveMaximum")
    if least is not None and number < least:
        number = least
    if over is not None and number <= over:
        number = over + 1
    if most is not None and number > most:
        number = most
    if under is not None and number >= under:
        number = under - 1 if whole else (under + (over if over is not None else under - 1)) / 2
    return number if not step or number % step == 0 else (number // step + 1) * step
