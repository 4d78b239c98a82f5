"""Sagas, conditions and texts to draw, for property tests."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import strategies as st

from kasaga.search.conditions import ATTRIBUTE, Both, Condition, Either, Negated, Scalar, Test
from kasaga.store.base import SagaRow, SagaState
from kasaga_wire.attributes import check_value
from store.samples import T0, saga_row

NOW = T0 + timedelta(days=1)
NAMES = ("a", "ab", "b", "c")
TEXTS = ("", "a", "ab", "b", "%", "ä", "a\u00ff", "120", "\U0001f600", 'q"\\')
NUMBERS = (0, -1, 1, 0.5, -0.5, 120, 1e300, -1e300, 2**53)
TIMES = (
    T0,
    T0 + timedelta(microseconds=1),
    datetime(1, 1, 1, tzinfo=UTC),
    datetime(9999, 12, 31, tzinfo=UTC),
)

scalars: st.SearchStrategy[Scalar] = st.sampled_from([*TEXTS, *NUMBERS, True, False, *TIMES])


def sagas(count: int, seed: int) -> list[SagaRow]:
    """Sagas of all kinds, the same each time."""
    chance = Random(seed)
    return [_saga(chance, number) for number in range(1, count + 1)]


def _saga(chance: Random, number: int) -> SagaRow:
    pick = chance.choice
    row = saga_row(pick([3, 4]), number, pick(list(SagaState)))
    row.name, row.code = pick(["payment", "pay", "refund"]), pick(["", "KSG-202", "KSG-220"])
    row.version = pick([1, 2, 3])
    row.started_at, row.updated_at = pick(TIMES[:2]), pick(TIMES[:2])
    row.ended_at = pick([None, *TIMES[:2]])
    several = chance.sample(TEXTS, chance.randrange(1, 4))
    values: list[object] = [*TEXTS, *NUMBERS, True, False, *TIMES, several, several]
    row.attributes = {
        name: check_value(name, pick(values)) for name in chance.sample(NAMES, chance.randrange(4))
    }
    return row


ORDERS = ("<", "<=", ">", ">=")
_states = st.lists(st.sampled_from([each.value for each in SagaState]), min_size=1, max_size=3)


def _tuple(found: list[Scalar]) -> tuple[Scalar, ...]:
    return tuple(found)


def _one(*values: Scalar) -> st.SearchStrategy[tuple[Scalar]]:
    return st.tuples(st.sampled_from(values))


_named = st.sampled_from([ATTRIBUTE + name for name in NAMES])

tests: st.SearchStrategy[Condition] = st.one_of(
    st.builds(Test, st.just("state"), st.just("="), _states.map(tuple)),
    st.builds(Test, st.just("saga"), st.sampled_from(["=", "starts"]), _one("payment", "pay", "", "%")),
    st.builds(Test, st.just("code"), st.sampled_from(["=", "starts"]), _one("KSG-202", "KSG-2", "", "%")),
    st.builds(Test, st.just("id"), st.sampled_from(["=", "starts"]), _one("order-1", "order-", "", "%")),
    st.builds(Test, st.sampled_from(["code", "ended"]), st.just("exists")),
    st.builds(Test, st.just("version"), st.sampled_from(["=", *ORDERS]), st.tuples(st.integers(0, 4))),
    st.builds(
        Test, st.sampled_from(["started", "updated", "ended"]), st.sampled_from(["=", *ORDERS]), _one(*TIMES)
    ),
    st.builds(Test, _named, st.just("="), st.lists(scalars, min_size=1, max_size=3).map(_tuple)),
    st.builds(Test, _named, st.sampled_from(ORDERS), _one(*TEXTS, *NUMBERS, *TIMES)),
    st.builds(Test, _named, st.just("starts"), _one(*TEXTS)),
    st.builds(Test, _named, st.just("exists")),
)


def _joined(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.one_of(parts.map(Both), parts.map(Either), inner.map(Negated))


conditions: st.SearchStrategy[Condition] = st.recursive(tests, _joined, max_leaves=8)


def written(condition: Condition) -> str:
    """A condition as a query."""
    match condition:
        case Both(parts):
            return f"({' and '.join(written(part) for part in parts)})"
        case Either(parts):
            return f"({' or '.join(written(part) for part in parts)})"
        case Negated(part):
            return f"not {written(part)}"
        case Test(field, "exists"):
            return f"{field} exists"
        case Test(field, "starts", (value,)):
            return f"{field} starts with {_literal(value)}"
        case Test(field, "=", several) if len(several) > 1:
            return f"{field} in ({', '.join(map(_literal, several))})"
        case Test(field, op, several):
            return f"{field} {op} {_literal(several[0])}"


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)
