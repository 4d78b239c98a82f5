"""Starting sagas, waiting for their ends, and acting on them, from any program.

Station: everything is a record: a start goes to `<ns>.sagas`, an action to `<ns>.control`, both to the
partition of the saga's id; the shard's owner answers on the partition of `<ns>.answers` that this client
hears. Nothing here writes a saga, and nothing needs the database.
"""

# ruff: noqa: A002, ASYNC109 - `id`, `input` and `timeout` are the words that callers expect

from __future__ import annotations

import asyncio
import os
import socket
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar, overload
from uuid import UUID, uuid5

from kasaga_wire.attributes import AttributeValue, to_text
from kasaga_wire.codec import Codec, Schema, Schemas, codec_for, to_json
from kasaga_wire.envelope import AnswerEnvelope, ReplyTo
from kasaga_wire.errors import DeliveryError, KasagaError, UnknownSchema
from kasaga_wire.kafka import KafkaSettings, Record, partition_for
from kasaga_wire.messages import Kind
from kasaga_wire.records import Answer, Control, answer_codec, control_codec, own_schemas
from kasaga_wire.sealing import Sealer, record_place, sealer_from_env
from kasaga_wire.topics import Topics

from ..errors import PayloadTooLarge
from ..saga import Saga
from .acting import Question
from .errors import ClientClosed, StartUnconfirmed, UnknownSaga
from .handle import Handle
from .headers import Starting, check_id, control_headers, message_headers, start_headers
from .ids import uuid7
from .link import KafkaLink, Link, Outgoing
from .sending import Sending
from .status import SagaStatus

A = TypeVar("A")
R = TypeVar("R")

Attributes = Mapping[str, AttributeValue]

CONFIRM_SECONDS = 30.0
"""How long Kafka may take to say that it has a record."""

MAX_INPUT_BYTES = 900_000
"""Of a saga's input: the orchestrator's default for one value."""


