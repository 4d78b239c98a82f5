"""Answers audits: what the inbox keeps of some runs. Reads only, and one question at a time.

Station: beside the worker. The runtime hands it the records of type `kasaga.audit`, which come on the command
topic like commands do and are none: they have no row, no handler and no place in a batch. The answer goes out
as a reply. A question that nobody waits for any more is answered without reading anything.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import psycopg

from kasaga_wire.envelope import CommandEnvelope
from kasaga_wire.errors import DecodeError, KasagaError, UnknownSchema
from kasaga_wire.kafka import Record
from kasaga_wire.records import (
    MAX_AUDIT_ROWS,
    MAX_AUDIT_RUNS,
    Audited,
    AuditedRow,
    audit_codec,
    audited_codec,
)
from kasaga_wire.schema import Schemas
from kasaga_wire.sealing import place

from .answers import Answers
from .calls import encode_error
from .errors import Forgotten
from .handlers import Registry
from .inbox.rows import DONE, EXPIRED, FAILED, UNDECODABLE, Rules
from .progress import Progress
from .store import Store

WAITING = 100
"""Questions in hand at most; whoever asks more than one at a time has himself to blame, and asks again."""

LATE_SECONDS = 300.0
"""How long ago a question's deadline may be: the asker's clock isn't ours. Spared is what has heaped up while
nobody was there."""

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


@dataclass(slots=True, eq=False)
class _Asked:
    registry: Registry
    store: Store
    record: Record
    progress: Progress
    envelope: CommandEnvelope


class Examiner:
    """The questions of one process, answered one after the other in the event loop."""

    def __init__(
        self,
        answers: Answers,
        schemas: Schemas,
        refresh_schemas: Callable[[], Awaitable[None]],
        rules: Rules,
        answered: Callable[[], None],
    ) -> None:
        """`answered` is called after each answer was handed to the sender."""
        self._answers = answers
        self._schemas = schemas
        self._refresh_schemas = refresh_schemas
        self._rules = rules
        self._answered = answered
        self._waiting: deque[_Asked] = deque()
        self._task: asyncio.Task[None] | None = None

    def ask(
        self, registry: Registry, store: Store, record: Record, progress: Progress, envelope: CommandEnvelope
    ) -> None:
        """Take a question in."""
        asked = _Asked(registry, store, record, progress, envelope)
        if len(self._waiting) >= WAITING:
            self._say(asked, FAILED, encode_error(RuntimeError("too many audits at once")))
            return
        self._waiting.append(asked)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Answer nothing more: whoever reads the questions next will."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            asked = self._waiting.popleft()
            try:
                payload = audited_codec.encode(await self._examine(asked))
            except Forgotten as error:
                self._say(asked, EXPIRED, encode_error(error))
            except KasagaError as error:
                self._say(asked, UNDECODABLE, encode_error(error))
            except (psycopg.Error, OSError) as error:
                # Its text may name hosts and users, which are none of the asker's business.
                away = RuntimeError(f"the inbox can't be read: {type(error).__name__}")
                self._say(asked, FAILED, encode_error(away))
            else:
                self._say(asked, DONE, payload)

    async def _examine(self, asked: _Asked) -> Audited:
        """Read. Raises KasagaError and what the store raises."""
        deadline = asked.envelope.deadline
        if deadline is not None and deadline.timestamp() + LATE_SECONDS < time.time():
            raise Forgotten(f"the audit stopped waiting for an answer at {deadline:%H:%M:%S} UTC")
        where = place("command", asked.envelope.command_id)
        value = self._answers.sealer.open(where, asked.record.value or b"")
        try:
            question = audit_codec.decode(value, self._schemas)
        except UnknownSchema:
            await self._refresh_schemas()
            question = audit_codec.decode(value, self._schemas)
        if len(question.runs) > MAX_AUDIT_RUNS:
            raise DecodeError(f"{len(question.runs)} runs; {MAX_AUDIT_RUNS} are the most")
        if bad := [each for each in question.runs if not _RUN_ID.match(each)]:
            raise DecodeError(f"{bad[0][:64]!r} is no run id")
        limit = MAX_AUDIT_ROWS
        rows = await asked.store.examine(sorted(set(question.runs)), question.after, limit + 1)
        return Audited(
            remembers=asked.store.remembers,
            max_age=self._rules.max_age,
            retention=self._rules.retention,
            rows=[
                AuditedRow(
                    id=row.id,
                    type=row.type,
                    outcome=row.outcome,
                    input=row.input_hash,
                    result=row.result_hash,
                )
                for row in rows[:limit]
            ],
            more=len(rows) > limit,
        )

    def _say(self, asked: _Asked, outcome: str, payload: bytes) -> None:
        self._answers.told(asked.registry, asked.record, asked.progress, asked.envelope, outcome, payload)
        self._answered()
