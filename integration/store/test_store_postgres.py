"""The store in Postgres against the contract: plainly, and as behind a pooler."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from store.awaiting import AwaitingContract
from store.contract import CommitContract, LeaseContract, owner, store
from store.fleets import FleetContract
from store.locks import LockContract
from store.people import PeopleContract
from store.postgres_bench import PostgresBench, shared_database
from store.purging import PurgeContract
from store.refusals import RefusalContract
from store.schedules import ScheduleContract
from store.searching import SearchContract
from store.timers import TimersContract
from store.traces import TracesContract

__all__ = ["owner", "shared_database", "store"]


@pytest.fixture
def bench(shared_database: str) -> Generator[PostgresBench]:
    with PostgresBench(shared_database) as bench:
        yield bench


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


class TestPooled(CommitContract, RefusalContract):
    @pytest.fixture
    def bench(self, shared_database: str) -> Generator[PostgresBench]:
        with PostgresBench(shared_database, pooled=True, prepare=False) as bench:
            yield bench
