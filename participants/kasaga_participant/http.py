"""`/metrics`, `/live` and `/ready`, for Prometheus and Kubernetes.

Station: started by the app in its event loop, so that a loop that hangs is a process that isn't live.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

MAX_REQUEST_BYTES = 8_192
REQUEST_SECONDS = 5.0
"""How long a client may take to send its request."""

Page = tuple[int, str, bytes]


class HttpServer:
    """Three pages, GET only, one request a connection."""

    def __init__(self, registry: CollectorRegistry, not_ready: Callable[[], str | None]) -> None:
        """`not_ready`: why the process can't work at the moment, None if it can."""
        self._registry = registry
        self._not_ready = not_ready
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; gives the port, which is a free one for 0."""
        self._server = await asyncio.start_server(self._serve, host, port, limit=MAX_REQUEST_BYTES)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            status, kind, body = self._page(head.split(b"\r\n", 1)[0].decode("latin-1"))
            writer.write(
                b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
                % (status, b"OK" if status == 200 else b"No", kind.encode(), len(body))
            )
            writer.write(body)
            await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whatever that was, it was no probe
        finally:
            writer.close()

    def _page(self, request: str) -> Page:
        method, _, rest = request.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method not in ("GET", "HEAD"):
            return 405, "text/plain", b"GET only\n"
        if path == "/metrics":
            return 200, CONTENT_TYPE_LATEST, generate_latest(self._registry)
        if path == "/live":
            return 200, "text/plain", b"live\n"
        if path == "/ready":
            reason = self._not_ready()
            if reason is None:
                return 200, "text/plain", b"ready\n"
            return 503, "text/plain", reason.encode() + b"\n"
        return 404, "text/plain", b"/metrics /live /ready\n"
