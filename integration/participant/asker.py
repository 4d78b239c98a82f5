"""Plays the orchestrator: sends commands, undos and voids, and collects the replies."""

from __future__ import annotations

import re
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg

from kasaga_wire.contracts import Contract, contract_of
from kasaga_wire.envelope import VOID, CommandEnvelope, Knowledge, ReplyEnvelope, ReplyTo, Undoes
from kasaga_wire.errors import DeliveryError, KafkaUnavailable
from kasaga_wire.kafka import (
    Admin,
    Consumer,
    GroupConsumer,
    KafkaSettings,
    Producer,
    Record,
    partition_for,
)
from kasaga_wire.records import NULL_PAYLOAD, Error, errors_codec
from kasaga_wire.schema import Schemas
from kasaga_wire.topics import Topics
from participant.shop import Order, Shop

PATIENCE_SECONDS = 40.0
PARTITIONS = 4
EVIDENCE_SECONDS = 5.0
INBOX_ROW = "SELECT outcome, used_at FROM kasaga_inbox.inbox WHERE id = %(id)s"


@dataclass(frozen=True)
class Reply:
    """One reply, as it came."""

    envelope: ReplyEnvelope
    payload: bytes

    @property
    def outcome(self) -> str:
        return self.envelope.outcome

    def result(self, contract: type = Shop, name: str = "buy") -> Any:
        return contract_of(contract).commands[name].result.decode(self.payload, Schemas())

    def error(self) -> Error:
        return errors_codec.decode(self.payload, Schemas())


