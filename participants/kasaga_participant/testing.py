"""For tests of services: commands in, replies out, without Kafka, and without a database unless you want one.

Station: authors import it in their tests. It drives the real intake, dispatcher, worker and inbox; only the
ends are replaced: records come from `send`, replies stay in memory.

    async with Harness(app) as harness:
        reply = await harness.send(Inventory.reserve, order)
        assert reply.result == Reservation(...)
        again = await harness.send(Inventory.reserve, order, id=reply.id, attempt=2)
        assert again.duplicate_of(reply)
        undone = await harness.undo(Inventory.release, reply)
        assert undone.outcome == "undone"

A handler alone needs less: `await InventoryService(make_tx(connection)).reserve(order)`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeVar

from prometheus_client import CollectorRegistry
from psycopg import AsyncConnection, Connection

from kasaga_wire.contracts import CommandSpec, CompensationSpec, command_of, contract_of
from kasaga_wire.envelope import VOID, CommandEnvelope, ReplyEnvelope, ReplyTo, Undoes
from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka import Record
from kasaga_wire.records import NULL_PAYLOAD, Error, errors_codec
from kasaga_wire.schema import Schemas

from .app import Participant
from .calls import Calls
from .inbox.late import Tokens
from .inbox.memory import MemoryInbox
from .inbox.statements import Limits
from .later import Late
from .metrics import Metrics
from .progress import Progress, Room
from .runtime import Parts, Runtime
from .sender import Headers, OnAck, Sender
from .settings import IN_HAND_BYTES, IN_HAND_RECORDS
from .store import MemoryStore, PlainStore, PostgresStore
from .tracing import tracing
from .tx import CommandInfo, SyncTx, Tx

__all__ = ["DeadLetter", "Harness", "MemoryInbox", "Reply", "make_sync_tx", "make_tx"]

I = TypeVar("I")  # noqa: E741 (input)
R = TypeVar("R")

REPLIES = "harness.replies"
SECONDS = 30.0
"""How long a reply may take before the test fails."""


def make_tx(connection: AsyncConnection[Any] | None = None, **command: Any) -> Tx:
    """A transaction for an async handler that is tested alone; `command`: fields of CommandInfo."""
    return Tx(connection, _info(command), Tokens(b"test").make)


def make_sync_tx(connection: Connection[Any] | None = None, **command: Any) -> SyncTx:
    """The same for a handler that is a plain function."""
    return SyncTx(connection, _info(command), Tokens(b"test").make)


def _info(command: Mapping[str, Any]) -> CommandInfo:
    defaults: dict[str, Any] = {
        "id": f"{uuid.uuid4()}.1",
        "attempt": 1,
        "type": "test.command",
        "participant": "test",
        "saga_id": "saga-1",
        "saga": "test",
        "saga_version": 1,
        "sent": datetime.now(UTC),
    }
    return CommandInfo(**{**defaults, **command})


@dataclass(frozen=True, slots=True)
class Reply:
    """What the orchestrator would have got.

    Attributes:
        id: the command's id, without `~undo` or `~void`.
        outcome: done, refused, failed, expired, conflict, undecodable; undone, nothing, lost; voided,
        executed. result: the decoded result of a command that is done, else None. error: why not, where there
        is a reason. payload: the reply's bytes. envelope: the reply's headers. command: what was asked: the
        command, or for an undo and a void the command that it is about. input: the command's input.
    """

    id: str
    outcome: str
    result: Any
    error: Error | None
    payload: bytes
    envelope: ReplyEnvelope
    command: CommandSpec
    input: Any

    def duplicate_of(self, other: Reply) -> bool:
        """Whether both tell the same, byte by byte."""
        return (self.outcome, self.payload) == (other.outcome, other.payload)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was put aside."""

    topic: str
    value: bytes | None
    headers: Mapping[str, str]


