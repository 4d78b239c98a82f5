"""The two participants of the sagas in `vigil_app`, each in a process of its own, with an inbox.

`python -m bench.vigil_service BOOTSTRAP desk|archive FLAG`: it is over once the file FLAG is there.
"""

from __future__ import annotations

import os
import sys

from bench.vigil_app import Archive, Desk, Seen, Watch
from kasaga_participant import Participant, Tx
from kasaga_wire.kafka import KafkaSettings

OVER = sys.argv[3] if len(sys.argv) > 3 else "over"


def is_over() -> bool:
    """A look at the file's name, which is in memory."""
    return os.path.exists(OVER)


class DeskService(Desk):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def look(self, watch: Watch) -> Seen:
        return Seen(over=is_over())


class ArchiveService(Archive):
    def __init__(self, tx: Tx) -> None:
        self.tx = tx

    async def fetch(self, watch: Watch) -> Seen:
        return Seen(over=True)


def main() -> None:
    """Serve until SIGTERM."""
    service = Participant(
        sys.argv[2],
        database_url=os.environ["DATABASE_URL"],
        kafka=KafkaSettings(sys.argv[1]),
        namespaces=("bench",),
    )
    if sys.argv[2] == "desk":
        service.serve(Desk, DeskService)
    else:
        service.serve(Archive, ArchiveService)
    service.run()


if __name__ == "__main__":
    main()
