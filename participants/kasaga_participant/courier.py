"""Sends the answers that came later: from the rows of whoever gave them, until Kafka has each.

Station: one task of a process, beside the workers. Any process of a participant sends any row: who takes some
has them for a while, and if it dies another one sends them again, which is harmless.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import psycopg

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.envelope import ReplyEnvelope, ReplyTo
from kasaga_wire.errors import DeliveryError, EnvelopeError
from kasaga_wire.records import NULL_PAYLOAD

from .inbox.late import LateReply
from .inbox.rows import DEFERRED
from .log import Throttle, logger
from .sender import Outgoing

LOOK_SECONDS = 0.5
"""How often answers are looked for. They come from other processes and transactions, which tell nobody."""
TAKEN_SECONDS = 30.0
"""After so long somebody else sends what one has taken and Kafka hasn't acknowledged."""
SLICE = 100
"""Answers in hand at most."""


class Whose(NamedTuple):
    """Which replies a process sends: of these participants, to these topics."""

    participants: Sequence[str]
    topics: Sequence[str]


class LateStore(Protocol):
    """What is needed of a store."""

    async def late_key(self) -> bytes | None:
        """The secret that tokens are made by; None where there are none. Raises psycopg.Error."""
        ...

    async def take_late(self, whose: Whose, seconds: float, limit: int) -> list[LateReply]:
        """Take replies that are due. Raises psycopg.Error."""
        ...

    async def sent_late(self, seqs: Sequence[int]) -> None:
        """Kafka has them. Raises psycopg.Error."""
        ...


class Courier:
    """Of one process, in the event loop."""

    def __init__(
        self,
        store: LateStore,
        whose: Whose,
        post: Callable[[Sequence[Outgoing]], None],
    ) -> None:
        """`post` sends records."""
        self._store = store
        self._whose = whose
        self._post = post
        self._sent: list[int] = []
        self._flying: set[int] = set()
        self._throttle = Throttle(600.0)

    async def run(self) -> None:
        """Send for ever."""
        while True:
            more = False
            try:
                more = await self.turn()
            except psycopg.Error as error:
                if self._throttle.due(type(error).__name__):
                    logger.warning("late answers aren't sent: %s", str(error).strip())
            await asyncio.sleep(0.01 if more else LOOK_SECONDS)

    async def turn(self) -> bool:
        """Forget what is acknowledged and send what is due; gives whether there may be more at once."""
        sent, self._sent = self._sent, []
        try:
            if sent:
                await self._store.sent_late(sent)
        except psycopg.Error:
            self._sent += sent
            raise
        if len(self._flying) >= SLICE:
            return False
        replies = await self._store.take_late(self._whose, TAKEN_SECONDS, SLICE)
        if not replies:
            return bool(self._sent)
        crash_point("participant.late.after_take")
        outgoing = [made for reply in replies if (made := self._outgoing(reply)) is not None]
        self._post(outgoing)
        return True

    def _outgoing(self, reply: LateReply) -> Outgoing | None:
        """The record of a reply; None if it is on its way, or can go nowhere."""
        if reply.seq in self._flying:
            return None
        try:
            to = ReplyTo.parse(reply.reply_to)
        except EnvelopeError as error:
            self._give_up(reply, str(error))
            return None
        envelope = ReplyEnvelope(
            command_id=reply.id,
            attempt=reply.attempt,
            source=f"/kasaga/participants/{reply.participant}",
            time=datetime.now(UTC),
            saga_id=reply.saga_id,
            outcome=reply.outcome,
            traceparent=reply.traceparent,
            tracestate=reply.tracestate,
            suffix=f"d{reply.number}" if reply.outcome == DEFERRED else "r",
        )
        self._flying.add(reply.seq)

        def done() -> None:
            crash_point("participant.late.after_ack")
            self._flying.discard(reply.seq)
            self._sent.append(reply.seq)

        def undeliverable(error: DeliveryError) -> None:
            self._flying.discard(reply.seq)
            self._give_up(reply, str(error))

        payload = NULL_PAYLOAD if reply.payload is None else reply.payload
        key = reply.saga_id.encode()
        return Outgoing(
            to.topic,
            to.partition,
            key,
            payload,
            envelope.to_headers(),
            done,
            undeliverable,
            0,
            time.monotonic(),
        )

    def _give_up(self, reply: LateReply, why: str) -> None:
        """As with any reply that can't be delivered: the saga asks again, and the inbox answers."""
        text = "a late answer of %s can't be delivered to %s: %s"
        logger.error(text, reply.id, reply.reply_to, why)
        self._sent.append(reply.seq)
