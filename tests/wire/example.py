"""The worked example of schemas/README.md, made by the code itself: see test_specification.py."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from pydantic import BaseModel

from kasaga_wire import command, compensation, contract_of, participant
from kasaga_wire.codec import codec_for
from kasaga_wire.envelope import CommandEnvelope, Headers, ReplyEnvelope, ReplyTo, StartEnvelope, Undoes
from kasaga_wire.kafka import partition_for
from kasaga_wire.records import NULL_PAYLOAD, clean_error, errors_codec, null_codec
from kasaga_wire.schema import PREFIX_BYTES, Schema
from kasaga_wire.topics import Topics


class Order(BaseModel):
    id: str
    sku: str
    quantity: int = 1
    gift_note: str | None = None


class Reservation(BaseModel):
    id: str


@participant("inventory")
class Inventory(Protocol):
    @command
    async def reserve(self, order: Order) -> Reservation: ...
    @compensation(reserve)
    async def release(self, order: Order, reserved: Reservation | None) -> None: ...


ORDER = Order(id="order-14", sku="chair", quantity=2)
RESERVATION = Reservation(id="r-7")
SHARDS, COMMAND_PARTITIONS = 16, 4
RUN = "01934f3e-7a5c-7cc0-8c3f-0123456789ab"
KEY = b"order-14"
SENT = datetime(2026, 11, 23, 1, 21, 0, tzinfo=UTC)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

contract = contract_of(Inventory)
reserve, release = contract.commands["reserve"], contract.compensations["release"]
topics = Topics("shop")
shard = partition_for(KEY, SHARDS)
command_partition = partition_for(KEY, COMMAND_PARTITIONS)

START = StartEnvelope(
    run_id=RUN,
    source="/kasaga/clients/web-1",
    time=SENT - timedelta(milliseconds=20),
    saga_id="order-14",
    saga="payment",
    saga_version=1,
    reply_to=ReplyTo(topics.answers, 2),
    traceparent=TRACE,
)
COMMAND = CommandEnvelope(
    command_id=f"{RUN}.1",
    attempt=1,
    source="/kasaga/shop",
    type=reserve.type,
    time=SENT,
    saga_id="order-14",
    saga="payment",
    saga_version=1,
    reply_to=ReplyTo(topics.replies, shard),
    deadline=SENT + timedelta(minutes=1),
    traceparent=TRACE,
)
REPLY = ReplyEnvelope.to(
    COMMAND, "done", source="/kasaga/participants/inventory", time=SENT + timedelta(milliseconds=5)
)
REFUSAL = ReplyEnvelope.to(
    COMMAND, "refused", source="/kasaga/participants/inventory", time=SENT + timedelta(milliseconds=5)
)
UNDO = CommandEnvelope(
    command_id=f"{RUN}.1~undo",
    attempt=1,
    source="/kasaga/shop",
    type=release.type,
    time=SENT + timedelta(seconds=2),
    saga_id="order-14",
    saga="payment",
    saga_version=1,
    reply_to=ReplyTo(topics.replies, shard),
    undoes=Undoes(reserve.type, "done", SENT),
)
UNDONE = ReplyEnvelope.to(
    UNDO, "undone", source="/kasaga/participants/inventory", time=SENT + timedelta(seconds=2, milliseconds=4)
)
VOID = CommandEnvelope(
    command_id=f"{RUN}.1~void",
    attempt=1,
    source="/kasaga/shop",
    type="kasaga.void",
    time=SENT + timedelta(seconds=2),
    saga_id="order-14",
    saga="payment",
    saga_version=1,
    reply_to=ReplyTo(topics.replies, shard),
    undoes=Undoes(reserve.type, "unknown", SENT),
)

ORDER_BYTES = reserve.input.encode(ORDER)
RESULT_BYTES = reserve.result.encode(RESERVATION)
REFUSAL_BYTES = errors_codec.encode(clean_error("OutOfStock", "no chair is left", code="E17"))
UNDO_BYTES = release.payload.encode(
    ORDER_BYTES, reserve.input.schema, RESULT_BYTES, reserve.result.schema, "the card was declined", "2"
)


def body(annotation: Any, value: Any) -> bytes:
    return codec_for(annotation, name="inventory").encode(value)[PREFIX_BYTES:]


ORDER_PARTS = [
    (body(str, ORDER.id), 'id: string of 8 bytes, "order-14"'),
    (body(str, ORDER.sku), 'sku: string of 5 bytes, "chair"'),
    (body(int, ORDER.quantity), "quantity: long 2, zigzag"),
    (body(str | None, ORDER.gift_note), "gift_note: branch 0 of the union, null"),
]
RESULT_PARTS = [(body(str, RESERVATION.id), 'id: string of 3 bytes, "r-7"')]
REFUSAL_PARTS = [
    (body(str, "OutOfStock"), 'type: "OutOfStock"'),
    (body(str, "no chair is left"), 'message: "no chair is left"'),
    (body(str | None, "E17"), 'code: branch 1 of the union, "E17"'),
    (body(str | None, None), "details: null"),
    (body(bool, False), "retryable: false"),
]
UNDO_PARTS = [
    (ORDER_BYTES[PREFIX_BYTES:], "input: the bytes of the command's payload behind its prefix"),
    (b"\x02" + RESULT_BYTES[PREFIX_BYTES:], "result: branch 1 of the union, then the result's bytes"),
    (body(str, "the card was declined"), 'reason: "the card was declined"'),
    (body(str | None, "2"), 'failed_step: branch 1 of the union, "2"'),
]


def hexes(data: bytes, width: int = 32) -> list[str]:
    return [data[at : at + width].hex(" ") for at in range(0, len(data), width)] or [""]


def shown_value(payload: bytes, schema: Schema, parts: list[tuple[bytes, str]]) -> list[str]:
    assert payload == schema.prefix + b"".join(part for part, _ in parts)
    lines: list[str] = []
    for part, says in [(schema.prefix, f"0x00, then the schema's id {schema.id}"), *parts]:
        first, *rest = hexes(part)
        lines += [f"    {line}" for line in [first, *rest][:-1]]
        lines.append(f"    {[first, *rest][-1]:<48}  # {says}")
    return lines


def record(title: str, topic: str, partition: int, headers: Headers, value: list[str]) -> str:
    lines = [
        f"#### {title}",
        "",
        "```text",
        f"topic      {topic}",
        f"partition  {partition}",
        f"key        {KEY.decode()}",
    ]
    lines += [f"{name:<18} {text.decode()}" for name, text in headers]
    return "\n".join([*lines, "value", *value, "```", ""])


def schema_text(title: str, schema: Schema) -> str:
    return (
        f"**{title}**, id {schema.id} (key `{schema.id}` on `shop.schemas`):\n\n```json\n{schema.json}\n```\n"
    )


def text() -> str:
    """Everything between the two markers in the specification."""
    parts = [
        schema_text("The input", reserve.input.schema),
        schema_text("The result", reserve.result.schema),
        schema_text("The undo", release.payload.schema),
        schema_text("The error", errors_codec.schema),
        schema_text("Nothing", null_codec.schema),
        record(
            "The start",
            topics.sagas,
            shard,
            START.to_headers(),
            shown_value(ORDER_BYTES, reserve.input.schema, ORDER_PARTS),
        ),
        record(
            "The command",
            topics.commands("inventory"),
            command_partition,
            COMMAND.to_headers(),
            shown_value(ORDER_BYTES, reserve.input.schema, ORDER_PARTS),
        ),
        record(
            "The reply when it was done",
            topics.replies,
            shard,
            REPLY.to_headers(),
            shown_value(RESULT_BYTES, reserve.result.schema, RESULT_PARTS),
        ),
        record(
            "The reply when it was refused",
            topics.replies,
            shard,
            REFUSAL.to_headers(),
            shown_value(REFUSAL_BYTES, errors_codec.schema, REFUSAL_PARTS),
        ),
        record(
            "The undo",
            topics.commands("inventory"),
            command_partition,
            UNDO.to_headers(),
            shown_value(UNDO_BYTES, release.payload.schema, UNDO_PARTS),
        ),
        record(
            "The reply when it was undone",
            topics.replies,
            shard,
            UNDONE.to_headers(),
            shown_value(NULL_PAYLOAD, null_codec.schema, []),
        ),
        record(
            "The void, had nobody known how the command ended",
            topics.commands("inventory"),
            command_partition,
            VOID.to_headers(),
            shown_value(NULL_PAYLOAD, null_codec.schema, []),
        ),
    ]
    return "\n".join(parts)
