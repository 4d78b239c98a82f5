"""What a session is set to, how its plans for people look, and that a pooler's server keeps none of it."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from eventually import eventually
from kasaga.store.base import SagaFilter
from kasaga.store.errors import StoreUnavailable
from kasaga.store.postgres import PostgresStore
from kasaga.store.session import Session
from kasaga.store.settings import StoreSettings
from kasaga.store.statements import Statement, read_statements
from store.postgres_bench import PostgresBench, shared_database
from store.samples import Owner, refuse_all, start

__all__ = ["shared_database"]

NAMES = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "plan_cache_mode",
    "enable_seqscan",
    "jit",
    "client_encoding",
    "application_name",
)
LOOP = ("10s", "2s", "5s", "force_generic_plan", "off", "off", "UTF8", "kasaga")
PEOPLE = ("30s", "2s", "5s", "auto", "on", "on", "UTF8", "kasaga")


def shown(session: Session) -> tuple[str, ...]:
    columns = ", ".join(f"current_setting('{name}')" for name in NAMES)
    try:
        found = session.query(
            Statement(b"shown", "store.sent.shown", f"SELECT {columns}".encode(), [], ()).bind()
        )
        return tuple(found[0])
    finally:
        session.close()


@pytest.fixture
def bench(shared_database: str) -> Generator[PostgresBench]:
    with PostgresBench(shared_database) as bench:
        yield bench


@pytest.mark.parametrize("pooled", [False, True])
def test_the_loops_sessions_and_peoples(bench: PostgresBench, pooled: bool) -> None:
    settings = StoreSettings(bench.conninfo, pooled=pooled)
    assert shown(Session(settings)) == LOOP
    assert shown(Session(settings, people=True)) == PEOPLE


def test_settings_of_a_pooled_session_last_for_one_transaction(bench: PostgresBench) -> None:
    call = read_statements("session")["settings"].bind(
        "1000", "1000", "1000", "force_generic_plan", "off", True
    )
    with psycopg.connect(bench.conninfo, autocommit=True) as connection:
        before = [connection.execute(f"SHOW {name}".encode()).fetchone() for name in NAMES]
        done = connection.pgconn.exec_params(call.statement.sql, call.params, call.statement.oids, [1] * 6)
        assert done.error_message == b""
        assert [connection.execute(f"SHOW {name}".encode()).fetchone() for name in NAMES] == before


def test_a_conninfo_may_say_more_and_otherwise(bench: PostgresBench) -> None:
    settings = StoreSettings(f"{bench.conninfo}?application_name=mine&connect_timeout=7")
    assert shown(Session(settings))[-1] == "mine"
    assert "connect_timeout=7" in settings.connection_string()
    assert "target_session_attrs=read-write" in settings.connection_string()
    assert bench.conninfo not in repr(settings)


def test_people_read_over_connections_of_their_own(bench: PostgresBench) -> None:
    store = bench.postgres()
    Owner(store).claim(3).commit(start(3, 1))
    connects = store.counters.connects
    assert store.saga("order-1") is not None
    assert store.list_sagas(SagaFilter()) != []
    assert store.counters.connects == connects
    others = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE application_name = 'kasaga' AND datname = current_database()"
    )
    eventually(lambda: bench.run(others) == [(1,)])


def test_connections_for_people_are_kept_where_that_is_wanted(bench: PostgresBench) -> None:
    store = PostgresStore(bench.conninfo, application="readers", readers=2)
    pids = "SELECT pid FROM pg_stat_activity WHERE application_name = 'readers' ORDER BY pid"
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(store.saga, (f"order-{number}" for number in range(40)))) == [None] * 40
    eventually(lambda: len(bench.run(pids)) <= 2)
    kept = bench.run(pids)
    assert kept
    assert store.count(SagaFilter()) == {}
    assert bench.run(pids) == kept

    # The server ends them while they are idle: nobody who reads next is told of it.
    for (pid,) in kept:
        bench.run("SELECT pg_terminate_backend(%s)", pid)
    eventually(lambda: bench.run(pids) == [])
    assert store.shards() != []
    store.close()
    eventually(lambda: bench.run(pids) == [])


def test_a_read_that_takes_too_long_is_not_tried_again(bench: PostgresBench) -> None:
    store = PostgresStore(StoreSettings(bench.conninfo, people_timeout=0.3), application="slow", readers=1)
    assert store.saga("order-1") is None
    with psycopg.connect(bench.conninfo) as other:
        other.execute("LOCK TABLE kasaga.saga IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreUnavailable, match="57014"):
            store.saga("order-1")
        running = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'slow'"
        assert bench.run(running) == [(1,)]
    assert store.saga("order-1") is None
    store.close()


def test_a_session_shows_who_it_is_and_goes_when_closed(bench: PostgresBench) -> None:
    store = bench.postgres()
    pid = store.backend_pid
    named = "SELECT application_name FROM pg_stat_activity WHERE pid = %s"
    assert bench.run(named, pid) == [("kasaga",)]
    store.close()
    eventually(lambda: bench.run(named, pid) == [])
    assert store.heartbeat("p1", [], ttl=3).processes == ["p1"]


def test_the_pulse_reads_no_more_than_it_says(bench: PostgresBench) -> None:
    owner = Owner(bench.postgres()).claim(3)
    owner.store.commit(owner.batch(*(start(3, number, number) for number in range(1, 3000))), refuse_all)
    bench.run("ANALYZE kasaga.saga")
    statements = read_statements("read")
    with psycopg.connect(bench.conninfo) as connection:
        for name, values in (("pulse", "500, 300, 60"), ("pulse_open", "500")):
            connection.pgconn.prepare(name.encode(), statements[name].sql, statements[name].oids)
            plan = connection.execute(f"EXPLAIN (ANALYZE) EXECUTE {name} ({values})".encode()).fetchall()
            lines = [str(line) for (line,) in plan]
            scans = [line for line in lines if " on saga " in line or " on outbox " in line]
            assert scans
            assert all("rows=500 " in line.partition("actual")[2] or "rows=500.00 " in line for line in scans)
            assert name == "pulse_open" or "saga_pkey" in scans[0]
