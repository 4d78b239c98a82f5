"""Attributes: what can be one, and terms, which sort and are read back as the values."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasaga.search import Test, matches
from kasaga.store import terms
from kasaga_wire.attributes import (
    MAX_ATTRIBUTES_BYTES,
    AttributeValue,
    Stored,
    as_json,
    check,
    check_value,
    from_text,
    merged,
    to_text,
)
from kasaga_wire.errors import BadAttribute
from search.queries import ORDERS
from store.samples import saga_row

numbers = st.one_of(st.integers(-(2**53), 2**53), st.floats(allow_nan=False, allow_infinity=False))
times = st.datetimes(timezones=st.just(UTC))
texts = st.text(
    alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(32)), "\x7f"]),
    max_size=20,
)
scalars = st.one_of(numbers, times, texts, st.booleans())


names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
attributes = st.dictionaries(names, st.one_of(scalars, st.lists(texts, min_size=1, max_size=4)), max_size=8)


@given(attributes)
def test_what_is_kept_is_read_back(given_: dict[str, AttributeValue]) -> None:
    kept = check(given_)
    assert from_text(to_text(given_)) == kept
    assert terms.values(terms.all_terms(merged({}, kept))) == kept
    json.dumps(as_json(kept))


@given(st.one_of(*(st.tuples(kind, kind) for kind in (numbers, times, texts))), st.sampled_from(ORDERS))
def test_a_range_of_terms_is_a_comparison_of_values(pair: tuple[Stored, Stored], op: str) -> None:
    value, wanted = (check_value("x", each) for each in pair)
    assert not isinstance(value, tuple)
    assert not isinstance(wanted, tuple)
    row = saga_row(3, 1)
    row.attributes = {"x": value}
    first, behind = terms.compared("x", op, wanted)
    assert (first <= terms.term("x", value) < behind) is matches(Test("attr.x", op, (wanted,)), row)
    assert (terms.term("x", value) == terms.term("x", wanted)) is (value == wanted)


@given(texts, texts)
def test_a_range_of_terms_is_a_beginning(value: str, wanted: str) -> None:
    first, behind = terms.beginning("x", wanted)
    assert (first <= terms.term("x", value) < behind) is value.startswith(wanted)


def test_values_are_kept_in_one_form() -> None:
    east = timezone(timedelta(hours=2))
    assert check({"a": 5.0, "b": -0.0, "c": ["y", "x", "y"], "d": ["x", "x"], "e": None}) == {
        "a": 5,
        "b": 0,
        "c": ("x", "y"),
        "d": "x",
        "e": None,
    }
    assert check({"t": datetime(2026, 1, 1, 2, tzinfo=east)}) == {"t": datetime(2026, 1, 1, tzinfo=UTC)}
    assert to_text({}) == b""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("", 1, "can't be the name of an attribute"),
        ("a-b", 1, "'a-b' can't be the name of an attribute"),
        ("1a", 1, "can't be the name"),
        ("x" * 64, 1, "can't be the name"),
        ("ä", 1, "can't be the name"),
        ("a", "x" * 257, "attribute a: 257 characters, over 256"),
        ("a", "x\0", "attribute a: a control character"),
        ("a", "\ud800", "attribute a: no UTF-8"),
        ("a", float("nan"), "attribute a: nan is no number"),
        ("a", float("inf"), "attribute a: inf is no number"),
        ("a", 2**53 + 1, "is over 2^53"),
        ("a", datetime(2026, 1, 1), "attribute a: a time without a zone"),
        ("a", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=2))), "is no year of UTC"),
        ("a", [], "attribute a: a list of strings is wanted"),
        ("a", ["x", 1], "attribute a: a list of strings is wanted"),
        ("a", [str(number) for number in range(17)], "attribute a: 17 strings, over 16"),
        ("a", {"x": 1}, "attribute a: dict can't be searched for"),
        ("a", b"x", "attribute a: bytes can't be searched for"),
    ],
)
def test_what_cannot_be_kept_is_named(name: str, value: AttributeValue, said: str) -> None:
    with pytest.raises(BadAttribute) as caught:
        to_text({name: value})
    assert said in caught.value.message


def test_attributes_are_limited_together() -> None:
    with pytest.raises(BadAttribute, match="33 attributes, over 32"):
        to_text({f"a{number}": 1 for number in range(33)})
    with pytest.raises(BadAttribute, match=f"over {MAX_ATTRIBUTES_BYTES}"):
        to_text({f"a{number}": "x" * 256 for number in range(17)})


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "1",
        "{",
        '{"a": {"time": 5}}',
        '{"a": {"time": "2026-01-01"}}',
        '{"a": {}}',
        '{"a": [[]]}',
        "[" * 9999,
    ],
)
def test_attributes_of_others_are_checked(text: str) -> None:
    with pytest.raises(BadAttribute):
        from_text(text)
