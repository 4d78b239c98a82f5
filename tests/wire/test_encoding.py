"""Strict encoding: what would lose anything is refused at the field, and nothing else is."""

from __future__ import annotations

import enum
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pydantic
import pytest
from pydantic import BaseModel, Field

from kasaga_wire.codec import Schemas, codec_for
from kasaga_wire.errors import DecodeError, EncodeError
from kasaga_wire.reading import MAX_DEPTH

Money = Annotated[Decimal, Field(max_digits=6, decimal_places=2)]


class Color(enum.StrEnum):
    RED = "red"


class Card(BaseModel):
    kind: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    kind: Literal["cash"] = "cash"
    number: str


class Other(BaseModel):
    number: str


Payment = Annotated[Card | Cash, Field(discriminator="kind")]


def box(annotation: Any, value: Any) -> BaseModel:
    """A model whose field holds the value, whatever pydantic thinks of it."""
    made: Any = pydantic.create_model("Box", x=(annotation, ...))
    return made.model_construct(x=value)  # type: ignore[no-any-return]


def encode(annotation: Any, value: Any) -> bytes:
    model = box(annotation, value)
    return codec_for(type(model), name="shop").encode(model)


def round_trip(annotation: Any, value: Any) -> Any:
    model = box(annotation, value)
    codec = codec_for(type(model), name="shop")
    return codec.decode(codec.encode(model), Schemas()).x


class Int(int):
    pass


class Str(str):
    __slots__ = ()


class Nanoseconds(datetime):
    nanosecond = 5


REFUSED: list[tuple[Any, Any, str]] = [
    (int, 1.5, "float where int"),
    (int, 1.0, "float where int"),
    (int, True, "bool where int"),
    (int, "1", "str where int"),
    (int, None, "NoneType where int"),
    (int, 2**63, "beyond 64 bits"),
    (int, -(2**63) - 1, "beyond 64 bits"),
    (float, True, "bool where float"),
    (float, 2**53 + 1, "no float equals"),
    (float, 10**400, "no float equals"),
    (float, "1", "str where float"),
    (bool, 1, "int where bool"),
    (bool, None, "NoneType where bool"),
    (str, b"x", "bytes where str"),
    (str, 5, "int where str"),
    (str, "a\ud800", "lone surrogate at character 1"),
    (bytes, "x", "str where bytes"),
    (bytes, bytearray(b"x"), "bytearray where bytes"),
    (Money, Decimal("1.001"), "more than 6 digits, or more than 2 behind"),
    (Money, Decimal("10000"), "more than 6 digits"),
    (Money, Decimal("-10000"), "more than 6 digits"),
    (Money, Decimal("1E+999999"), "more than 6 digits"),
    (Money, Decimal("1E-999999"), "more than 6 digits"),
    (Money, Decimal("NaN"), "not a number"),
    (Money, Decimal("Infinity"), "not a number"),
    (Money, 1.5, "float where Decimal"),
    (Money, 1, "int where Decimal"),
    (pydantic.AwareDatetime, datetime(2026, 1, 1), "naive"),
    (pydantic.AwareDatetime, date(2026, 1, 1), "date where datetime"),
    (pydantic.AwareDatetime, Nanoseconds(2026, 1, 1, tzinfo=UTC), "finer than a microsecond"),
    (pydantic.AwareDatetime, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "years 1 to 9999"),
    (
        pydantic.AwareDatetime,
        datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=2))),
        "years 1 to 9999",
    ),
    (date, datetime(2026, 1, 1, tzinfo=UTC), "datetime where date"),
    (time, time(1, tzinfo=UTC), "time zone"),
    (UUID, "not one", "str where UUID"),
    (Color, "blue", "no member of Color"),
    (Color, 5, "no member of Color"),
    (Literal["a"], "b", "none of the literals"),
    (Literal["a"], 5, "none of the literals"),
    (list[int], (1,), "tuple where list"),
    (list[int], {1}, "set where list"),
    (list[int], None, "NoneType where list"),
    (tuple[int, ...], [1], "list where tuple"),
    (dict[str, int], [("a", 1)], "list where dict"),
    (dict[str, int], {1: 1}, "int where a str key"),
    (None, 5, "int where None"),
    (int | None, "1", "str where NoneType or int"),
    (int | None, True, "bool where int"),
    (int | str, 1.5, "float where int or str"),
    (Card, Cash(number="1"), "Cash where Card"),
    (Card, {"number": "1"}, "dict where Card"),
    (Payment, Other(number="1"), "Other where Card or Cash"),
]


