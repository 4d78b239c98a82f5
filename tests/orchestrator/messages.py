"""Signals and updates as Kafka brings them to a world."""

from __future__ import annotations

from typing import Any

from kasaga.messages import message_codec
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import ReplyTo
from kasaga_wire.kafka import Record
from kasaga_wire.messages import Kind, MessageEnvelope
from kasaga_wire.records import Answer, answer_codec
from orchestrator.world import World


def send(
    world: World,
    kind: Kind,
    saga_id: str,
    name: str,
    value: Any = None,
    *,
    key: str = "",
    json: str = "",
    ask: bool = True,
    keep: bool = False,
    keep_seconds: int | None = None,
    partition: int | None = None,
) -> str:
    """Put a signal or an update into Kafka, behind its schema; returns its key."""
    key = key or str(world.uuid())
    envelope = MessageEnvelope(
        kind=kind,
        key=key,
        name=name,
        source="/kasaga/clients/test",
        time=world.now(),
        saga_id=saga_id,
        json=bool(json),
        keep=keep,
        keep_seconds=keep_seconds,
        reply_to=ReplyTo(world.topics.answers, 0) if ask else None,
    )
    codec = message_codec(None if value is None else value.__class__, kind, name)
    schema = codec.schema
    world.kafka.append(world.topics.schemas, 0, str(schema.id).encode(), schema.json.encode(), [])
    payload = json.encode() if json else codec.encode(value)
    where = world.shard_of(saga_id) if partition is None else partition
    world.kafka.append(world.topics.control, where, saga_id.encode(), payload, envelope.to_headers())
    return key


def told(world: World, about: str) -> list[Answer]:
    """All answers to a record."""
    found = [
        answer_codec.decode(record.value or b"", Schemas())
        for record in world.kafka.all(world.topics.answers)
    ]
    return [answer for answer in found if answer.about == about]


def dead(world: World) -> list[Record]:
    """The dead letters."""
    return world.kafka.all(world.topics.orchestrator_dead_letters)


def code_of(record: Record) -> str:
    """Why a dead letter is one."""
    return (dict(record.headers).get("kasaga_dlq_code") or b"").decode()
