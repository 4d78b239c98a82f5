"""A batch as statements, and what becomes of content that the database refuses.

Station: `postgres.PostgresStore.commit` calls `Commit(…).write()`. The fence is the first statement, then a
set-based statement for each table that the batch touches. Where the database refuses content, trials that
are rolled back find the sagas that it comes from; their replacements go into the same one transaction as the
rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import psycopg

from kasaga.store import terms
from kasaga.store.base import (
    REPLACEMENT_TRIES,
    Batch,
    Committed,
    HistoryRow,
    OutboxRow,
    Replace,
    SagaRow,
    SagaWrite,
)
from kasaga.store.encode import UNENCODABLE, from_microseconds, pack_headers
from kasaga.store.errors import BadBatch, ContentRefused, LostShards
from kasaga.store.sealed import seal_body, seal_result
from kasaga.store.session import Session
from kasaga.store.statements import Call, read_statements
from kasaga_wire.attributes import merged
from kasaga_wire.sealing import PLAIN, Sealer

_SQL = read_statements("commit")
_REFUSED = frozenset({"22", "23", "54"})
"""SQLSTATE classes of content: bad data, broken constraint, too much of something."""
_LOST, _COMMITTED_BEFORE, _TRIAL = "KSG01", "KSG02", "KSG03"

Key: TypeAlias = tuple[int, UUID, int]
"""What tells a shard's part of a batch from all others: shard, token, commit number."""


class _Refused(Exception):
    """The database, or the encoding, refused content; the message says why."""


class _CommittedBefore(Exception):
    """The fence found this very batch committed."""


@dataclass(slots=True)
class Replaced:
    """What was replaced in a batch whose fate is unknown: if it is committed, then like this.

    By shard, because the batch may come back without the shards that were lost meanwhile.
    """

    writes: dict[UUID, tuple[Key, SagaWrite, str]] = field(
        default_factory=dict[UUID, tuple[Key, SagaWrite, str]]
    )
    dropped: list[tuple[Key, OutboxRow, str]] = field(default_factory=list[tuple[Key, OutboxRow, str]])

    def keep(self, keys: Set[Key]) -> None:
        """Forget what belongs to other commits than these."""
        if self.writes or self.dropped:
            self.writes = {run_id: entry for run_id, entry in self.writes.items() if entry[0] in keys}
            self.dropped = [entry for entry in self.dropped if entry[0] in keys]


def calls_for(
    batch: Batch, sagas: Sequence[SagaWrite], loose: Sequence[OutboxRow], sealer: Sealer = PLAIN
) -> list[Call]:
    """Return the batch's statements with only these sagas and loose rows; raises one of UNENCODABLE."""
    calls = [_fence(batch), *_suspects(batch)]
    history = [(write.shard, write.run_id, row) for write in sagas for row in write.history]
    if history:
        calls.append(_insert_history(history, sealer))
    new = [write.saga for write in sagas if write.new and write.saga is not None]
    if new:
        calls.append(_insert_sagas(new, sealer))
    changed = [write.saga for write in sagas if not write.new and write.saga is not None]
    if changed:
        calls.append(_update_sagas(changed, sealer))
    named = [write for write in sagas if write.attributes]
    if named:
        calls.extend(_attributes(named))
    frees = [(write.run_id, key) for write in sagas for key in write.frees]
    if frees:
        calls.append(_SQL["free"].bind(*zip(*frees, strict=True)))
    opens = [row for write in sagas for row in write.opens]
    opens.extend(loose)
    if opens:
        calls.append(_insert_outbox(opens))
    closes = [(write.shard, seq) for write in sagas for seq in write.closes]
    closes.extend(batch.acked)
    if closes:
        shards, seqs = zip(*closes, strict=True)
        calls.append(_SQL["delete_outbox"].bind(shards, seqs))
    return calls


def _fence(batch: Batch) -> Call:
    shards = sorted(batch.shards, key=lambda write: write.shard)
    return _SQL["fence"].bind(
        [s.shard for s in shards],
        [s.token for s in shards],
        [s.commit_seq for s in shards],
        [s.offsets.sagas for s in shards],
        [s.offsets.replies for s in shards],
        [s.offsets.control for s in shards],
        [s.acked_seq for s in shards],
        [s.next_seq for s in shards],
        [s.now for s in shards],
        [s.suspect.run_id if s.suspect is not None else None for s in shards],
        [s.traced for s in shards],
    )


