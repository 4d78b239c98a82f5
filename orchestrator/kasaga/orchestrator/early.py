"""Signals that came before their saga began: kept in the outbox, in the shard's order, until it does.

Starts and signals are two topics, so one may be read long before the other, and nobody has to ask for an
answer. Such a signal is a row of kind TIMER without a run, which owners of older releases leave alone; it
is due when it is given up. `Decider` writes the rows; they come back as items when the saga begins, when
the shard has a new owner, and when their time is over. A row is deleted by the commit that records its
signal, or makes it a dead letter.
"""

from __future__ import annotations

from collections.abc import Iterator

from kasaga_wire.kafka import Record

from ..errors import MailboxFull
from ..store.base import OutboxRow, RowKind
from .clock import to_datetime, to_micros
from .intake import Intake, Item
from .shards import Shard

KEEP_MICROS = 24 * 3600 * 1_000_000
"""How long a signal waits for its saga to begin, where it doesn't say."""

MAX_KEPT = 100
"""Signals that wait for one saga to begin."""

MAX_KEPT_OF_SHARD = 10_000
"""And for all sagas of a shard: their rows are in memory."""

LOOK_MICROS = 10_000_000
"""Between two looks for those whose time is over."""


def is_kept(row: OutboxRow) -> bool:
    """Whether a row is such a signal."""
    return row.kind is RowKind.TIMER and row.run_id is None


def may_be_old(shard: Shard, item: Item) -> bool:
    """Whether something was sent before this ownership.

    Then its sender may have been told that it was accepted, by a Postgres that has lost it since, together
    with its saga: whose start is about to be read again.
    """
    return item.source is not None and item.source.offset < shard.backlog


def no_room(shard: Shard, saga_id: str) -> MailboxFull | None:
    """Say that too many wait already, or return None."""
    if len(shard.kept.get(saga_id, ())) >= MAX_KEPT:
        return MailboxFull(f"{MAX_KEPT} signals wait for saga {saga_id} to begin, which is the most")
    if sum(map(len, shard.kept.values())) >= MAX_KEPT_OF_SHARD:
        return MailboxFull("too many signals wait for sagas to begin")
    return None


def row_of(item: Item, record: Record, seq: int, shard: int, now: int) -> OutboxRow:
    """The row that keeps a signal."""
    headers = [(name, value) for name, value in record.headers if value is not None and name != "ce_replyto"]
    due = to_datetime(now + (KEEP_MICROS if item.keep_for is None else item.keep_for))
    key = item.saga_id.encode()
    return OutboxRow(
        shard, seq, RowKind.TIMER, None, "", record.topic, None, key, headers, record.value, 1, None, due
    )


def items(intake: Intake, rows: list[OutboxRow]) -> Iterator[Item]:
    """The signals of rows as they are decided. Whoever sent one has been told already that it is kept."""
    for row in rows:
        record = Record(row.topic, row.shard, -1, row.key, row.payload, list(row.headers), 0)
        for found in intake.read([record], 0):
            if isinstance(found, Item):
                yield found._replace(kept=row)


def due(shard: Shard, now: int) -> list[OutboxRow]:
    """The rows to be looked at now: all of a shard that was just taken, later those whose time is over."""
    if now < shard.kept_look:
        return []
    first, shard.kept_look = not shard.kept_look, now + LOOK_MICROS
    rows = [row for kept in shard.kept.values() for row in kept]
    return [row for row in rows if first or is_over(row, now)]


def is_over(row: OutboxRow, now: int) -> bool:
    """Whether a signal has waited for long enough."""
    return row.due_at is None or to_micros(row.due_at) <= now
