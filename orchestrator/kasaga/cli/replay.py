"""`kasaga replay` and `kasaga export`: real histories on new code, before it is deployed."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click

from kasaga_wire.codec import Schemas

from ..engine.run import Definitions
from ..gate import Choice, History, Tally, choose, judge, read_file, write_file
from ..lookup import find
from ..orchestrator.watchdog import Watchdog
from ..saga import App
from ..store.base import Store
from .errors import BadInput, Unexpected
from .inputs import load_app
from .output import Output, tell
from .session import Session, database_option, output_option, pass_session

CANNOT_RUN = 2
"""Exit status: nothing is known of the new code. 1 says that it differs."""

STEP_SECONDS = 5.0
"""How long a saga's code may run between two awaits: machines that test are slower than those that serve."""

KILL_SECONDS = 60.0
"""A saga that blocks in C for so long ends the process: nothing else could."""

SHOW_SECONDS = 0.25

MAX_PAYLOAD = 900_000

_SAMPLE = click.option(
    "--sample",
    type=click.IntRange(0, 10_000),
    default=100,
    show_default=True,
    help="So many finished sagas of each definition.",
)
_RUNNING = click.option(
    "--running",
    type=click.IntRange(0, 100_000),
    default=1_000,
    show_default=True,
    help="So many sagas that haven't ended, at most.",
)


@click.command()
@click.argument("target", metavar="MODULE[:APP]")
@click.option("--from-db", is_flag=True, help="Histories of the database (KASAGA_DATABASE_URL).")
@click.option(
    "--file", "path", metavar="FILE", help="Histories that `kasaga export` has written; - for stdin."
)
@_SAMPLE
@_RUNNING
@click.option(
    "--max-payload-bytes",
    type=click.IntRange(1),
    default=MAX_PAYLOAD,
    envvar="KASAGA_MAX_PAYLOAD_BYTES",
    show_default=True,
    help="As the orchestrators have it.",
)
@database_option
@output_option
@pass_session
def replay(
    session: Session,
    target: str,
    from_db: bool,
    path: str | None,
    sample: int,
    running: int,
    max_payload_bytes: int,
) -> int:
    """Replay real histories on an App's code, and say which of them it would not go on with.

    Exit status: 0 all are the same, 1 some need a patch or break, 2 it couldn't be tried. Writes nothing.
    """
    if from_db == bool(path):
        raise click.UsageError("name one: --from-db, or --file FILE")
    out = session.output()
    try:
        app = load_app(target)
        schemas = Schemas()
        defs = app.definitions(schemas, max_payload=max_payload_bytes)
        with ExitStack() as stack:
            if path:
                histories = _of_file(stack, path, schemas)
            else:
                store = stack.enter_context(session.reader())
                choice = Choice(running, sample, frozenset(app.sagas))
                histories = _of_store(session, store, app, schemas, choice)
            tally = replay_all(defs, histories, out)
    except Exception as error:  # noqa: BLE001 (whatever it is, CI must not take it for a difference)
        tell(error, Unexpected)
        return CANNOT_RUN
    if out.json:
        out.document(tally.document())
    else:
        out.lines(tally.lines(out.paint))
    return 0 if tally.same else 1


def replay_all(defs: Definitions, histories: Iterator[History], out: Output) -> Tally:
    """Replay one after the other."""
    tally, shown = Tally(), time.monotonic()
    watchdog = Watchdog(limit=STEP_SECONDS, kill_after=KILL_SECONDS)
    watchdog.start()
    try:
        for history in histories:
            tally.add(judge(defs, history, watchdog.guard))
            if time.monotonic() - shown > SHOW_SECONDS:
                shown = time.monotonic()
                out.progress(f"{tally.histories} histories: {history.name} {history.saga_id}")
    finally:
        watchdog.stop()
        out.clear()
    return tally


@click.command()
@click.argument("saga_ids", nargs=-1, metavar="[SAGA_ID]…")
@_SAMPLE
@_RUNNING
@database_option
@pass_session
def export(session: Session, saga_ids: tuple[str, ...], sample: int, running: int) -> None:
    """Write histories to the standard output, for `kasaga replay --file`: these, or as `replay` chooses.

    They hold the sagas' payloads, which are other people's data.
    """
    file = sys.stdout.buffer
    if file.isatty():
        raise BadInput("histories are for files", remedy="Write `kasaga export > histories.jsonl`")
    out = session.output()
    with session.reader() as store:
        chosen: Iterator[History]
        if saga_ids:
            chosen = (History.of(store, find(store, saga_id)) for saga_id in saga_ids)
        else:
            chosen = choose(store, Choice(running, sample), session.now())
        count = write_file(file, store.schemas().values(), _showing(chosen, out))
    file.flush()
    out.note(f"{count} histories")


def _showing(histories: Iterator[History], out: Output) -> Iterator[History]:
    shown = time.monotonic()
    for count, history in enumerate(histories, 1):
        if time.monotonic() - shown > SHOW_SECONDS:
            shown = time.monotonic()
            out.progress(f"{count} histories")
        yield history
    out.clear()


def _of_file(stack: ExitStack, path: str, schemas: Schemas) -> Iterator[History]:
    if path == "-":
        return read_file(sys.stdin.buffer, "stdin", schemas)
    try:
        file = Path(path).open("rb")  # noqa: SIM115 (the stack closes it)
    except OSError as error:
        raise BadInput(
            f"{path} can't be read: {error.strerror}", remedy="Name a file that you may read"
        ) from None
    stack.callback(file.close)
    return read_file(file, Path(path).name, schemas)


def _of_store(
    session: Session, store: Store, app: App, schemas: Schemas, choice: Choice
) -> Iterator[History]:
    namespace = store.namespace().name
    if namespace != app.namespace:
        raise BadInput(
            f"the database is of namespace {namespace!r}, the App of {app.namespace!r}",
            remedy="Name the App's own database",
        )
    for text in store.schemas().values():
        schemas.add(text)
    return choose(store, choice, session.now())
