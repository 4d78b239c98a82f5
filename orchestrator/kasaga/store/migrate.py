"""Makes and changes the tables: `migrations/NNNN_{pre|post}_what.sql`, in order, each once.

Station: `kasaga migrate`, `kasaga dev` and the tests call `migrate`. `pre` files are applied before a
release is rolled out: the code before them still works afterwards. `post` files take away what only that
code used, once none of it runs any more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
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
from kasaga.store.statements import read_statements

_LOCK = 0x6B617361_6761
"""Key of the advisory lock: "kasaga"."""

_SQL = read_statements("migrate")
_NAMESPACE = read_statements("read")["namespace"].sql


def known_migrations() -> list[str]:
    """Return the names of the migrations that came with this code, in order."""
    names = (entry.name for entry in files("kasaga.store").joinpath("migrations").iterdir())
    return sorted(name for name in names if name.endswith(".sql"))


def migrate(
    conninfo: str | StoreSettings,
    *,
    namespace: str,
    shards: int = 16,
    phase: Literal["pre", "post"] = "post",
    progress: Callable[[str], None] = lambda _: None,
    scripts: Mapping[str, bytes] | None = None,
) -> list[str]:
    """Bring a database up to this code, in one transaction, and return what was applied.

    `phase="pre"` leaves the last release's post migrations for later. Does nothing to an up-to-date
    database. `progress` is told each file's name as it is applied; `scripts` are the files, this release's
    unless a test gives others. Raises StoreUnavailable,
    NamespaceMismatch, ShardCountMismatch, MigrationChanged, MigrationOrder, ServerUnfit and StoreDenied;
    nothing is changed then.
    """
    settings = StoreSettings(conninfo) if isinstance(conninfo, str) else conninfo
    try:
        with (
            psycopg.connect(
                settings.connection_string("kasaga migrate"), cursor_factory=psycopg.RawCursor
            ) as connection,
            connection.transaction(),
        ):
            return _migrate(connection, scripts or _scripts(), namespace, shards, phase, progress)
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreDenied(
            f"the role may not make the tables: {error.diag.message_primary}",
            remedy="GRANT CREATE ON DATABASE … TO the role, or make the schema kasaga owned by it",
        ) from error
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"the database didn't answer: {' '.join(str(error).split())}") from error


def _migrate(
    connection: psycopg.Connection[Any],
    scripts: Mapping[str, bytes],
    namespace: str,
    shards: int,
    phase: Literal["pre", "post"],
    progress: Callable[[str], None],
) -> list[str]:
    _check_server(connection)
    connection.execute(_SQL["lock"].sql, (_LOCK,))
    connection.execute(_SQL["make_schema"].sql)
    connection.execute(_SQL["make_list"].sql)
    applied = dict(connection.execute(_SQL["applied"].sql).fetchall())
    for name, script in scripts.items():
        if name in applied and applied[name] != hashlib.sha256(script).digest():
            raise MigrationChanged(f"{name} isn't what was applied to this database")
    if applied:
        _check_namespace(connection, namespace, shards)
    todo = _todo([name for name in sorted(scripts) if name not in applied], phase, fresh=not applied)
    for name in todo:
        progress(name)
        connection.execute(scripts[name])
        connection.execute(_SQL["note"].sql, (name, hashlib.sha256(scripts[name]).digest()))
    _settle(connection, namespace, shards)
    return todo


def _scripts() -> dict[str, bytes]:
    folder = files("kasaga.store").joinpath("migrations")
    return {name: folder.joinpath(name).read_bytes() for name in known_migrations()}


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
    for name, count in connection.execute(_NAMESPACE):
        if name != namespace:
            raise NamespaceMismatch(
                f"the database belongs to the namespace {name!r}, not to {namespace!r}",
                remedy="Name another database: each namespace has its own",
            )
        if count != shards:
            raise ShardCountMismatch(
                f"the database was made for {count} shards, not for {shards}",
                remedy=f"Set shards to {count}: the number is chosen once, when the namespace is made",
            )


def _settle(connection: psycopg.Connection[Any], namespace: str, shards: int) -> None:
    """Write the namespace and its shards, where they are not there yet."""
    connection.execute(_SQL["add_namespace"].sql, (namespace, shards))
    connection.execute(_SQL["add_shards"].sql, (shards,))
    connection.execute(_SQL["add_positions"].sql)
