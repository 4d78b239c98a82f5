"""What every store has to do for people: lists, counts, schemas, retention."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from kasaga.store.base import DefinitionRow, RowKind, SagaFilter, SagaState, SagaWrite, Store
from store.contract import Bench
from store.samples import T0, Owner, history_row, outbox_row, run_id, saga_row, start


def numbers(store: Store, where: SagaFilter) -> list[int]:
    return [int(row.saga_id.removeprefix("order-")) for row in store.list_sagas(where)]


class PeopleContract:
    @pytest.fixture
    def filled(self, owner: Owner) -> Store:
        """Sagas 1 to 9 in two shards: 3 stuck, 4 paused, 5 compensating, 6 completed, else running."""
        owner.claim(3, 4)
        states = {3: SagaState.STUCK, 4: SagaState.PAUSED, 5: SagaState.COMPENSATING, 6: SagaState.COMPLETED}
        for number in range(1, 10):
            state = states.get(number, SagaState.RUNNING)
            shard = 3 + number % 2
            row = saga_row(shard, number, state, name="refund" if number > 7 else "payment")
            if state is SagaState.STUCK:
                row.code, row.parked_code = "KSG-202", "old"
            owner.commit(SagaWrite(shard, row.run_id, [history_row(0)], row, new=True))
        return owner.store

    def test_what_waits_is_found_by_its_open_rows(self, owner: Owner) -> None:
        """In order of the rows; a page looks at so many rows, whomever they belong to."""
        owner.claim(3, 4)
        for number, seq in ((1, 20), (2, 10), (3, 30)):
            owner.commit(start(3, number, seq))
        owner.commit(start(3, 4), start(4, 5, 5))  # 4 waits for nothing, 5 is in another shard
        store = owner.store
        loose = SagaWrite(3, run_id(2), opens=[outbox_row(3, 15, None, kind=RowKind.RECORD)])
        second = SagaWrite(3, run_id(2), opens=[outbox_row(3, 40, run_id(2))])
        owner.commit(loose)
        owner.commit(second)

        def page(after: int, limit: int) -> tuple[list[str], int | None]:
            rows, following = store.waiting(3, after=after, limit=limit)
            return sorted(row.saga_id for row in rows), following

        assert page(0, 500) == (["order-1", "order-2", "order-3"], None)
        assert page(0, 2) == (["order-2"], 15)
        assert page(15, 2) == (["order-1", "order-3"], 30)
        assert page(30, 2) == (["order-2"], None)
        assert page(0, 5) == (["order-1", "order-2", "order-3"], 40)
        assert page(40, 5) == ([], None)
        assert store.waiting(4)[0] == [saga_row(4, 5)]

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (SagaFilter(), [9, 8, 7, 6, 5, 4, 3, 2, 1]),
            (SagaFilter(states=[SagaState.STUCK]), [3]),
            (SagaFilter(states=(SagaState.STUCK, SagaState.PAUSED, SagaState.COMPENSATING)), [5, 4, 3]),
            (SagaFilter(states=[SagaState.STUCK, SagaState.COMPLETED]), [6, 3]),
            (SagaFilter(states=[SagaState.CANCELLING]), []),
            (SagaFilter(name="refund"), [9, 8]),
            (SagaFilter(name="refund", states=[SagaState.STUCK]), []),
            (SagaFilter(saga_id="order-7"), [7]),
            (SagaFilter(saga_id_prefix="order-"), [9, 8, 7, 6, 5, 4, 3, 2, 1]),
            (SagaFilter(saga_id_prefix="order_"), []),
            (SagaFilter(saga_id_prefix="ord%"), []),
            (SagaFilter(code="KSG-202"), [3]),
            (SagaFilter(started_after=T0 + timedelta(seconds=7)), [9, 8]),
            (SagaFilter(started_before=T0 + timedelta(seconds=3)), [2, 1]),
            (
                SagaFilter(started_after=T0 + timedelta(seconds=3), started_before=T0 + timedelta(seconds=6)),
                [5, 4],
            ),
        ],
    )
    def test_lists_and_counts(self, filled: Store, where: SagaFilter, expected: list[int]) -> None:
        assert numbers(filled, where) == expected
        assert sum(filled.count(where).values()) == len(expected)

    def test_counts_by_state(self, filled: Store) -> None:
        assert filled.count(SagaFilter()) == {
            SagaState.RUNNING: 5,
            SagaState.STUCK: 1,
            SagaState.PAUSED: 1,
            SagaState.COMPENSATING: 1,
            SagaState.COMPLETED: 1,
        }

    def test_what_needs_attention_is_counted_by_name_and_state(self, filled: Store) -> None:
        found = {(each.name, each.state): each for each in filled.attention(range(16))}
        assert {key: each.sagas for key, each in found.items()} == {
            ("payment", SagaState.STUCK): 1,
            ("payment", SagaState.PAUSED): 1,
            ("payment", SagaState.COMPENSATING): 1,
        }
        assert all(each.oldest > 0 for each in found.values())
        assert filled.attention([]) == []

    @pytest.fixture
    def busy(self, owner: Owner) -> Store:
        """One saga a second for the last 50 s, one every ten minutes before; see the code for their ends."""
        owner.claim(3)
        now = datetime.now(UTC)
        ages = [600.0 * each for each in range(5, 0, -1)] + [float(each) for each in range(50, 0, -1)]
        for number, age in enumerate(ages):
            began = now - timedelta(seconds=age)
            row = saga_row(3, number, started_at=began, updated_at=began, run_id=run_id(number))
            if age < 40:
                row.state = SagaState.COMPENSATED if number % 10 == 0 else SagaState.COMPLETED
                row.ended_at = began + timedelta(milliseconds=10 * number)
            opens = [] if row.ended_at else [outbox_row(3, 2 * number + 1, row.run_id)]
            if age > 500:
                opens[0].attempt = 2
                opens.append(outbox_row(3, 2 * number + 2, row.run_id, kind=RowKind.TIMER, topic=""))
            owner.commit(SagaWrite(3, row.run_id, [history_row(0)], row, new=True, opens=opens))
        owner.commit(loose=[outbox_row(3, 999, kind=RowKind.RECORD, topic="events")], shards=(3,))
        return owner.store

    def test_the_pulse_of_the_last_minutes(self, busy: Store) -> None:
        pulse = busy.pulse(seconds=300, slices=30)
        assert pulse.seconds == 300
        assert [len(each) for each in (pulse.started, pulse.completed, pulse.compensated)] == [30, 30, 30]
        assert sum(pulse.started) == 50
        assert sum(pulse.started[-6:]) == 50
        assert (sum(pulse.completed), sum(pulse.compensated)) == (35, 4)
        assert pulse.latencies is not None
        assert pulse.latencies == pytest.approx((0.35, 0.523, 0.5366), abs=0.02)
        assert (pulse.open_sagas, pulse.more_open) == (16, False)
        assert [(each.kind, each.topic, each.rows, each.again) for each in pulse.open_calls] == [
            (RowKind.COMMAND, "inventory.commands", 16, 5),
            (RowKind.TIMER, "", 5, 0),
        ]

    def test_a_pulse_that_sees_less_tells_of_less(self, busy: Store) -> None:
        pulse = busy.pulse(seconds=300, slices=10, newest=20, rows=3)
        assert pulse.seconds == pytest.approx(20, abs=5)
        assert sum(pulse.started) in (19, 20)
        assert pulse.more_open
        assert sum(each.rows for each in pulse.open_calls) == 3

    def test_nothing_has_a_pulse_too(self, store: Store) -> None:
        pulse = store.pulse(seconds=60, slices=4)
        assert (pulse.seconds, pulse.started, pulse.completed, pulse.latencies) == (
            60,
            [0] * 4,
            [0] * 4,
            None,
        )
        assert (pulse.open_sagas, pulse.open_calls, pulse.more_open) == (0, [], False)

    def test_pages(self, filled: Store) -> None:
        after: UUID | None = None
        pages: list[list[str]] = []
        while page := filled.list_sagas(SagaFilter(name="payment"), after=after, limit=3):
            pages.append([row.saga_id for row in page])
            after = page[-1].run_id
        assert pages == [["order-7", "order-6", "order-5"], ["order-4", "order-3", "order-2"], ["order-1"]]

    def test_parked_sagas_wait_for_other_code(self, filled: Store, owner: Owner) -> None:
        for number, code in ((11, "old"), (13, "new"), (15, "")):
            row = saga_row(4, number, SagaState.STUCK, parked_code=code)
            owner.commit(SagaWrite(4, row.run_id, saga=row, new=True))
        assert filled.parked(4, "new") == [run_id(3), run_id(11)]
        assert filled.parked(4, "old") == [run_id(13)]
        assert filled.parked(3, "new") == []
        owner.commit(SagaWrite(4, run_id(3), saga=saga_row(4, 3)))
        assert filled.parked(4, "new") == [run_id(11)]

    def test_long_histories_come_in_order(self, owner: Owner) -> None:
        owner.claim(3)
        owner.commit(start(3, 1))
        for first in range(1, 2500, 500):
            owner.commit(SagaWrite(3, run_id(1), [history_row(seq) for seq in range(first, first + 500)]))
        assert [row.seq for row in owner.store.history(saga_row(3, 1))] == list(range(2501))
        assert [row.seq for row in owner.store.load([(3, run_id(1))])[run_id(1)]] == list(range(2501))

    def test_a_change_may_be_asked_for_by_its_time(self, owner: Owner) -> None:
        owner.claim(3)
        for number in (1, 2, 3):
            row = saga_row(3, number, SagaState.RUNNING)
            row.updated_at = T0 + timedelta(hours=number)
            owner.commit(SagaWrite(3, row.run_id, [history_row(0)], row, new=True))
        store, hour = owner.store, timedelta(hours=1)
        assert numbers(store, SagaFilter(updated_after=T0 + hour)) == [3, 2]
        assert numbers(store, SagaFilter(updated_before=T0 + 3 * hour)) == [2, 1]
        between = SagaFilter(updated_after=T0 + hour, updated_before=T0 + 3 * hour)
        assert numbers(store, between) == [2]
        assert store.count(between) == {SagaState.RUNNING: 1}

    def test_the_last_who_announces_says_what_can_be_started(self, bench: Bench, store: Store) -> None:
        assert store.definitions() == []
        old = DefinitionRow("payment", 1, b"\x01" * 32, b"\x02" * 32, '{"type":"string"}')
        new = replace(old, version=2, input=b"\x03" * 32)
        refund = DefinitionRow("refund", 1, b"\x04" * 32, b"\x02" * 32)
        store.announce([refund, old])
        assert bench.store().definitions() == [old, refund]
        bench.store().announce([new, old])
        store.announce([new, replace(old, form="")])
        assert store.definitions() == [replace(old, form=""), new]
        store.announce([])
        assert store.definitions() == []

    def test_schemas_stay_as_they_were_put(self, store: Store) -> None:
        store.put_schemas({b"\x00" * 32: '"string"', b"\xff" * 32: '"long"'})
        store.put_schemas({b"\x00" * 32: '"else"', b"\x01" * 32: "[]"})
        assert store.schemas() == {b"\x00" * 32: '"string"', b"\xff" * 32: '"long"', b"\x01" * 32: "[]"}
