"""Free ports on loopback, for the development servers and for tests.

Not from the system's own range (`bind` to port 0): while a server is down, a client that tries to come back
could be given that very port as its own end, connect to itself, and keep the server from starting again.
"""

from __future__ import annotations

import random
import socket

LOWEST_PORT = 16_000
HIGHEST_PORT = 29_999
TRIES = 200

# Not the module's generator: test runners seed that one, and two runs would draw the same ports.
_chance = random.SystemRandom()


def free_port() -> int:
    """Gives a loopback port that nobody listens on, below the range of outgoing connections."""
    for _ in range(TRIES):
        port = _chance.randint(LOWEST_PORT, HIGHEST_PORT)
        if is_free(port):
            return port
    raise OSError(f"no free port between {LOWEST_PORT} and {HIGHEST_PORT} in {TRIES} tries")


def is_free(port: int) -> bool:
    """Says whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
