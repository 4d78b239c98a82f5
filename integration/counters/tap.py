"""Counts what clients ask of Postgres, on the wire: whoever asks, and whatever he says of it himself.

Station: between a client and the run's server, as a proxy; it understands the protocol's framing, version 3,
without encryption. What is counted was sent before its answer came, so a client that has its answers is
counted whole.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from dataclasses import dataclass

from fix_proxy import TcpProxy

HEAD_BYTES = 5
"""A message's kind and its length; the length counts itself, and the kind not."""

EXECUTE, QUERY, SYNC, READY = b"E", b"Q", b"S", b"Z"
IDLE = b"I"
"""What READY says where no transaction is open."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked so far."""

    statements: int = 0
    """Executed, prepared or not, BEGIN and COMMIT among them."""
    round_trips: int = 0
    """What the client has waited for an answer to: Syncs, and simple queries."""
    transactions: int = 0
    """Ended ones, of one statement or many."""

    def __sub__(self, other: Asked) -> Asked:
        return Asked(
            self.statements - other.statements,
            self.round_trips - other.round_trips,
            self.transactions - other.transactions,
        )


@dataclass(slots=True)
class _Stream:
    """One direction of one connection: what came of a message that isn't whole yet."""

    asks: bool
    rest: bytes = b""
    begun: bool = False
    """The client's first message is passed, which has no kind; the server's first READY: it ends nothing."""

    def messages(self, data: bytes) -> list[tuple[bytes, bytes]]:
        """Kind and body of each message that is whole by now."""
        data, found = self.rest + data, list[tuple[bytes, bytes]]()
        if self.asks and not self.begun and len(data) >= 4:
            length = int.from_bytes(data[:4], "big")
            if len(data) >= length:
                data, self.begun = data[length:], True
        while (self.begun or not self.asks) and len(data) >= HEAD_BYTES:
            end = 1 + int.from_bytes(data[1:HEAD_BYTES], "big")
            if len(data) < end:
                break
            found.append((data[:1], data[HEAD_BYTES:end]))
            data = data[end:]
        self.rest = data
        return found

    def ends(self, kind: bytes, body: bytes) -> bool:
        """Whether an answer says that a transaction has ended."""
        first, self.begun = kind == READY and not self.begun, self.begun or kind == READY
        return kind == READY and body == IDLE and not first


class Tap(TcpProxy):
    """A proxy that counts. Clients have to come unencrypted: `sslmode=disable gssencmode=disable`."""

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self._streams: dict[tuple[int, bool], _Stream] = {}
        self._counts: defaultdict[bytes, int] = defaultdict(int)
        self._counting = threading.Lock()

    @property
    def asked(self) -> Asked:
        """What was asked so far, over all connections."""
        with self._counting:
            counts = self._counts
            return Asked(
                statements=counts[EXECUTE] + counts[QUERY],
                round_trips=counts[SYNC] + counts[QUERY],
                transactions=counts[READY],
            )

    def overhear(self, link: object, data: bytes, *, asks: bool) -> None:
        with self._counting:
            stream = self._streams.setdefault((id(link), asks), _Stream(asks))
            for kind, body in stream.messages(data):
                if kind in (EXECUTE, QUERY, SYNC) if asks else stream.ends(kind, body):
                    self._counts[kind] += 1
