"""What happens in a run, as JSON lines: one event a line, in the order in which it happens.

Every line has `at` (microseconds of the run), `by` (a process: `o1` is an orchestrator, `p1` a participant,
`-` the world) and `what`:

    claim         shard, token, epoch, commit_seq     a shard is taken (committed in Postgres)
    release       shards [[shard, token]]             shards are given back
    commit        shards [{shard, token, seq, offsets {sagas, replies, control}, acked}],
                  sagas [{run, shard, rows [seq], events, state, opens [[row, kind, step, attempt]], closes}]
                                                      one transaction of an orchestrator is committed
    known         shards [[shard, seq]]               the same batch again: it had been committed before
    fenced        shards [[shard, token]], lost       a transaction is refused: nothing of it is written
    restore       run, rows                           Postgres goes back in time: these rows are lost
    produce       record, topic, partition, id, kind, attempt, outcome
                                                      handed to the producer; `record` numbers produced ones
    land          record, topic, partition, offset    it is in its log
    ack, nack     record                              its producer knows
    read          topic, partition, offset, id, kind  a consumer has it
    offsets       topic, offsets {partition: offset}  a group's offsets are committed in Kafka
    inbox_claim   ids, claimed                        rows of an inbox claimed by an open transaction
    inbox_commit  rows {id: outcome}, fences [id], effects [id]
                                                      a participant's transaction is committed; `fences` are
                                                      tombstones of an undo or a void for its original
    inbox_restore, purge  ids                         an inbox forgets
    fault         kind, name                          something is made to go wrong
    join, die, freeze, leave                          of processes

`id` is a command id (`<run>.<step>`, `…~undo`, `…~void`), or a run or action id; `kind` is command, undo,
void, reply, start, child (what a parent asks of one), control or other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from kasaga.engine.codec import decode
from kasaga.store.base import Batch, LostShards, OutboxRow, ShardRow
from kasaga_participant.inbox.algorithm import Close, Open
from kasaga_participant.inbox.rows import BLIND_TOMBSTONE, TOMBSTONE, NewRow
from kasaga_wire.kafka import Record
from simulator.machine import Process

if TYPE_CHECKING:
    from simulator.postgres import Effect

Headers = Iterable[tuple[str, bytes | None]]


class Tracer:
    """Notes events; where nobody wants them it notes nothing, and costs nothing."""

    def __init__(self, now: Callable[[], int], wanted: bool) -> None:
        self._now, self._wanted = now, wanted
        self.lines: list[str] = []
        self._numbers = 0

    def note(self, by: Process | None, what: str, **about: Any) -> None:
        if self._wanted:
            line = {"at": self._now(), "by": by.name if by is not None else "-", "what": what, **about}
            self.lines.append(json.dumps(line, separators=(",", ":"), default=str))

    # --- Postgres

    def stored(self, by: Process, name: str, arguments: tuple[Any, ...], found: Any) -> None:
        if not self._wanted:
            return
        if name == "claim" and isinstance(found, ShardRow):
            self.note(
                by,
                "claim",
                shard=found.shard,
                token=found.token,
                epoch=found.epoch,
                commit_seq=found.commit_seq,
            )
        elif name == "release":
            self.note(by, "release", shards=list(arguments[0]))
        elif name == "commit":
            self._commit(by, arguments[0])

    def _commit(self, by: Process, batch: Batch) -> None:
        shards = [
            {
                "shard": each.shard,
                "token": each.token,
                "seq": each.commit_seq,
                "offsets": {
                    "sagas": each.offsets.sagas,
                    "replies": each.offsets.replies,
                    "control": each.offsets.control,
                },
                "acked": each.acked_seq,
            }
            for each in batch.shards
        ]
        sagas = [
            {
                "run": each.run_id,
                "shard": each.shard,
                "rows": [row.seq for row in each.history],
                "events": [_event(row.seq, row.body) for row in each.history],
                "state": each.saga.state if each.saga is not None else None,
                "opens": [_row(row) for row in each.opens],
                "closes": each.closes,
            }
            for each in batch.sagas
        ]
        self.note(by, "commit", shards=shards, sagas=sagas)

    def fenced(self, by: Process, batch: Batch, lost: LostShards) -> None:
        if self._wanted:
            shards = [[each.shard, each.token] for each in batch.shards]
            self.note(by, "fenced", shards=shards, lost=sorted(lost.shards))

    # --- Kafka

    def produced(self, by: Process, topic: str, partition: int, headers: Headers) -> str:
        self._numbers += 1
        name = str(self._numbers)
        if self._wanted:
            self.note(by, "produce", record=name, topic=topic, partition=partition, **about(topic, headers))
        return name

    def landed(self, by: Process, record: Record, name: str) -> None:
        if self._wanted:
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            self.note(by, "land", record=name, **place)

    def answered(self, by: Process, name: str, ok: bool) -> None:
        self.note(by, "ack" if ok else "nack", record=name)

    def read(self, by: Process, record: Record) -> None:
        if self._wanted:
            place = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            found = about(record.topic, record.headers)
            self.note(by, "read", **place, id=found["id"], kind=found["kind"])

    def offsets(self, by: Process, topic: str, offsets: Mapping[tuple[str, int], int]) -> None:
        if self._wanted:
            self.note(by, "offsets", topic=topic, offsets={place[1]: at for place, at in offsets.items()})

    # --- inboxes

    def claimed(self, by: Process, effect: Open, claimed: frozenset[str]) -> None:
        if self._wanted:
            self.note(by, "inbox_claim", ids=[row.id for row in effect.rows], claimed=sorted(claimed))

    def inbox_committed(
        self, by: Process, effect: Close, claimed: Mapping[str, NewRow], effects: Iterable[Effect]
    ) -> None:
        if self._wanted:
            rows = {each.id: each.outcome for each in effect.outcomes}
            fences = sorted(
                id_
                for id_, row in claimed.items()
                if row.outcome in (TOMBSTONE, BLIND_TOMBSTONE) and id_ not in effect.released
            )
            self.note(
                by, "inbox_commit", rows=rows, fences=fences, effects=[each.command_id for each in effects]
            )


def _row(row: OutboxRow) -> list[object]:
    return [row.seq, row.kind.name, row.step, row.attempt]


def _event(seq: int, body: bytes) -> str:
    event = decode(seq, body).event
    step = getattr(event, "step", "")
    form = getattr(event, "form", "")
    outcome = getattr(event, "outcome", "") or getattr(event, "action", "")
    outcome = outcome or ("child" if getattr(event, "parent", None) is not None else "")
    return " ".join(str(each) for each in (type(event).__name__, step, form, outcome) if each)


def about(topic: str, headers: Headers) -> dict[str, Any]:
    """What the headers of a record say: id, kind, form, attempt, outcome."""
    first: dict[str, str] = {}
    for name, value in headers:
        first.setdefault(name, (value or b"").decode("utf-8", "replace"))
    kind = "other"
    id_ = first.get("ce_kasagacommand") or first.get("ce_id", "")
    if topic.endswith(".replies"):
        kind = "reply"
    elif "ce_kasagachild" in first:
        kind = "child"
    elif topic.endswith(".sagas"):
        kind = "start"
    elif topic.endswith(".control"):
        kind = "control"
    elif topic.endswith(".commands"):
        kind = "undo" if id_.endswith("~undo") else "void" if id_.endswith("~void") else "command"
    found: dict[str, Any] = {"id": id_, "kind": kind}
    if "ce_kasagacommand" in first:
        attempt = first.get("ce_id", "").removeprefix(id_ + ".").removesuffix(".r")
        found["attempt"] = int(attempt) if attempt.isdigit() else 0
    if "ce_kasagaoutcome" in first:
        found["outcome"] = first["ce_kasagaoutcome"]
    return found
