"""A participant on a virtual clock: one record in, its reply out, and a death where the caller wants one.

Station: driven by `kasaga.testing`, which brings the network, the clock and the faults. What is real here:
the intake, the decoding, the inbox's algorithm, the handlers. Only the rows are in memory, and each record is
a transaction of its own.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry

from kasaga_wire.envelope import CommandEnvelope, Headers, ReplyEnvelope, ReplyTo
from kasaga_wire.errors import UnknownSchema
from kasaga_wire.kafka import Record
from kasaga_wire.records import NULL_PAYLOAD
from kasaga_wire.schema import Schemas

from .app import Participant
from .calls import Calls, encode_error
from .errors import UnknownCommand
from .inbox.algorithm import Abort, Close, Invoke, Retreat, settle
from .inbox.drive import AsyncInvoke, RowEffect, drive_async
from .inbox.late import LateReply, Tokens, Wish, answer_late, drive_late_memory
from .inbox.memory import MemoryInbox, MemorySession, PlainSession
from .inbox.rows import DEFERRED, DONE, FAILED, UNDECODABLE, Answer, Kind, Later, Rules, Work
from .jobs import Intake, Job
from .metrics import Metrics
from .progress import Progress
from .tracing import tracing

T = TypeVar("T")
TAKES_BACK = (Abort, Retreat)
KEY = b"virtual"
"""What tokens are made by: two runs of one seed are the same run."""


class Death(Enum):
    """Where the process dies while it has a record in hand."""

    BEFORE_COMMIT = "before its commit"
    AFTER_COMMIT = "after its commit"


class Died(Exception):
    """The process is dead; what it had committed is committed, and nothing was answered."""

    def __init__(self, *, committed: bool, ran: bool) -> None:
        super().__init__("the participant died")
        self.committed = committed
        self.ran = ran


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of one record.

    Attributes:
        envelope: what was asked.
        outcome: done, refused, failed, …, as the reply says it.
        ran: a handler ran for it, and what it did is committed unless the outcome is failed or refused.
        reply_to, key, payload, headers: the reply; `reply_to` is None where nobody waits for one.
    """

    envelope: CommandEnvelope
    outcome: str
    ran: bool
    reply_to: ReplyTo | None
    key: bytes
    payload: bytes
    headers: Headers


class Loop:
    """The event loop that async handlers run in; made when the first of them needs it."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something to its end."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(work)

    def close(self) -> None:
        """End it."""
        if self._loop is not None:
            self._loop.close()
            self._loop = None


class Virtual:
    """One participant's process and its database."""

    def __init__(
        self,
        app: Participant,
        *,
        calls: Calls,
        loop: Loop,
        clock: Callable[[], datetime],
        connection: object = None,
    ) -> None:
        """`connection` is what handlers find as `tx.connection`; it stands for the service's database.

        What a handler changes in its attributes is taken back when its transaction is rolled back. Raises
        RegistrationError if a command has no handler.
        """
        registries = app.registries
        self.contracts = {name: registry.contract for name, registry in registries.items()}
        self._rules: Rules = app.rules
        self._calls, self._loop, self._clock = calls, loop, clock
        self._connection = connection
        self.inbox = MemoryInbox(retention=app.rules.retention, clock=self._seconds)
        self.inbox.key = KEY
        self._intakes = {name: Intake(registry, lambda topic: True) for name, registry in registries.items()}

    def _seconds(self) -> float:
        return self._clock().timestamp()

    def take(
        self, contract: str, record: Record, *, raises: Exception | None = None, dies: Death | None = None
    ) -> Handled:
        """Handle one record of a contract's topic.

        Args:
            contract: the contract's name.
            record: a command, an undo or a void.
            raises: what the handler raises instead of running, if it is called at all.
            dies: where the process dies.

        Raises:
            Died: as `dies` wants it.
            Rejected: the record can't be answered; it would be a dead letter.
        """
        job = self._intakes[contract].job(record, Progress((record.topic, record.partition)))
        self._calls.prepare(job)
        if job.fault is not None and (
            job.work.kind is not Kind.UNDO or isinstance(job.fault, UnknownCommand)
        ):
            outcome = FAILED if isinstance(job.fault, UnknownSchema) else UNDECODABLE
            return self._handled(job, Answer(outcome, encode_error(job.fault), job.fault))
        invoke = _Invoke(self._calls, raises)
        rules = self._rules
        if not self.contracts[contract].inbox:
            rules = Rules(rules.max_age, rules.retention, remembers=False)
            session: _Session | _PlainSession = _PlainSession(self._connection, dies, invoke)
        else:
            session = _Session(self.inbox, self._connection, dies, invoke)
        plan = drive_async(settle([job.work], rules, self._seconds, encode_error), session, invoke.run)
        answers = _by_hand(plan) if job.lane.is_sync else self._loop.run(plan)
        return self._handled(job, answers[0])

    def late(
        self, handled: Handled, token: str, *, result: bytes | None = None, progress: str | None = None
    ) -> list[Handled]:
        """Answer a deferred command by its token, or give a heartbeat where there is no result.

        Returns the replies that this leads to. Raises GivenUp, AlreadyAnswered, NotDeferred and BadToken.
        """
        wish = Wish(DEFERRED, None, progress) if result is None else Wish(DONE, result)
        _by_hand(drive_late_memory(answer_late(handled.envelope.type, token, wish), self.inbox))
        late, self.inbox.late = self.inbox.late, []
        return [self._replied(handled, reply) for reply in late]

    def _replied(self, handled: Handled, reply: LateReply) -> Handled:
        source = f"/kasaga/participants/{reply.participant}"
        envelope = ReplyEnvelope.to(handled.envelope, reply.outcome, source=source, time=self._clock())
        envelope.attempt = reply.attempt
        if reply.outcome == DEFERRED:
            envelope.suffix = f"d{reply.number}"
        payload = NULL_PAYLOAD if reply.payload is None else reply.payload
        return replace(handled, outcome=reply.outcome, payload=payload, headers=envelope.to_headers())

    def _handled(self, job: Job, answer: Answer) -> Handled:
        source = f"/kasaga/participants/{job.registry.contract.name}"
        reply = ReplyEnvelope.to(job.envelope, answer.outcome, source=source, time=self._clock())
        payload = NULL_PAYLOAD if answer.payload is None else answer.payload
        key = job.envelope.saga_id.encode()
        to = job.envelope.reply_to
        return Handled(job.envelope, answer.outcome, answer.ran, to, key, payload, reply.to_headers())


