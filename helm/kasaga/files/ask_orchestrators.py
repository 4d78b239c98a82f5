"""`helm test`: every shard has an owner, and the owners say so in their metrics.

SERVICE is the orchestrators' headless Service, whose name stands for the addresses of all pods.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import urllib.request

PATIENCE_SECONDS = 60.0
"""After an install the shards are shared in a few seconds; after a node was lost, in some more."""

ANSWER_SECONDS = 5.0
LOOK_SECONDS = 1.0
GAUGE = "kasaga_shards_owned "


def owned(address: str, port: int) -> int:
    """How many shards one orchestrator owns; raises OSError where it doesn't answer."""
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=ANSWER_SECONDS) as page:
        for line in page.read().decode().splitlines():
            if line.startswith(GAUGE):
                return int(float(line.removeprefix(GAUGE)))
    return 0


def look(service: str, port: int) -> tuple[int, str]:
    """How many shards have an owner, and who owns how many, for people."""
    try:
        found = socket.getaddrinfo(service, port, type=socket.SOCK_STREAM)
    except OSError as error:
        return 0, f"{service}: {error}"
    total, said = 0, list[str]()
    for address in sorted({str(each[4][0]) for each in found}):
        try:
            count = owned(address, port)
        except OSError as error:
            said.append(f"{address} doesn't answer: {error}")
        else:
            total += count
            said.append(f"{address} owns {count}")
    return total, ", ".join(said)


def main() -> int:
    """Ask until all shards are owned, or patience is over."""
    service, port, shards = os.environ["SERVICE"], int(os.environ["PORT"]), int(os.environ["SHARDS"])
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        total, said = look(service, port)
        if total == shards or time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    sys.stdout.write(f"{total} of {shards} shards have an owner: {said}\n")
    return 0 if total == shards else 1


if __name__ == "__main__":
    sys.exit(main())
