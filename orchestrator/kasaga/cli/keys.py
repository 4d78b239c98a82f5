"""`kasaga keys in-use`: which of the keys that payloads are encrypted with are still needed."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, closing
from typing import Any

import click

from kasaga_wire.redaction import hide_in
from kasaga_wire.topics import check_participant

from ..audit.by_database import READ_SECONDS
from ..store.keys import INBOX, OWN, Found, KeysInUse
from ..store.settings import StoreSettings
from ..wording import table
from .audit import named, variable
from .errors import BadInput
from .output import Output
from .session import Session, database_option, output_option, pass_session

KAFKA_DAYS = 28
"""For so long Kafka may keep what was sent: dead letters. Everything else is kept for 7."""

WARNING = (
    f"Kafka isn't looked into: it keeps records for 7 days, and dead letters for {KAFKA_DAYS}. A key may go "
    f"when no row needs it, and {KAFKA_DAYS} days after no process had it first any more."
)


@click.group()
def keys() -> None:
    """The keys that payloads are encrypted with, see payloads.md."""


@keys.command("in-use")
@click.option(
    "--inbox",
    "inboxes",
    multiple=True,
    metavar="PARTICIPANT[=URL]",
    help="Look into this inbox too; without URL by KASAGA_INBOX_<PARTICIPANT>_URL: others see arguments.",
)
@database_option
@output_option
@pass_session
def in_use(session: Session, inboxes: tuple[str, ...]) -> None:
    """Count what is kept in the databases by the key that it is encrypted with. Shows ids, no keys."""
    out, found = session.output(), dict[str, Found]()
    with ExitStack() as stack:
        for place, url in _databases(session, inboxes).items():
            hide_in(url)
            settings = StoreSettings(url, read_only=True, people_timeout=READ_SECONDS)
            database = stack.enter_context(closing(KeysInUse(settings)))
            for name, beginning in (INBOX if place else OWN).items():
                column = place or name
                for page in database.read(name, beginning):
                    found[column] = found.get(column, Counter()) + page
                    out.progress(f"{column}: {found[column].total()} encrypted rows")
    have = session.sealer().key_ids
    ids = sorted({*have, *(key for each in found.values() for key in each)})
    if out.json:
        out.document({"keys": [_document(key, have, found) for key in ids]})
    else:
        _show(out, ids, have, found)


def _databases(session: Session, inboxes: tuple[str, ...]) -> dict[str, str]:
    """Addresses by participant; the orchestrator's own by an empty name. Raises NoDatabase and BadInput."""
    found = {"": session.database()}
    for each in inboxes:
        if "=" in each:
            found |= named((each,))
            continue
        url = session.secret(variable(check_participant(each)))
        if not url:
            raise BadInput(
                f"{variable(each)} isn't set", remedy=f"Set it, or pass --inbox {each}=postgresql://…"
            )
        found[each] = url
    return found


def _document(key: str, have: tuple[str, ...], found: dict[str, Found]) -> dict[str, Any]:
    return {
        "key": key,
        "here": key in have,
        "first": bool(have) and key == have[0],
        "rows": {name: counts[key] for name, counts in found.items()},
    }


def _show(out: Output, ids: list[str], have: tuple[str, ...], found: dict[str, Found]) -> None:
    if not ids:
        out.note("Nothing is encrypted, and there are no keys here.")
        return
    head = ("KEY", *(name.upper() for name in found), "HERE")
    cells = [(key, *(str(counts[key]) for counts in found.values()), _standing(key, have)) for key in ids]
    out.lines(table(head, cells, paint=out.paint, state=-1))
    out.note(WARNING)


def _standing(key: str, have: tuple[str, ...]) -> str:
    if key not in have:
        return "missing"
    return "encrypts" if key == have[0] else "opens"
