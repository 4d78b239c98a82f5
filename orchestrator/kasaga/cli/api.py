"""`kasaga api`: the HTTP API, a process of its own; run as many as you like."""

from __future__ import annotations

import os

import click

from kasaga_wire.logs import LogFormat, configure_logs

from .errors import NoDatabase, NotInstalled
from .serve import log_options, tell_strays
from .session import (
    Session,
    database_option,
    kafka_option,
    namespace_option,
    pass_session,
    prefix_option,
)


@click.command()
@click.option(
    "--host", metavar="HOST", help="127.0.0.1 by default; any other asks for KASAGA_API_TOKEN_FILE."
)
@click.option("--port", type=click.IntRange(0, 65535), help="8080 by default; 0 for any.")
@click.option(
    "--http-port", type=click.IntRange(0, 65535), help="/metrics, /live and /ready on a port of their own."
)
@click.option("--http-host", metavar="HOST", help="Where that port is; 127.0.0.1 by default.")
@log_options
@namespace_option
@database_option
@kafka_option
@prefix_option
@pass_session
def api(
    session: Session,
    host: str | None,
    port: int | None,
    http_port: int | None,
    http_host: str | None,
    log_level: str,
    log_format: LogFormat,
) -> None:
    """Serve the HTTP API of a namespace until SIGTERM. Needs the extra `kasaga[api]`."""
    try:
        from ..api.serve import run
        from ..api.settings import ApiSettings, api_variable
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name == "kasaga":
            raise
        raise NotInstalled(f"{name} isn't installed") from None
    configure_logs(log_format, log_level)
    tell_strays(api=[api_variable(name) for name in ApiSettings.model_fields if name != "kafka"])
    url = session.setting("database_url")
    if not url:
        raise NoDatabase("no database is named")
    settings = ApiSettings.from_env(
        os.environ,
        database_url=url,
        kafka=session.kafka_settings(),
        namespace=session.setting("namespace"),
        topic_prefix=session.setting("topic_prefix"),
        host=host,
        port=port,
        http_host=http_host,
        http_port=http_port,
    )
    run(settings)
