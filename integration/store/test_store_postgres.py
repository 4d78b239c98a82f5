"""The store in Postgres against the contract: plainly, and as behind a pooler."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from kasaga.dev.servers import PostgresServer
from store.contract import CommitContract, LeaseContract, owner, store
from store.people import PeopleContract, PurgeContract
from store.postgres_bench import PostgresBench
from store.refusals import RefusalContract

__all__ = ["owner", "store"]


@pytest.fixture(scope="module")
def shared_database(postgres: PostgresServer) -> Generator[str]:
    """One for all of this file: making one takes longer than a test."""
    name = "store_contract"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture
def bench(shared_database: str) -> Generator[PostgresBench]:
    bench = PostgresBench(shared_database)
    bench.wipe()
    yield bench
    bench.close()


class TestLeases(LeaseContract): ...


class TestCommit(CommitContract): ...


class TestPeople(PeopleContract): ...


class TestPurge(PurgeContract): ...


class TestRefusals(RefusalContract): ...


class TestPooled(CommitContract, RefusalContract):
    @pytest.fixture
    def bench(self, shared_database: str) -> Generator[PostgresBench]:
        bench = PostgresBench(shared_database, pooled=True, prepare=False)
        bench.wipe()
        yield bench
        bench.close()
