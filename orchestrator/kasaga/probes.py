"""A small HTTP server of the process itself: /metrics, /live and /ready.

Station: of an orchestrator, and of the HTTP API beside its own port.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest

Check = Callable[[], tuple[bool, dict[str, object]]]
"""Returns whether all is well, and what to show."""


SLOW_CLIENT_SECONDS = 10.0
"""For which a client may take to ask: each has a thread until then."""


class _IPv6Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6


class Probes:
    """Serves in a thread of its own.

    /live says whether the process's loop turns; /ready whether Postgres and Kafka answer it. A lost database
    makes the process unready and never dead: ending it would help nobody.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry, live: Check, ready: Check) -> None:
        """Bind; port 0 takes any free one. Raises OSError."""

        class Handler(BaseHTTPRequestHandler):
            timeout = SLOW_CLIENT_SECONDS

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    self._say(200, "text/plain; version=0.0.4; charset=utf-8", generate_latest(registry))
                elif path in ("/live", "/ready"):
                    well, about = (live if path == "/live" else ready)()
                    self._say(200 if well else 503, "application/json", json.dumps(about).encode())
                else:
                    self._say(404, "text/plain", b"there are /metrics, /live and /ready\n")

            def _say(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Probes come every few seconds: no log of them."""

        kind = _IPv6Server if ":" in host else ThreadingHTTPServer
        self._server = kind((host.strip("[]"), port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="kasaga-probes", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop to serve."""
        self._server.shutdown()
        self._server.server_close()
