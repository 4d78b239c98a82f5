"""`kasaga patches`: whether any running saga still needs the old branch of a patch."""

from __future__ import annotations

import click

from kasaga_wire.codec import Schemas

from ..gate import History
from ..gate.patches import Branches, stand, unended
from ..orchestrator.watchdog import Watchdog
from .errors import BadInput, Unexpected
from .inputs import load_app
from .output import tell
from .replay import CANNOT_RUN, KILL_SECONDS, MAX_PAYLOAD, STEP_SECONDS
from .session import Session, database_option, output_option, pass_session


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.option(
    "--running",
    type=click.IntRange(1, 10_000_000),
    default=100_000,
    show_default=True,
    help="Look at so many sagas that haven't ended, at most.",
)
@database_option
@output_option
@pass_session
def patches(session: Session, target: str, running: int) -> int:
    """Say of each `ctx.patched` of an App which sagas that haven't ended stand on its old branch.

    Replays them on the code, and writes nothing. Exit status: 0 none is on an old branch, 1 some are or it
    can't be told of some, 2 it couldn't be tried.
    """
    out = session.output()
    watchdog = Watchdog(limit=STEP_SECONDS, kill_after=KILL_SECONDS)
    try:
        app = load_app(target)
        schemas = Schemas()
        defs = app.definitions(schemas, max_payload=MAX_PAYLOAD)
        found = Branches()
        with session.reader() as store:
            namespace = store.namespace().name
            if namespace != app.namespace:
                raise BadInput(
                    f"the database is of namespace {namespace!r}, the App of {app.namespace!r}",
                    remedy="Name the App's own database",
                )
            for text in store.schemas().values():
                schemas.add(text)
            watchdog.start()
            try:
                for row in unended(store, frozenset(app.sagas), running + 1):
                    if found.sagas == running:
                        found.more = True
                        break
                    found.add(stand(defs, History.of(store, row), watchdog.guard))
            finally:
                watchdog.stop()
    except Exception as error:  # noqa: BLE001 (whatever it is, a script must not take it for "none")
        tell(error, Unexpected)
        return CANNOT_RUN
    if out.json:
        out.document(found.document())
    else:
        out.lines(found.lines())
    return 0 if found.retired else 1
