"""Encoding: what is sent is what psycopg would read; and the SQL files are read as they are meant."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import pq
from psycopg.adapt import Transformer

from kasaga.store.encode import (
    UNENCODABLE,
    from_microseconds,
    microseconds,
    pack_headers,
    type_of,
    unpack_headers,
)
from kasaga.store.statements import read_statements

VALUES: dict[str, st.SearchStrategy[object]] = {
    "bool": st.booleans(),
    "bytea": st.binary(),
    "int2": st.integers(-(2**15), 2**15 - 1),
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": st.integers(-(2**63), 2**63 - 1),
    "float8": st.floats(allow_nan=False),
    "text": st.text(st.characters(codec="utf-8")),
    "uuid": st.uuids(),
}


def loaded(name: str, data: bytes) -> object:
    """Read as psycopg reads what a server sends."""
    return Transformer().get_loader(type_of(name)[0], pq.Format.BINARY).load(data)


@pytest.mark.parametrize("name", VALUES)
@given(data=st.data())
def test_psycopg_reads_what_is_encoded(name: str, data: st.DataObject) -> None:
    value = data.draw(VALUES[name])
    assert loaded(name, type_of(name)[1](value)) == value
    column = data.draw(st.lists(st.none() | VALUES[name], max_size=5))
    assert loaded(f"{name}[]", type_of(f"{name}[]")[1](column)) == column


@given(st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=-9, minutes=30))])))
def test_times_are_microseconds(value: datetime) -> None:
    try:
        read = from_microseconds(microseconds(value))
    except OverflowError:
        assert value.year in (1, 9999)  # in UTC it is a year more or less
        return
    assert read == value
    assert read.tzinfo is UTC
    assert struct.unpack(">q", type_of("timestamptz")[1](value)) == (microseconds(value),)
    elements = type_of("timestamptz[]")[1]([value, None, value])
    assert elements.count(struct.pack(">iq", 8, microseconds(value))) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("int4", 2**31),
        ("int8", -(2**63) - 1),
        ("int4", "1"),
        ("int2", 1.5),
        ("text", "\ud800"),
        ("text", 1),
        ("uuid", "x"),
        ("timestamptz", datetime(2026, 1, 1)),
        ("timestamptz", 1),
        ("bytea", 5),
    ],
)
def test_what_has_no_binary_form_is_unencodable(name: str, value: object) -> None:
    for encode, given_value in ((type_of(name)[1], value), (type_of(f"{name}[]")[1], [None, value])):
        with pytest.raises(UNENCODABLE):
            encode(given_value)


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.binary())))
def test_headers_come_back_in_order_and_repeated(headers: list[tuple[str, bytes]]) -> None:
    assert unpack_headers(pack_headers(headers)) == headers


def test_statements_are_named_typed_and_whole() -> None:
    commit = read_statements("commit")
    fence = commit["fence"]
    assert fence.name == b"kasaga_fence"
    assert fence.sql.startswith(b"SELECT kasaga.fence(")
    assert fence.oids[:2] == [1007, 2951]
    assert commit["undo"].oids == []
    assert commit["delete_outbox"].sql.endswith(b")")
    for file in ("commit", "lease", "read", "purge", "session", "migrate"):
        for statement in read_statements(file).values():
            used = {number for number in range(1, 30) if f"${number}".encode() in statement.sql}
            assert used == set(range(1, len(statement.oids) + 1)), statement.name
            assert b";" not in statement.sql.split(b"--")[0]


def test_a_statement_takes_as_many_values_as_it_has_types() -> None:
    statement = read_statements("lease")["pardon"]
    call = statement.bind(3, UUID(int=7))
    assert call.params == [b"\x00\x00\x00\x03", bytes(15) + b"\x07"]
    assert statement.bind(None, None).params == [None, None]
    with pytest.raises(LookupError, match="takes 2 parameters, not 1"):
        statement.bind(3)
