"""Random models and values, for laws that hold for all of them."""

from __future__ import annotations

import enum
import itertools
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Context, Decimal
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pydantic
from hypothesis import strategies as st
from pydantic import Field

LONG = st.integers(min_value=-(2**63), max_value=2**63 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
# A day away from both ends of the calendar: with its zone, a datetime must still be one in UTC.
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC) | ZONES)


class Color(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Size(enum.Enum):
    SMALL = "S"
    LARGE = "L"


@dataclass(frozen=True)
class Kind:
    """An annotation, and the values that it has."""

    annotation: Any
    values: st.SearchStrategy[Any]


def decimals(digits: int, places: int) -> st.SearchStrategy[Decimal]:
    limit = 10**digits - 1
    return st.integers(-limit, limit).map(
        lambda number: Decimal(number).scaleb(-places, Context(prec=digits))
    )


@st.composite
def bounded_decimals(draw: st.DrawFn) -> Kind:
    digits = draw(st.integers(1, 30))
    places = draw(st.integers(0, digits))
    return Kind(Annotated[Decimal, Field(max_digits=digits, decimal_places=places)], decimals(digits, places))


LEAVES: list[Kind] = [
    Kind(str, TEXT),
    Kind(int, LONG),
    Kind(float, st.floats(allow_nan=False)),
    Kind(bool, st.booleans()),
    Kind(bytes, st.binary(max_size=12)),
    Kind(UUID, st.uuids()),
    Kind(date, st.dates()),
    Kind(time, st.times()),
    Kind(pydantic.AwareDatetime, MOMENTS),
    Kind(Color, st.sampled_from(Color)),
    Kind(Size, st.sampled_from(Size)),
    Kind(Literal["a", "b"], st.sampled_from(["a", "b"])),
]

_numbers = itertools.count()


def model_of(fields: dict[str, Kind]) -> Kind:
    annotations: dict[str, Any] = {name: (kind.annotation, ...) for name, kind in fields.items()}
    model: Any = pydantic.create_model(f"M{next(_numbers)}", **annotations)
    values = st.fixed_dictionaries({name: kind.values for name, kind in fields.items()})
    return Kind(model, values.map(lambda given: model(**given)))


def list_of(kind: Kind) -> Kind:
    return Kind(list[kind.annotation], st.lists(kind.values, max_size=3))  # type: ignore[name-defined]


def tuple_of(kind: Kind) -> Kind:
    values = st.lists(kind.values, max_size=3).map(tuple)
    return Kind(tuple[kind.annotation, ...], values)  # type: ignore[name-defined]


def dict_of(kind: Kind) -> Kind:
    return Kind(dict[str, kind.annotation], st.dictionaries(TEXT, kind.values, max_size=3))  # type: ignore[name-defined]


def optional(kind: Kind) -> Kind:
    return Kind(Optional[kind.annotation], st.none() | kind.values)  # noqa: UP045


def either(one: Kind, other: Kind) -> Kind:
    return Kind(one.annotation | other.annotation, one.values | other.values)


def models(kinds: st.SearchStrategy[Kind], least: int = 1) -> st.SearchStrategy[Kind]:
    names = st.sampled_from("abcdefgh")
    return st.dictionaries(names, kinds, min_size=least, max_size=5).map(model_of)


leaves = st.sampled_from(LEAVES) | bounded_decimals()


def _wider(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    """One level more around the kinds below it. Lists and dicts hold no dicts' unions: those are refused."""
    return (
        inner.map(list_of)
        | inner.map(tuple_of)
        | inner.map(dict_of)
        | inner.map(optional)
        | models(inner)
        | st.tuples(models(inner), models(inner)).map(lambda pair: either(*pair))
    )


kinds = st.recursive(leaves, _wider, max_leaves=8)
whole_models = models(kinds)
