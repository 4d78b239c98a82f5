"""The migrator: idempotent, one at a time, refuses what doesn't fit; its files add up to the schema."""

from __future__ import annotations

import re
import threading
from importlib.resources import files
from pathlib import Path

import psycopg
import pytest

from kasaga.dev.servers import PostgresServer
from kasaga.store.base import SagaFilter, SagaState
from kasaga.store.errors import (
    BadConninfo,
    MigrationChanged,
    MigrationOrder,
    NamespaceMismatch,
    NotMigrated,
    ServerUnfit,
    ShardCountMismatch,
    StoreDenied,
    StoreUnavailable,
)
from kasaga.store.migrate import known_migrations, migrate
from kasaga.store.postgres import PostgresStore
from kasaga.store.statements import read_statements
from kasaga_participant.inbox.statements import migrations as inbox_migrations
from store.samples import Owner, start

CATALOG = {
    "tables": """
        SELECT c.relname, c.relkind::text, c.reloptions FROM pg_class c
        WHERE c.relnamespace = 'kasaga'::regnamespace ORDER BY 1""",
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
            a.attstorage, a.attcompression, a.attgenerated, pg_get_expr(d.adbin, d.adrelid), l.collname
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind = 'r'
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation l ON l.oid = a.attcollation
        WHERE c.relnamespace = 'kasaga'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY 1, 2""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'kasaga'::regnamespace ORDER BY 1, 2""",
    "indexes": "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'kasaga' ORDER BY 1",
    "functions": """
        SELECT proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), provolatile, lanname,
            proconfig, prosrc
        FROM pg_proc p JOIN pg_language l ON l.oid = prolang
        WHERE pronamespace = 'kasaga'::regnamespace ORDER BY 1, 2""",
}


def catalog(conninfo: str) -> dict[str, list[tuple[object, ...]]]:
    """All that the schema consists of; function bodies without comments and line breaks."""
    with psycopg.connect(conninfo) as connection:
        found = {name: connection.execute(query.encode()).fetchall() for name, query in CATALOG.items()}
    found["functions"] = [
        (*row[:-1], " ".join(re.sub(r"--.*", "", str(row[-1])).split())) for row in found["functions"]
    ]
    return found


def test_the_migrations_add_up_to_the_schema(postgres: PostgresServer, database: str, namespace: str) -> None:
    migrate(database, namespace="shop")
    other = postgres.create_database(f"{namespace}_schema")
    try:
        with psycopg.connect(other) as connection:
            for name in ("schema.sql", "functions.sql"):
                connection.execute(files("kasaga.store").joinpath(name).read_bytes())
        migrated, read = catalog(database), catalog(other)
        for part in CATALOG:
            assert migrated[part] == read[part]
        assert len(migrated["tables"]) > 10
    finally:
        postgres.drop_database(f"{namespace}_schema")


def test_large_payloads_are_compressed_by_lz4_where_the_server_has_it(database: str) -> None:
    migrate(database, namespace="shop")
    owner = Owner(PostgresStore(database)).claim(3)
    large = b'{"name": "a large one"}' * 1000
    begun = start(3, 1)
    begun.history[0].body = large
    owner.commit(begun)
    with psycopg.connect(database) as connection:
        (has,) = connection.execute(
            "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
        ).fetchone() or (False,)
        (used,) = connection.execute("SELECT pg_column_compression(body) FROM kasaga.history").fetchone() or (
            "",
        )
    assert used == ("lz4" if has else "pglz")
    owner.store.close()


def test_migrating_again_does_nothing(database: str) -> None:
    told: list[str] = []
    assert migrate(database, namespace="shop", shards=4, progress=told.append) == known_migrations() == told
    owner = Owner(PostgresStore(database)).claim(3)
    owner.commit(start(3, 1))
    assert migrate(database, namespace="shop", shards=4, progress=told.append) == []
    assert told == known_migrations()
    assert owner.store.count(SagaFilter()) == {SagaState.RUNNING: 1}
    assert (owner.store.namespace().name, owner.store.namespace().shards) == ("shop", 4)
    assert len(owner.store.shards()) == 4
    owner.commit(start(3, 2))
    owner.store.close()


def test_many_at_once_migrate_once(database: str) -> None:
    applied: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: applied.append(migrate(database, namespace="shop"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [[], [], [], [], [], known_migrations()]


def test_the_database_of_another_namespace_is_refused(database: str) -> None:
    migrate(database, namespace="shop")
    with pytest.raises(NamespaceMismatch, match=r"KSG-303.*'shop'.*'market'.*Remedy"):
        migrate(database, namespace="market")


def test_another_shard_count_is_refused(database: str) -> None:
    migrate(database, namespace="shop", shards=8)
    with pytest.raises(ShardCountMismatch, match=r"KSG-304.*8.*16.*Remedy.*chosen once"):
        migrate(database, namespace="shop")


def test_an_edited_migration_is_refused_and_nothing_is_applied(database: str) -> None:
    scripts = {"0001_pre_a.sql": _BASE, "0002_pre_b.sql": b"CREATE TABLE kasaga.b (x int)"}
    migrate(database, namespace="shop", scripts={"0001_pre_a.sql": _BASE})
    with pytest.raises(MigrationChanged, match="0001_pre_a"):
        migrate(database, namespace="shop", scripts={**scripts, "0001_pre_a.sql": _BASE + b" "})
    assert migrate(database, namespace="shop", scripts=scripts) == ["0002_pre_b.sql"]


def test_a_failing_migration_leaves_nothing_behind(database: str) -> None:
    scripts = {"0001_pre_a.sql": _BASE, "0002_pre_b.sql": b"CREATE TABLE kasaga.b (x int); SELECT 1/0"}
    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(database, namespace="shop", scripts=scripts)
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT to_regnamespace('kasaga')").fetchone() == (None,)


def test_post_migrations_wait_for_the_old_code_to_be_gone(database: str) -> None:
    first = {"0001_pre_a.sql": _BASE}
    second = {**first, "0002_pre_b.sql": b"SELECT 1", "0003_post_b.sql": b"SELECT 2"}
    third = {**second, "0004_pre_c.sql": b"SELECT 3", "0005_post_c.sql": b"SELECT 4"}
    migrate(database, namespace="shop", scripts=first)
    assert migrate(database, namespace="shop", scripts=second, phase="pre") == ["0002_pre_b.sql"]
    with pytest.raises(MigrationOrder, match=r"0004_pre_c.*0003_post_b"):
        migrate(database, namespace="shop", scripts=third, phase="pre")
    assert migrate(database, namespace="shop", scripts=second) == ["0003_post_b.sql"]
    assert migrate(database, namespace="shop", scripts=third, phase="pre") == ["0004_pre_c.sql"]
    assert migrate(database, namespace="shop", scripts=third) == ["0005_post_c.sql"]


def test_a_new_database_gets_everything_in_either_phase(database: str) -> None:
    scripts = {"0001_pre_a.sql": _BASE, "0002_post_a.sql": b"SELECT 1", "0003_pre_b.sql": b"SELECT 2"}
    assert migrate(database, namespace="shop", scripts=scripts, phase="pre") == list(scripts)


def test_a_store_says_which_migration_is_missing(database: str) -> None:
    migrate(database, namespace="shop")
    last = known_migrations()[-1]
    with psycopg.connect(database) as connection:
        connection.execute("DELETE FROM kasaga.migration WHERE name = %s", (last,))
    with pytest.raises(NotMigrated, match=last):
        PostgresStore(database).namespace()


def test_names_of_migrations_follow_the_rule() -> None:
    names = known_migrations()
    assert all(re.fullmatch(r"\d{4}_(pre|post)_[a-z0-9_]+\.sql", name) for name in names)
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))


def test_a_role_without_rights_is_told_what_it_lacks(postgres: PostgresServer, database: str) -> None:
    role = "visitor_" + database.rsplit("/", 1)[1]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {role} LOGIN".encode())
        try:
            visitor = database.replace("postgres@", f"{role}@")
            with pytest.raises(StoreDenied, match=r"KSG-312.*Remedy: GRANT"):
                migrate(visitor, namespace="shop")
            migrate(database, namespace="shop")
            with pytest.raises(StoreDenied, match=r"KSG-312.*Remedy: GRANT"):
                PostgresStore(visitor).saga("order-1")
        finally:
            connection.execute(f"DROP ROLE {role}".encode())


def test_a_database_that_is_not_utf8_is_refused(postgres: PostgresServer, namespace: str) -> None:
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {namespace} ENCODING 'LATIN1' TEMPLATE template0 LOCALE 'C'".encode()
        )
    try:
        with pytest.raises(ServerUnfit, match=r"LATIN1.*UTF8"):
            migrate(postgres.url(namespace), namespace="shop")
    finally:
        postgres.drop_database(namespace)


def test_an_unreachable_database_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        migrate("host=127.0.0.1 port=1 connect_timeout=2", namespace="shop")


@pytest.mark.parametrize("conninfo", ["host=x passwort=s3cr3t", "s3cr3t", "postgresql://a:s3cr3t@[::1/db"])
def test_an_unreadable_connection_string_is_not_repeated(conninfo: str) -> None:
    with pytest.raises(BadConninfo) as error:
        migrate(conninfo, namespace="shop")
    assert "s3cr3t" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize(
    "name",
    # `search` has parts, and what they make is in test_store_search.py.
    [path.stem for path in Path(str(files("kasaga.store") / "sql")).glob("*.sql") if path.stem != "search"],
)
def test_every_statement_is_understood_by_the_server(database: str, name: str) -> None:
    migrate(database, namespace="shop")
    with psycopg.connect(database) as connection:
        if name in ("inbox", "keys"):  # asked of participants' databases, too
            connection.execute("CREATE SCHEMA kasaga_inbox")
            for script in inbox_migrations().values():
                connection.execute(script)
        for statement in read_statements(name).values():
            if connection.info.server_version < 170000 and statement.name == b"kasaga_transaction_timeout":
                continue
            prepared = connection.pgconn.prepare(statement.name, statement.sql, statement.oids)
            assert prepared.error_message == b""
            described = connection.pgconn.describe_prepared(statement.name)
            assert described.nparams == len(statement.oids)


_BASE = b"".join(
    files("kasaga.store").joinpath("migrations", name).read_bytes() for name in known_migrations()[:2]
)
