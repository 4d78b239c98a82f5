"""Large payloads on their way between Kafka and a store of objects, in threads of their own.

The relay has a command's object written before it produces the claim; the gatherer has a reply's fetched
before the intake sees it. So the loop waits for no store, its saga alone waits, and histories hold whole
payloads: they are decided and replayed without any store. What can't be fetched is an attempt that failed,
with the reason: the participant is asked again, answers from its inbox, and writes the object again.

A reply that is kept back keeps the shard's written offset from passing it, and its timers from firing before
it, as in holding.py, and for as long at most.
"""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

from kasaga_wire.claims import Claims, fetch, is_claim
from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import KasagaError, ObjectUnreadable
from kasaga_wire.kafka import Record
from kasaga_wire.topics import Topics

from ..store.base import OutboxRow, RowKind
from .holding import HOLD_MICROS, topic_of
from .shards import Shard

log = logging.getLogger("kasaga.orchestrator")

THREADS = 8
"""Objects written and read at a time. Each may take as long as the store's library likes."""
AGAIN_MICROS = 500_000
"""Before a store that doesn't answer is asked again for the same object."""
LOOK_MICROS = 3_000
"""Between two looks for what the threads have done, which can't wake the wait for Kafka."""
FAILURES = 3
"""Tries to write an object before its attempt is given up, and the next one planned by the step's policy."""

COMMAND_HEADER = "ce_kasagacommand"
CHILD_HEADER = "ce_kasagachild"


class Written(NamedTuple):
    """What has become of a row's object: its claim, or why there is none."""

    shard: int
    seq: int
    row: OutboxRow
    claim: bytes
    error: str


@dataclass(slots=True)
class _Held:
    record: Record
    shard: Shard
    command: str
    since: int
    """When it came, or when the store has last given anything to anybody since."""
    again: int = 0
    asked: bool = False
    found: bytes | None = None
    error: ObjectUnreadable | None = None


class Desk:
    """Of one process. All but what runs in the threads is called by the loop's thread."""

    def __init__(
        self,
        claims: Claims,
        topics: Topics,
        counted: Callable[[str, bool], None] = lambda what, well: None,
        threads: Executor | None = None,
    ) -> None:
        """`counted` is told of each object that was `write` or `read`, and whether that went well."""
        self._claims, self._topics, self._counted = claims, topics, counted
        self._threads = threads or ThreadPoolExecutor(THREADS, "kasaga-objects")
        self._held: list[_Held] = []
        self._read: queue.SimpleQueue[tuple[_Held, bytes | ObjectUnreadable]] = queue.SimpleQueue()
        self._written: queue.SimpleQueue[Written] = queue.SimpleQueue()
        self._writing = 0
        self.reasons: dict[tuple[str, int, int], ObjectUnreadable] = {}
        """Of records that are let go as they came, by place: why."""

    @property
    def busy(self) -> bool:
        """Whether the threads have anything to do that somebody waits for."""
        return bool(self._writing or self._held)

    # --- out: the relay's

    def covers(self, row: OutboxRow) -> bool:
        """Whether a row's payload is to be an object: what is sent to participants."""
        return (
            row.kind is RowKind.COMMAND
            and self._claims.covers(row.payload)
            and not any(name == CHILD_HEADER for name, _ in row.headers)
        )

    def write(self, row: OutboxRow) -> None:
        """Have a row's object written; `written` tells when it is."""
        self._writing += 1
        self._threads.submit(self._write, row, f"{row.run_id}", row.payload or b"")

    def _write(self, row: OutboxRow, folder: str, data: bytes) -> None:
        claim, error = b"", ""
        try:
            claim = self._claims.put(folder, data)
        except KasagaError as failed:
            error = str(failed)
        except Exception as failed:  # noqa: BLE001 (a thread's own: nobody else would hear of it)
            error = f"a bug in Kasaga: {type(failed).__name__}"
        self._written.put(Written(row.shard, row.seq, row, claim, error))

    def written(self) -> list[Written]:
        """Take what was written since, or couldn't be."""
        found: list[Written] = []
        while self._writing and not self._written.empty():
            found.append(self._written.get())
            self._writing -= 1
            self._counted("write", bool(found[-1].claim))
        if found:
            crash_point("orchestrator.after_object")
        return found

    # --- in: the gatherer's

    def sift(self, records: Iterable[Record], shards: Mapping[int, Shard], now: int) -> list[Record]:
        """Return what can be decided now, in order, with payloads in place of claims; keep back the rest."""
        ready = self._released(shards, now) if self._held else []
        for record in records:
            shard = shards.get(record.partition)
            if shard is None or record.topic != self._topics.replies or not is_claim(record.value):
                ready.append(record)
                continue
            self._held.append(_Held(record, shard, _command(record), now))
            shard.held.setdefault("replies", set()).add(record.offset)
        for held in self._held:
            if not held.asked and held.again <= now:
                held.asked = True
                self._threads.submit(self._fetch, held, held.record.value or b"")
        return ready

    def _fetch(self, held: _Held, claim: bytes) -> None:
        found: bytes | ObjectUnreadable
        try:
            found = fetch(self._claims, held.command, claim)
        except ObjectUnreadable as error:
            found = error
        except Exception as error:  # noqa: BLE001 (as above)
            found = ObjectUnreadable(f"a bug in Kasaga: {type(error).__name__}")
        self._read.put((held, found))

    def _released(self, shards: Mapping[int, Shard], now: int) -> list[Record]:
        self._take(now)
        ready: list[Record] = []
        waiting: list[_Held] = []
        for held in self._held:
            record, shard = held.record, held.shard
            if shards.get(shard.number) is not shard:
                continue  # its next owner reads it again
            over = now - held.since > HOLD_MICROS or (held.error is not None and held.error.lasting)
            if held.found is None and not over:
                waiting.append(held)
                continue
            shard.held[topic_of(self._topics, record)].discard(record.offset)
            if held.found is None:
                said = held.error or ObjectUnreadable("the store of payloads doesn't answer", lasting=False)
                self.reasons[record.topic, record.partition, record.offset] = said
                extra = {"command_id": held.command, "error": str(said)}
                log.error("the payload of an answer can't be fetched: the step is asked again", extra=extra)
                ready.append(record)
            else:
                ready.append(replace(record, value=held.found))
        self._held = waiting
        return ready

    def _take(self, now: int) -> None:
        """Note what the threads have read; while a store gives anything, nobody is given up for its pace."""
        gave = False
        while not self._read.empty():
            held, found = self._read.get()
            if isinstance(found, bytes):
                held.found, gave = found, True
            else:
                held.error, held.asked, held.again = found, False, now + AGAIN_MICROS
            self._counted("read", isinstance(found, bytes))
        if gave:
            for each in self._held:
                if each.error is None:
                    each.since = now

    def why(self, record: Record) -> ObjectUnreadable | None:
        """Say why a record's payload wasn't fetched, once."""
        return self.reasons.pop((record.topic, record.partition, record.offset), None)

    def close(self) -> None:
        """End; who is at work isn't waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _command(record: Record) -> str:
    for name, value in record.headers:
        if name == COMMAND_HEADER:
            return (value or b"").decode("utf-8", "replace")
    return ""
