"""Committed outbox rows to Kafka, and what Kafka has acknowledged.

The only caller of produce. A row counts as sent when it is acknowledged, for no other reason:
failures are produced again with back-off by the same owner, and a new owner produces again what
the shard's acknowledged position doesn't cover. Duplicates are harmless: every consumer of ours is
idempotent by id.
"""

from __future__ import annotations

import heapq
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from uuid import UUID

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import DeliveryError, QueueFull
from kasaga_wire.kafka import Producer, partition_for

from ..store.base import OutboxRow, RowKind
from . import about
from .claims import FAILURES, LOOK_MICROS, Desk, Written
from .clock import Clock, to_micros
from .shards import Shard

log = logging.getLogger("kasaga.relay")

FIRST_WAIT, LONGEST_WAIT = 100_000, 5_000_000
"""Microseconds before a failed record is produced again."""

ORDER_SLACK = 1000
"""Acknowledged rows kept in a shard's order at most, beside twice those that aren't: one row that no topic
takes must not make it grow for ever."""


FENCE = "~void"
"""How the step of a record ends that is the fence behind a saga that was terminated."""


@dataclass(slots=True)
class _Sent:
    """The rows of one shard that are out and not acknowledged."""

    order: list[int] = field(default_factory=list[int])
    """A heap of sequence numbers, those of rows that are acknowledged by now among them. Rows go out saga by
    saga, so that a batch's aren't sent in the order of their numbers; the lowest that is out counts."""
    rows: dict[int, OutboxRow] = field(default_factory=dict[int, OutboxRow])
    failures: dict[int, int] = field(default_factory=dict[int, int])
    acked: list[int] = field(default_factory=list[int])
    """Acknowledged RECORD rows, to be deleted with the next commit."""
    claims: dict[int, bytes] = field(default_factory=dict[int, bytes])
    """Of rows whose payload is an object: what is sent in its place; empty while that is written."""


class Partitions(Protocol):
    """Says how many partitions a topic has; raises DeliveryError where there is no such topic."""

    def count(self, topic: str) -> int: ...  # noqa: D102


@dataclass(slots=True)
class Refusal:
    """Kafka will never take this command as it is."""

    shard: int
    run_id: UUID
    step: str
    attempt: int
    error: str