def _suspects(batch: Batch) -> Iterator[Call]:
    """Only in suspect mode are there any."""
    for write in batch.shards:
        if write.acquitted is not None:
            yield _SQL["acquit"].bind(write.shard, write.acquitted)
        if write.suspect is not None and write.suspect.place:
            yield _SQL["note_place"].bind(write.shard, write.commit_seq, write.suspect.place)


def _insert_history(history: list[tuple[int, UUID, HistoryRow]], sealer: Sealer) -> Call:
    shards, runs, rows = zip(*history, strict=True)
    return _SQL["insert_history"].bind(
        shards,
        runs,
        [row.seq for row in rows],
        [row.at for row in rows],
        [row.kind for row in rows],
        [row.step for row in rows],
        [row.body for row in rows]
        if sealer is PLAIN
        else [seal_body(sealer, run, row) for _, run, row in history],
    )


def _insert_sagas(rows: list[SagaRow], sealer: Sealer) -> Call:
    return _SQL["insert_sagas"].bind(
        [row.shard for row in rows],
        [row.run_id for row in rows],
        [row.saga_id for row in rows],
        [row.name for row in rows],
        [row.version for row in rows],
        [row.state for row in rows],
        [row.input_hash for row in rows],
        [row.started_at for row in rows],
        [row.updated_at for row in rows],
        [row.ended_at for row in rows],
        [row.step for row in rows],
        [row.code for row in rows],
        [row.reason for row in rows],
        [row.remedy for row in rows],
        [row.with_exceptions for row in rows],
        [row.parked_code for row in rows],
        [seal_result(sealer, row) for row in rows],
        [row.base for row in rows],
    )


def _update_sagas(rows: list[SagaRow], sealer: Sealer) -> Call:
    return _SQL["update_sagas"].bind(
        [row.shard for row in rows],
        [row.run_id for row in rows],
        [row.version for row in rows],
        [row.state for row in rows],
        [row.updated_at for row in rows],
        [row.ended_at for row in rows],
        [row.step for row in rows],
        [row.code for row in rows],
        [row.reason for row in rows],
        [row.remedy for row in rows],
        [row.with_exceptions for row in rows],
        [row.parked_code for row in rows],
        [seal_result(sealer, row) for row in rows],
        [row.base for row in rows],
    )


def _attributes(writes: Sequence[SagaWrite]) -> Iterator[Call]:
    """What is there goes first, by name; a new saga has nothing."""
    gone = [
        (write.shard, write.run_id, terms.prefix(name))
        for write in writes
        if not write.new
        for name in write.attributes or ()
    ]
    if gone:
        yield _SQL["change_attributes"].bind(*zip(*gone, strict=True))
    come = [
        (write.shard, write.run_id, term)
        for write in writes
        for term in terms.all_terms(merged({}, write.attributes or {}))
    ]
    if come:
        yield _SQL["insert_attributes"].bind(*zip(*come, strict=True))


def _insert_outbox(rows: list[OutboxRow]) -> Call:
    return _SQL["insert_outbox"].bind(
        [row.shard for row in rows],
        [row.seq for row in rows],
        [row.kind for row in rows],
        [row.run_id for row in rows],
        [row.step for row in rows],
        [row.topic for row in rows],
        [row.partition for row in rows],
        [row.key for row in rows],
        [pack_headers(row.headers) for row in rows],
        [row.payload for row in rows],
        [row.attempt for row in rows],
        [row.send_at for row in rows],
        [row.due_at for row in rows],
    )