class Asker:
    """One namespace's worth of an orchestrator."""

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        *,
        contract: type = Shop,
        partitions: int = PARTITIONS,
        database: str | None = None,
    ) -> None:
        """`database`: where the inbox is, to tell what it holds of what isn't answered."""
        self.settings = KafkaSettings(bootstrap)
        self.database = database
        self.topics = Topics(namespace, f"{namespace}.")
        self.contract: Contract = contract_of(contract)
        self.partitions = partitions
        admin = Admin(self.settings)
        admin.ensure_topics(
            [
                *self.topics.orchestrator_specs(2),
                *self.topics.participant_specs(self.contract.name, partitions),
            ]
        )
        admin.close()
        self.producer = Producer(self.settings)
        self.consumer = Consumer(self.settings, group=f"{namespace}.asker")
        self.consumer.assign({(self.topics.replies, 0): 0})
        self.replies: dict[str, list[Reply]] = defaultdict(list)
        self.count = 0
        self.failures: list[DeliveryError] = []

    def close(self) -> None:
        self.producer.close()
        self.consumer.close()

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- asking

    def new_id(self) -> str:
        return f"{uuid.uuid4()}.1"

    def command(
        self,
        order: Order,
        id_: str,
        *,
        attempt: int = 1,
        name: str = "buy",
        sent: datetime | None = None,
        payload: bytes | None = None,
        type_: str | None = None,
        reply_to: ReplyTo | None = None,
    ) -> None:
        spec = self.contract.commands[name]
        envelope = self._envelope(id_, attempt, type_ or spec.type, sent, reply_to)
        self.send(envelope, spec.input.encode(order) if payload is None else payload)

    def undo(
        self,
        order: Order,
        of: str,
        *,
        attempt: int = 1,
        knowledge: Knowledge = "unknown",
        last: datetime | None = None,
        result: Any = None,
        name: str = "unbuy",
        payload: bytes | None = None,
    ) -> None:
        spec = self.contract.compensations[name]
        command = self.contract.commands[spec.undoes]
        if payload is None:
            payload = spec.payload.encode(
                command.input.encode(order),
                command.input.schema,
                None if result is None else command.result.encode(result),
                None if result is None else command.result.schema,
                "the saga failed",
                "2",
            )
        envelope = self._envelope(f"{of}~undo", attempt, spec.type, None, None)
        envelope.undoes = Undoes(command.type, knowledge, last or datetime.now(UTC))
        self.send(envelope, payload)

    def void(self, of: str, *, name: str = "buy", attempt: int = 1) -> None:
        envelope = self._envelope(f"{of}~void", attempt, VOID, None, None)
        envelope.undoes = Undoes(self.contract.commands[name].type, "unknown", datetime.now(UTC))
        self.send(envelope, NULL_PAYLOAD)

    def _envelope(
        self, id_: str, attempt: int, type_: str, sent: datetime | None, reply_to: ReplyTo | None
    ) -> CommandEnvelope:
        return CommandEnvelope(
            command_id=id_,
            attempt=attempt,
            source=f"/kasaga/{self.topics.namespace}",
            type=type_,
            time=sent or datetime.now(UTC),
            saga_id=id_.partition(".")[0],
            saga="payment",
            saga_version=1,
            reply_to=reply_to or ReplyTo(self.topics.replies, 0),
        )

    def send(self, envelope: CommandEnvelope, payload: bytes | None) -> None:
        self.raw(envelope.saga_id.encode(), payload, envelope.to_headers())

    def raw(self, key: bytes, value: bytes | None, headers: Any) -> None:
        topic = self.topics.commands(self.contract.name)

        def on_ack(error: DeliveryError | None) -> None:
            if error is not None:
                self.failures.append(error)

        self.producer.produce(topic, partition_for(key, self.partitions), key, value, headers, on_ack)
        self.producer.poll(0)

    def flush(self) -> None:
        assert self.producer.flush(PATIENCE_SECONDS) == 0
        assert self.failures == []

    # --- being answered

    def collect(self, timeout: float = 0.0) -> int:
        found = [each for each in self.consumer.consume(1000, timeout) if isinstance(each, Record)]
        for record in found:
            envelope = ReplyEnvelope.parse(record.headers)
            self.replies[envelope.command_id].append(Reply(envelope, record.value or b""))
        self.count += len(found)
        return len(found)

    def wait(self, *ids: str, replies: int = 1) -> list[Reply]:
        """The first reply to each; waits until each has as many as that."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while any(len(self.replies[id_]) < replies for id_ in ids):
            if time.monotonic() > deadline:
                missing = [id_ for id_ in ids if len(self.replies[id_]) < replies]
                raise AssertionError(
                    f"{len(missing)} of {len(ids)} are not answered:\n"
                    + "\n".join(self._evidence(missing[:10]))
                )
            self.producer.poll(0)
            self.collect(0.2)
        return [self.replies[id_][replies - 1] for id_ in ids]

    def _evidence(self, missing: list[str]) -> Iterator[str]:
        """Of each command: its partition, how far that was read, and what the inbox holds."""
        topic = self.topics.commands(self.contract.name)
        numbers = {id_: partition_for(re.split("[.~]", id_)[0].encode(), self.partitions) for id_ in missing}
        places = [(topic, number) for number in sorted(set(numbers.values()))]
        group = GroupConsumer(self.settings, group=topic)  # joins nothing
        try:
            read = group.offsets(places, "group", EVIDENCE_SECONDS)
            ends = group.offsets(places, "end", EVIDENCE_SECONDS)
        except KafkaUnavailable as error:
            yield f"(kafka says nothing: {error})"
            read, ends = {}, {}
        finally:
            group.close()
        for id_, number in numbers.items():
            place = (topic, number)
            yield (
                f"{id_}: partition {number}, committed {read.get(place)}, end {ends.get(place)}; "
                f"replies {len(self.replies[id_])}; inbox {self._inbox(id_)}"
            )

    def _inbox(self, id_: str) -> object:
        if self.database is None:
            return "unknown"
        try:
            with psycopg.connect(
                self.database, connect_timeout=3, options="-c statement_timeout=3000"
            ) as link:
                return link.execute(INBOX_ROW, {"id": id_}).fetchall()
        except psycopg.Error as error:
            return error

    def ask(self, order: Order, id_: str | None = None, **options: Any) -> Reply:
        id_ = id_ or self.new_id()
        before = len(self.replies[id_])
        self.command(order, id_, **options)
        return self.wait(id_, replies=before + 1)[0]
