"""JSON to payloads by the schema alone: the same bytes as from the author's model, or a named field."""

from __future__ import annotations

import json
from datetime import date, time
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field

from kasaga_wire.codec import Schemas, codec_for, to_json
from kasaga_wire.errors import EncodeError
from kasaga_wire.from_json import from_json
from kasaga_wire.nodes import is_list, is_object
from kasaga_wire.reading import kind_of
from kasaga_wire.schema import Schema
from wire.golden_models import LARGE, SMALL, Order
from wire.samples import whole_models

patient = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=60)


def back_and_forth(annotation: Any, value: Any) -> tuple[bytes, bytes]:
    codec = codec_for(annotation, name="shop")
    payload = codec.encode(value)
    schemas = Schemas()
    schemas.add(codec.schema)
    text = json.dumps(to_json(payload, schemas))
    return payload, from_json(json.loads(text), codec.schema)


def ambiguous(schema: Any) -> bool:
    """Whether some union's values look alike in JSON: text and what is written as text, maps and records."""
    if is_list(schema):
        kinds = [kind_of(each) for each in schema]
        texts = sum(shown_as_text(each) for each in schema)
        return (
            texts > 1
            or ("map" in kinds and len(kinds) > kinds.count("null") + 1)
            or any(map(ambiguous, schema))
        )
    if not is_object(schema):
        return False
    inner: list[Any] = [schema[key] for key in ("items", "values") if key in schema]
    return any(map(ambiguous, [*inner, *(each["type"] for each in schema.get("fields", ()))]))


def shown_as_text(schema: Any) -> bool:
    kind = schema.get("logicalType", kind_of(schema)) if is_object(schema) else schema
    return kind not in ("null", "boolean", "long", "array", "map", "record")


@patient
@given(st.data())
def test_what_is_shown_can_be_sent(data: st.DataObject) -> None:
    kind = data.draw(whole_models)
    value = data.draw(kind.values)
    assume(not ambiguous(json.loads(codec_for(kind.annotation, name="shop").schema.json)))
    try:
        payload, again = back_and_forth(kind.annotation, value)
    except EncodeError as error:
        # Two records of a union with the same fields: nobody can tell from JSON which one is meant.
        assume("that fits" not in error.message)
        raise
    assert again == payload


@pytest.mark.parametrize("order", [SMALL, LARGE])
def test_every_type_once(order: Order) -> None:
    payload, again = back_and_forth(Order, order)
    assert again == payload


class Everything(BaseModel):
    text: str
    count: int
    share: float
    yes: bool
    raw: bytes
    price: Annotated[Decimal, Field(max_digits=6, decimal_places=2)]
    at: AwareDatetime
    day: date
    clock: time
    id: UUID
    tags: list[str] = []
    more: dict[str, int] = {}
    either: int | str | None = None
    inner: Everything | None = None


GOOD: dict[str, Any] = {
    "text": "é",
    "count": 2**63 - 1,
    "share": 1,
    "yes": True,
    "raw": "AP8=",
    "price": "12.5",
    "at": "2026-01-31T10:00:00+01:00",
    "day": "2026-01-31",
    "clock": "10:00",
    "id": "0198C0DE-0000-7000-8000-000000000001",
}
CODEC = codec_for(Everything, name="shop")


