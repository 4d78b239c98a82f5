"""A migrated database, wiped for each test, and what tests do to it behind the store's back."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from kasaga.dev.servers import PostgresServer
from kasaga.store.base import Store
from kasaga.store.migrate import migrate
from kasaga.store.postgres import PostgresStore
from kasaga.store.settings import StoreSettings

NAMESPACE = "shop"
SHARDS = 16


@pytest.fixture(scope="module")
def shared_database(postgres: PostgresServer) -> Generator[str]:
    """One for all of a file's tests: making one takes longer than a test."""
    name = f"store_{uuid4().hex[:10]}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


class PostgresBench:
    """The contract's bench over a real database, which is wiped at the start."""

    def __init__(self, conninfo: str, **settings: Any) -> None:
        migrate(conninfo, namespace=NAMESPACE, shards=SHARDS)
        self.conninfo = conninfo
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._settings = settings
        self._stores: list[PostgresStore] = []
        self.wipe()

    def __enter__(self) -> PostgresBench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def store(self) -> Store:
        return self.postgres()

    def postgres(
        self, *, port: int | None = None, tokens: Callable[[], UUID] = uuid4, **settings: Any
    ) -> PostgresStore:
        """A store of its own connection; `port`: through a proxy."""
        conninfo = self.conninfo
        if port is not None:
            conninfo = make_conninfo(conninfo, port=port, sslmode="disable", gssencmode="disable")
        store = PostgresStore(StoreSettings(conninfo, **{**self._settings, **settings}), tokens=tokens)
        self._stores.append(store)
        return store

    def wipe(self) -> None:
        """Make it as good as new, in milliseconds."""
        tables = (
            "saga",
            "history",
            "outbox",
            "ended",
            "schema",
            "process",
            "shard",
            "position",
            "definition",
            "suspect",
            "attribute",
            "lock",
            "heard",
            "schedule",
            "firing",
        )
        self.run(";".join(f"DELETE FROM kasaga.{table}" for table in tables))
        migrate(self.conninfo, namespace=NAMESPACE, shards=SHARDS)  # puts the shards back

    def expire(self) -> None:
        # Row by row: commits lock shards in their order, which one statement would not keep.
        for (shard,) in self.run("SELECT shard FROM kasaga.shard WHERE owner IS NOT NULL"):
            self.run(
                "UPDATE kasaga.shard SET lease_until = clock_timestamp() - interval '1 ms'"
                " WHERE shard = %s AND owner IS NOT NULL",
                shard,
            )
        self.run("UPDATE kasaga.process SET alive_until = clock_timestamp() - interval '1 ms'")

    def set_back(self) -> None:
        """As it looks to a clock that was set back: what it wrote before is an hour ahead."""
        hour = "interval '1 hour'"
        self.run(f"UPDATE kasaga.shard SET lease_until = lease_until + {hour} WHERE owner IS NOT NULL")
        self.run(f"UPDATE kasaga.process SET alive_until = alive_until + {hour}")

    def run(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        """Run a statement of the test's own."""
        cursor = self._connection.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description else []

    @contextmanager
    def session(self) -> Generator[psycopg.Connection[Any]]:
        """A connection of the test's own, that holds what it locks."""
        connection = psycopg.connect(self.conninfo)
        try:
            yield connection
        finally:
            connection.close()

    def close(self) -> None:
        self._connection.close()
        for store in self._stores:
            store.close()
