"""Makes and changes the tables: `migrations/NNNN_{pre|post}_what.sql`, in order, each once.

Station: `kasaga migrate`, `kasaga dev` and the tests call `migrate`. `pre` files are applied before a
release is rolled out: the code before them still works afterwards. `post` files take away what only that
code used, once none of it runs any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any, Literal

import psycopg

from kasaga.store.errors import (
    MigrationChanged,
    MigrationOrder,
    NamespaceMismatch,
    ServerUnfit,
    ShardCountMismatch,
    StoreDenied,
    StoreUnavailable,
)
from kasaga.store.session import OLDEST_SERVER
from kasaga.store.settings import StoreSettings

_LOCK = 0x6B617361_6761
"""Key of the advisory lock: "kasaga"."""

_PREPARE = b"""
CREATE SCHEMA IF NOT EXISTS kasaga;
CREATE TABLE IF NOT EXISTS kasaga.migration (
    name text PRIMARY KEY,
    sha256 bytea NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""


def known_migrations() -> list[str]:
    """Return the names of the migrations that came with this code, in order."""
    return sorted(entry.name for entry in files("kasaga.store").joinpath("migrations").iterdir())


def migrate(
    conninfo: str | StoreSettings,
    *,
    namespace: str,
    shards: int = 16,
    phase: Literal["pre", "post"] = "post",
    progress: Callable[[str], None] = lambda _: None,
) -> list[str]:
    """Bring a database up to this code, in one transaction, and return what was applied.

    `phase="pre"` leaves the last release's post migrations for later. Does nothing to an up-to-date
    database. `progress` is told each file's name as it is applied. Raises StoreUnavailable,
    NamespaceMismatch, ShardCountMismatch, MigrationChanged, MigrationOrder, ServerUnfit and StoreDenied;
    nothing is changed then.
    """
    settings = StoreSettings(conninfo) if isinstance(conninfo, str) else conninfo
    try:
        with (
            psycopg.connect(settings.connection_string("kasaga migrate")) as connection,
            connection.transaction(),
        ):
            return _migrate(connection, namespace, shards, phase, progress)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreDenied(
            f"the role may not make the tables: {error.diag.message_primary}",
            remedy="GRANT CREATE ON DATABASE … TO the role, or make the schema kasaga owned by it",
        ) from error
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"the database didn't answer: {' '.join(str(error).split())}") from error


def _migrate(
    connection: psycopg.Connection[Any],
    namespace: str,
    shards: int,
    phase: Literal["pre", "post"],
    progress: Callable[[str], None],
) -> list[str]:
    _check_server(connection)
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    connection.execute(_PREPARE)
    applied = dict(connection.execute("SELECT name, sha256 FROM kasaga.migration").fetchall())
    scripts = {name: _script(name) for name in known_migrations()}
    for name, script in scripts.items():
        if name in applied and applied[name] != hashlib.sha256(script).digest():
            raise MigrationChanged(f"{name} isn't what was applied to this database")
    if applied:
        _check_namespace(connection, namespace, shards)
    todo = _todo([name for name in scripts if name not in applied], phase, fresh=not applied)
    for name in todo:
        progress(name)
        connection.execute(scripts[name])
        connection.execute(
            "INSERT INTO kasaga.migration (name, sha256) VALUES (%s, %s)",
            (name, hashlib.sha256(scripts[name]).digest()),
        )
    _settle(connection, namespace, shards)
    return todo


def _script(name: str) -> bytes:
    return files("kasaga.store").joinpath("migrations", name).read_bytes()


def _todo(missing: Sequence[str], phase: Literal["pre", "post"], *, fresh: bool) -> list[str]:
    """Return what to apply now; raises MigrationOrder where a pre file would overtake a post file."""
    if phase == "post" or fresh:
        return list(missing)
    posts = [name for name in missing if "_post_" in name]
    pres = [name for name in missing if "_pre_" in name]
    if posts and pres and posts[0] < pres[-1]:
        raise MigrationOrder(f"{pres[-1]} comes after {posts[0]}, which was never applied")
    return pres


def _check_server(connection: psycopg.Connection[Any]) -> None:
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise ServerUnfit(f"the server is PostgreSQL {version // 10000}", remedy="Use PostgreSQL 14 or newer")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise ServerUnfit(f"the database keeps {encoding}", remedy="CREATE DATABASE … ENCODING 'UTF8'")


def _check_namespace(connection: psycopg.Connection[Any], namespace: str, shards: int) -> None:
    for name, count in connection.execute("SELECT name, shards FROM kasaga.namespace"):
        if name != namespace:
            raise NamespaceMismatch(
                f"the database belongs to the namespace {name!r}, not to {namespace!r}",
                remedy="Name another database: each namespace has its own",
            )
        if count != shards:
            raise ShardCountMismatch(
                f"the database was made for {count} shards, not for {shards}",
                remedy=f"Set shards to {count}, or stop the namespace and run `kasaga reshard`",
            )


def _settle(connection: psycopg.Connection[Any], namespace: str, shards: int) -> None:
    """Write the namespace and its shards, where they are not there yet."""
    connection.execute(
        "INSERT INTO kasaga.namespace (name, shards) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (namespace, shards),
    )
    connection.execute(
        "INSERT INTO kasaga.shard (shard) SELECT generate_series(0, %s - 1) ON CONFLICT DO NOTHING", (shards,)
    )
    connection.execute(
        "INSERT INTO kasaga.position (shard, commit_seq) SELECT s.shard, 0 FROM kasaga.shard s"
        " WHERE NOT EXISTS (SELECT FROM kasaga.position p WHERE p.shard = s.shard)"
    )