def test_what_is_left_out_is_the_default() -> None:
    payload = from_json(GOOD, CODEC.schema)
    value = CODEC.decode(payload, Schemas())
    assert value == Everything.model_validate({**GOOD, "raw": b"\x00\xff"})
    assert CODEC.encode(value) == payload


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("text", 1, "input.text: a whole number where text is wanted"),
        ("text", "\ud800", "input.text: a lone surrogate at character 0"),
        ("count", 1.0, "input.count: a number where a whole number is wanted"),
        ("count", True, "input.count: true or false where a whole number is wanted"),
        ("count", 2**63, "input.count: a number beyond 64 bits"),
        ("share", 2**53 + 1, "input.share: an int that no float equals"),
        ("share", "much", "input.share: text where a number is wanted"),
        ("yes", "true", "input.yes: text where true or false is wanted"),
        ("raw", "?", "input.raw: text that isn't base64"),
        ("price", 12.5, "input.price: a number where a decimal in a text is wanted"),
        (
            "price",
            "12.505",
            "input.price: a Decimal with more than 6 digits, or more than 2 behind the point",
        ),
        ("price", "1e999999999", "input.price: a Decimal with more than 6 digits"),
        ("price", "cheap", "input.price: text that isn't a decimal"),
        ("price", 10**4000, "input.price: text that isn't a decimal"),
        ("at", "2026-01-31T10:00:00", "input.at: a naive datetime"),
        ("at", "2026-01-31T10:00:00.1234567Z", "input.at: a time finer than a microsecond"),
        ("at", 5, "input.at: a whole number where text is wanted"),
        ("day", "31.1.2026", "input.day: text that isn't a date"),
        ("clock", "10:00+01:00", "input.clock: a time with a time zone"),
        ("clock", "late", "input.clock: text that isn't a time of day"),
        ("id", "7", "input.id: text that isn't a UUID"),
        ("tags", ["a", None], "input.tags[1]: null where text is wanted"),
        ("tags", "a", "input.tags: text where an array is wanted"),
        ("more", {"a": "b"}, "input.more['a']: text where a whole number is wanted"),
        ("either", 1.5, "input.either: a number where string or null or long is wanted"),
        ("inner", {**GOOD, "count": "x"}, "input.inner.count: text where a whole number is wanted"),
        ("colour", 1, "input.colour: Everything has no such field"),
    ],
)
def test_what_does_not_fit_is_named(field: str, value: Any, message: str) -> None:
    with pytest.raises(EncodeError) as refused:
        from_json({**GOOD, field: value}, CODEC.schema)
    assert refused.value.message.startswith(message)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(EncodeError, match=r"input\.count: is required"):
        from_json({name: value for name, value in GOOD.items() if name != "count"}, CODEC.schema)


def test_nesting_has_an_end() -> None:
    value = dict(GOOD)
    for _ in range(99):
        value = {**GOOD, "inner": value}
    from_json(value, CODEC.schema)
    with pytest.raises(EncodeError, match="nested too deep"):
        from_json({**GOOD, "inner": value}, CODEC.schema)


def test_what_schemas_of_others_may_hold() -> None:
    schema = Schema.of(
        json.dumps(
            {
                "type": "record",
                "name": "a.B",
                "fields": [
                    {
                        "name": "f",
                        "type": {"type": "fixed", "name": "a.F", "size": 2},
                        "default": "\u0001\u00ff",
                    },
                    {"name": "i", "type": "int", "default": 1},
                    {"name": "x", "type": "float", "default": 1},
                    {"name": "m", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                    {"name": "t", "type": {"type": "int", "logicalType": "time-millis"}},
                    {"name": "n", "type": ["null", "a.F"], "default": None},
                ],
            }
        )
    )
    schemas = Schemas()
    schemas.add(schema)
    value = {"m": "2026-01-31T10:00:00.123Z", "t": "10:00:00.5", "n": "AQI="}
    assert to_json(from_json(value, schema), schemas) == {
        "f": "Af8=",
        "i": 1,
        "x": 1.0,
        "m": "2026-01-31T10:00:00.123000Z",
        "t": "10:00:00.500000",
        "n": "AQI=",
    }
    for wrong in ({"i": 2**31}, {"f": "AA=="}, {"m": "2026-01-31T10:00:00.0001Z"}):
        with pytest.raises(EncodeError):
            from_json({**value, **wrong}, schema)


class Card(BaseModel):
    number: str


class Cheque(BaseModel):
    number: str
    bank: str = ""


def test_an_object_that_fits_two_records_is_refused() -> None:
    codec = codec_for(Card | Cheque, name="shop")
    with pytest.raises(EncodeError, match="an object that fits Card and Cheque"):
        from_json({"number": "1"}, codec.schema)
    with pytest.raises(EncodeError, match=r"input\.number: a whole number where text is wanted"):
        from_json({"number": 1}, codec.schema)
    assert codec.decode(from_json({"number": "1", "bank": "b"}, codec.schema), Schemas()) == Cheque(
        number="1", bank="b"
    )
