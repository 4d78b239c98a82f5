"""Finished sagas are deleted in time, each after its own, and none that somebody still needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from eventually import eventually
from kasaga import App, SagaContext, saga
from kasaga.orchestrator import retention as module
from kasaga.orchestrator.announce import announce
from kasaga.orchestrator.metrics import Metrics
from kasaga.orchestrator.retention import FOREVER, Pass, Retention, passes, period_of
from kasaga.saga import Period, Saga
from kasaga.store.base import SagaFilter, SagaState
from kasaga.store.errors import StoreUnavailable
from kasaga_wire.errors import ContractError
from orchestrator import trips
from orchestrator.test_children import calm, family, stuck_parent, until
from orchestrator.trips import Trip
from orchestrator.world import World

DAY = timedelta(days=1)
WEEK = 7 * 86_400.0


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings; a world has the logs switched off."""
    lines: list[str] = []

    def warn(line: str, *, extra: object) -> None:
        lines.append(line)

    monkeypatch.setattr(module.log, "warning", warn)
    return lines


@contextmanager
def retention(
    world: World,
    keep: timedelta = DAY,
    *,
    on_duty: Callable[[], bool] = lambda: True,
    metrics: Metrics | None = None,
    interval: float = 3600.0,
    whole: float = 0.0,
) -> Generator[Retention]:
    """One whose rounds the test begins, and look at everything each."""
    made = Retention(
        world.store,
        on_duty,
        metrics=metrics or Metrics(),
        keep=keep,
        remember=7 * DAY,
        interval=interval,
        clock=world.now,
    )
    try:
        with patch.object(module, "WHOLE_SECONDS", whole):
            yield made
    finally:
        made.close()


def names(world: World) -> list[str]:
    return sorted(row.saga_id for row in world.store.list_sagas(SagaFilter()))


def declared(retention: Period = "default", version: int = 1) -> Saga[int, None]:
    @saga("kept", version=version, retention=retention)
    async def kept(ctx: SagaContext, number: int) -> None: ...

    return kept


@pytest.mark.parametrize(
    ("period", "seconds"),
    [
        ("default", None),
        (None, math.inf),
        (2, 172_800.0),
        (0.5, 43_200.0),
        (timedelta(hours=1), 3600.0),
    ],
)
def test_a_definition_says_for_how_long(period: Period, seconds: float | None) -> None:
    assert App("shop", sagas=[declared(period)]).retention() == {"kept": seconds}


def test_the_newest_version_counts() -> None:
    app = App("shop", sagas=[declared(version=2, retention=3), declared(retention=None)])
    assert app.retention() == {"kept": 3 * 86_400.0}


@pytest.mark.parametrize(
    "wrong", [0, -1, timedelta(0), "30", math.nan, math.inf, 1e300, True, timedelta(days=-1)]
)
def test_what_is_no_length_of_time_is_refused(wrong: Any) -> None:
    with pytest.raises(ContractError, match="retention is"):
        declared(retention=wrong)


def test_a_round_has_a_pass_for_each_period_that_ends() -> None:
    said = {"audit": math.inf, "order": 3600.0, "refund": 3600.0, "mail": 60.0}
    hour, minute = timedelta(hours=1), timedelta(minutes=1)
    others = tuple(sorted(said))
    assert passes(DAY, said) == [
        Pass(minute, ("mail",), others=False),
        Pass(hour, ("order", "refund"), others=False),
        Pass(DAY, others, others=True),
    ]
    assert passes(FOREVER, {"audit": math.inf}) == []
    assert (period_of(math.inf), period_of(1e18), period_of(1.0)) == (FOREVER, FOREVER, DAY)


def test_each_saga_is_kept_for_its_own_time() -> None:
    with calm() as world:
        world.join(trips.make_app("trips"))
        for number in range(3):
            world.start("stay", f"s-{number}")
        for number in range(3):
            until(world, f"s-{number}", SagaState.COMPLETED)
        world.store.retain({"stay": WEEK})
        with retention(world) as made:
            world.pass_time(3 * 86_400)
            assert made.round() == 0
            world.store.retain({"stay": math.inf})
            world.pass_time(30 * 86_400)
            assert made.round() == 0
            world.store.retain({"stay": None})
            assert made.round() == 3
        assert names(world) == []


def test_what_a_release_has_said_stays_when_its_saga_is_gone() -> None:
    with calm() as world:
        announce(world.store, App("trips", sagas=[declared(retention=None)]))
        announce(world.store, App("trips", sagas=[]))
        assert world.store.retained() == {"kept": math.inf}
        announce(world.store, App("trips", sagas=[declared()]))
        assert world.store.retained() == {}


def test_a_child_stays_for_as_long_as_its_parent_may_take_it_back() -> None:
    with calm() as world, retention(world) as made:
        stuck_parent(world, trips.stay)
        assert world.saga("a.1").state is SagaState.COMPLETED
        world.pass_time(90 * 86_400)
        assert made.round() == 0
        world.control("cancel", "a")
        until(world, "a", SagaState.COMPENSATED)
        assert world.saga("a.1").state is SagaState.COMPENSATED
        assert made.round() == 0
        world.pass_time(2 * 86_400)
        assert made.round() == 2
        assert names(world) == []