class Relay:
    """Of one process. Only the loop's thread uses it; acknowledgements arrive in `poll`."""

    def __init__(
        self,
        make_producer: Callable[[], Producer],
        partitions: Partitions,
        first: Producer | None = None,
        desk: Desk | None = None,
    ) -> None:
        """`first` is a producer that is there already, to begin with; `desk` writes large payloads."""
        self._desk = desk
        self._make_producer = make_producer
        self._producer = first or make_producer()
        self._partitions = partitions
        self._shards: dict[int, _Sent] = {}
        self._later: list[tuple[int, int, int]] = []
        """A heap of (when, shard, seq): delayed rows and rows to be produced again."""
        self._waiting: deque[tuple[int, int]] = deque()
        """Rows that the producer's full queue didn't take."""
        self._flying = 0
        self._to_hand_over = False
        self.refusals: deque[Refusal] = deque()
        self.produced = 0
        self.failed = 0

    @property
    def unacknowledged(self) -> int:
        """Records on their way.

        Those that wait for their time, or for a topic to be there, don't count: they may do so for hours,
        and nothing else may stand still for them.
        """
        return self._flying + len(self._waiting)

    def own(self, shard: int) -> None:
        """Begin to relay for a shard."""
        self._shards[shard] = _Sent()

    def disown(self, shard: int) -> None:
        """Forget a shard's rows; acknowledgements that still come for them are ignored."""
        self._shards.pop(shard, None)

    def send(self, rows: Iterable[OutboxRow], now: int) -> None:
        """Take committed rows: produce them now, or when their `send_at` comes."""
        for row in rows:
            sent = self._shards.get(row.shard)
            if sent is None or row.kind not in (RowKind.COMMAND, RowKind.RECORD):
                continue
            sent.rows[row.seq] = row
            send_at = to_micros(row.send_at) if row.send_at is not None else 0
            if send_at > now:
                heapq.heappush(self._later, (send_at, row.shard, row.seq))
            else:
                if not send_at:
                    heapq.heappush(sent.order, row.seq)
                    if len(sent.order) > 2 * len(sent.rows) + ORDER_SLACK:
                        sent.order = sorted({seq for seq in sent.order if seq in sent.rows})
                self._produce(sent, row)

    def closed(self, shard: int, seq: int) -> None:
        """A command was answered: it needn't be sent any more."""
        sent = self._shards.get(shard)
        if sent is not None:
            sent.rows.pop(seq, None)
            sent.claims.pop(seq, None)

    def acknowledged(self, shard: int, next_row: int) -> int:
        """Return the sequence number up to which everything of a shard is acknowledged.

        `next_row` is the first that wasn't handed in: nothing from there on is acknowledged. Delayed rows
        don't hold it back: a new owner always sends those again.
        """
        sent = self._shards[shard]
        while sent.order and sent.order[0] not in sent.rows:
            heapq.heappop(sent.order)
        return sent.order[0] - 1 if sent.order else next_row - 1

    def settle(self, shards: Sequence[Shard], clock: Clock, seconds: float) -> None:
        """Wait until Kafka has acknowledged what these shards have sent, at most for so many seconds."""
        end = clock.seconds() + seconds
        while any(self.acknowledged(each.number, each.sent_row) < each.sent_row - 1 for each in shards):
            if clock.seconds() >= end:
                return
            clock.wait(threading.Event(), 0.001)
            self.poll(clock.now())

    def take_acked(self, shard: int) -> list[tuple[int, int]]:
        """Return (shard, seq) of acknowledged records to delete with the next commit."""
        sent = self._shards[shard]
        acked, sent.acked = sent.acked, []
        return [(shard, seq) for seq in acked]

    def has_more(self, shard: Shard) -> bool:
        """Say whether Kafka has acknowledged more of a shard than is written down."""
        acked = self._shards[shard.number].acked
        return bool(acked) or self.acknowledged(shard.number, shard.sent_row) != shard.acked_row

    def put_back_acked(self, acked: Iterable[tuple[int, int]]) -> None:
        """The commit that should have deleted them didn't happen."""
        for shard, seq in acked:
            if shard in self._shards:
                self._shards[shard].acked.append(seq)

    def poll(self, now: int) -> None:
        """Serve acknowledgements, produce what is due, and replace a producer that has died."""
        self._hand_over()
        self._producer.poll(0)
        if self._producer.fatal:
            self._replace()
        for made in self._desk.written() if self._desk is not None else ():
            self._written(made)
        for _ in range(len(self._waiting)):
            shard, seq = self._waiting.popleft()
            self._again(shard, seq)
        while self._later and self._later[0][0] <= now:
            _, shard, seq = heapq.heappop(self._later)
            self._again(shard, seq)
        self._hand_over()

    @property
    def next_due(self) -> int | None:
        """When the next delayed row is to be produced, in microseconds."""
        if self._waiting or self._producer.waits:
            return 0
        due = self._later[0][0] if self._later else None
        if self._desk is not None and self._desk.busy:
            soon = self.now() + LOOK_MICROS
            return soon if due is None else min(due, soon)
        return due

    def _hand_over(self) -> None:
        if self._to_hand_over:
            self._to_hand_over = False
            self._producer.hand_over()
            crash_point("orchestrator.after_produce")

    def _again(self, shard: int, seq: int) -> None:
        sent = self._shards.get(shard)
        row = sent.rows.get(seq) if sent is not None else None
        if sent is not None and row is not None:
            self._produce(sent, row)

    def _written(self, made: Written) -> None:
        """Send the claim to an object; where there is none, try again, then let the engine plan it anew."""
        sent = self._shards.get(made.shard)
        if sent is None or sent.rows.get(made.seq) is not made.row:
            return
        if made.claim:
            sent.claims[made.seq] = made.claim
            sent.failures.pop(made.seq, None)
            self._produce(sent, made.row)
            return
        del sent.claims[made.seq]
        tries = sent.failures[made.seq] = sent.failures.get(made.seq, 0) + 1
        if tries < FAILURES or made.row.run_id is None:
            wait = min(FIRST_WAIT * 2 ** min(tries, 10), LONGEST_WAIT)
            heapq.heappush(self._later, (self.now() + wait, made.shard, made.seq))
            return
        row = sent.rows.pop(made.seq)
        sent.failures.pop(made.seq, None)
        extra = {**about.headers(row.headers), "step": row.step, "error": made.error}
        log.warning("the payload of a command can't be written: its attempt has failed", extra=extra)
        self.refusals.append(Refusal(row.shard, made.row.run_id, row.step, row.attempt, made.error))

    def _claim(self, sent: _Sent, row: OutboxRow, desk: Desk) -> bytes:
        """What is sent in place of a large payload; empty: it comes when the object is written."""
        claim = sent.claims.get(row.seq)
        if claim is None:
            claim = sent.claims[row.seq] = b""
            desk.write(row)
        return claim

    def _produce(self, sent: _Sent, row: OutboxRow) -> None:
        payload = row.payload
        if self._desk is not None and self._desk.covers(row):
            payload = self._claim(sent, row, self._desk)
            if not payload:
                return

        def on_ack(error: DeliveryError | None) -> None:
            self._flying -= 1
            if error is None:
                self._acked(sent, row)
            else:
                self._failed(sent, row, error)

        partition = row.partition
        try:
            if partition is None:
                partition = partition_for(row.key or b"-", self._partitions.count(row.topic))
            self._producer.produce(row.topic, partition, row.key, payload, row.headers, on_ack)
            self.produced += 1
            self._flying += 1
            self._to_hand_over = True
        except QueueFull:
            self._waiting.append((row.shard, row.seq))
        except DeliveryError as error:
            self._failed(sent, row, error)

    def _acked(self, sent: _Sent, row: OutboxRow) -> None:
        crash_point("orchestrator.at_ack")
        if sent.rows.pop(row.seq, None) is not None and row.kind is RowKind.RECORD:
            sent.acked.append(row.seq)
        sent.failures.pop(row.seq, None)
        sent.claims.pop(row.seq, None)

    def _failed(self, sent: _Sent, row: OutboxRow, error: DeliveryError) -> None:
        """Produce again with back-off; a command that Kafka refuses for good is the engine's to decide."""
        self.failed += 1
        if row.seq not in sent.rows or self._shards.get(row.shard) is not sent:
            return
        tries = sent.failures[row.seq] = sent.failures.get(row.seq, 0) + 1
        if tries == 1 or tries % 20 == 0:
            log.warning(
                "record not delivered, trying again",
                extra={
                    **about.headers(row.headers),
                    "topic": row.topic,
                    "run_id": str(row.run_id),
                    "step": row.step,
                    "error": str(error),
                    "tries": tries,
                },
            )
        if error.permanent and row.kind is RowKind.COMMAND and row.run_id is not None:
            # The row stays open in the store; the engine's next attempt replaces it.
            sent.rows.pop(row.seq)
            self.refusals.append(Refusal(row.shard, row.run_id, row.step, row.attempt, str(error)))
            return
        if error.permanent and row.kind is RowKind.RECORD and row.step.endswith(FENCE):
            # A fence behind a saga that was terminated: who isn't there can't execute the step either.
            sent.rows.pop(row.seq)
            sent.acked.append(row.seq)
            return
        wait = min(FIRST_WAIT * 2 ** min(tries - 1, 10), LONGEST_WAIT)
        heapq.heappush(self._later, (self.now() + wait, row.shard, row.seq))

    now: Callable[[], int] = staticmethod(lambda: 0)
    """The engine's clock; set by the loop."""

    def _replace(self) -> None:
        """Make a new producer after a fatal error and send all that isn't acknowledged, in order."""
        log.error("the producer has failed for good, making a new one", extra={"error": self._producer.fatal})
        self._producer.close()
        self._producer = self._make_producer()
        for sent in self._shards.values():
            for seq in sorted(set(sent.order)):
                row = sent.rows.get(seq)
                if row is not None:
                    self._produce(sent, row)

    def close(self, timeout: float) -> int:
        """Wait up to `timeout` seconds for acknowledgements; return how many are missing."""
        left = self._producer.flush(timeout)
        self._producer.close()
        return left
