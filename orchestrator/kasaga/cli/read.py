"""`kasaga list`, `describe` and `history`: what the database says, read-only."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import click

from ..engine.model import Policy, Record
from ..explain import as_json, as_text, headline, list_rows, row_json
from ..lookup import find, look, read_records, stored_decoder
from ..search import Condition
from ..store.base import SagaFilter, SagaRow, SagaState, Store
from ..timeline import as_text as timeline_text
from ..timeline import timeline
from ..timeline_data import Decode
from ..timeline_data import as_json as timeline_json
from ..wording import counted, moment, rfc3339, stamp, table
from .inputs import condition, when
from .output import Output
from .session import Session, pass_session, reads

PAGE = 500
"""Sagas asked of the database at a time."""

LIST_HEAD = ("SAGA", "NAME", "STATE", "STARTED (UTC)", "FOR", "REASON")
STATE_HELP = "RUNNING, STUCK, …; may be repeated."
STATES = click.Choice([state.value for state in SagaState], case_sensitive=False)


def filters(command: Any) -> Any:
    """The options that choose sagas."""
    options = (
        click.option("--state", "states", type=STATES, multiple=True, metavar="STATE", help=STATE_HELP),
        click.option("--name", metavar="NAME", default="", help="Of this saga."),
        click.option("--id-prefix", metavar="TEXT", default="", help="Whose id begins so."),
        click.option("--code", metavar="KSG-…", default="", help="With this code as the reason."),
        click.option(
            "--started-after",
            type=when,
            metavar="TIME",
            help="Started after: 2026-01-31T10:00 (UTC), 2h, 3d.",
        ),
        click.option("--started-before", type=when, metavar="TIME", help="Started before."),
        click.option(
            "--where",
            type=condition,
            metavar="QUERY",
            help="""As in 'attr.customer = "c-7" and started > 2h ago'; see searching.md.""",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def make_filter(
    states: tuple[str, ...],
    name: str,
    id_prefix: str,
    code: str,
    started_after: datetime | None,
    started_before: datetime | None,
    where: Condition | None,
) -> SagaFilter:
    """What the options choose."""
    return SagaFilter(
        states=tuple(SagaState(state) for state in states),
        name=name,
        saga_id_prefix=id_prefix,
        code=code.upper(),
        started_after=started_after,
        started_before=started_before,
        where=where,
    )


def chosen(store: Store, where: SagaFilter, *, limit: int | None = None) -> Iterator[SagaRow]:
    """Every saga that the filter chooses, newest first, read by pages."""
    return islice(_pages(store, where, PAGE if limit is None else min(PAGE, limit)), limit)


def _pages(store: Store, where: SagaFilter, size: int) -> Iterator[SagaRow]:
    after = None
    while True:
        page = store.list_sagas(where, after=after, limit=size)
        yield from page
        if len(page) < size:
            return
        after = page[-1].run_id


@click.command("list")
@filters
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Show so many.")
@click.option("--all", "everything", is_flag=True, help="Show all of them.")
@click.option("--count", is_flag=True, help="Count by state instead.")
@reads
@pass_session
def list_sagas(session: Session, /, limit: int, everything: bool, count: bool, **chosen_by: Any) -> None:
    """List sagas, newest first. With -o json: one line for each."""
    where = make_filter(**chosen_by)
    out = session.output()
    with session.store() as store:
        if count:
            counts = store.count(where)
            if out.json:
                out.document({state.value: counts.get(state, 0) for state in SagaState})
            else:
                cells = [(state.value, str(counts[state])) for state in SagaState if counts.get(state)]
                out.lines(table(("STATE", "SAGAS"), cells, paint=out.paint, state=0))
            return
        found = chosen(store, where, limit=None if everything else limit + 1)
        if out.json:
            for row in found if everything else islice(found, limit):
                out.line(row_json(row))
            return
        rows = list(found)
    more = not everything and len(rows) > limit
    shown = rows if everything else rows[:limit]
    if not shown:
        out.note("No saga fits.")
        return
    out.lines(saga_table(out, shown, session))
    if more:
        out.note(f"These are the newest {limit}; there are more (--limit, --all).")


@click.command()
@filters
@click.option(
    "--by",
    type=click.Choice(["state", "saga"]),
    default="state",
    show_default=True,
    help="Count for each of these.",
)
@reads
@pass_session
def count(session: Session, /, by: str, **chosen_by: Any) -> None:
    """Count sagas. With -o json: by saga, then by state, and in all."""
    where = make_filter(**chosen_by)
    out = session.output()
    with session.store() as store:
        tally = store.tally(where)
    if out.json:
        sagas: dict[str, dict[str, int]] = {}
        for (name, state), number in sorted(tally.items()):
            sagas.setdefault(name, {})[state.value] = number
        out.document({"total": sum(tally.values()), "sagas": sagas})
        return
    groups = [state.value for state in SagaState] if by == "state" else sorted({name for name, _ in tally})
    numbers = dict.fromkeys(groups, 0)
    for (name, state), number in tally.items():
        numbers[state.value if by == "state" else name] += number
    cells = [(group, str(number)) for group, number in numbers.items() if number]
    head = ("STATE" if by == "state" else "SAGA", "SAGAS")
    out.lines(table(head, cells, paint=out.paint, state=0 if by == "state" else -1))
    out.note(f"{counted(sum(numbers.values()), 'saga')} in all.")


@click.command()
@click.argument("saga_id")
@reads
@pass_session
def describe(session: Session, saga_id: str) -> None:
    """Say where a saga stands, why, what it waits for, and what you can do."""
    out = session.output()
    with session.store() as store:
        told, _ = look(store, saga_id, session.now())
        decode_payload = stored_decoder(store)
    if out.json:
        out.document(as_json(told, decode_payload))
    else:
        out.lines(as_text(told, decode_payload, paint=out.paint, width=out.width))


@click.command()
@click.argument("saga_id")
@click.option("--full", is_flag=True, help="Show payloads whole, and every attempt.")
@click.option("--no-payloads", is_flag=True, help="Leave payloads out: they are other people's data.")
@click.option("--all", "everything", is_flag=True, help="Tell its earlier runs as well.")
@click.option("--raw", is_flag=True, help="Show the records as they are stored; as JSON: one a line.")
@reads
@pass_session
def history(
    session: Session, saga_id: str, full: bool, no_payloads: bool, everything: bool, raw: bool
) -> None:
    """Tell what happened to a saga, from its start on, or that of its last run."""
    out = session.output()
    with session.store() as store:
        row = find(store, saga_id)
        records = read_records(store, row, since=0 if everything else row.base)
        decode_payload: Decode = (lambda data: None) if no_payloads else stored_decoder(store)
    if raw:
        for record in records:
            made = raw_record(record, decode_payload)
            if out.json:
                out.line(made)
            else:
                out.lines(_raw_lines(made))
        return
    entries = timeline(records)
    if out.json:
        out.document({**row_json(row), "history": timeline_json(entries, decode_payload)})
        return
    out.lines(
        [out.paint("bold", headline(row)), f"run {row.run_id}, started {stamp(row.started_at)} UTC", ""]
    )
    out.lines(
        timeline_text(
            entries,
            decode_payload,
            now=session.now(),
            width=out.width,
            full=full,
            payloads=not no_payloads,
            paint=out.paint,
        )
    )
    if row.base > 1 and not everything:
        out.note("This is its last run; there were others before (--all).")
    if not records:
        out.note("Its history has been purged.")


def saga_table(out: Output, rows: Sequence[SagaRow], session: Session) -> list[str]:
    """Sagas as a table that fits the terminal, if there is one."""
    width = out.width if out.tty else 0
    return table(LIST_HEAD, list_rows(rows, session.now()), paint=out.paint, state=2, width=width)


# --- raw records


def raw_record(record: Record, decode_payload: Decode) -> dict[str, Any]:
    """One record as JSON-able values: names as in the engine, payloads decoded."""
    return {
        "seq": record.seq,
        "at": rfc3339(moment(record.at)),
        "row": record.row,
        "event": _raw_item(record.event, decode_payload),
        "decisions": [_raw_item(decision, decode_payload) for decision in record.decisions],
    }


def _raw_item(item: Any, decode_payload: Decode) -> dict[str, Any]:
    made: dict[str, Any] = {"type": type(item).__name__}
    defaults = item._field_defaults
    for name, value in zip(item._fields, item, strict=True):
        if name in defaults and value == defaults[name]:
            continue
        made["command" if name == "type" else name] = _raw_value(name, value, decode_payload)
    return made


def _raw_value(name: str, value: Any, decode_payload: Decode) -> Any:
    if isinstance(value, Policy):
        return value._asdict()
    if isinstance(value, bytes):
        if name == "key":
            return value.decode("utf-8", "backslashreplace")
        return decode_payload(value) if value[:1] == b"\0" else base64.b64encode(value).decode("ascii")
    if isinstance(value, int) and name.endswith("_at") and value:
        return rfc3339(moment(value))
    return value


def _raw_lines(made: dict[str, Any]) -> list[str]:
    lines = [f"{made['seq']:>4}  {made['at']}  {_raw_text(made['event'])}"]
    lines += [f"      → {_raw_text(decision)}" for decision in made["decisions"]]
    return lines


def _raw_text(item: dict[str, Any]) -> str:
    inside = ", ".join(f"{name}={value!r}" for name, value in item.items() if name != "type")
    return f"{item['type']}({inside})"
