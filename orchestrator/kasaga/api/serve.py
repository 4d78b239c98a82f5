"""`kasaga api`: the application under uvicorn, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager

import uvicorn

from ..probes import Probes
from .app import create_app
from .backend import CHECK_SECONDS, Backend
from .errors import CannotListen
from .settings import ApiSettings

log = logging.getLogger("kasaga.api")

GRACE_SECONDS = 10
"""How long requests may go on after SIGTERM; those that wait for a saga are let go at once."""

HANG_SECONDS = 30.0
"""The event loop hasn't turned for so long: /live says no, and the process is to be restarted."""

BACKLOG = 2048


def run(settings: ApiSettings) -> None:
    """Serve until SIGTERM or SIGINT. Raises CannotListen where the address can't be had."""
    listening = listen(settings.host.strip("[]"), settings.port)
    app = create_app(settings)
    backend: Backend = app.state.backend
    # What it tells at `info` is told by ourselves, or is no news.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = Server(config, backend)
    probes = _probes(settings, server, backend)
    log.info("serving", extra={"host": settings.host, "port": listening.getsockname()[1]})
    try:
        server.run(sockets=[listening])
    finally:
        listening.close()
        if probes is not None:
            probes.close()


class Server(uvicorn.Server):
    """uvicorn, which lets go of those who wait when it is to end, and then ends with status 0."""

    def __init__(self, config: uvicorn.Config, backend: Backend) -> None:
        super().__init__(config)
        self._backend = backend
        self._turned = time.monotonic()
        self._running: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Handle signals while serving. uvicorn's own way sends itself the signal again at the end."""
        loop = self._running = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _end(self, number: signal.Signals) -> None:
        log.info("stopping", extra={"signal": number.name})
        self.force_exit = self.should_exit and number is signal.SIGINT
        self.should_exit = True
        self._backend.ends.stop()

    async def on_tick(self, counter: int) -> bool:
        """Note that the event loop turns; ten times a second."""
        self._turned = time.monotonic()
        return await super().on_tick(counter)

    def live(self) -> tuple[bool, dict[str, object]]:
        """Say whether the event loop turns. Called by the probes' threads."""
        quiet = time.monotonic() - self._turned
        return quiet < HANG_SECONDS, {"quiet_seconds": round(quiet, 3)}

    def ready(self) -> tuple[bool, dict[str, object]]:
        """Say whether requests can be served. Called by the probes' threads."""
        if not self.started or self._running is None or self.should_exit:
            return False, {"reason": "stopping" if self.should_exit else "starting"}
        asked = asyncio.run_coroutine_threadsafe(self._backend.ready(), self._running)
        try:
            return asked.result(CHECK_SECONDS * 2)
        except TimeoutError:
            asked.cancel()
            return False, {"reason": "the event loop doesn't answer"}


def _probes(settings: ApiSettings, server: Server, backend: Backend) -> Probes | None:
    if settings.http_port is None:
        return None
    port = settings.http_port
    with _listening(settings.http_host, port):
        probes = Probes(settings.http_host, port, backend.metrics.registry, server.live, server.ready)
    log.info("probes and metrics", extra={"host": settings.http_host, "port": probes.port})
    return probes


def listen(host: str, port: int) -> socket.socket:
    """Bind before anything else begins, so that an address in use ends the process at once."""
    with _listening(host, port):
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


@contextmanager
def _listening(host: str, port: int) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise CannotListen(f"{host}, port {port}, can't be listened at: {error.strerror}") from None
