"""Records to bytes and back, whatever is in them."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasaga.engine import codec
from kasaga.engine.codec import decode, encode
from kasaga.engine.kinship import Parent
from kasaga.engine.model import Decision, Event, Policy, Record


@pytest.fixture(autouse=True)
def replaying() -> None:
    """Nothing is played here."""


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-(2**63), 2**63 - 1)
policies = st.builds(
    Policy,
    numbers,
    numbers,
    numbers,
    st.floats(allow_nan=False),
    numbers,
    numbers,
    st.lists(words).map(tuple),
)
parents = st.builds(Parent, words, words, numbers, words, st.booleans(), numbers, words, words)
FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    str: words,
    int: numbers,
    bytes: st.binary(max_size=8),
    bool: st.booleans(),
    Policy | None: st.none() | policies,
    Parent | None: st.none() | parents,
    Parent: parents,
    tuple[str, ...]: st.lists(words, max_size=3).map(tuple),
    tuple[Any, ...]: st.lists(words | numbers, max_size=3).map(tuple),
    tuple[tuple[Any, ...], ...]: st.lists(st.tuples(words, st.binary(max_size=8)), max_size=3).map(tuple),
    tuple[tuple[str, str, str, str], ...]: st.lists(st.tuples(words, words, words, words), max_size=2).map(
        tuple
    ),
}


def items(of: Any) -> st.SearchStrategy[Any]:
    """Any item of one of the types, its fields at random, those with a default often left out."""
    kinds: list[st.SearchStrategy[Any]] = []
    for kind in typing.get_args(of):
        hints = typing.get_type_hints(kind)
        fields = {
            name: st.just(kind._field_defaults[name]) | FIELDS[hint]
            if name in kind._field_defaults
            else FIELDS[hint]
            for name, hint in hints.items()
        }
        kinds.append(st.builds(kind, **fields))
    return st.one_of(kinds)


records = st.builds(Record, st.just(3), numbers, numbers, items(Event), st.lists(items(Decision)).map(tuple))


@given(records)
def test_what_is_written_is_read(record: Record) -> None:
    read = decode(3, encode(record))
    assert read == record
    assert [type(each) for each in read.decisions] == [type(each) for each in record.decisions]
    assert type(read.event) is type(record.event)


def test_every_type_has_a_code_of_its_own() -> None:
    events, decisions = codec._EVENTS, codec._DECISIONS  # pyright: ignore[reportPrivateUsage]
    assert set(events.values()) == set(typing.get_args(Event))
    assert set(decisions.values()) == set(typing.get_args(Decision))


def test_codes_are_never_used_again() -> None:
    """Histories outlive releases: this list only ever grows."""
    events, decisions = codec._EVENTS, codec._DECISIONS  # pyright: ignore[reportPrivateUsage]
    assert {code: kind.__name__ for code, kind in events.items()} == {
        1: "Started",
        2: "Replied",
        3: "Fired",
        4: "Ran",
        5: "Undeliverable",
        6: "Asked",
        7: "Faulted",
        8: "CodeArrived",
        9: "Signalled",
        10: "Updated",
        11: "Deferred",
        12: "Recalled",
        15: "Granted",
        16: "Barred",
    }
    assert {code: kind.__name__ for code, kind in decisions.items()} == {
        1: "Resume",
        2: "Send",
        3: "Sleep",
        4: "Deadline",
        5: "RunLocal",
        6: "Settle",
        7: "Clear",
        8: "Return",
        9: "Move",
        10: "Tell",
        11: "Unblock",
        12: "Leave",
        13: "Listen",
        14: "Alarm",
        15: "Take",
        16: "Drop",
        17: "Accept",
        18: "Answered",
        19: "Pivot",
        20: "Enter",
        21: "Hold",
        22: "Release",
        23: "Postpone",
        24: "Fence",
        25: "Defer",
        26: "Emit",
        27: "Report",
        28: "Recall",
        29: "SetAttributes",
        30: "Await",
        31: "Patch",
        32: "Adopt",
        33: "Continue",
        34: "Swell",
        35: "Lock",
        36: "Reset",
    }
