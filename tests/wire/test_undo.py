"""The undo's payload is built from payloads, whatever the result's type is."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from kasaga_wire.codec import Codec, Schemas, codec_for, to_json
from kasaga_wire.errors import DecodeError, EncodeError, NameClash
from kasaga_wire.undo import MAX_REASON_CHARACTERS, Undo, UndoCodec
from wire.samples import kinds, whole_models


class Money(BaseModel):
    cents: int


class Order(BaseModel):
    id: str
    price: Money


class Receipt(BaseModel):
    id: str
    paid: Money


class Refusal(BaseModel):
    id: str


def codecs(result: Any, argument: Any = Order) -> tuple[UndoCodec, Codec[Any], Codec[Any]]:
    undo = UndoCodec("shop.refund", argument, result, "Shop.refund")
    return undo, codec_for(argument, name="shop"), codec_for(result, name="shop")


def there_and_back(argument: Any, given_input: Any, result_type: Any, result: Any) -> Any:
    undo, input_codec, result_codec = codecs(result_type, argument)
    payload = undo.encode(
        input_codec.encode(given_input),
        input_codec.schema,
        result_codec.encode(result),
        result_codec.schema,
        "because",
        "3",
    )
    return undo.decode(payload, Schemas())


ORDER = Order(id="o", price=Money(cents=5))


@pytest.mark.parametrize(
    ("result_type", "result"),
    [
        (Receipt, Receipt(id="r", paid=Money(cents=5))),
        (Receipt | None, Receipt(id="r", paid=Money(cents=5))),
        (Receipt | None, None),
        (Receipt | Refusal, Refusal(id="x")),
        (Refusal | Receipt | None, Receipt(id="r", paid=Money(cents=5))),
        (int | str | None, "text"),
        (int | str | None, None),
        (int | float, 5),
        (int, 5),
        (str, ""),
        (None, None),
        (list[Order], [ORDER, ORDER]),
        (Order, ORDER),
    ],
)
def test_an_undo_carries_input_and_result(result_type: Any, result: Any) -> None:
    got = there_and_back(Order, ORDER, result_type, result)
    assert got == Undo(ORDER, result, "because", "3")
    assert type(got.result) is type(result)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=40)
@given(st.data())
def test_an_undo_carries_anything(data: st.DataObject) -> None:
    argument, result = data.draw(whole_models), data.draw(kinds)
    value, got = data.draw(argument.values), data.draw(result.values)
    try:
        undo = there_and_back(argument.annotation, value, result.annotation, got)
    except NameClash:  # two of the random models share a literal's name
        return
    assert undo == Undo(value, got, "because", "3")


@pytest.mark.parametrize("result_type", [Receipt, Receipt | None, int | str, None])
def test_a_result_that_nobody_knows_is_none(result_type: Any) -> None:
    undo, input_codec, _ = codecs(result_type)
    payload = undo.encode(input_codec.encode(ORDER), input_codec.schema, None, None, "lost", None)
    assert undo.decode(payload, Schemas()) == Undo(ORDER, None, "lost", None)


def test_types_that_input_and_result_share_are_defined_once() -> None:
    undo, _, _ = codecs(Receipt)
    assert undo.schema.json.count('"name":"shop.Money"') == 1
    assert undo.schema.json.startswith('{"name":"shop.refund.Undo","type":"record"')


def test_a_payload_of_an_older_contract_is_converted() -> None:
    class OldOrder(BaseModel):
        id: str

    class NewOrder(BaseModel):
        id: str
        note: str = "none"

    older: Any = pydantic.create_model("Order", __base__=OldOrder)
    newer: Any = pydantic.create_model("Order", __base__=NewOrder)
    old_codec = codec_for(older, name="shop")
    undo = UndoCodec("shop.refund", newer, int, "Shop.refund")
    result = codec_for(int, name="shop")
    payload = undo.encode(
        old_codec.encode(older(id="o")), old_codec.schema, result.encode(5), result.schema, "", None
    )
    got = undo.decode(payload, Schemas())
    assert (got.input, got.result) == (newer(id="o", note="none"), 5)


def test_an_undo_of_an_older_contract_is_read() -> None:
    older: Any = pydantic.create_model("Order", id=(str, ...))
    newer: Any = pydantic.create_model("Order", id=(str, ...), note=(str, "none"))
    schemas = Schemas()
    old_undo = UndoCodec("shop.refund", older, int, "Shop.refund")
    schemas.add(old_undo.schema)
    payload = old_undo.encode(
        old_undo.input.encode(older(id="o")),
        old_undo.input.schema,
        old_undo.result.encode(5),
        old_undo.result.schema,
        "why",
        None,
    )
    new_undo = UndoCodec("shop.refund", newer, int, "Shop.refund")
    assert new_undo.decode(payload, schemas) == Undo(newer(id="o", note="none"), 5, "why", None)


def test_texts_are_cleaned_and_cut() -> None:
    undo, input_codec, _ = codecs(int)
    given_input = input_codec.encode(ORDER)
    payload = undo.encode(
        given_input, input_codec.schema, None, None, "a\0b\ud800" + "x" * 10_000, "\ud83d\ude00\0"
    )
    got = undo.decode(payload, Schemas())
    assert got.reason == "a\ufffdb\ufffd" + "x" * (MAX_REASON_CHARACTERS - 4)
    assert got.failed_step == "\U0001f600\ufffd"


def test_people_can_read_an_undo() -> None:
    undo, input_codec, result_codec = codecs(int)
    payload = undo.encode(
        input_codec.encode(ORDER), input_codec.schema, result_codec.encode(5), result_codec.schema, "why", "2"
    )
    schemas = Schemas()
    schemas.add(undo.schema)
    assert to_json(payload, schemas) == {
        "input": {"id": "o", "price": {"cents": 5}},
        "result": 5,
        "reason": "why",
        "failed_step": "2",
    }


def test_a_payload_that_lies_about_its_schema_is_refused() -> None:
    undo, input_codec, result_codec = codecs(int)
    with pytest.raises(EncodeError, match="isn't of the schema"):
        undo.encode(result_codec.encode(5), input_codec.schema, None, None, "", None)
    with pytest.raises(EncodeError, match="without its schema"):
        undo.encode(input_codec.encode(ORDER), input_codec.schema, result_codec.encode(5), None, "", None)
    with pytest.raises(DecodeError):
        undo.decode(undo.schema.prefix + b"\x02", Schemas())
