"""The language that sagas are searched by: text to conditions, or BadQuery with what is wrong and where.

    query   = and { "or" and }
    and     = not { "and" not }
    not     = "not" not | "(" query ")" | test
    test    = field ( ("=" | "!=" | "<" | "<=" | ">" | ">=") value
                    | ["not"] "in" "(" value { "," value } ")"
                    | "starts" "with" text | "exists" | "is" "missing" )
    field   = "saga" | "id" | "version" | "state" | "code" | "started" | "updated" | "ended" | "attr." name
    value   = text | number | time | age "ago" | "true" | "false"

Written by hand, as a parser of ten rules is shorter than the errors that a parser generator would have to be
taught. Pure; the grammar for people is in orchestrator/searching.md.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import NamedTuple

from kasaga_wire.attributes import LARGEST_INTEGER, MAX_VALUE_CHARACTERS, check_name
from kasaga_wire.errors import BadAttribute

from ..engine.lifecycle import STATES
from ..errors import BadQuery
from .conditions import (
    ATTRIBUTE,
    COMPARISONS,
    FIELDS,
    TEXTS,
    TIMES,
    Both,
    Condition,
    Either,
    Negated,
    Scalar,
    Test,
)

MAX_CHARACTERS = 4_000
MAX_TESTS = 50
MAX_VALUES = 100
"""Of one `in`."""
MAX_DEPTH = 20
"""Of parentheses and `not`."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    | (?P<time>\d{4}-\d\d-\d\d(?:[Tt][\d:.]+(?:[Zz]|[+-]\d\d:?\d\d)?)?)
    | (?P<age>\d{1,9}[smhdw]\b)
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<sign>!=|<=|>=|[=<>(),])
    | (?P<word>[A-Za-z_][A-Za-z0-9_.-]*)
    )""",
    re.VERBOSE,
)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_KEYWORDS = frozenset({"and", "or", "not", "in", "starts", "with", "exists", "is", "missing", "ago"})
_FIELD_NAMES = {"name": "saga"}
"""Other names of fields: the filters of the command line and the API have this one."""
_STATES = {state.upper(): state for state in STATES}
_OTHER_OPERATORS = {
    "like": 'starts with "…"',
    "between": ">= and <=",
    "contains": "=, which looks at each string of a list",
    "null": "exists, or is missing",
}
_END = "the end"


class _Token(NamedTuple):
    kind: str
    """text, time, age, number, sign, word, or end."""
    text: str
    at: int
    """Its first character, from 1."""

    @property
    def shown(self) -> str:
        return _END if self.kind == "end" else repr(self.text[:40])


def parse(text: str, now: datetime) -> Condition:
    """Read a query; raises BadQuery. `now` is what an age such as `2h ago` is counted from."""
    if len(text) > MAX_CHARACTERS:
        raise BadQuery(f"the query has {len(text)} characters, over {MAX_CHARACTERS}")
    return _Parser(_tokens(text), now).query()


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            start = at + len(text[at:]) - len(text[at:].lstrip())
            sign = text[start]
            if sign in "\"'":
                raise _bad("a text without its closing quote", start + 1)
            raise _bad(f"{sign!r} has no meaning here", start + 1, "Put what is text between double quotes")
        kind = match.lastgroup or ""
        found.append(_Token(kind, match[kind], match.start(kind) + 1))
        at = match.end()
    found.append(_Token("end", "", len(text) + 1))
    return found


def _bad(said: str, at: int, remedy: str = "") -> BadQuery:
    return BadQuery(f"at character {at}: {said}", remedy=remedy, position=at)


class _Parser:
    """One query, token by token."""

    def __init__(self, tokens: list[_Token], now: datetime) -> None:
        self._tokens, self._now = tokens, now
        self._place = self._tests = self._depth = 0

    def query(self) -> Condition:
        made = self._either()
        token = self._next
        if token.kind != "end":
            raise _bad(f"'and', 'or' or the end is wanted, not {token.shown}", token.at)
        return made

    # --- tokens

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self) -> _Token:
        token = self._tokens[self._place]
        self._place = min(self._place + 1, len(self._tokens) - 1)
        return token

    def _word(self, *words: str) -> bool:
        """Take these words, if they come next."""
        for offset, word in enumerate(words):
            token = self._tokens[min(self._place + offset, len(self._tokens) - 1)]
            if token.kind != "word" or token.text.lower() != word:
                return False
        self._place += len(words)
        return True

    def _sign(self, sign: str, wanted: str) -> None:
        token = self._take()
        if (token.kind, token.text) != ("sign", sign):
            raise _bad(f"{wanted} is wanted, not {token.shown}", token.at)

    # --- rules

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._word("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Either(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._negated()]
        while self._word("and"):
            parts.append(self._negated())
        return parts[0] if len(parts) == 1 else Both(tuple(parts))

    def _negated(self) -> Condition:
        token = self._next
        opens = (token.kind, token.text) == ("sign", "(")
        if not opens and not self._word("not"):
            return self._test()
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _bad(f"more than {MAX_DEPTH} parentheses and 'not' within each other", token.at)
        if opens:
            self._take()
            made = self._either()
            self._sign(")", "')'")
        else:
            made = Negated(self._negated())
        self._depth -= 1
        return made

    def _test(self) -> Condition:
        token = self._take()
        field = _field(token)
        self._tests += 1
        if self._tests > MAX_TESTS:
            raise _bad(f"more than {MAX_TESTS} tests", token.at, "Ask in parts")
        if self._word("exists"):
            return self._existing(field, token)
        if self._word("is", "missing"):
            return Negated(self._existing(field, token))
        if self._word("starts", "with"):
            at = self._next.at
            value = self._value(field)
            if not isinstance(value, str) or field == "state":
                raise _bad("'starts with' wants a field of text, and a text", at)
            return Test(field, "starts", (value,))
        if self._word("in"):
            return Test(field, "=", self._values(field))
        if self._word("not", "in"):
            return Negated(Test(field, "=", self._values(field)))
        return self._compared(field)

    def _existing(self, field: str, token: _Token) -> Test:
        if field in FIELDS - {"ended", "code"}:
            raise _bad(f"each saga has a {field}", token.at, "Ask that of attr.…, ended and code")
        return Test(field, "exists")

    def _compared(self, field: str) -> Condition:
        operator = self._take()
        op = operator.text
        if operator.kind != "sign" or op not in COMPARISONS | {"=", "!="}:
            hint = _OTHER_OPERATORS.get(op.lower(), "")
            wanted = "=, !=, <, <=, >, >=, in, 'starts with', exists or 'is missing'"
            said = f"{wanted} is wanted behind {field}, not {operator.shown}"
            raise _bad(said, operator.at, f"Write {hint}" if hint else "")
        if op in COMPARISONS and field in TEXTS:
            raise _bad(f"{field} has no order", operator.at, "Use =, !=, in or 'starts with'")
        at = self._next.at
        value = self._value(field)
        if op in COMPARISONS and isinstance(value, bool):
            raise _bad("true and false have no order", at, "Use = or !=")
        if op == "!=":
            return Negated(Test(field, "=", (value,)))
        return Test(field, op, (value,))

    def _values(self, field: str) -> tuple[Scalar, ...]:
        self._sign("(", "'(' behind 'in'")
        values = [self._value(field)]
        while (self._next.kind, self._next.text) == ("sign", ","):
            self._take()
            if len(values) == MAX_VALUES:
                raise _bad(f"more than {MAX_VALUES} values", self._next.at, "Ask in parts")
            values.append(self._value(field))
        self._sign(")", "',' or ')'")
        return tuple(values)

    # --- values

    def _value(self, field: str) -> Scalar:
        token = self._take()
        if field in TIMES:
            return self._time(token, field)
        if field == "version":
            return _version(token)
        if field in TEXTS:
            return _plain(token, field)
        return self._free(token)

    def _free(self, token: _Token) -> Scalar:
        """An attribute's: the way it is written says what it is."""
        if token.kind == "text":
            return _unquoted(token)
        if token.kind == "number":
            return _number(token)
        if token.kind in ("time", "age"):
            return self._time(token, "it")
        if token.kind == "word" and token.text.lower() in ("true", "false"):
            return token.text.lower() == "true"
        remedy = f'Put text between double quotes: "{token.text}"' if token.kind == "word" else ""
        raise _bad(f"a value is wanted, not {token.shown}", token.at, remedy)

    def _time(self, token: _Token, field: str) -> datetime:
        try:
            if token.kind == "age":
                if not self._word("ago"):
                    raise _bad(f"'ago' is wanted behind {token.text}", self._next.at)
                return self._now - timedelta(seconds=int(token.text[:-1]) * _SECONDS[token.text[-1]])
            if token.kind in ("time", "text"):
                text = token.text if token.kind == "time" else _unquoted(token)
                made = datetime.fromisoformat(text)
                return made.replace(tzinfo=UTC) if made.tzinfo is None else made.astimezone(UTC)
        except (ValueError, OverflowError):
            raise _bad(f"{token.shown} is no time", token.at, "Write 2026-11-01T10:00Z, or 2h ago") from None
        said = f"{field} wants a time, not {token.shown}"
        raise _bad(said, token.at, "Write 2026-11-01T10:00Z, 2026-11-01, or 2h ago")


