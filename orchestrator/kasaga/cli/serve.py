"""`kasaga orchestrator` and `kasaga migrate`: what a deployment runs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection
from typing import Literal

import click

from kasaga_wire.logs import LEVELS, LogFormat, configure_logs
from kasaga_wire.redaction import redact
from kasaga_wire.topics import DEFAULT_SHARDS

from .errors import NoDatabase, NoNamespace
from .inputs import load_app
from .session import (
    Command,
    Session,
    database_option,
    kafka_option,
    namespace_option,
    output_option,
    pass_session,
    prefix_option,
)

AWAY_SECONDS = 2.0
"""Between two tries of `migrate --wait` to reach the database."""

log = logging.getLogger("kasaga.cli")

LEVELS_CHOICE = click.Choice(LEVELS, case_sensitive=False)


def log_options(command: Command) -> Command:
    """The options of a command that runs a process."""
    command = click.option(
        "--log-format",
        type=click.Choice(["auto", "text", "json"]),
        envvar="KASAGA_LOG_FORMAT",
        default="auto",
        show_default=True,
        help="auto: text on a terminal, JSON lines elsewhere.",
    )(command)
    level = click.option(
        "--log-level", type=LEVELS_CHOICE, envvar="KASAGA_LOG_LEVEL", default="info", show_default=True
    )
    return level(command)


def tell_strays(*, api: Collection[str] = ()) -> None:
    """Say which variables of this process do nothing: a mistyped one would go unnoticed until it matters."""
    from ..settings import strays

    for name, meant in strays(os.environ, api=api):
        log.warning(f"{name} is no setting and does nothing; the nearest is {meant}")


@click.command()
@click.argument("target", metavar="MODULE:APP")
@click.option(
    "--http-port",
    type=click.IntRange(0, 65535),
    envvar="KASAGA_HTTP_PORT",
    help="/metrics, /live and /ready.",
)
@click.option("--http-host", metavar="HOST", envvar="KASAGA_HTTP_HOST", help="127.0.0.1 by default.")
@log_options
@database_option
@kafka_option
@prefix_option
@pass_session
def orchestrator(
    session: Session,
    target: str,
    http_port: int | None,
    http_host: str | None,
    log_level: str,
    log_format: LogFormat,
) -> None:
    """Run an orchestrator of an App until SIGTERM; run as many as you like, they share the work."""
    from ..orchestrator.process import run
    from ..settings import Settings

    configure_logs(log_format, log_level)
    tell_strays()
    app = load_app(target)
    url = session.setting("database_url")
    if not url:
        raise NoDatabase("no database is named")
    settings = Settings.from_env(
        os.environ,
        database_url=url,
        kafka=session.kafka_settings(),
        topic_prefix=session.setting("topic_prefix"),
        http_port=http_port,
        http_host=http_host,
    )
    run(app, settings)


@click.command()
@click.option(
    "--shards",
    type=click.IntRange(1, 1024),
    default=DEFAULT_SHARDS,
    show_default=True,
    help="Once and for all.",
)
@click.option(
    "--phase",
    type=click.Choice(["pre", "post"]),
    default="post",
    show_default=True,
    help="pre: before a release is rolled out, leaving its post migrations; post: all.",
)
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=0,
    metavar="SECONDS",
    help="For a database that doesn't answer; not at all by default.",
)
@namespace_option
@database_option
@output_option
@pass_session
def migrate(session: Session, shards: int, phase: Literal["pre", "post"], wait: float) -> None:
    """Make the tables, or bring them up to this release. Does nothing where they are."""
    from ..store.migrate import migrate as apply

    url = session.setting("database_url")
    if not url:
        raise NoDatabase("no database is named")
    namespace = session.setting("namespace")
    if not namespace:
        raise NoNamespace(
            "no namespace is named", remedy="Pass --namespace with the App's, or set KASAGA_NAMESPACE"
        )
    out = session.output()
    applied = _patiently(
        lambda: apply(url, namespace=namespace, shards=shards, phase=phase, progress=out.progress),
        wait,
    )
    if out.json:
        out.document({"namespace": namespace, "shards": shards, "applied": applied})
    else:
        out.lines([f"applied {name}" for name in applied] or ["The database is up to date."])


def _patiently(act: Callable[[], list[str]], seconds: float) -> list[str]:
    """Act until the database answers, for so long; then raises StoreUnavailable. Other errors are final."""
    from ..store.errors import StoreUnavailable

    deadline, told = time.monotonic() + seconds, ""
    while True:
        try:
            return act()
        except StoreUnavailable as error:
            if time.monotonic() >= deadline:
                raise
            if error.message != told:
                told = error.message
                click.echo(redact(f"kasaga: waiting: {told}"), err=True)
            time.sleep(AWAY_SECONDS)
