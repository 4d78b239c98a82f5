"""Bringing the inbox's tables up to date, forgetting what is old enough to be forgotten, reading for audits.

Station: called by the app at start and from time to time; talks to Postgres on a connection of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from kasaga_wire.sealing import PLAIN, Sealer, place

from .rows import ExaminedRow
from .statements import migrations, statements

PURGE_SLICE = 1_000
"""Rows deleted by one statement: some milliseconds of work, so nobody waits for it."""

EXAMINE_SECONDS = 5.0
"""The server ends an audit's reading that takes longer."""


async def migrate(connection: AsyncConnection[Any]) -> list[str]:
    """Apply the migrations that the database lacks, in one transaction; gives their names.

    Several processes may do so at once. Needs the right to create the schema only where something is missing.
    """
    if not await pending(connection):
        return []
    sql = statements()
    async with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(sql["migration_lock"])
        for part in sql["migration_first"].split(b";"):
            await cursor.execute(part)
        missing = await _missing(connection)
        for name in missing:
            await cursor.execute(migrations()[name])
            await cursor.execute(sql["migration_note"], (name,))
        return missing


async def pending(connection: AsyncConnection[Any]) -> list[str]:
    """The migrations that the database lacks. One that only the database knows is newer code's, and fine."""
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statements()["migration_table"])
        row = await cursor.fetchone()
    if row is None or not row[0]:
        return list(migrations())
    return await _missing(connection)


async def _missing(connection: AsyncConnection[Any]) -> list[str]:
    async with connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statements()["migration_done"])
        done = {row[0] for row in await cursor.fetchall()}
    return [name for name in migrations() if name not in done]


async def purge_slice(connection: AsyncConnection[Any], retention: float) -> int:
    """Delete one slice of rows not used for `retention` seconds; gives their number."""
    async with connection.cursor() as cursor:
        await cursor.execute(statements()["purge"], (retention, PURGE_SLICE))
        return cursor.rowcount


async def examine(
    connection: AsyncConnection[Any], runs: Sequence[str], after: str, limit: int, sealer: Sealer = PLAIN
) -> list[ExaminedRow]:
    """Read rows for an audit, see `store.Store.examine`. The connection must not be in autocommit mode.

    Raises CannotOpen and DecodeError for a result that can't be opened: without it nothing can be compared.
    """
    await connection.set_read_only(True)
    async with connection.transaction(), connection.cursor(row_factory=tuple_row) as cursor:
        await cursor.execute(statements()["limit_examine"], (f"{EXAMINE_SECONDS * 1000:.0f}ms",))
        await cursor.execute(
            statements()["examine"], (list(runs), after, limit, limit), prepare=False, binary=True
        )
        return [_examined(sealer, *row) for row in await cursor.fetchall()]


def _examined(sealer: Sealer, id_: str, type_: str, outcome: str, *rest: bytes | None) -> ExaminedRow:
    """A row with the sum of the payload that was sealed. Raises CannotOpen and DecodeError."""
    input_hash, result_hash, payload = rest
    if payload is not None:
        result_hash = hashlib.sha256(sealer.open(place("reply", id_), bytes(payload))).digest()
    return ExaminedRow(id_, type_, outcome, input_hash, result_hash)