def _field(token: _Token) -> str:
    if token.kind != "word" or token.text.lower() in _KEYWORDS:
        raise _bad(f"a field such as state or attr.customer is wanted, not {token.shown}", token.at)
    if token.text.startswith(ATTRIBUTE):
        try:
            return ATTRIBUTE + check_name(token.text.removeprefix(ATTRIBUTE))
        except BadAttribute as error:
            raise _bad(error.message, token.at, error.remedy) from None
    field = token.text.lower()
    field = _FIELD_NAMES.get(field, field)
    if field in FIELDS:
        return field
    near = get_close_matches(field, sorted(FIELDS), 1)
    known = f"{', '.join(sorted(FIELDS))} and attr.…"
    remedy = f"Did you mean {near[0]}?" if near else f"There are {known}; yours are written attr.{token.text}"
    raise _bad(f"there is no field {token.shown}", token.at, remedy)


def _unquoted(token: _Token) -> str:
    text = re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
    if len(text) > MAX_VALUE_CHARACTERS:
        raise _bad(f"a text of {len(text)} characters, over {MAX_VALUE_CHARACTERS}", token.at)
    if _CONTROL.search(text):
        raise _bad("a control character", token.at)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _bad("a text that has no UTF-8", token.at) from None
    return text


def _number(token: _Token) -> int | float:
    try:
        value: int | float = int(token.text)
    except ValueError:
        value = float(token.text)
    if abs(value) > LARGEST_INTEGER and (isinstance(value, int) or value in (float("inf"), float("-inf"))):
        raise _bad(f"{token.shown} is over 2^53", token.at, "Numbers beyond it are kept as strings")
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _version(token: _Token) -> int:
    if token.kind != "number" or not token.text.isdecimal() or len(token.text) > 9:
        raise _bad(f"version wants a whole number, not {token.shown}", token.at)
    return int(token.text)


def _plain(token: _Token, field: str) -> str:
    """A text of a field that every saga has: these are plain enough to need no quotes."""
    if token.kind == "text":
        text = _unquoted(token)
    elif token.kind == "word" and token.text.lower() not in _KEYWORDS:
        text = token.text
    else:
        quoted = f'Put it between double quotes: "{token.text}"' if token.kind != "end" else ""
        raise _bad(f"{field} wants a text, not {token.shown}", token.at, quoted)
    if field == "code":
        return text.upper()
    if field != "state":
        return text
    if text.upper() not in _STATES:
        raise _bad(f"there is no state {text!r}", token.at, f"There are {', '.join(sorted(_STATES))}")
    return _STATES[text.upper()]
