"""`kasaga audit`: histories against the participants' inboxes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta

import click

from kasaga_wire.errors import KasagaError
from kasaga_wire.redaction import hide_in
from kasaga_wire.topics import Topics, check_participant

from ..audit.by_database import DatabaseInbox
from ..audit.by_kafka import KafkaInbox, Line, open_line
from ..audit.inboxes import Inbox, Unanswered
from ..audit.resume import Results, Resumed
from ..audit.tally import Tally
from ..audit.walk import Auditor, Inboxes, Pace, ended, stuck
from ..lookup import find
from ..store.base import SagaRow, Store
from .errors import BadInput, NoBrokers, Unexpected
from .inputs import when
from .output import Output, tell
from .session import Session, database_option, kafka_option, output_option, pass_session, prefix_option

CANNOT_RUN = 2
"""Exit status: nothing was compared, or not to the end. 1 says that something is wrong."""

SHOW_SECONDS = 0.25

WINDOW = timedelta(days=1)
"""How far back an audit looks that isn't told."""


@click.command()
@click.argument("saga_ids", nargs=-1, metavar="[SAGA_ID]…")
@click.option("--since", type=when, metavar="TIME", help="Sagas that ended after this; 24h by default.")
@click.option("--until", type=when, metavar="TIME", help="… and not after this; now by default.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value="audit",
    default="",
    metavar="[NAME]",
    help="Go on where the last audit of this name ended, and look again at what was wrong.",
)
@click.option(
    "--mended",
    multiple=True,
    metavar="SAGA_ID",
    help="With --resume: somebody has mended this saga by hand, don't look at it again.",
)
@click.option("--name", default="", metavar="SAGA", help="Sagas of this name alone.")
@click.option(
    "--inbox",
    "inboxes",
    multiple=True,
    metavar="PARTICIPANT=URL",
    help="Read this inbox in its database. Better in KASAGA_INBOX_<PARTICIPANT>_URL: others see arguments.",
)
@click.option(
    "--horizon",
    type=click.FloatRange(0),
    default=7.0,
    show_default=True,
    help="Days for which an inbox that is read in its database proves that something didn't happen.",
)
@click.option(
    "--rate", type=click.FloatRange(0.1), default=200.0, show_default=True, help="Sagas a second, at most."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=20.0,
    show_default=True,
    help="Seconds that a participant has for one answer.",
)
@click.option(
    "--confirm",
    type=click.FloatRange(0),
    default=2.0,
    show_default=True,
    help="Seconds after which what seems wrong is looked at again.",
)
@prefix_option
@kafka_option
@database_option
@output_option
@pass_session
def audit(
    session: Session,
    saga_ids: tuple[str, ...],
    since: datetime | None,
    until: datetime | None,
    resume: str,
    mended: tuple[str, ...],
    name: str,
    inboxes: tuple[str, ...],
    horizon: float,
    rate: float,
    timeout: float,
    confirm: float,
) -> int:
    """Compare sagas with what their participants have, and list those that aren't all done or undone.

    These sagas, or those that ended in a time and those that are STUCK. Writes nothing, and locks nothing.

    Exit status: 0 all is well, 1 something is wrong, 2 it couldn't be done, 4 a participant didn't answer.
    """
    if resume and (saga_ids or until):
        raise click.UsageError("--resume knows which sagas: name no ids, and no --until")
    if mended and not resume:
        raise click.UsageError("--mended takes sagas off what --resume looks at again")
    out, tally = session.output(), Tally()
    try:
        with ExitStack() as stack:
            store = stack.enter_context(session.reader())
            ways = Ways(session, store, named(inboxes), horizon * 86_400, timeout)
            stack.callback(ways.close)
            asked = Inboxes(ways.find)
            stack.callback(asked.close)
            auditor = Auditor(store, asked, Pace(rate), confirm=confirm)
            if resume:
                results = _resumed(session, stack, store, auditor, Resuming(resume, since, name, mended))
            elif saga_ids:
                results = auditor.audit(find(store, each) for each in saga_ids)
            else:
                results = auditor.audit(_window(session, stack, store, since, until, name))
            run(results, tally, out)
            silent: dict[str, KasagaError] = dict(asked.silent)
    except Exception as error:  # noqa: BLE001 (whatever it is, nobody must take it for a violation)
        tell(error, Unexpected)
        return CANNOT_RUN
    if out.json:
        out.document(tally.document(silent))
    else:
        out.lines(tally.lines(silent))
    return tally.status


