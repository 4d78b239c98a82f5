"""The store in memory against the contract, and what only it can do: faults at will."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from kasaga.store.base import Store, StoreUnavailable
from kasaga.store.memory import MemoryStore
from store.awaiting import AwaitingContract
from store.contract import SHARDS, CommitContract, LeaseContract, owner, store
from store.fleets import FleetContract
from store.locks import LockContract
from store.people import PeopleContract
from store.purging import PurgeContract
from store.refusals import RefusalContract
from store.samples import Owner, refuse_all, run_id, start
from store.schedules import ScheduleContract
from store.searching import SearchContract
from store.timers import TimersContract
from store.traces import TracesContract

__all__ = ["owner", "store"]


class MemoryBench:
    def __init__(self) -> None:
        self._ahead = timedelta(0)
        self._store = MemoryStore(shards=SHARDS, clock=lambda: datetime.now(UTC) + self._ahead)

    def store(self) -> Store:
        return self._store

    def expire(self) -> None:
        self._ahead += timedelta(minutes=1)

    def set_back(self) -> None:
        self._ahead -= timedelta(hours=1)


@pytest.fixture
def bench() -> MemoryBench:
    return MemoryBench()


class TestLeases(LeaseContract): ...


class TestSearch(SearchContract): ...


class TestFleet(FleetContract): ...


class TestAwaiting(AwaitingContract): ...


class TestCommit(CommitContract): ...


class TestPeople(PeopleContract): ...


class TestPurge(PurgeContract): ...


class TestLocks(LockContract): ...


class TestSchedules(ScheduleContract): ...


class TestRefusals(RefusalContract): ...


class TestTimers(TimersContract): ...


class TestTraces(TracesContract): ...


def test_the_namespace_is_the_one_given() -> None:
    namespace = MemoryStore(namespace="shop", shards=4).namespace()
    assert (namespace.name, namespace.shards) == ("shop", 4)


@pytest.mark.parametrize("point", ["commit", "commit.done"])
def test_a_fault_is_raised_where_it_is_asked_for(point: str) -> None:
    armed = {point}

    def fault(reached: str) -> None:
        if reached in armed:
            armed.discard(reached)
            raise StoreUnavailable(f"a fault at {reached}")

    owner = Owner(MemoryStore(fault=fault)).claim(3)
    batch = owner.batch(start(3, 1, seq=1))
    with pytest.raises(StoreUnavailable):
        owner.store.commit(batch, refuse_all)
    assert bool(owner.store.open_rows(3)) == (point == "commit.done")
    owner.store.commit(batch, refuse_all)
    assert len(owner.store.load([(3, run_id(1))])[run_id(1)]) == 1
