"""Searching in Postgres: it agrees with the twin in memory, takes the indexes, and is ended in time."""

from __future__ import annotations

import re
from collections.abc import Generator
from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings

from kasaga.errors import SearchTooSlow
from kasaga.search import Condition, parse
from kasaga.store.base import SagaFilter, SagaState, SagaWrite, Store
from kasaga.store.memory import MemoryStore
from kasaga.store.postgres import PostgresStore
from kasaga.store.search import ATTENTION, list_call, tally_call
from kasaga.store.settings import StoreSettings
from kasaga.store.statements import Call, read_statements
from search.queries import NOW, conditions, sagas, written
from store.contract import SHARDS
from store.postgres_bench import PostgresBench, shared_database
from store.samples import Owner, history_row, run_id, start

__all__ = ["shared_database"]

MANY = 5_000


@pytest.fixture(scope="module")
def filled(shared_database: str) -> Generator[PostgresBench]:
    """Many sagas, of which few have what is looked for; statistics are up to date."""
    with PostgresBench(shared_database) as bench:
        owner = Owner(bench.postgres()).claim(3)
        for first in range(0, MANY, 500):
            writes = [start(3, number) for number in range(first, first + 500)]
            for number, write in enumerate(writes, first):
                write.attributes = {
                    "customer": f"c-{number // 5}",
                    "amount": number,
                    "region": f"r{number % 2}",
                }
            owner.commit(*writes)
        bench.run("ANALYZE kasaga.saga; ANALYZE kasaga.attribute")
        yield bench


def plan_of(bench: PostgresBench, call: Call) -> str:
    """What the server would do."""
    with psycopg.connect(bench.conninfo) as connection:
        statement = call.statement
        result = connection.pgconn.exec_params(
            b"EXPLAIN " + statement.sql, call.params, statement.oids, statement.formats
        )
        assert result.error_message == b""
        lines = (result.get_value(row, 0) or b"" for row in range(result.ntuples))
        return b"\n".join(lines).decode()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ('attr.customer = "c-7"', "attribute_pkey"),
        ('attr.customer in ("c-7", "c-8")', "attribute_pkey"),
        ('attr.customer = "c-7" or attr.customer = "c-8"', "attribute_pkey"),
        ('attr.customer starts with "c-77"', "attribute_pkey"),
        ("attr.amount >= 4900", "attribute_pkey"),
        ("attr.amount > 10 and attr.amount < 20", "attribute_pkey"),
        ('attr.region = "r1" and attr.amount < 50', "attribute_pkey"),
        ("attr.nobody exists", "attribute_pkey"),
        ("state in (STUCK, PAUSED)", "saga_attention"),
        ('state = STUCK and attr.region = "r1"', "saga_attention"),
        ('id starts with "order-12"', "saga_saga_id_shard_key"),
        ('id = "order-12"', "saga_saga_id_shard_key"),
    ],
)
@pytest.mark.parametrize("counted", [False, True], ids=["listed", "counted"])
def test_a_search_takes_an_index(filled: PostgresBench, query: str, index: str, counted: bool) -> None:
    where = SagaFilter(where=parse(query, NOW))
    plan = plan_of(filled, tally_call(where) if counted else list_call(where, None, 51))
    assert index in plan
    assert "Seq Scan on attribute" not in plan


def test_the_newest_of_a_common_value_are_not_sorted(filled: PostgresBench) -> None:
    where = SagaFilter(where=parse('attr.region = "r1"', NOW))
    plan = plan_of(filled, list_call(where, run_id(MANY - 100), 51))
    assert "Sort" not in plan
    assert "Seq Scan" not in plan


def test_simple_filters_take_the_indexes_that_they_had(filled: PostgresBench) -> None:
    stuck = plan_of(filled, list_call(SagaFilter(states=[SagaState.STUCK]), None, 100))
    assert "saga_attention" in stuck
    assert "saga_pkey" in plan_of(filled, list_call(SagaFilter(), None, 100))
    assert "Seq Scan" not in plan_of(filled, list_call(SagaFilter(saga_id_prefix="order-12"), None, 100))


def test_the_states_that_have_an_index_are_those_of_its_column(filled: PostgresBench) -> None:
    [(expression,)] = filled.run(
        "SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef JOIN pg_attribute ON attrelid = adrelid"
        " AND attnum = adnum WHERE adrelid = 'kasaga.saga'::regclass AND attgenerated <> ''"
    )
    assert {state for state in SagaState if f"'{state}'" not in expression} == ATTENTION


@pytest.mark.parametrize("name", read_statements("search"))
def test_every_part_is_understood_by_the_server(filled: PostgresBench, name: str) -> None:
    part = read_statements("search")[name]
    before, behind = ("SELECT FROM kasaga.saga s WHERE ", "")
    if name in ("list", "tally"):
        before, behind = "", {"list": " true", "tally": " true GROUP BY s.name, s.state"}[name]
    elif name == "newest":
        before = "SELECT FROM kasaga.saga s "
    elif name == "by_group":
        before = "SELECT s.name, s.state FROM kasaga.saga s "
    with psycopg.connect(filled.conninfo) as connection:
        sql = before.encode() + part.sql + behind.encode()
        prepared = connection.pgconn.prepare(b"", sql, part.oids)
        assert prepared.error_message == b""
        assert connection.pgconn.describe_prepared(b"").nparams == len(part.oids)


def test_nothing_of_a_query_is_sql() -> None:
    for text in ("'; DROP TABLE kasaga.saga; --", "$1", "%s", '")'):
        quoted = text.replace('"', '\\"')
        call = list_call(SagaFilter(where=parse(f'attr.a = "{quoted}" or saga = "{quoted}"', NOW)), None, 51)
        assert text.encode() not in re.sub(rb"\$[123]", b"", call.statement.sql)
        assert text.encode() in b"".join(each or b"" for each in call.params)


def test_a_search_that_takes_too_long_is_ended(filled: PostgresBench) -> None:
    store = PostgresStore(StoreSettings(filled.conninfo, people_timeout=0.2))
    with psycopg.connect(filled.conninfo) as other:
        other.execute("LOCK TABLE kasaga.attribute IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(SearchTooSlow, match=r"more than 0\.2 s"):
            store.list_sagas(SagaFilter(where=parse("attr.a = 1", NOW)))
        with pytest.raises(SearchTooSlow):
            store.count(SagaFilter(where=parse("attr.a = 1", NOW)))
    store.close()


# --- both stores agree


def fill(store: Store) -> Store:
    owner = Owner(store).claim(3, 4)
    for row in sagas(150, seed=7):
        write = SagaWrite(row.shard, row.run_id, [history_row(0)], row, new=True)
        write.attributes = dict(row.attributes)
        owner.commit(write)
    return store


@pytest.fixture(scope="module")
def both(shared_database: str) -> Generator[tuple[Store, Store]]:
    with PostgresBench(shared_database) as bench:
        yield fill(MemoryStore(shards=SHARDS)), fill(bench.postgres())


def test_postgres_finds_what_memory_finds(both: tuple[Store, Store]) -> None:
    memory, postgres = both

    @settings(max_examples=400, deadline=None)
    @given(conditions)
    def agree(condition: Condition) -> None:
        where = SagaFilter(where=condition)
        expected = memory.list_sagas(where, limit=200)
        assert postgres.list_sagas(where, limit=200) == expected, written(condition)
        assert postgres.tally(where) == memory.tally(where)
        if expected:
            after: UUID = expected[len(expected) // 2].run_id
            assert postgres.list_sagas(where, after=after, limit=7) == memory.list_sagas(
                where, after=after, limit=7
            )

    agree()
