"""Conditions on sagas: what the language's texts become, and what they mean.

A condition is true or false of each saga, never unknown: what a saga doesn't have is equal to nothing and
above nothing, so `!=` is exactly `not =`. Pure. Made by `language`; `matches` is the meaning, and
`kasaga.store.search` must agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from kasaga_wire.attributes import Stored

Scalar: TypeAlias = str | int | float | bool | datetime

ATTRIBUTE = "attr."
"""What the name of an attribute's field begins with."""

TEXTS = frozenset({"saga", "id", "code", "state"})
TIMES = frozenset({"started", "updated", "ended"})
FIELDS = TEXTS | TIMES | {"version"}
"""Of each saga; all others are attributes."""

COMPARISONS = frozenset({"<", "<=", ">", ">="})


@dataclass(frozen=True, slots=True)
class Test:
    """One field: `=` any of the values, one of COMPARISONS, `starts` with a text, or `exists`."""

    __test__ = False

    field: str
    op: str
    values: tuple[Scalar, ...] = ()

    @property
    def attribute(self) -> str:
        """The name of the attribute; empty for a field that every saga has."""
        return self.field.removeprefix(ATTRIBUTE) if self.field.startswith(ATTRIBUTE) else ""


@dataclass(frozen=True, slots=True)
class Both:
    """All of them hold; without any, always."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Either:
    """One of them holds; without any, never."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Negated:
    """It doesn't hold."""

    part: Condition


Condition: TypeAlias = Test | Both | Either | Negated


class Found(Protocol):
    """What a condition looks at: `kasaga.store.base.SagaRow`."""

    saga_id: str
    name: str
    version: int
    code: str
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None

    @property
    def state(self) -> str:
        """One of SagaState."""
        ...

    @property
    def attributes(self) -> Mapping[str, Stored]:
        """By name."""
        ...


def matches(condition: Condition, row: Found) -> bool:
    """Whether a saga fulfils a condition."""
    match condition:
        case Both(parts):
            return all(matches(part, row) for part in parts)
        case Either(parts):
            return any(matches(part, row) for part in parts)
        case Negated(part):
            return not matches(part, row)
        case Test():
            return any(_fulfils(condition, value) for value in _of(condition, row))


def names_state(condition: Condition | None) -> bool:
    """Whether states are asked for: then nothing is to be assumed of them."""
    match condition:
        case Both(parts) | Either(parts):
            return any(names_state(part) for part in parts)
        case Negated(part):
            return names_state(part)
        case _:
            return condition is not None and condition.field == "state"


def _of(test: Test, row: Found) -> tuple[Scalar, ...]:
    """What a saga has in a field: nothing, one value, or several."""
    if test.attribute:
        value = row.attributes.get(test.attribute)
        return () if value is None else value if isinstance(value, tuple) else (value,)
    if test.field == "ended":
        return (row.ended_at,) if row.ended_at is not None else ()
    if test.field == "code":
        return (row.code,) if row.code else ()
    of_all: dict[str, Scalar] = {
        "saga": row.name,
        "id": row.saga_id,
        "version": row.version,
        "state": str(row.state),
        "started": row.started_at,
        "updated": row.updated_at,
    }
    return (of_all[test.field],)


def kind(value: Scalar) -> str:
    """Which values can be compared: those of one kind."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "time" if isinstance(value, datetime) else "text"


def _fulfils(test: Test, value: Scalar) -> bool:
    if test.op == "exists":
        return True
    if test.op == "starts":
        return isinstance(value, str) and value.startswith(str(test.values[0]))
    return any(_compare(value, test.op, wanted) for wanted in test.values if kind(wanted) == kind(value))


def _compare(value: Scalar, op: str, wanted: Scalar) -> bool:
    if op == "=":
        return value == wanted
    if isinstance(value, str) and isinstance(wanted, str):
        below, same = value.encode() < wanted.encode(), value == wanted
    elif isinstance(value, datetime) and isinstance(wanted, datetime):
        below, same = value < wanted, value == wanted
    else:
        assert not isinstance(value, str | datetime)
        assert not isinstance(wanted, str | datetime)
        below, same = float(value) < float(wanted), float(value) == float(wanted)
    return {"<": below, "<=": below or same, ">": not (below or same), ">=": not below}[op]
