"""Conditions as SQL: the parts of `sql/search.sql`, put together with their parameters.

Station: `postgres.PostgresStore` lists and counts by it. `condition_of` is what the simple filters are short
for, and `memory.MemoryStore` evaluates the same conditions by `kasaga.search.matches`; a property test holds
both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast
from uuid import UUID

from kasaga.search.conditions import Both, Condition, Either, Negated, Scalar, Test
from kasaga.store import terms
from kasaga.store.base import SagaFilter, SagaState
from kasaga.store.encode import Encoder
from kasaga.store.statements import Call, Statement, read_statements

_PARTS = read_statements("search")
_PARAMETER = re.compile(r"\$(\d+)")
_OPERATORS = {"=": "is", "<": "below", "<=": "most", ">": "above", ">=": "least"}

ATTENTION = frozenset(
    {
        SagaState.STUCK,
        SagaState.CANCELLING,
        SagaState.COMPENSATING,
        SagaState.PAUSED,
        SagaState.TERMINATED,
    }
)
"""The states that have an index; a test holds them against the column `attention`."""


def condition_of(where: SagaFilter) -> Condition:
    """What a filter asks, as one condition."""
    parts: list[Condition] = []
    if where.states:
        parts.append(Test("state", "=", tuple(str(state) for state in where.states)))
    texts = (("saga", where.name), ("id", where.saga_id), ("code", where.code))
    parts += [Test(field, "=", (text,)) for field, text in texts if text]
    if where.saga_id_prefix:
        parts.append(Test("id", "starts", (where.saga_id_prefix,)))
    times = (
        ("started", ">", where.started_after),
        ("started", "<", where.started_before),
        ("updated", ">", where.updated_after),
        ("updated", "<", where.updated_before),
    )
    parts += [Test(field, op, (at,)) for field, op, at in times if at is not None]
    if where.where is not None:
        parts.append(where.where)
    return Both(tuple(parts))


def list_call(where: SagaFilter, after: UUID | None, limit: int) -> Call:
    """Ask for the newest sagas, those before run id `after`."""
    made = _Text()
    made.add("list")
    made.condition(condition_of(where))
    if after is not None:
        made.text("AND")
        made.add("before", after)
    made.add("newest", limit)
    return made.call("list")


def tally_call(where: SagaFilter) -> Call:
    """Ask how many sagas there are, by saga and state."""
    made = _Text()
    made.add("tally")
    made.condition(condition_of(where))
    made.add("by_group")
    return made.call("tally")


class _Text:
    """One statement in the making."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._oids: list[int] = []
        self._encoders: list[Encoder] = []
        self._values: list[object] = []

    def text(self, text: str) -> None:
        """Add a word of SQL."""
        self._texts.append(text)

    def add(self, name: str, *values: object) -> None:
        """Add a part, with its parameters behind those that are there."""
        part, before = _PARTS[name], len(self._values)
        self._texts.append(_PARAMETER.sub(lambda found: f"${before + int(found[1])}", part.sql.decode()))
        self._oids += part.oids
        self._encoders += part.encoders
        self._values += values

    def call(self, name: str) -> Call:
        """Return the statement with its parameters."""
        sql = " ".join(self._texts).encode()
        made = Statement(
            f"kasaga_{name}".encode(), f"store.sent.{name}", sql, self._oids, tuple(self._encoders)
        )
        return made.bind(*self._values)

    def condition(self, condition: Condition) -> None:
        """Add what it means."""
        match condition:
            case Both(parts):
                self._joined(parts, "AND", "true")
            case Either(parts):
                self._joined(_merged(parts), "OR", "false")
            case Negated(part):
                self.text("NOT")
                self.condition(part)
            case Test():
                if condition.attribute:
                    self._attribute(condition)
                else:
                    self._field(condition)

    def _joined(self, parts: Iterable[Condition], word: str, empty: str) -> None:
        self.text("(")
        for number, part in enumerate(parts):
            if number:
                self.text(word)
            self.condition(part)
            empty = ""
        self.text(f"{empty})")

    def _field(self, test: Test) -> None:
        field, values = test.field, test.values
        if test.op == "exists":
            self.add(f"{field}_exists")
        elif test.op == "starts":
            self.add(f"{field}_starts", values[0])
        elif test.op == "=":
            attention = field == "state" and ATTENTION.issuperset(cast("tuple[SagaState, ...]", values))
            self.add("state_attention" if attention else f"{field}_is", list(values))
        else:
            self.add(f"{field}_{_OPERATORS[test.op]}", values[0])

    def _attribute(self, test: Test) -> None:
        name = test.attribute
        if test.op == "=":
            keys = list(dict.fromkeys(terms.term(name, value) for value in test.values))
            if len(keys) == 1:
                self.add("attribute_is", keys[0])
            else:
                self.add("attribute_any", keys)
            return
        if test.op == "exists":
            within = terms.there(name)
        elif test.op == "starts":
            within = terms.beginning(name, str(test.values[0]))
        else:
            within = terms.compared(name, test.op, test.values[0])
        self.add("attribute_within", *within)


def _merged(parts: tuple[Condition, ...]) -> list[Condition]:
    """Put tests of one attribute for equality together: one look into the index instead of several scans."""
    values: dict[str, list[Scalar]] = {}
    others: list[Any] = []
    for part in parts:
        if isinstance(part, Test) and part.attribute and part.op == "=":
            values.setdefault(part.field, []).extend(part.values)
        else:
            others.append(part)
    return [*(Test(field, "=", tuple(found)) for field, found in values.items()), *others]
