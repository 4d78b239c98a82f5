"""What the three services do alike before they serve: make their tables and fill them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import LiteralString

import psycopg

from kasaga_participant.settings import FROM_ENVIRONMENT
from kasaga_participant.settings import database_url as configured

SEEDING = 5_377_204
"""Key of a lock in the service's database: two processes that start at once don't both make its tables."""


PREPARED = "CREATE TABLE IF NOT EXISTS prepared (schema_sum text PRIMARY KEY)"

PREPARE = "INSERT INTO prepared (schema_sum) VALUES (%s) ON CONFLICT DO NOTHING RETURNING schema_sum"


def prepare(
    schema: LiteralString, seed: LiteralString, rows: Sequence[Sequence[object]], database_url: str = ""
) -> None:
    """Makes a service's tables and fills them, unless that has been done.

    `seed` takes one array for each column; `rows` are turned into those. The database is the one that the SDK
    will use, unless another is named: `KASAGA_DATABASE_URL`, or the content of the file that `…_FILE` names.
    """
    database_url = database_url or configured(FROM_ENVIRONMENT) or ""
    columns = [list(column) for column in zip(*rows, strict=True)]
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [SEEDING])
        connection.execute(PREPARED)
        # Not again while others are at work: CREATE INDEX locks its table even where the index is there.
        schema_sum = hashlib.sha256(schema.encode()).hexdigest()
        if connection.execute(PREPARE, [schema_sum]).fetchone() is not None:
            connection.execute(schema)
            connection.execute(seed, columns)
