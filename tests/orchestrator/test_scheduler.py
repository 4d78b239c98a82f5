"""Schedules are fired in time, each due time once, whoever dies and whatever comes twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from kasaga import App, Every, SagaContext, Schedule, saga
from kasaga.orchestrator import scheduler as module
from kasaga.orchestrator.metrics import Metrics
from kasaga.orchestrator.rows import Addresses
from kasaga.orchestrator.scheduler import Scheduler
from kasaga.orchestrator.tracing import sampling_from
from kasaga.schedules import BackfillRefused, ScheduleInvalid, UnknownSchedule, people
from kasaga.store.base import SagaState, StoreUnavailable
from kasaga.store.memory import MemoryStore
from kasaga.store.memory_tables import Tables
from kasaga.store.scheduling import Cause, FiringState
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka import partition_for
from kasaga_wire.records import Control, control_codec
from kasaga_wire.topics import Topics
from store.samples import saga_row

SHARDS = 4
NOON = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
Headers = Sequence[tuple[str, bytes | None]]


@saga("report")
async def report(ctx: SagaContext, day: str) -> None: ...


def day_of(due: datetime) -> str:
    return due.date().isoformat()


def fails_once(due: datetime) -> str:
    return str(60 // (due.minute - 1))


class DiedInterrupt(BaseException):
    """A process was killed."""


class Broker:
    """Takes records; a test says what else happens."""

    fatal: str | None = None

    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes, dict[str, bytes]]] = []
        self.cancels: list[tuple[str, Control, str]] = []
        self.refuses: DeliveryError | None = None
        self.silent = 0
        self.closed = 0

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: Callable[[DeliveryError | None], None],
    ) -> None:
        assert key is not None
        assert value is not None
        assert headers is not None
        assert partition == partition_for(key, SHARDS)
        if self.silent:
            return
        if self.refuses is None and topic == "shop.control":
            told = dict(headers)
            assert told["ce_subject"] == key
            said = control_codec.decode(value, Schemas())
            self.cancels.append((key.decode(), said, str(told["ce_id"])))
        elif self.refuses is None:
            assert topic == "shop.sagas"
            self.records.append((key, value, {name: text or b"" for name, text in headers}))
        on_ack(self.refuses)

    def poll(self, timeout: float = 0.0) -> int:
        return 0

    def flush(self, timeout: float) -> int:
        return self.silent

    def close(self, timeout: float = 5.0) -> None:
        self.closed += 1

    @property
    def ids(self) -> list[str]:
        return [key.decode().partition("@")[2] for key, _, _ in self.records]


class Desk:
    """One store, a clock, a broker, and schedulers that come and go."""

    def __init__(self, **schedule: Any) -> None:
        self.now = NOON
        self.faults: dict[str, BaseException] = {}
        self.store = MemoryStore(shards=SHARDS, clock=lambda: self.now, fault=self._fault)
        self.tables: Tables = self.store.__dict__["_tables"]
        self.broker = Broker()
        self.metrics = Metrics()
        self.token = self.claim()
        self.use(**schedule)

    def _fault(self, point: str) -> None:
        if point in self.faults:
            raise self.faults.pop(point)

    def claim(self, process: str = "one") -> UUID:
        row = self.store.claim(0, process, ttl=1e9)
        assert row is not None
        return row.token

    def use(self, **schedule: Any) -> None:
        given = {"input": "today", "when": Every(60), **schedule}
        make: Any = Schedule
        self.app = App("shop", sagas=[report], schedules=[make("nightly", report, **given)])
        self.scheduler = self.make(lambda: self.token)
        self.round()

    def make(self, token: Callable[[], UUID | None]) -> Scheduler:
        where = Addresses(Topics("shop"), "/kasaga/shop", SHARDS, sampling_from({}))
        return Scheduler(
            self.store,
            self.app.schedules,
            where,
            token=token,
            producer=lambda: self.broker,
            metrics=self.metrics,
        )

    def round(self, seconds: float = 0) -> None:
        self.now += timedelta(seconds=seconds)
        self.scheduler.round()

    def begins(self, saga_id: str, state: SagaState = SagaState.RUNNING) -> None:
        """The loop has read the start."""
        shard = partition_for(saga_id.encode(), SHARDS)
        number = len(self.tables.sagas) + 1
        row = saga_row(shard, number, saga_id=saga_id, state=state)
        self.tables.sagas[row.run_id] = row
        self.tables.runs[shard, saga_id] = row.run_id

    def ends(self) -> None:
        for row in self.tables.sagas.values():
            row.state = SagaState.COMPLETED

    @property
    def told(self) -> list[tuple[str, str]]:
        [row] = self.store.schedules()[1]
        return [(each.due.strftime("%H:%M:%S"), each.state.value) for each in row.firings]


def test_a_saga_begins_when_it_is_due() -> None:
    desk = Desk(input=day_of)
    desk.round(20)
    assert desk.broker.records == []
    desk.round(10)
    [(key, value, headers)] = desk.broker.records
    assert key == b"nightly@2026-03-01T12:01:00Z"
    assert value == report.input.encode("2026-03-01")
    assert {b"report", b"schedule:nightly"} <= set(headers.values())
    desk.round()
    assert len(desk.broker.records) == 1
    assert desk.told == [("12:01:00", "sent")]


@pytest.mark.parametrize(
    "point", ["scheduler.after_plan", "scheduler.after_decision", "scheduler.after_produce"]
)
def test_a_death_between_any_two_lines_changes_nothing(point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()

    def die(name: str) -> None:
        if name == point:
            raise DiedInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(module, "crash_point", die)
        with pytest.raises(DiedInterrupt):
            desk.round(30)
    desk.store.release([(0, desk.token)])
    desk.token = desk.claim("heir")
    if desk.broker.records:
        desk.begins("nightly@2026-03-01T12:01:00Z")
    desk.scheduler = desk.make(lambda: desk.token)
    desk.round()
    assert set(desk.broker.ids) == {"2026-03-01T12:01:00Z"}
    assert desk.broker.records[0][:2] == desk.broker.records[-1][:2]
    runs = {headers["ce_id"] for _, _, headers in desk.broker.records}
    assert len(runs) == 1
    assert desk.told == [("12:01:00", "sent")]


@pytest.mark.parametrize(
    "point", ["schedules", "plan_schedule", "plan_schedule.done", "move_firing", "move_firing.done"]
)
def test_postgres_is_away_at_any_call(point: str) -> None:
    desk = Desk()
    desk.faults[point] = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        desk.round(30)
    desk.round()
    desk.round()
    assert set(desk.broker.ids) == {"2026-03-01T12:01:00Z"}
    assert desk.told == [("12:01:00", "sent")]


def test_kafka_refuses_and_is_silent() -> None:
    desk = Desk()
    desk.broker.refuses = DeliveryError("_MSG_TIMED_OUT", "no", permanent=False)
    desk.round(30)
    assert desk.told == [("12:01:00", "sending")]
    desk.broker.refuses, desk.broker.silent = None, 1
    desk.round()
    assert (desk.told, desk.broker.closed) == ([("12:01:00", "sending")], 1)
    desk.broker.silent = 0
    desk.round()
    assert (desk.broker.ids, desk.told) == (["2026-03-01T12:01:00Z"], [("12:01:00", "sent")])


def test_who_has_lost_shard_0_fires_nothing() -> None:
    desk = Desk()
    old = desk.token
    zombie = desk.make(lambda: old)
    zombie.round()
    desk.store.release([(0, old)])
    desk.token = desk.claim("heir")
    desk.now += timedelta(seconds=30)
    zombie.round()
    desk.make(lambda: None).round()
    assert (desk.broker.records, desk.told) == ([], [])
    desk.round()
    zombie.round()
    assert desk.broker.ids == ["2026-03-01T12:01:00Z"]


def test_a_due_time_is_skipped_while_the_last_saga_runs() -> None:
    desk = Desk()
    desk.round(30)
    desk.round(60)  # its start lies unread
    desk.begins("nightly@2026-03-01T12:01:00Z")
    desk.round(60)
    assert desk.told == [("12:01:00", "sent"), ("12:02:00", "skipped"), ("12:03:00", "skipped")]
    desk.ends()
    desk.round(60)
    assert desk.told[-1] == ("12:04:00", "sent")


def test_a_saga_that_runs_for_long_is_never_forgotten() -> None:
    desk = Desk()
    desk.round(30)
    desk.begins("nightly@2026-03-01T12:01:00Z")
    for _ in range(50):
        desk.round(60)
    assert len(desk.broker.records) == 1
    desk.ends()
    desk.round(60)
    assert len(desk.broker.records) == 2


def test_what_lies_behind_many_starts_is_made_up_for_one_after_the_other() -> None:
    desk = Desk()
    for _ in range(30):
        desk.round(60)
        desk.begins(f"nightly@{desk.broker.ids[-1]}", SagaState.COMPLETED)
    people.pause(desk.store, "nightly", "anna", paused=True)
    noon = NOON.replace(second=0)
    assert people.backfill(desk.store, "nightly", noon - timedelta(minutes=2), noon, "anna") == 3
    for _ in range(5):
        desk.round()
    assert desk.broker.ids[30:] == ["2026-03-01T11:58:00Z"]


def test_a_start_that_nobody_reads_doesnt_skip_for_ever() -> None:
    desk = Desk()
    for _ in range(13):
        desk.round(60)
    assert [due for due, state in desk.told if state == "sent"] == ["12:01:00", "12:11:00"]


def test_one_waits_for_the_last_saga() -> None:
    desk = Desk(overlap="buffer")
    desk.round(30)
    desk.begins("nightly@2026-03-01T12:01:00Z")
    desk.round(60)
    desk.round(60)
    assert desk.told == [("12:01:00", "sent"), ("12:02:00", "waiting"), ("12:03:00", "skipped")]
    desk.ends()
    desk.round()
    assert desk.told[1] == ("12:02:00", "sent")


def test_the_last_saga_is_cancelled_for_the_next_one() -> None:
    desk = Desk(overlap="cancel")
    desk.round(30)
    first = "nightly@2026-03-01T12:01:00Z"
    desk.round(60)
    assert desk.broker.cancels == [], "its start lies unread"
    desk.begins(first)
    for _ in range(3):
        desk.round(5)
    [(saga_id, said, action)] = desk.broker.cancels
    assert (saga_id, said.action, said.by) == (first, "cancel", "schedule:nightly")
    assert said.reason == "nightly@2026-03-01T12:02:00Z is due"
    desk.round(60)
    assert desk.told == [("12:01:00", "sent"), ("12:02:00", "waiting"), ("12:03:00", "skipped")]
    assert len(desk.broker.cancels) == 1
    desk.scheduler = desk.make(lambda: desk.token)  # an heir doesn't know of it: the owner knows its id
    desk.round()
    assert {each[2] for each in desk.broker.cancels} == {action}
    desk.ends()
    desk.round()
    assert desk.told[1] == ("12:02:00", "sent")


@pytest.mark.parametrize("state", [SagaState.STUCK, SagaState.COMPENSATING, SagaState.CANCELLING])
def test_what_is_undone_or_needs_people_is_waited_for(state: SagaState) -> None:
    desk = Desk(overlap="cancel")
    desk.round(30)
    desk.begins("nightly@2026-03-01T12:01:00Z", state)
    desk.round(60)
    assert desk.broker.cancels == []
    assert desk.told[1] == ("12:02:00", "waiting")


def test_a_cancel_that_kafka_refuses_is_sent_again() -> None:
    desk = Desk(overlap="cancel")
    desk.round(30)
    desk.begins("nightly@2026-03-01T12:01:00Z")
    desk.broker.refuses = DeliveryError("_MSG_TIMED_OUT", "no", permanent=False)
    desk.round(60)
    assert desk.broker.cancels == []
    desk.broker.refuses = None
    desk.round()
    desk.round()
    assert len(desk.broker.cancels) == 1


def test_all_may_run() -> None:
    desk = Desk(overlap="allow")
    for _ in range(3):
        desk.round(60)
    assert len(desk.broker.records) == 3


def test_downtime_is_caught_up_as_far_as_is_said() -> None:
    desk = Desk(overlap="allow", catch_up=130)
    desk.round(3600 * 24 * 365)
    assert [state for _, state in desk.told] == ["missed", "sent", "sent"]
    assert desk.broker.ids == ["2027-03-01T11:59:00Z", "2027-03-01T12:00:00Z"]
    desk.round()
    assert len(desk.broker.records) == 2


def test_jitter_delays_by_name_and_time() -> None:
    desk = Desk(jitter=40)
    [schedule] = desk.app.schedules.values()
    due = NOON.replace(minute=1, second=0)
    delay = (schedule.delayed(due) - due).total_seconds()
    assert 0 < delay < 40
    desk.round(30 + delay - 0.1)
    assert desk.told == [("12:01:00", "waiting")]
    desk.round(0.2)
    assert desk.broker.ids == ["2026-03-01T12:01:00Z"]


def test_a_paused_schedule_begins_nothing_and_makes_up_for_nothing() -> None:
    desk = Desk()
    people.pause(desk.store, "nightly", "anna", paused=True)
    desk.round(600)
    assert desk.told == []
    people.pause(desk.store, "nightly", "anna", paused=False)
    desk.round(60)
    assert desk.broker.ids == ["2026-03-01T12:11:00Z"]
    with pytest.raises(UnknownSchedule):
        people.pause(desk.store, "daily", "anna", paused=True)


def test_people_begin_one_now() -> None:
    desk = Desk()
    people.pause(desk.store, "nightly", "anna", paused=True)
    begun = people.trigger(desk.store, "nightly", "anna")
    desk.round(1)
    assert [key.decode() for key, _, _ in desk.broker.records] == [begun]
    [row] = desk.store.schedules()[1]
    assert (row.firings[0].cause, row.firings[0].state) == (Cause.TRIGGER, FiringState.SENT)


def test_what_was_missed_is_made_up_for_one_after_the_other() -> None:
    desk = Desk(catch_up=30)
    desk.round(30)
    desk.begins("nightly@2026-03-01T12:01:00Z", SagaState.COMPLETED)
    desk.round(3600)
    sent = len(desk.broker.records)
    noon = NOON.replace(second=0)
    asked = people.backfill(desk.store, "nightly", noon, noon + timedelta(minutes=3), "anna")
    assert asked == 3  # 12:01 has begun
    desk.begins("nightly@2026-03-01T13:01:00Z", SagaState.COMPLETED)
    for minute in ("12:00", "12:02", "12:03"):
        desk.round()
        desk.round()
        assert desk.broker.ids[sent:][-1] == f"2026-03-01T{minute}:00Z"
        desk.begins(f"nightly@2026-03-01T{minute}:00Z")
        desk.ends()
    assert len(desk.broker.records) == sent + 3


def test_what_cant_be_made_up_for_is_refused() -> None:
    desk = Desk()
    for since, until in ((NOON, NOON + timedelta(days=1)), (NOON, NOON - timedelta(days=1)), (NOON, NOON)):
        with pytest.raises(BackfillRefused) as refused:
            people.backfill(desk.store, "nightly", since, until, "anna")
        assert refused.value.code == "KSG-282"
    with pytest.raises(BackfillRefused, match="more than 1000"):
        people.backfill(desk.store, "nightly", NOON - timedelta(days=365), NOON, "anna")
    with pytest.raises(UnknownSchedule):
        people.trigger(desk.store, "", "anna")
    desk.store.declare_schedules(desk.token, {})
    with pytest.raises(BackfillRefused, match="not of the App"):
        people.trigger(desk.store, "nightly", "anna")


def test_an_input_that_fails_is_told_and_the_next_ones_go_on() -> None:
    desk = Desk(input=fails_once)
    desk.round(30)
    desk.round(60)
    assert desk.told == [("12:01:00", "failed"), ("12:02:00", "sent")]
    [row] = desk.store.schedules()[1]
    assert "ZeroDivisionError" in row.firings[0].reason


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "a b"}, "name"),
        ({"overlap": "never"}, "overlap"),
        ({"catch_up": 0}, "catch_up"),
        ({"jitter": -1}, "jitter"),
        ({"when": "daily"}, "when"),
        ({"input": 3}, "input"),
    ],
)
def test_what_cant_be_declared_is_refused_by_its_field(given: dict[str, Any], said: str) -> None:
    make: Any = Schedule
    with pytest.raises(ScheduleInvalid, match=said):
        make(**{"name": "nightly", "saga": report, "input": "today", "when": Every(60), **given})


def test_an_app_has_each_name_once_and_not_too_many() -> None:
    one = Schedule("nightly", report, "today", when=Every(60))
    with pytest.raises(ScheduleInvalid, match="twice"):
        App("shop", sagas=[report], schedules=[one, one])
    with pytest.raises(ScheduleInvalid, match="hasn't"):
        App("shop", sagas=[], schedules=[one])
    many = [Schedule(f"n{number}", report, "today", when=Every(60)) for number in range(1001)]
    with pytest.raises(ScheduleInvalid, match="over 1000"):
        App("shop", sagas=[report], schedules=many)