class Harness:
    """A participant without a network: what its handlers answer, and what its inbox makes of it."""

    def __init__(self, app: Participant, *, database_url: str | None = None, inbox: bool = True) -> None:
        """In memory by default: handlers find no `tx.connection` then.

        Args:
            app: the participant; all its commands must have handlers.
            database_url: a real Postgres instead. Its tables are made if they are missing.
            inbox: False: as a participant without an inbox runs.
        """
        self._app = app
        self._database_url = database_url
        self._keep = inbox
        self._skew = 0.0
        self.inbox = MemoryInbox(retention=app.rules.retention, clock=self._now)
        self.dead_letters: list[DeadLetter] = []
        self.traceparent: str | None = None
        """Sent with every command, if there is one."""
        self._asked: dict[str, tuple[CommandSpec, Any, asyncio.Future[Reply]]] = {}
        self._schemas = Schemas()
        self._progress: dict[str, Progress] = {}
        self._offset = 0
        self._runtime: Runtime | None = None
        self._store: PlainStore | MemoryStore | PostgresStore | None = None

    def _now(self) -> float:
        return time.time() + self._skew

    def advance(self, by: timedelta) -> None:
        """Let time pass, for the inbox and for what is sent from now on."""
        self._skew += by.total_seconds()

    async def __aenter__(self) -> Self:
        """Start; raises RegistrationError if a command has no handler."""
        registries = self._app.registries
        for registry in registries.values():
            for schema in registry.contract.schemas():
                self._schemas.add(schema)
        self._store = self._make_store()
        await self._store.prepare()
        metrics = Metrics(CollectorRegistry())
        traces = tracing()
        parts = Parts(
            sender=Sender(lambda: _MemoryProducer(self._produced)),
            room=Room(IN_HAND_RECORDS, IN_HAND_BYTES),
            metrics=metrics,
            calls=Calls(self._schemas, metrics, traces),
            tracing=traces,
            rules=self._app.rules,
            reply_allowed=lambda topic: topic == REPLIES,
            dead_letters=lambda name: f"{name}.commands.dlq",
            refresh_schemas=self._refresh_schemas,
            batch=64,
            concurrency=4,
            clock=self._now,
        )
        plain = PlainStore(4)
        key = await self._store.late_key()
        parts.calls.token = Tokens(key).make if key is not None else None
        self._runtime = Runtime(
            {
                f"{name}.commands": (each, self._store if each.contract.inbox else plain)
                for name, each in registries.items()
            },
            parts,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and close what was opened."""
        if self._runtime is not None:
            await self._runtime.finish(5.0)
        if self._store is not None:
            await self._store.close()

    def _make_store(self) -> PlainStore | MemoryStore | PostgresStore:
        if not self._keep:
            return PlainStore(4)
        if self._database_url is None:
            return MemoryStore(self.inbox)
        limits = Limits(self._app.rules.retention, 60.0)
        return PostgresStore(self._database_url, limits, name="kasaga harness", threads=4, prepare=True)

    async def _refresh_schemas(self) -> None:
        """There is nowhere to look."""

    # --- asking

    async def send(
        self,
        command: Callable[..., Any],
        value: Any,
        *,
        id: str | None = None,  # noqa: A002 (what everybody calls it)
        attempt: int = 1,
        key: str | None = None,
        sent: datetime | None = None,
    ) -> Reply:
        """Send a command, as one attempt, and wait for its reply.

        `id` and `attempt` say that it was sent before. Raises ContractError, EncodeError, and TimeoutError
        when no reply comes: the record is a dead letter then.
        """
        spec = command_of(command)
        if not isinstance(spec, CommandSpec):
            raise TypeError(f"{spec.type} is a compensation: use undo()")
        envelope = self._envelope(id or f"{uuid.uuid4()}.1", attempt, spec.type, sent)
        return await self._ask(spec, value, envelope, spec.input.encode(value), key)

    async def undo(
        self,
        compensation: Callable[..., Any],
        of: Reply,
        *,
        attempt: int = 1,
        knowledge: str | None = None,
        reason: str = "a test",
        failed_step: str | None = None,
    ) -> Reply:
        """Undo the command that got this reply, as the orchestrator would.

        `knowledge`: what the orchestrator knows, `done` or `unknown`; by default what the reply told.
        """
        spec = command_of(compensation)
        if not isinstance(spec, CompensationSpec):
            raise TypeError(f"{spec.type} is a command: use send()")
        done = of.outcome == "done" if knowledge is None else knowledge == "done"
        payload = spec.payload.encode(
            of.command.input.encode(of.input),
            of.command.input.schema,
            of.payload if done and of.outcome == "done" else None,
            of.command.result.schema if done and of.outcome == "done" else None,
            reason,
            failed_step,
        )
        envelope = self._envelope(f"{of.id}~undo", attempt, spec.type, None)
        envelope.undoes = Undoes(of.command.type, "done" if done else "unknown", of.envelope.time)
        return await self._ask(of.command, of.input, envelope, payload, None)

    async def undo_unsent(
        self,
        compensation: Callable[..., Any],
        value: Any,
        *,
        id: str,  # noqa: A002
    ) -> Reply:
        """Undo a command that hasn't come (yet): the fence."""
        spec = command_of(compensation)
        assert isinstance(spec, CompensationSpec), "an undo is a compensation"
        contract = contract_of(compensation)
        command = contract.commands[spec.undoes]
        payload = spec.payload.encode(
            command.input.encode(value), command.input.schema, None, None, "a test", None
        )
        envelope = self._envelope(f"{id}~undo", 1, spec.type, None)
        envelope.undoes = Undoes(command.type, "unknown", self._moment())
        return await self._ask(command, value, envelope, payload, None)

    async def void(self, command: Callable[..., Any], *, id: str, attempt: int = 1) -> Reply:  # noqa: A002
        """Give a command up, whether it has come or not."""
        spec = command_of(command)
        assert isinstance(spec, CommandSpec), "what is voided is a command"
        envelope = self._envelope(f"{id}~void", attempt, VOID, None)
        envelope.undoes = Undoes(spec.type, "unknown", self._moment())
        return await self._ask(spec, None, envelope, NULL_PAYLOAD, None)

    def late(self, command: Callable[[Any, I], Coroutine[Any, Any, R]]) -> Late[R]:
        """What answers commands of this kind whose handler has returned Deferred, as `Participant.late`."""
        spec = command_of(command)
        assert isinstance(spec, CommandSpec), "what is answered is a command"
        return Late(spec, self._database_url, self.inbox if self._keep and not self._database_url else None)

    async def feed(
        self, participant: str, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
    ) -> None:
        """Put any record on a participant's topic, and wait until nothing is in hand."""
        self._accept(f"{participant}.commands", b"key", value, list(headers))
        assert self._runtime is not None, "use `async with Harness(app)`"
        async with asyncio.timeout(SECONDS):
            while not self._runtime.idle:  # noqa: ASYNC110 (many things end it)
                await asyncio.sleep(0.001)

    def _envelope(self, id_: str, attempt: int, type_: str, sent: datetime | None) -> CommandEnvelope:
        return CommandEnvelope(
            command_id=id_,
            attempt=attempt,
            source="/kasaga/harness",
            type=type_,
            time=sent or self._moment(),
            saga_id=id_.partition(".")[0],
            saga="harness",
            saga_version=1,
            reply_to=ReplyTo(REPLIES, 0),
            traceparent=self.traceparent,
        )

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)

    async def _ask(
        self, spec: CommandSpec, value: Any, envelope: CommandEnvelope, payload: bytes, key: str | None
    ) -> Reply:
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[envelope.id] = (spec, value, future)
        record_key = (key or envelope.saga_id).encode()
        self._accept(f"{spec.participant}.commands", record_key, payload, list(envelope.to_headers()))
        try:
            return await asyncio.wait_for(future, SECONDS)
        finally:
            self._asked.pop(envelope.id, None)

    def _accept(
        self, topic: str, key: bytes, value: bytes | None, headers: list[tuple[str, bytes | None]]
    ) -> None:
        assert self._runtime is not None, "use `async with Harness(app)`"
        progress = self._progress.setdefault(topic, Progress((topic, 0)))
        record = Record(topic, 0, self._offset, key, value, headers, int(self._now() * 1000))
        self._offset += 1
        self._runtime.accept(topic, [(record, progress)])

    # --- being answered

    def _produced(self, topic: str, value: bytes | None, headers: Headers) -> None:
        if topic != REPLIES:
            texts = {key: text.decode("utf-8", "replace") for key, text in headers if text is not None}
            self.dead_letters.append(DeadLetter(topic, value, texts))
            return
        envelope = ReplyEnvelope.parse(headers)
        asked = self._asked.get(f"{envelope.command_id}.{envelope.attempt}")
        if asked is None or asked[2].done():
            return
        spec, given, future = asked
        payload = value or b""
        result = spec.result.decode(payload, self._schemas) if envelope.outcome == "done" else None
        said_no = envelope.outcome in ("refused", "failed", "expired", "conflict", "undecodable")
        error = errors_codec.decode(payload, self._schemas) if said_no else None
        id_ = envelope.command_id.partition("~")[0]
        future.set_result(Reply(id_, envelope.outcome, result, error, payload, envelope, spec, given))


class _MemoryProducer:
    """A Kafka that takes everything, and acknowledges it when it is asked."""

    fatal: str | None = None

    def __init__(self, produced: Callable[[str, bytes | None, Headers], None]) -> None:
        self._produced = produced
        self._acks: list[OnAck] = []

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: Callable[[DeliveryError | None], None],
    ) -> None:
        self._produced(topic, value, headers or [])
        self._acks.append(on_ack)

    def hand_over(self) -> None: ...

    def poll(self, timeout: float = 0.0) -> int:
        acks, self._acks = self._acks, []
        for on_ack in acks:
            on_ack(None)
        return len(acks)

    def close(self, timeout: float = 5.0) -> None:
        self._acks.clear()
