"""What has no lossless form in Avro is refused when it is declared: with the path, a code and a remedy."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar
from uuid import UUID, uuid4

import pydantic
import pytest
from pydantic import BaseModel, Field

from kasaga_wire.codec import codec_for
from kasaga_wire.errors import ContractError, NameClash, UnsupportedType

T = TypeVar("T")


class Number(enum.IntEnum):
    ONE = 1


class Dashed(enum.Enum):
    IN_PROGRESS = "in-progress"


class Empty(BaseModel):
    pass


class Small(BaseModel):
    x: int


@dataclasses.dataclass
class Data:
    x: int


class Shape(TypedDict):
    x: int


class Row(NamedTuple):
    x: int


class Page(BaseModel, Generic[T]):
    items: list[T]


class Root(pydantic.RootModel[list[int]]):
    pass


class Open(BaseModel, extra="allow"):
    x: int


Alias = NewType("Alias", datetime)

REFUSED: list[tuple[Any, str, str]] = [
    (Any, "Any", "name the type"),
    (object, "object", "name the type"),
    (set[str], "set", "use list"),
    (frozenset[str], "frozenset", "use list"),
    (timedelta, "timedelta", "unit"),
    (Decimal, "without bounds", "max_digits"),
    (Annotated[Decimal, Field(max_digits=5)], "without bounds", "decimal_places"),
    (Annotated[Decimal, Field(decimal_places=5)], "without bounds", "max_digits"),
    (Annotated[Decimal, Field(max_digits=2, decimal_places=5)], "2 digits", "decimal_places <= max_digits"),
    (datetime, "naive", "annotate as pydantic.AwareDatetime"),
    (Alias, "naive", "annotate as pydantic.AwareDatetime"),
    (pydantic.NaiveDatetime, "naive", "annotate as pydantic.AwareDatetime"),
    (pydantic.PastDatetime, "naive", "annotate as pydantic.AwareDatetime"),
    (datetime | None, "naive", "annotate as pydantic.AwareDatetime"),
    (tuple[int, str], "fixed length", "a model with named fields"),
    (tuple[int], "fixed length", "a model with named fields"),
    (tuple, "tuple of anything", "tuple[str, ...]"),
    (list, "list of anything", "list[str]"),
    (dict, "dict of anything", "dict[str, str]"),
    (dict[int, str], "keys are not str", "list of models"),
    (dict[UUID, str], "keys are not str", "list of models"),
    (Callable[[int], int], "no lossless form", "use a pydantic model"),
    (Sequence[int], "no lossless form", "list"),
    (Iterable[int], "no lossless form", "list"),
    (Mapping[str, int], "no lossless form", "dict[str, X]"),
    (complex, "complex", "two floats"),
    (bytearray, "bytearray", "use bytes"),
    (type, "no lossless form", "use a pydantic model"),
    (Number, "no Enum of strings", "str Enum"),
    (Dashed, "'in-progress' can't be a symbol", "annotate as str"),
    (Literal["in-progress"], "'in-progress' can't be a symbol", "annotate as str"),
    (Literal[1, 2], "something else than strings", "Literal of strings"),
    (Literal["a", 1], "something else than strings", "Literal of strings"),
    (list[None], "items without content", "number"),
    (list[Empty], "items without content", "number"),
    (Data, "no pydantic model", "class Data(pydantic.BaseModel)"),
    (Row, "no pydantic model", "class Row(pydantic.BaseModel)"),
    (Page[int], "can't be an Avro name", "plain name"),
    (Page, "is open", "Page[Order]"),
    (Root, "RootModel", "named field"),
    (Open, "extra fields", "declare them"),
    (str | UUID, "look alike", "models"),
    (int | pydantic.AwareDatetime, "look alike", "models"),
    (bytes | Annotated[Decimal, Field(max_digits=4, decimal_places=1)], "look alike", "models"),
    (list[int] | tuple[str, ...], "look alike", "models"),
    (str | Literal["a"], "look alike", "models"),
    (dict[str, int] | Small, "dict and a model", "wrap"),
    (pydantic.Json[int], "converts again", "converted value"),
    (pydantic.Base64Bytes, "converts again", "converted value"),
    (pydantic.SecretStr, "no lossless form", "use a pydantic model"),
    (pydantic.AnyUrl, "no lossless form", "use a pydantic model"),
]


@pytest.mark.parametrize(("annotation", "message", "remedy"), REFUSED, ids=[str(r[0]) for r in REFUSED])
def test_a_type_without_lossless_form_is_refused(annotation: Any, message: str, remedy: str) -> None:
    model = pydantic.create_model(
        "Order", price=(annotation, ...), __config__={"arbitrary_types_allowed": True}
    )
    with pytest.raises(UnsupportedType) as caught:
        codec_for(list[model], name="shop", where="Shop.buy.orders")  # type: ignore[valid-type]
    error = caught.value
    assert error.path.startswith("Shop.buy.orders[].price")
    assert message in error.message
    assert remedy in error.remedy
    assert error.code == "KSG-102"
    assert str(error).startswith("KSG-102: Shop.buy.orders[].price")


def test_a_typed_dict_is_refused() -> None:
    with pytest.raises(UnsupportedType, match="no pydantic model") as caught:
        codec_for(Shape, name="shop")
    assert "class Shape(pydantic.BaseModel)" in caught.value.remedy


def test_the_path_goes_through_lists_dicts_and_models() -> None:
    inner = pydantic.create_model("Inner", when=(datetime, ...))
    outer = pydantic.create_model("Outer", rows=(dict[str, list[inner | None]], ...))  # type: ignore[valid-type]
    with pytest.raises(UnsupportedType) as caught:
        codec_for(outer, name="shop", where="Shop.buy.order")
    assert caught.value.path == "Shop.buy.order.rows[str][].when"


def field(default: Any, annotation: Any = int) -> Any:
    return pydantic.create_model("Order", x=(annotation, default))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (field(Field(default_factory=uuid4), UUID), "another value each time"),
        (field(Field(default_factory=lambda: [1]), list[int]), "another value each time"),
        (field(Field(default_factory=lambda data: 1)), "another value each time"),
        (field("5"), "the default doesn't fit: str where int is wanted"),
        (field(None), "the default doesn't fit"),
        (field(1.5), "the default doesn't fit"),
        (field(2**63), "the default doesn't fit: an int beyond 64 bits"),
        (field("\ud800", str), "the default doesn't fit: a lone surrogate"),
        (field(float("nan"), float), "JSON doesn't know"),
        (field([float("inf")], list[float]), "JSON doesn't know"),
        (field(Field(exclude=True)), "excluded"),
        (pydantic.create_model("Order", prix_à=(int, ...)), "can't be an Avro name"),
        (
            pydantic.create_model(
                "Order", a=(int, ...), b=(int, Field(validation_alias=pydantic.AliasChoices("a")))
            ),
            "belongs to a too",
        ),
    ],
)
def test_a_field_that_would_lose_something_is_refused(model: type[BaseModel], message: str) -> None:
    with pytest.raises(UnsupportedType, match="KSG-102") as caught:
        codec_for(model, name="shop")
    assert message in caught.value.message
    assert caught.value.remedy


def test_a_reference_to_nothing_is_refused() -> None:
    later: Any = "Missing"
    order = pydantic.create_model("Order", line=(later, ...))
    with pytest.raises(UnsupportedType, match="Missing, which isn't defined"):
        codec_for(order, name="shop")


def test_two_models_with_one_name_are_refused() -> None:
    one = pydantic.create_model("Money", cents=(int, ...))
    two = pydantic.create_model("Money", amount=(str, ...))
    order = pydantic.create_model("Order", price=(one, ...), fee=(two, ...))
    with pytest.raises(NameClash, match=r"two different types are called shop\.Money") as caught:
        codec_for(order, name="shop")
    assert "__avro_name__" in caught.value.remedy


def test_a_model_may_say_its_own_name() -> None:
    one = pydantic.create_model("Money", cents=(int, ...))

    class Money(BaseModel):
        __avro_name__ = "shop.old.Money"
        amount: str

    order = pydantic.create_model("Order", price=(one, ...), fee=(Money, ...))
    assert '"name":"shop.old.Money"' in codec_for(order, name="shop").schema.json


@pytest.mark.parametrize("name", ["", "1shop", "shop.", "shop..x", "sh op", "shöp"])
def test_a_namespace_that_avro_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(ContractError, match="can't be an Avro namespace"):
        codec_for(int, name=name)


def test_a_dash_in_a_participants_name_becomes_an_underscore() -> None:
    assert codec_for(Small, name="cold-store").schema.json.startswith('{"name":"cold_store.Small"')
