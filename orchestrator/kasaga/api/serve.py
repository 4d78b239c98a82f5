"""`kasaga api`: the application under uvicorn, until SIGTERM."""

from __future__ import annotations

import logging
import socket

import uvicorn

from .app import create_app
from .settings import ApiSettings

log = logging.getLogger("kasaga.api")

GRACE_SECONDS = 10
"""How long requests may go on after SIGTERM."""

BACKLOG = 2048


def run(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError where the address can't be had."""
    listening = _listen(settings.host.strip("[]"), settings.port)
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    log.info("serving", extra={"host": settings.host, "port": listening.getsockname()[1]})
    uvicorn.Server(config).run(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    """Bind before anything else begins, so that an address in use ends the process at once."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(BACKLOG)
    except BaseException:
        made.close()
        raise
    return made
