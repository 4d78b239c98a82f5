"""`kasaga archive`: finished sagas in a folder or an object store, written before they were deleted."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

import click

from kasaga_wire.errors import CannotOpen, DecodeError
from kasaga_wire.objects import Objects
from kasaga_wire.redaction import redact

from ..archive import Archive, Archived, Period
from ..client.errors import UnknownSaga
from ..explain import headline
from ..store.base import SagaState
from ..store.purging import ArchiveState
from ..timeline import as_text, timeline
from ..timeline_data import Decode, as_json, decoder
from ..wording import counted, length, printable, rfc3339, stamp
from .errors import BadInput
from .inputs import when
from .output import Output
from .read import STATE_HELP, STATES, saga_table
from .session import Session, database_option, namespace_option, output_option, pass_session

URL, OPTIONS = "KASAGA_ARCHIVE_URL", "KASAGA_ARCHIVE_OPTIONS"

_AFTER = click.option(
    "--started-after", type=when, metavar="TIME", help="Started after: 2026-01-31T10:00 (UTC), 2h, 3d."
)
_BEFORE = click.option("--started-before", type=when, metavar="TIME", help="Started before.")


@click.group()
def archive() -> None:
    """Finished sagas that were archived before they were deleted; see retention.md.

    Reads where KASAGA_ARCHIVE_URL says, with KASAGA_ARCHIVE_OPTIONS, as the orchestrators do.
    """


@archive.command("list")
@_AFTER
@_BEFORE
@click.option("--name", metavar="NAME", default="", help="Of this saga.")
@click.option("--state", "states", type=STATES, multiple=True, metavar="STATE", help=STATE_HELP)
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show so many.")
@click.option("--all", "everything", is_flag=True, help="Show all of them.")
@namespace_option
@database_option
@output_option
@pass_session
def list_archived(
    session: Session,
    started_after: datetime | None,
    started_before: datetime | None,
    name: str,
    states: tuple[str, ...],
    limit: int,
    everything: bool,
) -> None:
    """List archived sagas, those that began last first. With -o json: one line for each."""
    out = session.output()
    wanted = {SagaState(state) for state in states}
    found = (
        each
        for each in _archive(session, out).sagas(_period(started_after, started_before))
        if name in ("", each.row.name) and (not wanted or each.row.state in wanted)
    )
    if out.json:
        for each in found if everything else islice(found, limit):
            out.line(each.summary | {"object": each.place})
        return
    rows = [each.row for each in (found if everything else islice(found, limit + 1))]
    if not rows:
        out.note("No archived saga fits.")
        return
    shown = rows if everything else rows[:limit]
    out.lines(saga_table(out, shown, session))
    if len(shown) < len(rows):
        out.note(f"These are the newest {limit}; there are more (--limit, --all).")


@archive.command()
@click.argument("saga_id")
@click.option("--run", "run_id", type=click.UUID, help="The run of this id, where an id was used again.")
@_AFTER
@_BEFORE
@click.option("--full", is_flag=True, help="Show payloads whole, and every attempt.")
@click.option("--no-payloads", is_flag=True, help="Leave payloads out: they are other people's data.")
@namespace_option
@database_option
@output_option
@pass_session
def show(
    session: Session,
    saga_id: str,
    run_id: UUID | None,
    started_after: datetime | None,
    started_before: datetime | None,
    full: bool,
    no_payloads: bool,
) -> None:
    """Tell what happened to an archived saga, as `kasaga history` does.

    What the database remembers of it says in which day's objects to look; else all are read, or those of the
    time that you give.
    """
    out = session.output()
    from_archive = _archive(session, out)
    period = _period(started_after, started_before)
    known = None if started_after or started_before else _remembered(session, saga_id, run_id)
    found = from_archive.find(saga_id, *known) if known else []
    found = found or from_archive.find(saga_id, period, run_id)
    if not found:
        raise UnknownSaga(
            f"there is no saga {saga_id} in the archive",
            remedy="A saga is archived when its retention is over; `kasaga describe` finds it before that",
        )
    _tell(session, out, from_archive, found[0], full=full, payloads=not no_payloads)
    others = [str(each.row.run_id) for each in found[1:]]
    if others and not out.json:
        out.note(f"The id was used before: --run {', --run '.join(others)}")


def _tell(
    session: Session, out: Output, place: Archive, found: Archived, *, full: bool, payloads: bool
) -> None:
    sealer = session.sealer()
    try:
        records, result = found.records(sealer), found.result(sealer)
    except (CannotOpen, DecodeError) as error:
        if not out.json:
            out.note(f"Its payloads can't be opened here: {error.message}")
            records, result = [], None
        else:
            raise
    entries = timeline(records)
    decode: Decode = decoder(place.schemas) if payloads else lambda data: None
    if out.json:
        made = found.summary | {"object": found.place, "result": decode(result) if result else None}
        out.document(made | {"history": as_json(entries, decode)})
        return
    row = found.row
    facts = f"run {row.run_id}, started {stamp(row.started_at)} UTC, archived in {found.place}"
    out.lines([out.paint("bold", printable(headline(row))), facts, ""])
    told = as_text(
        entries, decode, now=session.now(), width=out.width, full=full, payloads=payloads, paint=out.paint
    )
    out.lines(told)


@archive.command()
@database_option
@output_option
@pass_session
def status(session: Session) -> None:
    """Say what was archived, and whether the archive takes more. Exit status 1: it holds deletion back."""
    out = session.output()
    with session.store() as store:
        found = store.archive_state()
    if out.json:
        out.document(_status_json(found))
    elif found is None:
        out.note("Nothing has been archived yet: KASAGA_ARCHIVE_URL of the orchestrators says where to.")
    else:
        out.lines(_status_text(session, found))
    if found is not None and found.failing_since is not None:
        raise click.exceptions.Exit(1)


def _status_json(found: ArchiveState | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "place": found.place,
        "sagas": found.sagas,
        "objects": found.objects,
        "bytes": found.size,
        "archived_at": rfc3339(found.archived_at) if found.archived_at else None,
        "failing_since": rfc3339(found.failing_since) if found.failing_since else None,
        "error": redact(found.error) or None,
    }


def _status_text(session: Session, found: ArchiveState) -> list[str]:
    last = f", the last at {stamp(found.archived_at)} UTC" if found.archived_at else ""
    sagas, objects = counted(found.sagas, "saga"), counted(found.objects, "object")
    lines = [f"{found.place}: {sagas} in {objects} of {found.size} bytes{last}"]
    if found.failing_since is None:
        return [*lines, "It takes what it is given."]
    since = length(session.now() - found.failing_since)
    return [
        *lines,
        f"Since {since} it takes nothing, and finished sagas are kept: {printable(redact(found.error))}",
    ]


def _archive(session: Session, out: Output) -> Archive:
    """Where the setting says. Raises BadInput and ObjectsInvalid."""
    url = session.secret(URL)
    if not url:
        raise BadInput(
            f"{URL} isn't set", remedy="Set it to what the orchestrators have, as file:///var/archive"
        )
    objects = Objects(url, session.secret(OPTIONS), setting=URL)
    return Archive(objects, session.namespace_name(), out.note)


def _period(after: datetime | None, before: datetime | None) -> Period:
    whole = Period()
    return Period(after or whole.after, before or whole.before)


def _remembered(session: Session, saga_id: str, run_id: UUID | None) -> tuple[Period, UUID | None] | None:
    """When a saga began, and its run, if there is a database that still knows."""
    if not session.setting("database_url"):
        return None
    with session.store() as store:
        row = store.saga(saga_id)
    if row is None or run_id not in (None, row.run_id):
        return None
    return Period(row.started_at, row.started_at), row.run_id
