"""`kasaga dev`: everything that a saga needs, on this machine, from nothing."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from types import FrameType

import click

from kasaga_wire.topics import DEFAULT_SHARDS

from .inputs import check_module, load_app
from .session import Session, database_option, kafka_option, pass_session, prefix_option


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "--with",
    "services",
    multiple=True,
    metavar="MODULE",
    help="Run `python -m MODULE` too, with a database of its own as DATABASE_URL and KASAGA_DATABASE_URL.",
)
@click.option("--fresh", is_flag=True, help="Throw away what earlier runs have kept.")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    default=0,
    help="/metrics, /live and /ready; any by default.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 1024),
    default=DEFAULT_SHARDS,
    show_default=True,
    help="Of a fresh database.",
)
@click.option("--reload/--no-reload", default=True, help="Start processes anew when code changes.")
@database_option
@kafka_option
@prefix_option
@pass_session
def dev(
    session: Session,
    target: str,
    services: tuple[str, ...],
    fresh: bool,
    http_port: int,
    shards: int,
    reload: bool,
) -> None:
    """Run an App here: a real Kafka, a real Postgres, an orchestrator, and your services.

    What they keep lies in .kasaga/ and is there again next time. KASAGA_DATABASE_URL and
    KASAGA_KAFKA_BOOTSTRAP_SERVERS name real servers instead. Ctrl-C ends everything.
    """
    from .dev_run import DevRun

    app = load_app(target)
    for module in services:
        check_module(module)
    signal.signal(signal.SIGTERM, _interrupt)
    with (
        DevRun(
            session,
            app,
            target,
            services=services,
            http_port=http_port,
            shards=shards,
            directory=Path(".kasaga").absolute(),
        ) as run,
        contextlib.suppress(KeyboardInterrupt),
    ):  # the way to end it
        run.begin(fresh=fresh)
        run.watch(reload=reload)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
