"""What a batch must fulfil before anything of it is written, and what content Postgres would refuse.

Station: both stores check each batch; only `memory` asks for refusals, to refuse what Postgres does.
"""

from __future__ import annotations

from collections.abc import Mapping

from kasaga.store.base import Batch, OutboxRow, SagaWrite
from kasaga.store.errors import BadBatch

_INT4 = 2**31
_INT8 = 2**63


def check_batch(batch: Batch) -> None:
    """Raise BadBatch where a batch names a shard or a run twice, or writes what its fence doesn't guard."""
    fenced = {write.shard: write.next_seq for write in batch.shards}
    if len(fenced) != len(batch.shards) or not fenced:
        raise BadBatch("a batch names each of its shards once, and at least one")
    for entry in batch.shards:
        offsets = entry.offsets
        numbers = (entry.acked_seq, entry.next_seq, offsets.sagas, offsets.replies, offsets.control)
        if refusal_of_number(_INT8, *numbers) is not None:
            raise BadBatch(f"what the batch says of shard {entry.shard} is out of range")
        if entry.suspect is not None and refusal_of_text(entry.suspect.place) is not None:
            raise BadBatch(f"the place of shard {entry.shard}'s suspect is no text that Postgres takes")
    if len({write.run_id for write in batch.sagas}) != len(batch.sagas):
        raise BadBatch("a batch has at most one SagaWrite for a run")
    for write in batch.sagas:
        _check_write(write, fenced)
    for row in batch.loose:
        if row.shard not in fenced or row.seq >= fenced[row.shard]:
            raise BadBatch(f"loose row {row.shard}/{row.seq}: shard not fenced, or not below next_seq")
    if not fenced.keys() >= {shard for shard, _ in batch.acked}:
        raise BadBatch("acknowledged rows are of shards that the batch doesn't fence")


def _check_write(write: SagaWrite, fenced: Mapping[int, int]) -> None:
    shard = write.shard
    if shard not in fenced:
        raise BadBatch(f"run {write.run_id} is of shard {shard}, which the batch doesn't fence")
    saga = write.saga
    if saga is not None and (saga.shard != shard or saga.run_id != write.run_id):
        raise BadBatch(f"run {write.run_id} carries the summary of another saga")
    for row in write.opens:
        if row.shard != shard or row.seq >= fenced[shard]:
            raise BadBatch(f"run {write.run_id}: outbox row {row.shard}/{row.seq} isn't below next_seq")


def refusal_of_text(*texts: str | None) -> str | None:
    """Return why Postgres would refuse one of these texts, or None."""
    for text in texts:
        if text is None:
            continue
        if "\x00" in text:
            return "22021 invalid byte sequence for encoding: 0x00"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return f"can't be encoded: {error}"
    return None


def refusal_of_number(bound: int, *numbers: int | None) -> str | None:
    """Return why a number doesn't fit its column, or None."""
    if all(number is None or -bound <= number < bound for number in numbers):
        return None
    return "can't be encoded: a number is out of range"


def refusal_of_row(row: OutboxRow) -> str | None:
    """Return why Postgres would refuse an outbox row for its content, or None."""
    return (
        refusal_of_text(row.step, row.topic)
        or refusal_of_number(_INT8, row.seq)
        or refusal_of_number(_INT4, row.attempt, row.partition)
    )


def refusal_of_write(write: SagaWrite) -> str | None:
    """Return why Postgres would refuse a saga's rows for their content, or None."""
    for entry in write.history:
        refusal = refusal_of_text(entry.kind, entry.step) or refusal_of_number(_INT4, entry.seq)
        if refusal is not None:
            return refusal
    for row in write.opens:
        refusal = refusal_of_row(row)
        if refusal is not None:
            return refusal
    saga = write.saga
    if saga is None:
        return None
    texts = [saga.step, saga.code, saga.reason, saga.remedy, saga.parked_code]
    if write.new:  # a change leaves these as they are, and isn't asked for them
        texts += [saga.saga_id, saga.name]
    return refusal_of_text(*texts) or refusal_of_number(_INT4, saga.version)
