"""`kasaga payload decode`: one payload as JSON, of a record in Kafka or of bytes at hand."""

from __future__ import annotations

import base64
import binascii
import re
import sys
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import click

from kasaga_wire.claims import claimed, claims_from_env, fetch, is_claim
from kasaga_wire.codec import MAX_PAYLOAD_BYTES, Schemas
from kasaga_wire.errors import KafkaUnavailable
from kasaga_wire.kafka import Consumer, PartitionError, Record
from kasaga_wire.records import own_schemas
from kasaga_wire.sealing import COMPRESSED, MAGIC, is_sealed, key_of, place, record_place

from ..lookup import stored_schemas
from ..store.base import Store
from ..timeline_data import decoder
from .errors import BadInput
from .output import Output
from .session import Session, database_option, kafka_option, output_option, pass_session

READ_SECONDS = 10.0
"""How long a record is waited for."""

MAX_TEXT = 4 * MAX_PAYLOAD_BYTES
"""Characters that are read: a payload in hexadecimal digits has twice its bytes."""

_HEX = re.compile(rb"(?:\\x|0x)?((?:[0-9a-fA-F]{2})+)")
_RECORD = re.compile(r"(?P<topic>[A-Za-z0-9._-]{1,249})/(?P<partition>\d{1,9})/(?P<offset>\d{1,18})")


@click.group()
def payload() -> None:
    """Payloads as they lie in Kafka, and in databases; see payloads.md."""


@payload.command()
@click.argument("given", metavar="TOPIC/PARTITION/OFFSET|VALUE|@FILE|-")
@click.option("--command", default="", metavar="ID", help="VALUE is a command's with this id, or its undo's.")
@click.option(
    "--reply", default="", metavar="ID", help="VALUE is a reply to this id, or its row in an inbox."
)
@kafka_option
@database_option
@output_option
@pass_session
def decode(session: Session, given: str, command: str, reply: str) -> None:
    """Show a payload as JSON: of a record in Kafka, or bytes in hexadecimal digits or base64.

    What is encrypted opens in its place alone. A record's headers say where that is; of bytes, say it.
    """
    if command and reply:
        raise click.UsageError("it is a command's, or a reply's")
    out = session.output()
    place_ = _RECORD.fullmatch(given)
    head: dict[str, Any] = {}
    if place_ is not None and not (command or reply):
        record = _fetch(session, place_["topic"], int(place_["partition"]), int(place_["offset"]))
        where, data, head = record_place(record.headers), record.value or b"", _head(record)
    else:
        kind, id_ = ("reply", reply) if reply else ("command", command)
        where, data = place(kind, id_), _bytes(given)
    inner, head["object"] = data, ""
    if is_claim(data):
        head["object"], size = claimed(data)
        out.note(f"in an object: {head['object']}, {size} bytes")
        inner = fetch(claims_from_env(session.environment), head["object"].partition("/")[0], data)
    opened = session.sealer().open(where, inner)
    with session.store() as store:
        value = decoder(_schemas(store))(opened)
    _tell(out, head, inner, len(opened), value)


def _tell(out: Output, head: dict[str, Any], data: bytes, size: int, value: object) -> None:
    sealed = is_sealed(data)
    how = {
        "bytes": len(data),
        "opened_bytes": size,
        "key_id": key_of(data) if sealed else "",
        "compressed": sealed and bool(data[2] & COMPRESSED),
    }
    if out.json:
        out.document({**head, **how, "value": value})
        return
    words = [f"encrypted with key {how['key_id']}"] if how["key_id"] else []
    words += ["compressed"] if how["compressed"] else []
    for name, text in head.get("headers", {}).items():
        out.note(f"{name}: {text}")
    out.note(f"{len(data)} bytes, {' and '.join(words) or 'plain'}")
    out.document(value)


def _head(record: Record) -> dict[str, Any]:
    headers = {name: (value or b"").decode("utf-8", "backslashreplace") for name, value in record.headers}
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "key": None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
        "headers": headers,
    }


def _fetch(session: Session, topic: str, partition: int, offset: int) -> Record:
    consumer = Consumer(session.kafka_settings(), group=f"kasaga-payload-{uuid4()}")
    try:
        consumer.assign({(topic, partition): offset})
        until, over = time.monotonic() + READ_SECONDS, False
        while not over and (left := until - time.monotonic()) > 0:
            for each in consumer.consume(1, left):
                if isinstance(each, Record) and each.offset == offset:
                    return each
                if isinstance(each, PartitionError) and not each.out_of_range:
                    raise KafkaUnavailable(f"{topic}/{partition} can't be read: {each.message}")
                over = True
    finally:
        consumer.close()
    raise BadInput(
        f"there is no record {offset} in partition {partition} of {topic}",
        remedy="Kafka may have deleted it; a dead letter's log line, or its headers, say where it is",
    )


def _bytes(given: str) -> bytes:
    if given == "-":
        raw = sys.stdin.buffer.read(MAX_TEXT + 1)
    elif given.startswith("@"):
        raw = _file(Path(given[1:]))
    else:
        raw = given.encode()
    if len(raw) > MAX_TEXT:
        raise BadInput("that is larger than any payload", remedy="Name the right one")
    if raw[:2] == MAGIC or raw[:1] == b"\0":
        return raw
    text = raw.strip()
    if digits := _HEX.fullmatch(text):
        return bytes.fromhex(digits[1].decode())
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        remedy = "Take encode(payload, 'hex') in psql, or TOPIC/PARTITION/OFFSET of a record"
        raise BadInput("that is neither hexadecimal nor base64", remedy=remedy) from None


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_TEXT + 1)
    except OSError as error:
        raise BadInput(
            f"{path} can't be read: {error.strerror}", remedy="Name a file that you may read"
        ) from None


def _schemas(store: Store) -> Schemas:
    schemas = stored_schemas(store)
    for schema in own_schemas():
        schemas.add(schema)
    return schemas
