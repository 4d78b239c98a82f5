"""`kasaga drill`: would the compensations of sagas that went well have worked?"""

from __future__ import annotations

import time
from contextlib import ExitStack
from datetime import datetime
from uuid import uuid4

import click

from kasaga_wire.kafka import Admin, KafkaSettings
from kasaga_wire.topics import DRILL_PREFIX, Topics

from ..audit.walk import Pace
from ..client.link import KafkaLink
from ..drill.choose import newest, undos, within
from ..drill.line import Line
from ..drill.tally import Tally
from ..lookup import stored_schemas
from ..saga import App
from ..store.base import Store
from .errors import BadInput, Unexpected
from .inputs import load_app, when
from .output import Output, tell
from .session import Session, database_option, kafka_option, output_option, pass_session, prefix_option

CANNOT_RUN = 2
"""Exit status: nothing was tried, or not to the end."""

SHOW_SECONDS = 0.25


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--name", default="", metavar="SAGA", help="Sagas of this name alone.")
@click.option(
    "--sample",
    type=click.IntRange(1, 10_000),
    default=20,
    show_default=True,
    help="So many COMPLETED sagas of each definition.",
)
@click.option("--since", type=when, metavar="TIME", help="Of those that ended after this; of all by default.")
@click.option(
    "--rate", type=click.FloatRange(0.1), default=20.0, show_default=True, help="Undos a second, at most."
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    help="Seconds that a participant has for one undo.",
)
@prefix_option
@kafka_option
@database_option
@output_option
@pass_session
def drill(
    session: Session,
    target: str,
    name: str,
    sample: int,
    since: datetime | None,
    rate: float,
    timeout: float,
) -> int:
    """Run the compensations of sagas that went well on participants in drill mode, which take all of it back.

    These are started with KASAGA_DRILL=1; topics and ids are the drill's own, so that no saga notices.

    Exit status: 0 all would work, 1 some wouldn't, 2 it couldn't be tried, 4 a participant didn't answer.
    """
    out, tally = session.output(), Tally()
    try:
        app = load_app(target)
        definitions = frozenset(each for each in app.sagas if not name or each[0] == name)
        if not definitions:
            raise BadInput(f"the App has no saga {name!r}", remedy="Name one that it has")
        with ExitStack() as stack:
            store = stack.enter_context(session.reader())
            if since is None:
                rows = newest(store, definitions, sample, session.now())
            else:
                ends = stack.enter_context(session.ends())
                rows = within(ends, store, definitions, (since, session.now()), sample)
            line = _open(session, stack, store, app, rate, timeout)
            shown = time.monotonic()
            for outcome in line.run(undos(store, rows, app.contracts, stored_schemas(store))):
                tally.add(outcome)
                if time.monotonic() - shown > SHOW_SECONDS:
                    shown = time.monotonic()
                    out.progress(
                        f"{tally.total} compensations: {outcome.undo.type} of {outcome.undo.saga_id}"
                    )
            out.clear()
    except Exception as error:  # noqa: BLE001 (whatever it is, nobody must take it for a compensation's)
        tell(error, Unexpected)
        return CANNOT_RUN
    _tell(out, tally)
    return tally.status


def _tell(out: Output, tally: Tally) -> None:
    if out.json:
        out.document(tally.document())
    else:
        out.lines(tally.lines())


def _open(session: Session, stack: ExitStack, store: Store, app: App, rate: float, timeout: float) -> Line:
    namespace = store.namespace().name
    if namespace != app.namespace:
        raise BadInput(
            f"the database is of namespace {namespace!r}, the App of {app.namespace!r}",
            remedy="Name the App's own database",
        )
    settings = session.kafka_settings()
    topics = Topics(namespace, f"{session.setting('topic_prefix')}{DRILL_PREFIX}")
    _make_topics(settings, topics)
    link = KafkaLink(settings, topics, f"drill-{uuid4()}", starts=False)
    stack.callback(link.close)
    line = Line(link, topics, _Partitions(settings), Pace(rate), timeout, session.sealer())
    line.open(app.contracts)
    return line


def _make_topics(settings: KafkaSettings, topics: Topics) -> None:
    """The drill's own topics for answers and schemas; those of commands are made by who serves them."""
    admin = Admin(settings)
    try:
        wanted = (topics.answers, topics.schemas)
        admin.ensure_topics([spec for spec in topics.orchestrator_specs() if spec.name in wanted])
    finally:
        admin.close()


class _Partitions:
    """How many partitions topics have; asked again while one is missing."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._known: dict[str, int] = {}

    def __call__(self, topic: str) -> int:
        if not self._known.get(topic):
            admin = Admin(self._settings)
            try:
                self._known[topic] = admin.partitions([topic]).get(topic, 0)
            finally:
                admin.close()
        return self._known[topic]
