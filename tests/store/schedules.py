"""What every store has to do for schedules: plan once, fire with the fence, keep a few outcomes."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID, uuid4

import pytest

from kasaga.store.base import Store
from kasaga.store.scheduling import MAX_WAITING, RECENT, Cause, Firing, FiringState, ScheduleRow
from store.samples import Owner

MINUTE = timedelta(minutes=1)
WAITING, SENDING, SENT = FiringState.WAITING, FiringState.SENDING, FiringState.SENT
TEXT = '{"saga": "report"}'


def firing(due: datetime, state: FiringState = WAITING, cause: Cause = Cause.DUE, reason: str = "") -> Firing:
    return Firing(due, cause, state, due, f"nightly@{due.isoformat()}", reason)


class ScheduleContract:
    """One owner of shard 0, and a schedule of its App."""

    @pytest.fixture
    def token(self, owner: Owner) -> UUID:
        row = owner.store.claim(0, "schedules", ttl=30)
        assert row is not None
        assert owner.store.declare_schedules(row.token, {"nightly": TEXT})
        return row.token

    def row(self, store: Store) -> ScheduleRow:
        [row] = store.schedules("nightly")[1]
        return row

    def test_a_new_schedule_begins_now(self, store: Store, token: UUID) -> None:
        now, [row] = store.schedules()
        assert row == ScheduleRow("nightly", TEXT, True, False, "", row.position, [])
        assert now - MINUTE < row.position <= now
        assert store.schedules("other")[1] == []

    def test_one_that_the_app_drops_is_kept_as_it_was(self, store: Store, token: UUID) -> None:
        before = self.row(store)
        assert store.pause_schedule("nightly", "anna", paused=True)
        assert store.declare_schedules(token, {"other": "{}"})
        row = self.row(store)
        assert (row.declared, row.paused, row.by, row.position) == (False, True, "anna", before.position)
        assert store.declare_schedules(token, {"nightly": '{"saga": "new"}'})
        row = self.row(store)
        assert (row.declared, row.definition, row.paused) == (True, '{"saga": "new"}', True)
        assert row.position == before.position

    def test_a_plan_counts_once(self, store: Store, token: UUID) -> None:
        was = self.row(store).position
        found = [firing(was + MINUTE), firing(was + 2 * MINUTE, FiringState.MISSED, reason="late")]
        assert store.plan_schedule(token, "nightly", was, was + 3 * MINUTE, found)
        assert not store.plan_schedule(token, "nightly", was, was + 9 * MINUTE, [firing(was + 8 * MINUTE)])
        row = self.row(store)
        assert (row.position, row.firings) == (was + 3 * MINUTE, found)
        assert store.plan_schedule(token, "nightly", row.position, was + 4 * MINUTE, [])
        assert not store.plan_schedule(token, "unknown", was, was, [])

    def test_who_has_lost_shard_0_writes_nothing(self, store: Store, token: UUID) -> None:
        was = self.row(store).position
        assert store.plan_schedule(token, "nightly", was, was + MINUTE, [firing(was + MINUTE)])
        before, other = self.row(store), uuid4()
        assert not store.declare_schedules(other, {"mine": TEXT})
        assert not store.plan_schedule(other, "nightly", before.position, was + 9 * MINUTE, [])
        assert not store.move_firing(other, "nightly", was + MINUTE, WAITING, SENDING)
        assert store.schedules()[1] == [before]

    def test_a_firing_moves_from_what_it_was(self, store: Store, token: UUID) -> None:
        was = self.row(store).position
        store.plan_schedule(token, "nightly", was, was + MINUTE, [firing(was + MINUTE)])
        assert store.move_firing(token, "nightly", was + MINUTE, WAITING, SENDING)
        assert not store.move_firing(token, "nightly", was + MINUTE, WAITING, SENDING)
        assert store.move_firing(token, "nightly", was + MINUTE, SENDING, SENT, "so")
        [found] = self.row(store).firings
        assert (found.state, found.reason) == (SENT, "so")

    def test_few_outcomes_are_kept_and_all_that_waits(self, store: Store, token: UUID) -> None:
        was = self.row(store).position
        found = [firing(was + n * MINUTE, SENT if n > 5 else WAITING) for n in range(1, RECENT + 11)]
        assert store.plan_schedule(token, "nightly", was, was + 60 * MINUTE, found)
        kept = self.row(store).firings
        assert [each.state for each in kept] == [WAITING] * 5 + [SENT] * RECENT
        assert kept == found[:5] + found[-RECENT:]

    def test_starts_are_kept_apart_from_what_didnt_begin(self, store: Store, token: UUID) -> None:
        was = self.row(store).position
        begun = firing(was + MINUTE, SENT)
        skipped = [firing(was + n * MINUTE, FiringState.SKIPPED) for n in range(2, RECENT + 12)]
        assert store.plan_schedule(token, "nightly", was, was + 60 * MINUTE, [begun, *skipped])
        assert self.row(store).firings == [begun, *skipped[-RECENT:]]

    def test_a_resumed_one_makes_up_for_nothing(self, store: Store, token: UUID) -> None:
        was = self.row(store).position
        assert store.pause_schedule("nightly", "anna: holidays", paused=True)
        assert store.pause_schedule("nightly", "ben", paused=False)
        row = self.row(store)
        assert (row.paused, row.by) == (False, "ben")
        assert row.position > was
        assert not store.pause_schedule("unknown", "anna", paused=True)

    def test_what_people_ask_for_is_added_once(self, store: Store, token: UUID) -> None:
        was = self.row(store).position
        there = [firing(was - 3 * MINUTE, SENT), firing(was - 2 * MINUTE, FiringState.MISSED, reason="late")]
        store.plan_schedule(token, "nightly", was, was + MINUTE, there)
        asked = [firing(was - n * MINUTE, cause=Cause.BACKFILL, reason="by anna") for n in (3, 2, 1)]
        assert store.ask_firings("nightly", asked) == 2
        assert self.row(store).firings == [there[0], *asked[1:]]
        assert store.ask_firings("nightly", asked) == 0
        assert store.ask_firings("unknown", asked) == 0

    def test_no_more_than_a_limit_waits(self, store: Store, token: UUID) -> None:
        was = self.row(store).position
        many = [firing(was - n * MINUTE) for n in range(1, MAX_WAITING + 2)]
        assert store.ask_firings("nightly", many) == 0
        assert store.ask_firings("nightly", many[1:]) == MAX_WAITING
        assert store.ask_firings("nightly", many[:1]) == 0