class Client(Sending):
    """A client of one namespace, as an asynchronous context manager; of one event loop."""

    def __init__(
        self,
        namespace: str,
        kafka: KafkaSettings | None = None,
        *,
        topic_prefix: str | None = None,
        name: str = "",
        database_url: str | None = None,
        link: Link | None = None,
        sealer: Sealer | None = None,
    ) -> None:
        """Open nothing yet: `async with` does.

        Args:
            namespace: of the App whose sagas these are.
            kafka: the brokers; from `KASAGA_KAFKA_…` by default.
            topic_prefix: what all topics begin with; `KASAGA_TOPIC_PREFIX` by default.
            name: who starts and acts, for the history; the host's name by default.
            database_url: where the orchestrator keeps sagas, for a fuller `describe`;
                `KASAGA_DATABASE_URL` by default, and not needed.
            link: another transport than Kafka, for tests.
            sealer: what seals and opens payloads; by `KASAGA_PAYLOAD_KEYS` and
                `KASAGA_PAYLOAD_COMPRESS_BYTES` by default.
        """
        prefix = os.environ.get("KASAGA_TOPIC_PREFIX", "") if topic_prefix is None else topic_prefix
        self.topics = Topics(namespace, prefix)
        self.name = name or socket.gethostname()
        self._source = f"/kasaga/clients/{self.name}"
        self._kafka = kafka
        self._sealer = sealer_from_env() if sealer is None else sealer
        self._database_url = database_url or os.environ.get("KASAGA_DATABASE_URL", "")
        self._given = link
        self._link: Link | None = None
        self._client_id = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._schemas = Schemas()
        self._published: set[int] = set()
        self._shards = 0
        self._answer_partitions = 0
        self._reply_to: ReplyTo | None = None
        self._hearing = asyncio.Lock()
        self._unconfirmed = 0
        # A question that nobody waits for any more is forgotten with its handle.
        self._questions: weakref.WeakValueDictionary[str, Question] = weakref.WeakValueDictionary()

    async def __aenter__(self) -> Self:
        client_id = str(uuid7())
        link = self._given
        if link is None:
            link = KafkaLink(self._kafka or KafkaSettings.from_env(), self.topics, client_id)
        self._shards, self._answer_partitions = await asyncio.to_thread(link.open)
        self._client_id = client_id
        self._loop = asyncio.get_running_loop()
        self._link = link
        for schema in own_schemas():
            self._schemas.add(schema)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        link, self._link = self._link, None
        if link is not None:
            await asyncio.to_thread(link.close)

    # --- starting

    @property
    def unconfirmed_bytes(self) -> int:
        """Of records on their way to Kafka, those included that nobody waits for any more."""
        return self._unconfirmed

    @property
    def knows_database(self) -> bool:
        """Whether `describe` reads the database instead of asking the saga's owner."""
        return bool(self._database_url)

    @overload
    async def start(
        self,
        saga: Saga[A, R],
        input: A,
        *,
        id: str,
        attributes: Attributes | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Handle[R]: ...

    @overload
    async def start(
        self,
        saga: str,
        input: object,
        *,
        id: str,
        attributes: Attributes | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Handle[Any]: ...

    async def start(
        self,
        saga: Saga[Any, Any] | str,
        input: object,
        *,
        id: str,
        attributes: Attributes | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Handle[Any]:
        """Start a saga. Returns when all in-sync replicas of Kafka have it: it will run, once.

        Starting again with the same id, name and input gives the saga that exists; with another
        name or input it is rejected, which `result()` raises.

        Args:
            saga: as declared with `@saga`; or its name, for a program without the code: the newest
                version then, `input` a pydantic model, and the result as JSON-able values.
            input: the saga's one argument.
            id: yours, such as an order's number; unique in the namespace.
            attributes: what the saga can be searched by, such as `{"customer": "c-7"}`. Of a saga that exists
                they stay as they are.
            wait: you will call `result()`: the start record asks for the end, which saves a question.
            timeout: seconds for Kafka to confirm; 30 by default.

        Raises:
            StartUnconfirmed: Kafka didn't confirm in time; start it again with the same id.
            EncodeError: the input doesn't fit; names the field.
            BadRequest: the id can't be used.
            BadAttribute: an attribute can't be kept; names it.
        """
        declared = saga if isinstance(saga, Saga) else None
        name = declared.name if declared else str(saga)
        codec: Codec[Any] = declared.input if declared else codec_for(type(input), name=f"{name}.input")
        version = declared.version if declared else None
        handle = self.handle(declared or name, id)
        start = Starting(codec.encode(input), version, to_text(attributes or {}))
        await self._start(handle, codec.schema, start, wait=wait, timeout=timeout)
        return handle

    async def start_encoded(
        self,
        saga: str,
        payload: bytes,
        schema: Schema,
        *,
        id: str,
        version: int | None = None,
        attributes: Attributes | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Handle[Any]:
        """Start a saga by name with an input that is encoded already, with `schema`; else as `start`.

        `version`: the newest that the orchestrator has, by default.
        """
        handle = self.handle(saga, id)
        start = Starting(payload, version, to_text(attributes or {}))
        await self._start(handle, schema, start, wait=wait, timeout=timeout)
        return handle

    async def _start(
        self,
        handle: Handle[Any],
        schema: Schema,
        start: Starting,
        *,
        wait: bool,
        timeout: float | None,
    ) -> None:
        if len(start.value) > MAX_INPUT_BYTES:
            text = f"the input of saga {handle.id} has {len(start.value)} bytes, over {MAX_INPUT_BYTES}"
            raise PayloadTooLarge(text)
        run_id = str(uuid7())
        if wait:
            await self._hear_answers()
        handle.started(run_id, start, self.question(run_id) if wait else None)
        patience = CONFIRM_SECONDS if timeout is None else timeout
        try:
            async with asyncio.timeout(patience):
                await self._publish(schema)
                await self.send_start(handle, run_id, start, reply=wait)
        except TimeoutError:
            text = f"Kafka didn't confirm the start of saga {handle.id} within {patience:g} s"
            raise StartUnconfirmed(text) from None
        except DeliveryError as error:
            if error.permanent:
                raise
            text = f"Kafka didn't confirm the start of saga {handle.id}: {error.message}"
            raise StartUnconfirmed(text) from None

    async def run(
        self,
        saga: Saga[A, R],
        input: A,
        *,
        id: str,
        attributes: Attributes | None = None,
        timeout: float | None = None,
    ) -> R:
        """Start a saga and wait for its result: `start(wait=True)` and `result(timeout)`."""
        handle = await self.start(saga, input, id=id, attributes=attributes, wait=True)
        return await handle.result(timeout)

    @overload
    def handle(self, saga: Saga[A, R], id: str) -> Handle[R]: ...

    @overload
    def handle(self, saga: str, id: str) -> Handle[Any]: ...

    def handle(self, saga: Saga[Any, Any] | str, id: str) -> Handle[Any]:
        """Take up a saga that was started elsewhere, by its id."""
        check_id(id)
        declared = saga if isinstance(saga, Saga) else None
        return Handle(
            self, id, declared.result if declared else None, name=declared.name if declared else str(saga)
        )

    async def describe(self, id: str, *, timeout: float | None = None) -> SagaStatus:
        """Say where a saga stands: from the database if this client knows it, else by asking the owner.

        Raises:
            UnknownSaga: there is none, or its start hasn't been read yet.
            NoAnswer: no orchestrator answered in time.
        """
        if self._database_url:
            return await asyncio.to_thread(self._look_up, id)
        # Always the same question: a saga keeps a limited number of them.
        watch = str(uuid5(UUID(self._client_id), id))
        body = Control(action="watch", by=self._source)
        answer = await self._answered("watch", id, timeout, body, action_id=watch)
        return SagaStatus.of_answer(answer)

    def _look_up(self, saga_id: str) -> SagaStatus:
        from ..store.postgres import PostgresStore

        store = PostgresStore(self._database_url, sealer=self._sealer)
        try:
            row = store.saga(saga_id)
        finally:
            store.close()
        if row is None:
            raise UnknownSaga(f"there is no saga {saga_id}")
        return SagaStatus.of_row(row)

    # --- for handles

    def question(self, about: str | None) -> Question:
        """Begin to listen for answers to an id."""
        question = Question()
        if about is not None:
            self._questions[about] = question
        return question

    def listen_for(self, about: str, question: Question) -> None:
        """Listen for answers to one more id."""
        self._questions[about] = question

    async def hear(self, question: Question, wait: float) -> Answer | None:
        """Return the next answer, or None when none has come within `wait` seconds."""
        try:
            async with asyncio.timeout(wait):
                record = await question.heard.get()
        except TimeoutError:
            return None
        value = self._sealer.open(record_place(record.headers), record.value or b"")
        return await self.decode(answer_codec, value)

    async def send_start(self, handle: Handle[Any], run_id: str, start: Starting, *, reply: bool) -> None:
        """Send a start record, and wait until Kafka has it."""
        reply_to = await self._hear_answers() if reply else None
        headers = start_headers(run_id, self._source, handle.id, handle.name, start, reply_to)
        await self._send(self.topics.sagas, handle.id, start.value, headers)

    async def ask_control(
        self, action: str, saga_id: str, *, action_id: str, body: Control | None = None
    ) -> None:
        """Send a control record that asks for an answer, and wait until Kafka has it."""
        check_id(saga_id)
        headers = control_headers(action_id, self._source, action, saga_id, await self._hear_answers())
        value = control_codec.encode(body or Control(action=action, by=self._source))
        await self._send(self.topics.control, saga_id, value, headers)

    async def send_message(
        self,
        kind: Kind,
        saga_id: str,
        name: str,
        payload: bytes,
        schema: Schema | None,
        *,
        key: str,
        keep: bool = False,
    ) -> None:
        """Send a signal or an update that asks for an answer, and wait until Kafka has it."""
        if schema is not None:
            await self._publish(schema)
        reply_to = await self._hear_answers()
        headers = message_headers(
            kind, key, self._source, name, saga_id, reply_to, json=schema is None, keep=keep
        )
        await self._send(self.topics.control, saga_id, payload, headers)

    async def decode(self, codec: Codec[R], data: bytes) -> R:
        """Decode a payload; schemas that aren't known here are fetched once."""
        self._schemas.add(codec.schema)
        try:
            return codec.decode(data, self._schemas)
        except UnknownSchema:
            await self._fetch_schemas()
            return codec.decode(data, self._schemas)

    async def to_json(self, data: bytes) -> object:
        """Decode a payload to JSON-able values."""
        if not data:
            return None
        try:
            return to_json(data, self._schemas)
        except UnknownSchema:
            await self._fetch_schemas()
            return to_json(data, self._schemas)

    # --- the link

    def _opened(self) -> Link:
        if self._link is None:
            raise ClientClosed("this client isn't open")
        return self._link

    async def _send(self, topic: str, key: str, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        link, loop = self._opened(), asyncio.get_running_loop()
        if headers and self._sealer.active:  # schemas have no headers, and stay plain
            value = self._sealer.seal(record_place(headers), value)
        confirmed: asyncio.Future[None] = loop.create_future()

        def settle(error: KasagaError | None) -> None:
            self._unconfirmed -= len(value)
            if confirmed.done():
                return  # the caller's patience has ended
            if error is None:
                confirmed.set_result(None)
            else:
                confirmed.set_exception(error)

        def done(error: KasagaError | None) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, error)

        partition = partition_for(key.encode(), self._shards) if topic != self.topics.schemas else 0
        self._unconfirmed += len(value)
        link.send(Outgoing(topic, partition, key.encode(), value, headers, done))
        await confirmed

    async def _hear_answers(self) -> ReplyTo:
        """Begin to hear answers, if that has not been done."""
        link = self._opened()
        async with self._hearing:
            if self._reply_to is None:
                partition = partition_for(self._client_id.encode(), self._answer_partitions)
                await asyncio.to_thread(link.listen, partition, self._heard)
                self._reply_to = ReplyTo(self.topics.answers, partition)
        return self._reply_to

    def _heard(self, record: Record) -> None:
        """Called in the link's thread: other clients' answers, the most of them, go no further."""
        try:
            asked = AnswerEnvelope.parse(record.headers).asked
        except KasagaError:
            return
        loop = self._loop
        if asked in self._questions and loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._deliver, asked, record)

    def _deliver(self, asked: str, record: Record) -> None:
        question = self._questions.get(asked)
        if question is not None:
            question.heard.put_nowait(record)

    async def _publish(self, schema: Schema) -> None:
        """Make the input's schema known before the first record that is written with it."""
        if schema.id in self._published:
            return
        self._schemas.add(schema)
        await self._send(self.topics.schemas, str(schema.id), schema.json.encode(), [])
        self._published.add(schema.id)

    async def _fetch_schemas(self) -> None:
        for text in await asyncio.to_thread(self._opened().schemas):
            self._schemas.add(text)