def make_calls(schemas: Schemas) -> Calls:
    """What prepares and runs handlers: to be shared by many participants."""
    calls = Calls(schemas, Metrics(CollectorRegistry()), tracing())
    calls.token = Tokens(KEY).make
    return calls


class _Invoke:
    """Runs a record's handler, or raises in its place."""

    def __init__(self, calls: Calls, raises: Exception | None) -> None:
        self._calls, self._raises = calls, raises
        self.ran = False

    async def run(self, work: Work, stored: bytes | None, connection: Any) -> bytes | Later | None:
        if self._raises is not None:
            raise self._raises
        self.ran = True
        job = work.call
        assert isinstance(job, Job), "the intake made it"
        if job.lane.is_sync:
            return self._calls.call_sync(work, stored, connection)
        return await self._calls.call(work, stored, connection)


class _Session(MemorySession[Any]):
    """A session whose process may die at its commit, and whose connection is rolled back with it."""

    def __init__(self, inbox: MemoryInbox, connection: Any, dies: Death | None, invoke: _Invoke) -> None:
        super().__init__(inbox, connection)
        self._dies, self._invoke = dies, invoke
        self._data: dict[str, Any] | None = None if connection is None else vars(connection)
        self._before: dict[str, Any] | None = None

    async def rows(self, effect: RowEffect) -> Any:
        commits = isinstance(effect, Close)
        if commits and self._dies is Death.BEFORE_COMMIT:
            self._roll_back()
            await super().rows(Abort())
            raise Died(committed=False, ran=self._invoke.ran)
        if isinstance(effect, TAKES_BACK):
            self._roll_back()
        found = await super().rows(effect)
        if commits and self._dies is Death.AFTER_COMMIT:
            raise Died(committed=True, ran=self._invoke.ran)
        return found

    async def handler(self, effect: Invoke, invoke: AsyncInvoke[Any]) -> bytes | Later | None:
        if self._data is not None:
            self._before = copy.deepcopy(self._data)
        return await super().handler(effect, invoke)

    def _roll_back(self) -> None:
        if self._data is not None and self._before is not None:
            self._data.clear()
            self._data.update(self._before)
            self._before = None


class _PlainSession(PlainSession[Any]):
    """Without an inbox there is no transaction: what a handler did stays done, whenever the process dies."""

    def __init__(self, connection: Any, dies: Death | None, invoke: _Invoke) -> None:
        super().__init__(connection)
        self._dies, self._invoke = dies, invoke

    async def rows(self, effect: RowEffect) -> Any:
        if isinstance(effect, Close) and self._dies is not None:
            raise Died(committed=True, ran=self._invoke.ran)
        return await super().rows(effect)


def _by_hand(work: Coroutine[Any, Any, T]) -> T:
    """Run what never waits without an event loop: a plain function may use one of its own."""
    try:
        work.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    work.close()
    raise AssertionError("one transaction at a time waits for nobody")
