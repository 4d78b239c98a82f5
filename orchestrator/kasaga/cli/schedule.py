"""`kasaga schedule …`: what begins by itself, and when; pause, trigger, backfill."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from ..schedules import people
from ..store.scheduling import ScheduleRow
from ..wording import printable, table
from .errors import BadInput
from .session import Session, by_option, database_option, output_option, pass_session


@click.group()
def schedule() -> None:
    """Sagas that begin at a time, see schedules.md."""


@schedule.command("list")
@database_option
@output_option
@pass_session
def list_schedules(session: Session) -> None:
    """List all schedules."""
    out = session.output()
    with session.store() as store:
        now, rows = store.schedules()
    if out.json:
        out.document([people.document(row, now) for row in rows])
        return
    cells = [(row.name, *_told(row, now)) for row in rows]
    out.lines(table(("SCHEDULE", "SAGA", "WHEN", "NEXT", "LAST"), cells, paint=out.paint))


def _told(row: ScheduleRow, now: datetime) -> tuple[str, str, str, str]:
    made = people.document(row, now)
    following = "paused" if row.paused else made["next_due"] or "never"
    if not row.declared:
        following = "not in the App"
    last = row.firings[-1] if row.firings else None
    told = f"{last.state.value} {last.saga_id}" if last is not None else ""
    return str(made["saga"]), str(people.rule(row)), following, told


@schedule.command()
@click.argument("name")
@database_option
@output_option
@pass_session
def describe(session: Session, name: str) -> None:
    """Show a schedule, and what became of its last due times."""
    out = session.output()
    with session.store() as store:
        now, row = people.found(store, name)
    made = people.document(row, now)
    if out.json:
        out.document(made)
        return
    saga, when, following, _ = _told(row, now)
    lines = [
        f"{row.name}: begins {saga}, {when}",
        f"next: {following}",
        f"overlap {made['overlap']}, catches up {made['catch_up']:g} s, jitter {made['jitter']:g} s",
    ]
    if row.by:
        lines.append(f"{'paused' if row.paused else 'resumed'} by {printable(row.by)}")
    out.lines(lines)
    cells = [
        (each.due.isoformat(), each.cause.value, each.state.value, each.saga_id, printable(each.reason))
        for each in row.firings
    ]
    out.lines(table(("DUE", "CAUSE", "STATE", "SAGA", "WHY"), cells, paint=out.paint))


@schedule.command()
@click.argument("name")
@click.option("--reason", default="", help="Why, for whoever looks at it.")
@by_option
@database_option
@output_option
@pass_session
def pause(session: Session, name: str, reason: str) -> None:
    """Let nothing begin by a schedule until it is resumed; what is due meanwhile isn't made up for."""
    _pause(session, name, reason, paused=True)


@schedule.command()
@click.argument("name")
@click.option("--reason", default="", help="Why, for whoever looks at it.")
@by_option
@database_option
@output_option
@pass_session
def resume(session: Session, name: str, reason: str) -> None:
    """Let a paused schedule go on with what is due from now on."""
    _pause(session, name, reason, paused=False)


def _pause(session: Session, name: str, reason: str, *, paused: bool) -> None:
    by = session.who() + (f": {reason}" if reason else "")
    with session.store() as store:
        people.pause(store, name, by, paused=paused)
    _say(session, name, "paused" if paused else "resumed")


@schedule.command()
@click.argument("name")
@by_option
@database_option
@output_option
@pass_session
def trigger(session: Session, name: str) -> None:
    """Begin a schedule's saga now, whatever runs."""
    with session.store() as store:
        begun = people.trigger(store, name, session.who())
    _say(session, name, f"{begun} begins", saga_id=begun)


@schedule.command()
@click.argument("name")
@click.option("--from", "since", required=True, metavar="TIME", help="ISO 8601; in UTC without an offset.")
@click.option("--to", "until", required=True, metavar="TIME", help="Included; it must have passed.")
@by_option
@database_option
@output_option
@pass_session
def backfill(session: Session, name: str, since: str, until: str) -> None:
    """Begin the sagas that were due from one time to another and weren't begun, one after the other."""
    first, last = _time("--from", since), _time("--to", until)
    with session.store() as store:
        asked = people.backfill(store, name, first, last, session.who())
    _say(session, name, f"{asked} to begin", asked=asked)


def _say(session: Session, name: str, text: str, **more: object) -> None:
    out = session.output()
    if out.json:
        out.document({"schedule": name, "said": text, **more})
    else:
        out.lines([f"{name}: {text}"])


def _time(option: str, text: str) -> datetime:
    try:
        made = datetime.fromisoformat(text)
        return (made if made.tzinfo is not None else made.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadInput(f"{option} {text!r} is no time", remedy="Write 2026-03-01T03:00:00Z") from None
