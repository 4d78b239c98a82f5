"""What the three services do alike when they start: read the environment, make their tables, and serve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import psycopg

SEEDING = 5_377_204
"""Key of a lock in the service's database: two processes that start at once don't both make its tables."""


def prepare(
    database_url: str, schema: LiteralString, seed: LiteralString, rows: Sequence[Sequence[object]]
) -> None:
    """Makes a service's tables and fills them, unless that has been done.

    `seed` takes one array for each column; `rows` are turned into those.
    """
    columns = [list(column) for column in zip(*rows, strict=True)]
    with psycopg.connect(database_url) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", [SEEDING])
        connection.execute(schema)
        connection.execute(seed, columns)