def run(results: Results, tally: Tally, out: Output) -> None:
    """Compare, and tell what is wrong as it is found."""
    shown = time.monotonic()
    for facts, verdict in results:
        for finding in tally.add(facts, verdict):
            if not out.json:
                out.lines([finding.line(), f"    {finding.rule.remedy}."])
        if time.monotonic() - shown > SHOW_SECONDS:
            shown = time.monotonic()
            ended_at = f", {facts.row.ended_at:%Y-%m-%d %H:%M:%S}" if facts.row.ended_at else ""
            out.progress(f"{tally.total} sagas, {tally.found} violations{ended_at}")
    out.clear()


@dataclass(frozen=True, slots=True)
class Resuming:
    """What `--resume` was given."""

    book: str
    since: datetime | None
    name: str
    mended: tuple[str, ...]


def _resumed(session: Session, stack: ExitStack, store: Store, auditor: Auditor, asked: Resuming) -> Results:
    ends = stack.enter_context(session.ends())
    # The position of one definition's audits is none for the others.
    book = stack.enter_context(session.book(f"{asked.book}/{asked.name}" if asked.name else asked.book))
    resumed = Resumed(store, ends, book, auditor, now=session.now(), since=asked.since)
    resumed.mended(find(store, each) for each in asked.mended)
    return resumed.audit(asked.name)


def _window(
    session: Session,
    stack: ExitStack,
    store: Store,
    since: datetime | None,
    until: datetime | None,
    name: str,
) -> Iterator[SagaRow]:
    bounds = (since or session.now() - WINDOW, until or session.now())
    if bounds[0] >= bounds[1]:
        raise BadInput("--since isn't before --until", remedy="Name the earlier time first")
    ends = stack.enter_context(session.ends())
    shards = {lease.shard: bounds for lease in store.shards()}

    def rows() -> Iterator[SagaRow]:
        for _, found in ended(ends, shards):
            yield from (row for row in found if not name or row.name == name)
        yield from stuck(store, name)

    return rows()


class Ways:
    """How each participant's inbox is read: in its database if that is named, else over Kafka."""

    def __init__(
        self, session: Session, store: Store, urls: dict[str, str], horizon: float, timeout: float
    ) -> None:
        self._session = session
        self._store = store
        self._urls = urls
        self._horizon = horizon
        self._timeout = timeout
        self._line: Line | None = None

    def find(self, participant: str) -> Inbox:
        """One participant's inbox. Raises Unanswered where there is no way to it."""
        url = self._urls.get(participant) or self._session.secret(variable(participant))
        if url:
            return DatabaseInbox(participant, url, self._horizon, self._session.sealer())
        if self._line is None:
            try:
                settings = self._session.kafka_settings()
            except NoBrokers as error:
                raise Unanswered(f"{participant} can't be asked: {error.message}") from None
            topics = Topics(self._store.namespace().name, self._session.setting("topic_prefix"))
            sealer = self._session.sealer()
            self._line = open_line(settings, topics, seconds=self._timeout, sealer=sealer)
        return KafkaInbox(self._line, participant)

    def close(self) -> None:
        """Let go of Kafka."""
        if self._line is not None:
            self._line.close()


def variable(participant: str) -> str:
    """The variable that names a participant's database."""
    return f"KASAGA_INBOX_{re.sub('[^A-Z0-9]', '_', participant.upper())}_URL"


def named(inboxes: tuple[str, ...]) -> dict[str, str]:
    """`inventory=postgresql://…` by participant; raises BadInput, never with the address in its text."""
    found: dict[str, str] = {}
    for each in inboxes:
        hide_in(each)
        name, equals, url = each.partition("=")
        if not equals or not url:
            raise BadInput(
                "--inbox takes PARTICIPANT=URL", remedy="Such as inventory=postgresql://db/inventory"
            )
        found[check_participant(name)] = url
    return found
