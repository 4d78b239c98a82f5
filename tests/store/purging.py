"""What every store has to do for retention: find, delete, remember and forget what has ended."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from uuid import UUID

import pytest

from kasaga.store.base import RENEWED, SagaFilter, SagaState, SagaWrite, Store
from kasaga.store.purging import ArchiveState, EarlierRuns, EndedRuns
from store.contract import Bench
from store.people import numbers
from store.samples import Owner, history_row, purge, run_id, saga_row, shorten

DAY = timedelta(days=1)


class PurgeContract:
    """Retention, by the clock of the store's own."""

    @pytest.fixture
    def ended(self, owner: Owner) -> Store:
        """Sagas 0 to 9 that began 9 to 0 days ago; even ones completed half a day later."""
        owner.claim(3)
        now = datetime.now(UTC)
        for number in range(10):
            began = now - (9 - number) * DAY
            row = saga_row(3, number, started_at=began, updated_at=began, run_id=run_id(number, began))
            if number % 2 == 0:
                row = replace(row, state=SagaState.COMPLETED, ended_at=began + DAY / 2, result=b"r", step="3")
            owner.commit(SagaWrite(3, row.run_id, [history_row(0), history_row(1)], row, new=True))
        return owner.store

    def test_finished_sagas_go_and_stay_known(self, ended: Store) -> None:
        before = ended.saga("order-2")
        assert before is not None
        assert purge(ended, 4 * DAY) == 3
        assert numbers(ended, SagaFilter()) == [9, 8, 7, 6, 5, 3, 1]
        assert ended.load([(3, before.run_id)]) == {}
        assert before.ended_at is not None
        summary = replace(before, result=None, step="", updated_at=before.ended_at)
        assert ended.saga("order-2") == summary
        assert ended.find([(3, "order-2"), (3, "order-9")])["order-2"] == summary
        assert purge(ended, 4 * DAY) == 0

    def test_ids_are_forgotten_in_the_end(self, ended: Store) -> None:
        """Counted from when they were deleted: one that was kept for years is remembered as long."""
        purge(ended, 8 * DAY)
        time.sleep(0.02)
        between = datetime.now(UTC)
        purge(ended, 4 * DAY)
        assert ended.forget(DAY) == 0
        assert ended.forget(datetime.now(UTC) - between) == 1
        assert ended.saga("order-0") is None
        assert ended.find([(3, "order-2"), (3, "order-4")]).keys() == {"order-2", "order-4"}
        assert ended.forget(-DAY, limit=1) == 1
        assert ended.forget(-DAY) == 1
        assert ended.forget(-DAY) == 0

    def test_slices(self, ended: Store) -> None:
        after: UUID | None = None
        slices: list[int] = []
        while True:
            found = ended.finished(DAY / 4, after=after, limit=4)
            slices.append(ended.delete(found.rows))
            after = found.after
            if after is None:
                break
        assert sum(slices) == 5
        assert max(slices) == 2
        assert numbers(ended, SagaFilter()) == [9, 7, 5, 3, 1]

    def test_very_long_histories_go_too(self, owner: Owner) -> None:
        owner.claim(3)
        began = datetime.now(UTC) - 9 * DAY
        run = run_id(1, began)
        row = saga_row(
            3, 1, SagaState.COMPLETED, run_id=run, started_at=began, ended_at=began, updated_at=began
        )
        owner.commit(SagaWrite(3, run, [history_row(seq, b"") for seq in range(10_500)], row, new=True))
        assert purge(owner.store, DAY) == 1
        assert owner.store.load([(3, run)]) == {}

    def test_a_terminated_saga_needs_no_attention_is_found_and_is_purged(self, owner: Owner) -> None:
        owner.claim(3)
        began = datetime.now(UTC) - 9 * DAY
        row = saga_row(3, 1, SagaState.TERMINATED, started_at=began, updated_at=began, ended_at=began)
        owner.commit(SagaWrite(3, row.run_id, [history_row(0)], row, new=True))
        store = owner.store
        assert store.attention([3]) == []
        assert store.list_sagas(SagaFilter(states=[SagaState.TERMINATED])) == [row]
        assert store.list_sagas(SagaFilter(states=[SagaState.STUCK, SagaState.TERMINATED])) == [row]
        assert store.count(SagaFilter()) == {SagaState.TERMINATED: 1}
        assert purge(store, DAY) == 1
        remembered = store.saga(row.saga_id)
        assert remembered is not None
        assert remembered.state is SagaState.TERMINATED

    def test_run_ids_of_another_version_are_purged_too(self, owner: Owner) -> None:
        owner.claim(3)
        began = datetime.now(UTC) - 9 * DAY
        foreign = UUID("ffffffff-1111-4111-8111-111111111111")
        row = saga_row(
            3, 1, SagaState.COMPENSATED, run_id=foreign, started_at=began, updated_at=began, ended_at=began
        )
        owner.commit(SagaWrite(3, foreign, [history_row(0)], row, new=True))
        assert purge(owner.store, DAY) == 1

    def test_an_id_may_be_used_again_and_purged_again(self, ended: Store, owner: Owner) -> None:
        purge(ended, 4 * DAY)
        began = datetime.now(UTC) - 5 * DAY
        row = saga_row(3, 2, SagaState.COMPENSATED, started_at=began, updated_at=began, ended_at=began)
        row.run_id = run_id(77, began)
        owner.commit(SagaWrite(3, row.run_id, [history_row(0)], row, new=True))
        assert ended.saga("order-2") == row
        assert ended.find([(3, "order-2")]) == {"order-2": row}
        assert purge(ended, 4 * DAY) == 1
        assert ended.saga("order-2") == row

    def test_what_is_kept_is_of_a_name_or_of_all_others(self, owner: Owner) -> None:
        owner.claim(3)
        began = datetime.now(UTC) - 9 * DAY
        names = {1: "order", 2: "refund", 3: "audit", 4: "order"}
        for number, name in names.items():
            row = saga_row(3, number, SagaState.COMPLETED, name=name, run_id=run_id(number, began))
            row.started_at = row.updated_at = row.ended_at = began
            owner.commit(SagaWrite(3, row.run_id, [history_row(0)], row, new=True))

        def of(*asked: str, others: bool) -> list[str]:
            return [row.saga_id for row in owner.store.finished(DAY, asked, others=others).rows]

        assert of("order", "refund", others=False) == ["order-1", "order-2", "order-4"]
        assert of("order", "refund", others=True) == ["order-3"]
        assert of(others=False) == []
        assert of("order", others=False) == ["order-1", "order-4"]

    def test_ended_runs_of_sagas_that_live_on(self, owner: Owner) -> None:
        owner.claim(3)
        now = datetime.now(UTC)
        for number, days in enumerate((9, 5, 1)):
            run = run_id(number, now - 20 * DAY)
            row = saga_row(3, number, run_id=run, base=8, name=f"n{number}")
            history = [
                history_row(seq, at=now - days * DAY, kind=RENEWED if seq in (3, 6, 8) else "Replied")
                for seq in range(1, 10)
            ]
            history[5].at = history[7].at = now
            owner.commit(SagaWrite(3, run, history, row, new=True))
        store, first = owner.store, saga_row(3, 0, run_id=run_id(0, now - 20 * DAY), base=8, name="n0")
        assert [each.seq for each in store.load([(3, first.run_id)])[first.run_id]] == [8, 9]
        assert [each.seq for each in store.histories([(3, first.run_id)])[first.run_id]] == list(range(1, 10))
        assert [each.seq for each in store.history(first, since=7)] == [7, 8, 9]
        found = store.saga(first.saga_id)
        assert found is not None
        assert found.base == store.find([(3, first.saga_id)])[first.saga_id].base == 8
        assert shorten(store, 4 * DAY, ["n0"]) == (2, None)  # n1's
        assert [each.seq for each in store.history(first)] == list(range(1, 10))
        earlier = store.ended_runs(4 * DAY, ["n0", "n1"], others=False, limit=1)
        assert earlier == EndedRuns([EarlierRuns(3, first.run_id, 3)], first.run_id)
        assert [each.seq for each in store.kept(3, first.run_id, before=3)] == [1, 2]
        assert store.cut(earlier.runs[0]) == 2
        assert store.cut(earlier.runs[0]) == 0
        assert [each.seq for each in store.history(first)] == list(range(3, 10)), "whole runs"
        assert shorten(store, 4 * DAY, after=earlier.after) == (0, None)
        assert store.ended_runs(4 * DAY).runs == [], "nothing twice"
        moved = replace(first, base=9, attributes={})
        owner.commit(SagaWrite(3, first.run_id, [history_row(10)], moved))
        assert [each.seq for each in store.load([(3, first.run_id)])[first.run_id]] == [9, 10]

    def test_who_was_taken_back_meanwhile_stays_whole(self, ended: Store, owner: Owner) -> None:
        found = ended.finished(4 * DAY).rows
        back = replace(found[1], state=SagaState.COMPENSATING, ended_at=None, result=None, attributes={})
        owner.commit(SagaWrite(3, back.run_id, [history_row(2)], back))
        assert ended.delete(found) == 2
        assert ended.saga(back.saga_id) == back
        assert len(ended.load([(3, back.run_id)])[back.run_id]) == 3
        again = replace(back, state=SagaState.COMPENSATED, ended_at=datetime.now(UTC))
        owner.commit(SagaWrite(3, back.run_id, [history_row(3)], again))
        assert ended.delete(found) == 0

    def test_beginnings_and_rows_are_read_for_any_thread(self, ended: Store) -> None:
        rows = ended.finished(4 * DAY).rows
        runs = [(row.shard, row.run_id) for row in rows]
        assert ended.beginnings([*runs, (3, run_id(99))]) == {run: history_row(0) for _, run in runs}
        assert ended.standing([*runs, (3, run_id(99))]) == {row.run_id: row for row in rows}
        assert (ended.beginnings([]), ended.standing([]), ended.delete([])) == ({}, {}, 0)
        assert ended.delete([*rows, *rows]) == len(rows)

    def test_what_definitions_say_is_kept_by_name(self, bench: Bench, store: Store) -> None:
        store.retain({"order": 60.5, "audit": inf, "refund": None})
        assert bench.store().retained() == {"order": 60.5, "audit": inf}
        store.retain({"order": None, "refund": 1})
        assert store.retained() == {"audit": inf, "refund": 1}
        store.retain({})
        assert store.retained() == {"audit": inf, "refund": 1}

    def test_a_history_as_it_is_kept(self, ended: Store) -> None:
        row = ended.saga("order-2")
        assert row is not None
        assert ended.kept(3, row.run_id) == [history_row(0), history_row(1)]
        assert ended.kept(3, row.run_id, before=1) == [history_row(0)]
        assert ended.kept(3, UUID(int=7)) == []

    def test_very_long_histories_are_kept_whole(self, owner: Owner) -> None:
        owner.claim(3)
        run = run_id(1, datetime.now(UTC))
        rows = [history_row(seq, b"") for seq in range(2_500)]
        owner.commit(SagaWrite(3, run, rows, saga_row(3, 1, run_id=run), new=True))
        assert [each.seq for each in owner.store.kept(3, run)] == list(range(2_500))

    def test_what_is_noted_of_the_archive(self, owner: Owner) -> None:
        store = owner.store
        assert store.archive_state() is None
        store.note_archive_failed("s3://b", "no such bucket")
        first = store.archive_state()
        assert first is not None
        assert first.failing_since is not None
        assert (first.place, first.sagas, first.objects, first.size) == ("s3://b", 0, 0, 0)
        assert (first.archived_at, first.error) == (None, "no such bucket")
        store.note_archive_failed("s3://b", "denied")
        assert store.archive_state() == replace(first, error="denied"), "since the first time"
        store.note_archived("s3://c", sagas=3, size=70)
        store.note_archived("s3://c", sagas=2, size=30)
        last = store.archive_state()
        assert last is not None
        assert last.archived_at is not None
        assert last == ArchiveState("s3://c", 5, 2, 100, last.archived_at, None, "")
