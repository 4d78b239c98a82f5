"""What every store has to do of search attributes: keep, change and forget them, and find sagas by them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kasaga.search import parse
from kasaga.store.base import SagaFilter, SagaState, SagaWrite, Store
from kasaga_wire.attributes import Changes
from store.samples import T0, Owner, history_row, purge, refuse_all, run_id, saga_row

NOW = T0 + timedelta(hours=1)
DUE = datetime(2026, 11, 1, tzinfo=UTC)

OF: dict[int, Changes] = {
    1: {"customer": "c-7", "amount": 99.5, "vip": True},
    2: {"customer": "c-7", "amount": 120, "due": DUE},
    3: {"customer": "c-8", "amount": -1, "tags": ("blue", "red")},
    4: {"customer": "ä-%_", "amount": "120", "vip": False},
    5: {},
    6: {"tags": "red", "due": DUE + timedelta(microseconds=1)},
}
"""The attributes of sagas 1 to 6; 2 is stuck, 4 completed, 6 a refund."""


def found(store: Store, query: str, limit: int = 100) -> list[int]:
    rows = store.list_sagas(SagaFilter(where=parse(query, NOW)), limit=limit)
    return [int(row.saga_id.removeprefix("order-")) for row in rows]


def begun(number: int, attributes: Changes | None, state: SagaState = SagaState.RUNNING) -> SagaWrite:
    row = saga_row(3, number, state, name="refund" if number == 6 else "payment")
    if state is SagaState.STUCK:
        row.code = "KSG-220"
    if state is SagaState.COMPLETED:
        row.ended_at = T0
    return SagaWrite(3, row.run_id, [history_row(0)], row, new=True, attributes=attributes)


class SearchContract:
    @pytest.fixture
    def named(self, owner: Owner) -> Store:
        owner.claim(3, 4)
        states = {2: SagaState.STUCK, 4: SagaState.COMPLETED}
        owner.commit(
            *(begun(number, given, states.get(number, SagaState.RUNNING)) for number, given in OF.items())
        )
        return owner.store

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ('attr.customer = "c-7"', [2, 1]),
            ('attr.customer != "c-7"', [6, 5, 4, 3]),
            ('attr.customer exists and attr.customer != "c-7"', [4, 3]),
            ("attr.customer is missing", [6, 5]),
            ('attr.customer in ("c-7", "c-8")', [3, 2, 1]),
            ('attr.customer not in ("c-7", "c-8")', [6, 5, 4]),
            ('attr.customer starts with "c-"', [3, 2, 1]),
            ('attr.customer starts with "ä-%"', [4]),
            ('attr.customer starts with ""', [4, 3, 2, 1]),
            ('attr.customer starts with "%"', []),
            ('attr.customer > "c-7"', [4, 3]),
            ("attr.amount >= 99.5", [2, 1]),
            ("attr.amount > 99.5", [2]),
            ("attr.amount <= 120", [3, 2, 1]),
            ("attr.amount < 0", [3]),
            ("attr.amount = 120.0", [2]),
            ('attr.amount = "120"', [4]),
            ('attr.amount in (120, "120")', [4, 2]),
            ("attr.vip = true", [1]),
            ("attr.vip != true", [6, 5, 4, 3, 2]),
            ("attr.due = 2026-11-01", [2]),
            ("attr.due > 2026-11-01T00:00Z", [6]),
            ("attr.due >= 2026-11-01T01:00+01:00", [6, 2]),
            ('attr.tags = "red"', [6, 3]),
            ('attr.tags = "red" and attr.tags = "blue"', [3]),
            ('attr.tags != "blue"', [6, 5, 4, 2, 1]),
            ('attr.custom = "c-7"', []),
            ('attr.customer = "c-7" or attr.tags = "blue"', [3, 2, 1]),
            ('attr.customer = "c-7" or attr.customer = "c-8" or state = completed', [4, 3, 2, 1]),
            ('not (attr.customer = "c-7" or attr.amount < 0)', [6, 5, 4]),
            ('saga = "payment" and state in (STUCK, PAUSED) and attr.customer = "c-7"', [2]),
            ("state = STUCK and attr.amount >= 100 and started > 2026-01-01T00:00Z", [2]),
            ("state != stuck", [6, 5, 4, 3, 1]),
            ("name = refund or code = ksg-220", [6, 2]),
            ("code exists", [2]),
            ('code starts with "KSG-2"', [2]),
            ("code is missing and state = RUNNING and version = 1", [6, 5, 3, 1]),
            ("ended exists", [4]),
            ("ended is missing and version >= 2", []),
            ("ended < 1h ago", []),
            ("ended <= 1h ago", [4]),
            ("ended != 2026-01-01", [6, 5, 4, 3, 2, 1]),
            ('id in ("order-1", "order-4")', [4, 1]),
            ('id starts with "order-" and saga starts with "pay"', [5, 4, 3, 2, 1]),
            ("started < 59m ago and updated >= 2026-01-02T03:04:07.678901Z", [6, 5, 4, 3, 2]),
        ],
    )
    def test_a_query_finds_what_it_says(self, named: Store, query: str, expected: list[int]) -> None:
        assert found(named, query) == expected
        where = SagaFilter(where=parse(query, NOW))
        assert sum(named.count(where).values()) == len(expected)

    def test_the_simple_filters_and_a_query_hold_together(self, named: Store) -> None:
        where = SagaFilter(states=[SagaState.RUNNING], where=parse('attr.customer = "c-7"', NOW))
        assert [row.saga_id for row in named.list_sagas(where)] == ["order-1"]
        assert named.count(where) == {SagaState.RUNNING: 1}
        assert named.tally(SagaFilter(where=parse("attr.tags exists", NOW))) == {
            ("payment", SagaState.RUNNING): 1,
            ("refund", SagaState.RUNNING): 1,
        }

    def test_pages_of_a_query_begin_behind_each_other(self, named: Store) -> None:
        where = SagaFilter(where=parse("attr.amount exists", NOW))
        first = named.list_sagas(where, limit=2)
        second = named.list_sagas(where, after=first[-1].run_id, limit=2)
        assert [row.saga_id for row in first + second] == ["order-4", "order-3", "order-2", "order-1"]
        assert named.list_sagas(where, after=second[-1].run_id) == []

    def test_attributes_are_read_back_as_they_were(self, named: Store) -> None:
        for row in named.list_sagas(SagaFilter()):
            number = int(row.saga_id.removeprefix("order-"))
            one = named.saga(row.saga_id)
            assert row.attributes == OF[number]
            assert one is not None
            assert one.attributes == OF[number]

    def test_attributes_are_changed_and_taken_away_by_name(self, named: Store, owner: Owner) -> None:
        changes: Changes = {"customer": "c-9", "amount": None, "tags": ("x", "y"), "new": 1, "none": None}
        owner.commit(SagaWrite(3, run_id(1), attributes=changes))
        row = named.saga("order-1")
        assert row is not None
        assert row.attributes == {"customer": "c-9", "vip": True, "tags": ("x", "y"), "new": 1}
        owner.commit(SagaWrite(3, run_id(1), attributes={"tags": ("y", "z")}))
        assert (found(named, 'attr.tags = "x"'), found(named, 'attr.tags = "z"')) == ([], [1])
        assert found(named, 'attr.customer = "c-7"') == [2]

    def test_a_name_that_begins_another_is_not_that(self, named: Store, owner: Owner) -> None:
        owner.commit(SagaWrite(3, run_id(5), attributes={"cust": "a", "customer": "b", "customers": "c"}))
        owner.commit(SagaWrite(3, run_id(5), attributes={"customer": None}))
        row = named.saga("order-5")
        assert row is not None
        assert row.attributes == {"cust": "a", "customers": "c"}
        assert found(named, "attr.cust exists") == [5]

    def test_what_is_committed_twice_is_there_once(self, named: Store, owner: Owner) -> None:
        batch = owner.batch(SagaWrite(3, run_id(5), attributes={"customer": "c-7"}))
        owner.store.commit(batch, refuse_all)
        owner.store.commit(batch, refuse_all)
        assert found(named, 'attr.customer = "c-7"') == [5, 2, 1]

    def test_a_purged_saga_is_found_no_more(self, named: Store) -> None:
        purge(named, timedelta(0))
        assert found(named, "attr.vip exists") == [1]
        row = named.saga("order-4")
        assert row is not None
        assert row.attributes == {}
