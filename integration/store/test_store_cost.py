"""What a saga costs in rows and statements, and that statistics and old snapshots don't make it cost more."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import psycopg
import pytest

from eventually import eventually
from kasaga.store.base import SagaState, SagaWrite
from kasaga.store.statements import Statement, read_statements
from store.postgres_bench import PostgresBench, shared_database
from store.samples import Owner, history_row, outbox_row, run_id, saga_row, start

__all__ = ["shared_database"]

WRITES = {"history": (4, 0, 0), "saga": (1, 1, 0), "outbox": (3, 0, 3)}
"""Inserts, updates and deletes of a saga of three steps: 12 rows."""


@pytest.fixture
def bench(shared_database: str) -> Generator[PostgresBench]:
    with PostgresBench(shared_database) as bench:
        yield bench


def payment(owner: Owner) -> None:
    """A saga of three steps: started, answered three times, done."""
    owner.commit(start(3, 1, seq=1))
    for step in (1, 2):
        command = outbox_row(3, step + 1, run_id(1))
        owner.commit(SagaWrite(3, run_id(1), [history_row(step)], opens=[command], closes=[step]))
    done = saga_row(3, 1, SagaState.COMPLETED, result=b"receipt")
    owner.commit(SagaWrite(3, run_id(1), [history_row(3)], done, closes=[3]))


def writes(bench: PostgresBench) -> dict[str, tuple[int, ...]]:
    query = (
        "SELECT relname, n_tup_ins, n_tup_upd, n_tup_del FROM pg_stat_user_tables WHERE schemaname = 'kasaga'"
    )
    return {name: (inserts, updates, deletes) for name, inserts, updates, deletes in bench.run(query)}


def test_twelve_rows_for_a_saga_of_three_steps(database: str) -> None:
    with PostgresBench(database) as bench:
        eventually(lambda: "history" in writes(bench))
        before = writes(bench)
        store = bench.postgres()
        payment(Owner(store).claim(3))
        store.close()  # a session tells its counts at its end

        def counted() -> dict[str, tuple[int, ...]]:
            now = writes(bench)
            return {
                name: tuple(after - start for after, start in zip(now[name], before[name], strict=True))
                for name in WRITES
            }

        eventually(lambda: counted() == WRITES)
        assert sum(map(sum, counted().values())) == 12


def test_four_flushes_and_the_statements_that_have_rows(bench: PostgresBench) -> None:
    store = bench.postgres()
    owner = Owner(store).claim(3)
    before = (store.counters.flushes, store.counters.statements)
    payment(owner)
    # A fence each; the start: history, saga, outbox; two answers: history, outbox in and out; the end:
    # history, saga, outbox out.
    assert (store.counters.flushes - before[0], store.counters.statements - before[1]) == (4, 16)


LOOK_UPS = [
    statement
    for file, names in (
        ("commit", ["update_sagas", "delete_outbox"]),
        ("read", ["find", "find_ended", "load", "open_rows", "timers", "timers_behind"]),
        ("purge", ["finished_rows", "beginnings", "delete"]),
    )
    for name, statement in read_statements(file).items()
    if name in names
]


def plan(connection: psycopg.Connection[Any], statement: Statement) -> str:
    connection.execute("DEALLOCATE ALL")
    connection.pgconn.prepare(b"looked_at", statement.sql, statement.oids)
    nulls = ", ".join(["NULL"] * len(statement.oids))
    lines = connection.execute(f"EXPLAIN EXECUTE looked_at ({nulls})".encode()).fetchall()
    return "\n".join(line for (line,) in lines)


@pytest.mark.parametrize("statement", LOOK_UPS, ids=lambda statement: statement.name.decode())
@pytest.mark.parametrize("rows", [0, 1, 5000])
def test_rows_are_looked_up_by_key_whatever_the_statistics_say(
    bench: PostgresBench, statement: Statement, rows: int
) -> None:
    with psycopg.connect(bench.conninfo) as connection:  # rolled back: the statistics with it
        owner = Owner(bench.postgres()).claim(3)
        for first in range(0, rows, 5000):
            numbers = range(first, min(first + 5000, rows))
            owner.commit(*(start(3, number, seq=number + 1) for number in numbers))
        for table in ("saga", "history", "outbox", "ended"):
            connection.execute(f"ANALYZE kasaga.{table}".encode())
        for setting in ("plan_cache_mode = force_generic_plan", "enable_seqscan = off"):
            connection.execute(f"SET {setting}".encode())
        for setting in ("enable_hashjoin = off", "enable_mergejoin = off"):
            connection.execute(f"SET {setting}".encode())
        found = plan(connection, statement)
        assert "Seq Scan" not in found
        # What a join filters is found by key already, and read either way.
        filters = [line.strip() for line in found.splitlines() if "Filter" in line and "DISTINCT" not in line]
        assert [each for each in filters if not each.startswith("Join Filter")] == []
        assert (
            len(re.findall(r"(Index|Index Only|Bitmap Index) Scan", found))
            == len(re.findall("Index Cond", found))
            >= 1
        )
        connection.rollback()


def buffers_of_a_commit(bench: PostgresBench, owner: Owner) -> int:
    """Pages that the fence and a close look at, rolled back."""
    row = owner.rows[3]
    with bench.session() as session:
        touched = 0
        fence = (
            f"SELECT kasaga.fence('{{3}}', '{{{row.token}}}', '{{{row.commit_seq + 1}}}', '{{1}}', '{{1}}',"
            " '{1}', '{0}', '{1}', array[now()], array[null::uuid])"
        )
        for query in (fence, f"DELETE FROM kasaga.outbox WHERE shard = 3 AND seq = {row.commit_seq}"):
            lines = session.execute(f"EXPLAIN (ANALYZE, BUFFERS, COSTS OFF) {query}".encode()).fetchall()
            hits = re.findall(r"shared hit=(\d+)", str(lines))
            touched += int(hits[0])
        session.rollback()
    return touched


def test_an_old_snapshot_makes_no_commit_walk_further(bench: PostgresBench) -> None:
    """A long pg_dump keeps all dead versions; a commit must not have to pass them."""
    owner = Owner(bench.postgres()).claim(3)
    owner.commit(start(3, 1, seq=1))
    buffers_of_a_commit(bench, owner)  # the plans' own pages
    before = buffers_of_a_commit(bench, owner)
    with bench.session() as dump:
        dump.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        dump.execute("SELECT count(*) FROM kasaga.history")
        for number in range(1, 1000):
            command = outbox_row(3, number + 1, run_id(1))
            owner.commit(SagaWrite(3, run_id(1), [history_row(number)], opens=[command], closes=[number]))
        after = buffers_of_a_commit(bench, owner)
        dump.rollback()
    assert after < before + 20


LONG_AGO = """
INSERT INTO kasaga.history (shard, run_id, seq, at, kind, step, body)
SELECT i % 4, gen_random_uuid(), 1, now() - interval '1 day' + i * interval '1 second', 'replied', '1',
    repeat('x', 200)::bytea
FROM generate_series(1, 60000) i
"""


def test_what_was_decided_lately_is_found_by_its_time(bench: PostgresBench) -> None:
    """However long the history is: an heir looks for what a dead owner hadn't exported."""
    statement = read_statements("read")["touched"]
    lately = LONG_AGO.replace("- interval '1 day'", "").replace("60000", "500")
    with psycopg.connect(bench.conninfo, autocommit=True) as connection:
        connection.execute(LONG_AGO.encode())
        connection.execute("VACUUM ANALYZE kasaga.history")  # which also tells the index of all pages
        pages = connection.execute("SELECT pg_relation_size('kasaga.history') / 8192").fetchone()
        connection.execute(lately.encode())
        connection.pgconn.prepare(b"looked_at", statement.sql, statement.oids)
        values = "3, now() - interval '5 minutes', now() + interval '5 minutes', 1000"
        query = f"EXPLAIN (ANALYZE, BUFFERS) EXECUTE looked_at ({values})"
        found = "\n".join(line for (line,) in connection.execute(query.encode()))
    assert "Bitmap Index Scan on history_at" in found
    (blocks,) = re.findall(r"Heap Blocks: .*?lossy=(\d+)", found)
    assert pages is not None
    assert int(blocks) < 300 < pages[0], found
