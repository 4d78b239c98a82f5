"""The language of queries: what it means, and what it says of what isn't in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasaga.errors import BadQuery
from kasaga.search import Both, Condition, Either, Negated, Test, names_state, parse
from kasaga.search.language import MAX_CHARACTERS, MAX_DEPTH, MAX_TESTS, MAX_VALUES
from search.queries import NOW, conditions, written

C7 = Test("attr.customer", "=", ("c-7",))
STUCK = Test("state", "=", ("STUCK",))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('attr.customer = "c-7"', C7),
        ("attr.customer = 'c-7'", C7),
        ("  STATE=stuck ", STUCK),
        ("state = STUCK and not attr.customer='c-7'", Both((STUCK, Negated(C7)))),
        ("state = STUCK or state=stuck AND attr.customer='c-7'", Either((STUCK, Both((STUCK, C7))))),
        ("(state = STUCK or state=stuck) and attr.customer='c-7'", Both((Either((STUCK, STUCK)), C7))),
        ("not not state = STUCK", Negated(Negated(STUCK))),
        ("name = payment", Test("saga", "=", ("payment",))),
        ("code = ksg-220", Test("code", "=", ("KSG-220",))),
        ('id != "a b"', Negated(Test("id", "=", ("a b",)))),
        ("version in (1, 2)", Test("version", "=", (1, 2))),
        ("attr.a not in (1)", Negated(Test("attr.a", "=", (1,)))),
        ("attr.a is missing", Negated(Test("attr.a", "exists"))),
        ("attr.in exists", Test("attr.in", "exists")),
        ('attr.a starts with "x\\"y"', Test("attr.a", "starts", ('x"y',))),
        ("attr.a = -1.50e2", Test("attr.a", "=", (-150,))),
        ("attr.a = True", Test("attr.a", "=", (True,))),
        ("attr.a > 2026-11-01", Test("attr.a", ">", (datetime(2026, 11, 1, tzinfo=UTC),))),
        ("started>2026-11-01T02:00+02:00", Test("started", ">", (datetime(2026, 11, 1, tzinfo=UTC),))),
        ('started > "2026-11-01 00:00"', Test("started", ">", (datetime(2026, 11, 1, tzinfo=UTC),))),
        ("started > 2h ago", Test("started", ">", (NOW - timedelta(hours=2),))),
        ("attr.seen <= 1w ago", Test("attr.seen", "<=", (NOW - timedelta(days=7),))),
    ],
)
def test_what_a_query_means(text: str, expected: Condition) -> None:
    assert parse(text, NOW) == expected


@given(conditions)
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_read(condition: Condition) -> None:
    assert parse(written(condition), NOW) == condition


@given(st.text(alphabet="()='\"!<>,.\\ \n\tand or not in attr.a state 12-:Tz é\ud800\0", max_size=60))
@settings(max_examples=500, deadline=None)
def test_whatever_is_written_is_a_condition_or_a_bad_query(text: str) -> None:
    refused: BadQuery | None = None
    try:
        parse(text, NOW)
    except BadQuery as error:
        refused = error
    if refused is not None:
        assert 0 < refused.position <= len(text) + 1
        assert f"at character {refused.position}: " in refused.message


@pytest.mark.parametrize(
    ("text", "said", "remedy"),
    [
        ("", "at character 1: a field such as state or attr.customer is wanted, not the end", ""),
        ("stat = STUCK", "at character 1: there is no field 'stat'", "Did you mean state?"),
        ("customer = 1", "at character 1: there is no field 'customer'", "attr.customer"),
        ("attr.1a = 1", "at character 1: '1a' can't be the name of an attribute", "letters"),
        ("state = STUK", "at character 9: there is no state 'STUK'", "STUCK"),
        ("state > STUCK", "at character 7: state has no order", "in"),
        ("state exists", "at character 1: each saga has a state", ""),
        ('state starts with "STUCK"', "at character 19: 'starts with' wants a field of text", ""),
        ("attr.a = c-7", "at character 10: a value is wanted, not 'c-7'", 'double quotes: "c-7"'),
        ('attr.a like "x%"', "at character 8: =, !=, <, <=, >, >=, in, 'starts with'", "starts with"),
        ("attr.a > true", "at character 10: true and false have no order", "="),
        ("attr.a = 9007199254740993", "at character 10: '9007199254740993' is over 2^53", "strings"),
        ("attr.a starts with 1", "at character 20: 'starts with' wants a field of text", ""),
        ("attr.a = 1 attr.b = 2", "at character 12: 'and', 'or' or the end is wanted, not 'attr.b'", ""),
        ("attr.a = 1 and", "at character 15: a field such as state", ""),
        ("(attr.a = 1", "at character 12: ')' is wanted, not the end", ""),
        ("attr.a in 1", "at character 11: '(' behind 'in' is wanted, not '1'", ""),
        ("attr.a in (1; 2)", "at character 13: ';' has no meaning here", ""),
        ("attr.a in (1 2)", "at character 14: ',' or ')' is wanted, not '2'", ""),
        ('attr.a = "x', "at character 10: a text without its closing quote", ""),
        ('attr.a = "\0"', "at character 10: a control character", ""),
        ("started = 3", "at character 11: started wants a time, not '3'", "2h ago"),
        ("started > 2h", "at character 13: 'ago' is wanted behind 2h", ""),
        ("started > 999999999w ago", "at character 11: '999999999w' is no time", ""),
        ("started > 2026-13-01", "at character 11: '2026-13-01' is no time", "2h ago"),
        ("version = 1.5", "at character 11: version wants a whole number", ""),
        ("id = 5", "at character 6: id wants a text, not '5'", '"5"'),
        ("drop table kasaga.saga", "at character 1: there is no field 'drop'", ""),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, said: str, remedy: str) -> None:
    with pytest.raises(BadQuery) as caught:
        parse(text, NOW)
    assert caught.value.message.startswith(said)
    assert remedy in caught.value.remedy


def test_a_query_has_limits() -> None:
    test = "attr.a = 1"
    parse(" and ".join([test] * MAX_TESTS), NOW)
    parse(f"attr.a in ({', '.join('1' * MAX_VALUES)})", NOW)
    parse("not " * MAX_DEPTH + test, NOW)
    for text in (
        " and ".join([test] * (MAX_TESTS + 1)),
        f"attr.a in ({', '.join('1' * (MAX_VALUES + 1))})",
        "not " * (MAX_DEPTH + 1) + test,
        "(" * 1_900 + test + ")" * 1_900,
        test + " " * MAX_CHARACTERS,
        f'attr.a = "{"x" * 257}"',
    ):
        with pytest.raises(BadQuery):
            parse(text, NOW)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("state = STUCK", True),
        ("attr.a = 1 or not (state != STUCK)", True),
        ("attr.state = 'x' and id = a", False),
    ],
)
def test_whether_states_are_named(text: str, named: bool) -> None:
    assert names_state(parse(text, NOW)) is named
    assert not names_state(None)
