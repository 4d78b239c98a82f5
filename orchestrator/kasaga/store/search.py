"""Conditions as SQL: the parts of `sql/search.sql`, put together with their parameters.

Station: `postgres.PostgresStore` lists and counts by it. `condition_of` is what the simple filters are short
for, and `memory.MemoryStore` evaluates the same conditions by `kasaga.search.matches`; a property test holds
both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypeGuard, cast
from uuid import UUID

from kasaga.search.conditions import COMPARISONS, Both, Condition, Either, Negated, Scalar, Test, kind
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
                self._both(parts)
            case Either(parts):
                self._either(_merged(parts))
            case Negated(part):
                self.text("NOT")
                self.condition(part)
            case Test():
                if condition.attribute:
                    self._attribute(condition)
                else:
                    self._field(condition)

    def _both(self, parts: tuple[Condition, ...]) -> None:
        """From and to of one number or time are one range of the index: a saga has one value of these."""
        ranges: dict[tuple[str, str], terms.Range] = {}
        others: list[Condition] = []
        for part in _flat(parts):
            if not _is_bound(part):
                others.append(part)
                continue
            key = part.attribute, kind(part.values[0])
            first, behind = terms.compared(part.attribute, part.op, part.values[0])
            known = ranges.get(key, (first, behind))
            ranges[key] = max(first, known[0]), min(behind, known[1])
        self.text("(true")
        for part in others:
            self.text("AND")
            self.condition(part)
        for within in ranges.values():
            self.text("AND")
            self.add("attribute_within", *within)
        self.text(")")

    def _either(self, parts: list[Condition]) -> None:
        self.text("(false")
        for part in parts:
            self.text("OR")
            self.condition(part)
        self.text(")")

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


def _flat(parts: Iterable[Condition]) -> Iterator[Condition]:
    """The parts of what all has to hold, also of parts within each other."""
    for part in parts:
        if isinstance(part, Both):
            yield from _flat(part.parts)
        else:
            yield part


def _is_bound(part: Condition) -> TypeGuard[Test]:
    return (
        isinstance(part, Test)
        and bool(part.attribute)
        and part.op in COMPARISONS
        and not isinstance(part.values[0], str)
    )


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
