"""`kasaga locks`: which sagas hold which keys, and who waits for them."""

from __future__ import annotations

import click

from ..store.locks import LockRow
from ..wording import printable, table
from .session import Session, database_option, output_option, pass_session

PAGE = 1_000
"""Keys of one question to the database."""


@click.command()
@click.argument("key", required=False)
@click.option("--prefix", default="", help="Only keys that begin so.")
@click.option(
    "--limit", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="So many keys at most."
)
@database_option
@output_option
@pass_session
def locks(session: Session, key: str | None, prefix: str, limit: int) -> None:
    """List the keys that sagas have locked, by name, or the queue of one KEY: its holder comes first."""
    out = session.output()
    with session.reader() as store:
        if key is not None:
            queue = store.queues([key])
            if out.json:
                for row in queue:
                    out.line({"place": row.place, **_json(row)})
            elif queue:
                cells = [
                    ("holds it" if not row.place else str(row.place), printable(row.saga_id)) for row in queue
                ]
                out.lines(table(("PLACE", "SAGA"), cells, paint=out.paint))
            else:
                out.note(f"Nobody holds {printable(key)}.")
            return
        found: list[tuple[LockRow, int]] = []
        while len(found) < limit:
            most = min(PAGE, limit - len(found))
            page = store.locks(prefix, after=found[-1][0].key if found else "", limit=most)
            found += page
            if len(page) < most:
                break
    if out.json:
        for row, waiting in found:
            out.line({**_json(row), "waiting": waiting})
    elif found:
        lines = [(printable(row.key), printable(row.saga_id), str(waiting)) for row, waiting in found]
        out.lines(table(("KEY", "HELD BY", "WAITING"), lines, paint=out.paint))
    else:
        out.note("Nobody holds a key.")


def _json(row: LockRow) -> dict[str, object]:
    return {"key": row.key, "saga_id": row.saga_id, "run_id": str(row.run_id), "shard": row.shard}