class Commit:
    """One call of `PostgresStore.commit`."""

    def __init__(
        self,
        session: Session,
        batch: Batch,
        replace: Replace,
        replaced: Replaced,
        sealer: Sealer = PLAIN,
    ) -> None:
        """`replaced` outlives this call: what an earlier one with the same batch had replaced."""
        self._session = session
        self._batch = batch
        self._replace = replace
        self._replaced = replaced
        self._sealer = sealer
        self._keys = {write.shard: (write.shard, write.token, write.commit_seq) for write in batch.shards}
        replaced.keep(set(self._keys.values()))

    def write(self) -> Committed:
        """Commit the batch; raises StoreUnavailable, LostShards, ContentRefused or BadBatch."""
        try:
            now = self._try_whole()
        except _CommittedBefore as known:
            now = known.args[0]
        except (BadBatch, ContentRefused):  # it isn't committed: the next batch may have the same numbers
            self._replaced.keep(frozenset())
            raise
        messages = {run_id: message for run_id, (_, _, message) in self._replaced.writes.items()}
        return Committed(now, messages, [(row, message) for _, row, message in self._replaced.dropped])

    def _try_whole(self) -> datetime:
        try:
            return self._send(*self._remaining())
        except _Refused:
            self._find_offenders()
            return self._send(*self._remaining())

    def _remaining(self) -> tuple[list[SagaWrite], list[OutboxRow]]:
        """Return what to write: the batch with what is known to be replaced or dropped."""
        batch, writes = self._batch, self._replaced.writes
        if not writes and not self._replaced.dropped:
            return batch.sagas, batch.loose
        sagas = [writes[write.run_id][1] if write.run_id in writes else write for write in batch.sagas]
        loose = batch.loose[::-1]
        for _, row, _ in self._replaced.dropped:
            if row in loose:
                loose.remove(row)  # of two that are alike, the later is the one that was refused
        return sagas, loose[::-1]

    def _send(
        self, sagas: Sequence[SagaWrite], loose: Sequence[OutboxRow], *, trial: bool = False
    ) -> datetime:
        try:
            calls = calls_for(self._batch, sagas, loose, self._sealer)
        except UNENCODABLE as error:
            raise _Refused(f"can't be encoded: {error}") from error
        if trial:
            calls.append(_SQL["undo"].bind())
        try:
            fenced = self._session.run(*calls)[0].get_value(0, 0)
        except psycopg.Error as error:
            state = error.sqlstate or ""
            if trial and state == _TRIAL:
                return datetime.min
            if state == _LOST:
                raise _lost(error) from None
            if state == _COMMITTED_BEFORE:
                raise _CommittedBefore(_clock(error)) from None
            if state[:2] in _REFUSED:
                raise _Refused(f"{state} {error.diag.message_primary or ''}") from error
            raise
        return from_microseconds(int.from_bytes(fenced or b"", "big", signed=True))

    def _find_offenders(self) -> None:
        """Fill `_replaced`, by halving.

        What passes stays in all later trials, what fails alone is an offender. Rows that only clash with each
        other are found that way too: the later one is the offender.
        """
        sagas, loose = self._remaining()
        try:
            self._send([], [], trial=True)
        except _Refused as refusal:
            raise BadBatch(f"what the batch says of its shards is refused: {refusal}") from refusal
        passed: list[OutboxRow] = []
        for row, message in self._offending_rows(passed, loose):
            self._replaced.dropped.append((self._keys[row.shard], row, message))
        accepted: list[SagaWrite] = []
        for write, message in self._offending_sagas(accepted, sagas, passed):
            self._put_replacement(accepted, write, message, passed)

    def _offending_rows(
        self, passed: list[OutboxRow], rows: Sequence[OutboxRow]
    ) -> Iterator[tuple[OutboxRow, str]]:
        if not rows:
            return
        try:
            self._send([], [*passed, *rows], trial=True)
            passed.extend(rows)
        except _Refused as refusal:
            if len(rows) == 1:
                yield rows[0], str(refusal)
                return
            half = len(rows) // 2
            yield from self._offending_rows(passed, rows[:half])
            yield from self._offending_rows(passed, rows[half:])

    def _offending_sagas(
        self, accepted: list[SagaWrite], sagas: Sequence[SagaWrite], loose: list[OutboxRow]
    ) -> Iterator[tuple[SagaWrite, str]]:
        if not sagas:
            return
        try:
            self._send([*accepted, *sagas], loose, trial=True)
            accepted.extend(sagas)
        except _Refused as refusal:
            if len(sagas) == 1:
                yield sagas[0], str(refusal)
                return
            half = len(sagas) // 2
            yield from self._offending_sagas(accepted, sagas[:half], loose)
            yield from self._offending_sagas(accepted, sagas[half:], loose)

    def _put_replacement(
        self, accepted: list[SagaWrite], write: SagaWrite, message: str, loose: list[OutboxRow]
    ) -> None:
        cause = message
        for number in range(1, REPLACEMENT_TRIES + 1):
            replacement = self._replace(write, message, number)
            try:
                self._send([*accepted, replacement], loose, trial=True)
            except _Refused as refusal:
                message = str(refusal)
                continue
            accepted.append(replacement)
            self._replaced.writes[write.run_id] = (self._keys[write.shard], replacement, cause)
            return
        raise ContentRefused(f"run {write.run_id}: {cause}; its replacement: {message}")


def _lost(error: psycopg.Error) -> LostShards:
    lost, astray = (
        (int(n) for n in part.split(",") if n) for part in (error.diag.message_detail or "|").split("|")
    )
    wandering = frozenset(astray)
    return LostShards(frozenset(lost) | wandering, wandering)


def _clock(error: psycopg.Error) -> datetime:
    return from_microseconds(int(error.diag.message_detail or 0))