@pytest.mark.parametrize(
    ("annotation", "value", "message"), REFUSED, ids=[f"{r[0]}-{r[1]!r:.30}" for r in REFUSED]
)
def test_a_lossy_value_is_refused(annotation: Any, value: Any, message: str) -> None:
    with pytest.raises(EncodeError) as caught:
        encode(annotation, value)
    assert caught.value.path.startswith("shop.x")
    assert message in caught.value.message
    assert caught.value.code == "KSG-110"


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [
        (int, 2**63 - 1, 2**63 - 1),
        (int, -(2**63), -(2**63)),
        (int, Int(5), 5),
        (float, 5, 5.0),
        (float, float("inf"), float("inf")),
        (float, -0.0, -0.0),
        (str, "a\0b", "a\0b"),
        (str, "\U0001f600", "\U0001f600"),
        (str, Str("x"), "x"),
        (str, Color.RED, "red"),
        (bytes, b"", b""),
        (Money, Decimal("9999.99"), Decimal("9999.99")),
        (Money, Decimal("-9999.99"), Decimal("-9999.99")),
        (Money, Decimal("1.5000000000"), Decimal("1.50")),
        (Money, Decimal("1E+3"), Decimal(1000)),
        (Money, Decimal("0E+999999"), Decimal(0)),
        (Money, Decimal("-0"), Decimal(0)),
        (
            pydantic.AwareDatetime,
            datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=2))),
            datetime(2026, 7, 1, 10, tzinfo=UTC),
        ),
        (pydantic.AwareDatetime, datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, tzinfo=UTC)),
        (pydantic.AwareDatetime, datetime.max.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)),
        (date, date.min, date.min),
        (date, date.max, date.max),
        (time, time.max, time.max),
        (Color, "red", Color.RED),
        (Color | None, Color.RED, Color.RED),
        (int | str | None, "5", "5"),
        (int | float, 5, 5),
        (int | float, 5.0, 5.0),
        (bytes | str, b"x", b"x"),
        (Card | Cash | None, Cash(number="1"), Cash(number="1")),
        (Payment, Card(number="1"), Card(number="1")),
        (list[Payment], [Card(number="1"), Cash(number="2")], [Card(number="1"), Cash(number="2")]),
        (dict[str, Payment | None], {"a": None, "b": Cash(number="2")}, {"a": None, "b": Cash(number="2")}),
        (Literal["a"] | Literal["b"] | None, "b", "b"),
        (Literal["a", None], None, None),
        (None, None, None),
    ],
)
def test_what_loses_nothing_is_taken(annotation: Any, value: Any, expected: Any) -> None:
    decoded = round_trip(annotation, value)
    assert decoded == expected
    assert type(decoded) is type(expected)


def test_nan_is_a_float() -> None:
    assert str(round_trip(float, float("nan"))) == "nan"


def test_models_that_look_alike_stay_what_they_are() -> None:
    class Left(BaseModel):
        x: int

    class Right(BaseModel):
        x: int

    decoded = round_trip(list[Left | Right], [Right(x=1), Left(x=2)])
    assert [type(each) for each in decoded] == [Right, Left]


def test_the_path_names_the_item() -> None:
    class Line(BaseModel):
        price: Money

    class Order(BaseModel):
        lines: dict[str, list[Line]]

    bad = Order(lines={"a": [Line(price=Decimal(1)), Line.model_construct(price=Decimal("1.005"))]})
    with pytest.raises(EncodeError) as caught:
        codec_for(Order, name="shop", where="Shop.buy.order").encode(bad)
    assert caught.value.path == "Shop.buy.order.lines['a'][1].price"


@pytest.mark.parametrize("value", ["\ud800", 2**63])
def test_the_path_names_what_the_c_writer_refuses(value: Any) -> None:
    class Line(BaseModel):
        name: str | int

    class Order(BaseModel):
        lines: dict[str, list[Line]]
        more: list[str] = []

    with pytest.raises(EncodeError) as caught:
        codec_for(Order, name="shop").encode(Order.model_construct(lines={"a": []}, more=["", value]))
    assert caught.value.path == "shop.more[1]"
    line = Line.model_construct(name=value)
    with pytest.raises(EncodeError) as caught:
        codec_for(Order, name="shop").encode(Order.model_construct(lines={"a": [line]}, more=[]))
    assert caught.value.path == "shop.lines['a'][0].name"


def test_a_field_without_a_value_is_refused() -> None:
    with pytest.raises(EncodeError, match=r"shop\.number: has no value"):
        codec_for(Card, name="shop").encode(Card.model_construct())


def test_a_subclass_would_lose_its_fields() -> None:
    class Gold(Card):
        points: int

    with pytest.raises(EncodeError, match="what the subclass adds would be lost"):
        codec_for(Card, name="shop").encode(Gold(number="1", points=5))


def test_errors_do_not_show_values() -> None:
    with pytest.raises(EncodeError) as caught:
        encode(int, "4111 1111 1111 1111")
    assert "4111" not in str(caught.value)
    with pytest.raises(DecodeError) as refused:
        round_trip(Annotated[int, Field(lt=5)], 41111111)
    assert "4111" not in str(refused.value)


def test_a_class_of_the_same_name_is_another_class() -> None:
    with pytest.raises(EncodeError, match="another class called Box where Box is wanted"):
        codec_for(type(box(int, 1)), name="shop").encode(box(int, 1))


class Tree(BaseModel):
    value: int
    children: list[Tree] = []
    left: Tree | None = None