def test_a_child_is_kept_for_its_own_time_after_its_parents_end() -> None:
    with calm() as world, retention(world) as made:
        stuck_parent(world, trips.stay)
        world.pass_time(90 * 86_400)
        world.control("terminate", "a")
        until(world, "a", SagaState.TERMINATED)
        assert made.round() == 0
        world.pass_time(86_400 / 2)
        assert made.round() == 0
        world.pass_time(86_400)
        assert made.round() == 2


def test_a_childs_child_stays_for_the_saga_above_its_parent() -> None:
    @saga("middle")
    async def middle(ctx: SagaContext, trip: Trip) -> str:
        await ctx.child(trips.stay, trip)
        return ""

    with calm() as world, retention(world) as made:
        stuck_family(world, middle)
        assert (world.saga("a.1").state, world.saga("a.1.1").state) == ("COMPLETED", "COMPLETED")
        world.pass_time(90 * 86_400)
        assert made.round() == 0
        world.control("cancel", "a")
        until(world, "a", SagaState.COMPENSATED)
        assert world.saga("a.1.1").state is SagaState.COMPENSATED
        world.pass_time(3 * 86_400)
        assert made.round() == 3


def stuck_family(world: World, middle: Saga[Any, Any]) -> None:
    async def top(ctx: SagaContext, trip: Trip) -> str:
        await ctx.start_child(middle, trip)
        await ctx.signal("never")
        return ""

    world.join(family(top, middle, trips.stay))
    world.start("parent", "a")
    for _ in range(900):
        world.step()


def test_a_start_that_comes_again_begins_nothing() -> None:
    with calm() as world, retention(world) as made:
        world.join(trips.make_app("trips"))
        world.start("stay", "s-1")
        until(world, "s-1", SagaState.COMPLETED)
        world.pass_time(2 * 86_400)
        assert made.round() == 1
        world.start("stay", "s-1")
        for _ in range(300):
            world.step()
        assert names(world) == []
        assert world.saga("s-1").state is SagaState.COMPLETED


@pytest.mark.parametrize("point", ["finished", "beginnings", "standing", "delete", "forget", "retained"])
def test_a_database_that_is_away_in_the_middle_loses_nothing(point: str, told: list[str]) -> None:
    with calm() as world:
        stuck_parent(world, trips.stay)
        world.control("cancel", "a")
        until(world, "a", SagaState.COMPENSATED)
        world.pass_time(3 * 86_400)

        def away(where: str) -> None:
            if where == point:
                raise StoreUnavailable("the database is away")

        world.fault = away
        metrics = Metrics()
        with retention(world, metrics=metrics, interval=0.005):
            failed = "kasaga_retention_rounds_failed_total"
            eventually(lambda: (metrics.registry.get_sample_value(failed) or 0) >= 2)
            assert "finished sagas are not deleted now" in told
            world.fault = lambda where: None
            deleted = "kasaga_sagas_deleted_total"
            eventually(lambda: metrics.registry.get_sample_value(deleted) == 2)
        assert names(world) == []


def test_a_history_that_cant_be_read_is_kept_and_told(told: list[str]) -> None:
    with calm() as world, retention(world) as made:
        world.join(trips.make_app("trips"))
        for number in (1, 2):
            world.start("stay", f"s-{number}")
            until(world, f"s-{number}", SagaState.COMPLETED)
        run = world.saga("s-1").run_id
        rows = world.store._tables.history[run]  # pyright: ignore[reportPrivateUsage]
        rows[min(rows)].body = b"\xff garbage"
        world.pass_time(3 * 86_400)
        assert made.round() == 1
        assert names(world) == ["s-1"]
        assert "a finished saga is kept: its history can't be read" in told


def test_only_who_is_on_duty_deletes() -> None:
    with calm() as world:
        world.join(trips.make_app("trips"))
        world.start("stay", "s-1")
        until(world, "s-1", SagaState.COMPLETED)
        world.pass_time(3 * 86_400)
        with retention(world, on_duty=lambda: False, interval=0.001) as made:
            assert made.round() == 0
        assert names(world) == ["s-1"]


def test_a_round_goes_on_where_the_last_one_ended() -> None:
    with calm() as world, retention(world, whole=3600.0) as made:
        world.join(trips.make_app("trips"))
        world.start("stay", "s-1")
        until(world, "s-1", SagaState.COMPLETED)
        world.store.retain({"stay": math.inf})
        world.pass_time(3 * 86_400)
        with patch.object(world.store, "finished", wraps=world.store.finished) as finished:
            made.round()
            made.round()
        first, second = (call.kwargs["after"] for call in finished.call_args_list)
        assert first is None
        assert second is not None
