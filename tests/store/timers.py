"""What every store has to do with sleeping rows: tell those that come next, as they are due."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from kasaga.store.base import RowKind
from store.samples import T0, Owner, outbox_row, refuse_all, run_id, start


class TimersContract:
    def test_sleeping_rows_are_read_page_by_page_in_the_order_in_which_they_are_due(
        self, owner: Owner
    ) -> None:
        owner.claim(3, 4)
        timer = RowKind.TIMER
        late, never = T0 + timedelta(seconds=9), None
        asleep = [
            outbox_row(3, seq, run_id(1), kind=timer, due_at=due)
            for seq, due in ((9, T0), (2, T0 + timedelta(microseconds=1)), (5, late), (999_999, late))
        ]
        others = [
            outbox_row(3, 1, run_id(1), kind=RowKind.COMMAND, due_at=T0),
            outbox_row(3, 3, run_id(1), kind=timer, due_at=never),
        ]
        loose = [outbox_row(3, 7, None, kind=timer, due_at=T0)]
        elsewhere = [outbox_row(4, 1, run_id(2), kind=timer, due_at=T0)]
        opens = sorted([*others, *asleep], key=lambda row: row.seq)
        owner.store.commit(
            owner.batch(
                replace(start(3, 1), opens=opens),
                replace(start(4, 2), opens=elsewhere),
                loose=loose,
                shards=(3, 4),
            ),
            refuse_all,
        )
        store = owner.store
        assert store.timers(3, None, 9) == asleep
        assert store.timers(3, None, 2) == asleep[:2]
        for number, row in enumerate(asleep, 1):
            assert row.due_at is not None
            place = (row.due_at, row.seq)
            assert store.timers(3, place, 9) == asleep[number:]
            assert store.timers_behind([(3, *place)]) == 4 - number
        assert store.timers(5, None, 9) == []
        assert store.open_rows(3, asleep=False) == sorted([*others, *loose], key=lambda row: row.seq)
        before = T0 - timedelta(days=1)
        assert store.timers_behind([(3, T0, 9), (4, before, 0), (5, before, 0)]) == 3 + 1
        assert store.timers_behind([]) == 0