def chain(length: int) -> Tree:
    tree = Tree(value=0)
    for value in range(1, length):
        tree = Tree(value=value, left=tree)
    return tree


def test_a_model_may_contain_itself() -> None:
    codec = codec_for(Tree, name="shop")
    tree = Tree(value=1, children=[Tree(value=2), chain(5)], left=chain(3))
    assert codec.decode(codec.encode(tree), Schemas()) == tree


def test_nesting_is_bounded_in_both_directions() -> None:
    codec = codec_for(Tree, name="shop")
    deepest = chain(MAX_DEPTH)
    payload = codec.encode(deepest)
    assert codec.decode(payload, Schemas()) == deepest
    for length in (MAX_DEPTH + 1, 5_000):
        with pytest.raises(EncodeError, match="nested"):
            codec.encode(chain(length))
    bomb = payload[:5] + b"\x00\x00\x02" * 200_000
    with pytest.raises(DecodeError, match="nested deeper than 100"):
        codec.decode(bomb, Schemas())


def test_a_list_cannot_claim_more_items_than_there_are_bytes() -> None:
    codec = codec_for(Tree, name="shop")
    payload = codec.encode(Tree(value=1))
    bomb = payload[:6] + b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"
    with pytest.raises(DecodeError):
        codec.decode(bomb, Schemas())


def test_a_payload_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = codec_for(bytes, name="shop")
    payload = codec.encode(b"x" * 1000)
    monkeypatch.setattr("kasaga_wire.codec.MAX_PAYLOAD_BYTES", 1000)
    with pytest.raises(EncodeError, match="1007 bytes; 1000 are the most"):
        codec.encode(b"x" * 1000)
    with pytest.raises(DecodeError, match="1007 bytes; 1000 are the most"):
        codec.decode(payload, Schemas())


@pytest.mark.parametrize("data", [b"", b"\0", b"\1\0\0\0\0", b"{}", b"\0\0\0\0"])
def test_what_is_no_payload_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="doesn't begin with a zero byte and a schema id"):
        codec_for(int, name="shop").decode(data, Schemas())


def test_the_models_own_rules_hold_after_decoding() -> None:
    class Loose(BaseModel):
        n: int

    class Strict(BaseModel):
        n: Annotated[int, Field(ge=1)]

        @pydantic.model_validator(mode="after")
        def _even(self) -> Strict:
            if self.n % 2:
                raise ValueError("odd")
            return self

    codec = codec_for(Strict, name="shop")
    body = codec_for(Loose, name="shop").encode(Loose(n=-2))[5:]
    with pytest.raises(DecodeError, match=r"shop\.n: Input should be greater than or equal to 1"):
        codec.decode(codec.schema.prefix + body, Schemas())
    with pytest.raises(DecodeError, match="odd"):
        codec.decode(codec.schema.prefix + b"\x06", Schemas())


def test_a_validator_that_breaks_is_a_decode_error() -> None:
    class Broken(BaseModel):
        n: int

        @pydantic.field_validator("n")
        @classmethod
        def _break(cls, value: int) -> int:
            raise KeyError("oops")

    codec = codec_for(Broken, name="shop")
    with pytest.raises(DecodeError, match="KeyError in a validator"):
        codec.decode(codec.encode(Broken.model_construct(n=1)), Schemas())


def test_strict_models_and_aliases_are_read_by_field_name() -> None:
    class Line(BaseModel, strict=True):
        color: Color
        when: pydantic.AwareDatetime
        tags: tuple[str, ...]
        id: UUID
        price: Money
        kind: Literal["a"]

    class Order(BaseModel, strict=True):
        order_id: str = Field(alias="orderId")
        lines: list[Line] = Field(alias="Lines")

    line = Line(
        color=Color.RED,
        when=datetime(2026, 1, 1, tzinfo=UTC),
        tags=("a",),
        id=UUID(int=1),
        price=Decimal("1.50"),
        kind="a",
    )
    order = Order(orderId="o", Lines=[line])
    codec = codec_for(Order, name="shop")
    assert codec.decode(codec.encode(order), Schemas()) == order
    assert '"name":"order_id"' in codec.schema.json


def test_models_that_keep_enum_values_work() -> None:
    class Plain(BaseModel, use_enum_values=True):
        color: Color

    codec = codec_for(Plain, name="shop")
    assert codec.decode(codec.encode(Plain(color=Color.RED)), Schemas()).color == "red"


def test_codecs_are_compiled_once() -> None:
    assert codec_for(Card, name="shop") is codec_for(Card, name="shop")
    assert codec_for(Card, name="shop") is not codec_for(Card, name="store")


def test_a_value_is_read_from_json_as_people_type_it() -> None:
    codec = codec_for(Card, name="shop", where="Shop.pay.card")
    assert codec.from_json('{"number": "1"}') == Card(number="1")
    with pytest.raises(DecodeError, match=r"Shop\.pay\.card\.number: Field required"):
        codec.from_json("{}")
    with pytest.raises(DecodeError, match="Invalid JSON"):
        codec.from_json("nonsense")
    assert codec_for(None, name="shop").from_json("null") is None
