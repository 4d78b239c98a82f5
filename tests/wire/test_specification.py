"""schemas/README.md says what the code does: the code makes its example, and nothing on the wire is missing.

To write the example anew after a change that is meant:
KASAGA_UPDATE_GOLDEN=1 pytest tests/wire/test_specification.py
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasaga_wire import codec, headers, reading, records, topics
from kasaga_wire.dead_letters import dead_letter_headers
from kasaga_wire.envelope import OUTCOMES, AnswerEnvelope, ControlEnvelope, EventEnvelope
from kasaga_wire.kafka import partition_for
from kasaga_wire.messages import MessageEnvelope
from kasaga_wire.undo import Undo
from wire import example, test_child_envelope

README = Path(__file__).parent.parent.parent / "schemas" / "README.md"
MARK = "<!-- The rest is written by tests/wire/test_specification.py. -->"


def specification() -> str:
    return README.read_text(encoding="utf-8")


def test_the_example_is_what_the_code_makes() -> None:
    before, _, after = specification().partition(MARK)
    made = example.text()
    if os.environ.get("KASAGA_UPDATE_GOLDEN"):
        README.write_text(f"{before}{MARK}\n\n{made}", encoding="utf-8")
        _, _, after = specification().partition(MARK)
    assert after == "\n\n" + made


def test_every_header_is_specified() -> None:
    moment = example.SENT
    plain: list[Any] = [
        ControlEnvelope(
            id="a", source="s", action="cancel", time=moment, saga_id="o", reply_to=example.START.reply_to
        ),
        MessageEnvelope(kind="signal", key="k", name="n", source="s", time=moment, saga_id="o", keep=True),
        AnswerEnvelope(asked="a", what="applied", source="s", time=moment, saga_id="o"),
        EventEnvelope(id="e", source="s", state="stuck", time=moment, saga_id="o"),
        test_child_envelope.TAKEN_BACK,
    ]
    envelopes: list[Any] = [example.START, example.COMMAND, example.REPLY, example.UNDO, example.VOID, *plain]
    names = {name for envelope in envelopes for name, _ in envelope.to_headers()}
    dead = dead_letter_headers(
        [], topic="t", partition=0, offset=0, code="c", reason="r", by="b", time=moment
    )
    text = specification()
    for name in names | {name for name, _ in dead}:
        assert f"`{name}`" in text, name


def test_every_outcome_is_specified() -> None:
    table = specification().partition("## Replies")[2].partition("## Undo and void")[0]
    cells = {
        outcome
        for row in re.findall(r"^\|[^|]*\|([^|]*)\|", table, re.M)
        for outcome in re.findall(r"`(\w+)`", row)
    }
    assert cells - {"type", "message", "code", "details", "retryable"} >= OUTCOMES
    assert {c for c in cells if c in OUTCOMES} == OUTCOMES


def test_every_field_of_our_records_is_specified() -> None:
    text = specification()
    bodies: list[Any] = [records.Error, records.Control, records.Answer, records.Event]
    fields = [name for body in bodies for name in body.model_fields]
    for name in [*fields, *Undo.__dataclass_fields__]:
        assert f"`{name}`" in text, name
    for body in bodies:
        assert f"`kasaga.{body.__name__}`" in text


def test_every_topic_is_specified() -> None:
    text = specification()
    made = topics.Topics("<ns>".strip("<>"), "p-")
    for spec in [*made.orchestrator_specs(), *made.participant_specs("inventory")]:
        name = (
            spec.name.replace("p-", "<prefix>", 1)
            .replace("inventory", "<participant>")
            .replace(">ns.", "><ns>.")
        )
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |"))
        days = int(spec.config.get("retention.ms", 0)) // (24 * 60 * 60 * 1000)
        assert (f"{days} day" if days else "compact") in row
        assert ("shards" if spec.partitions == topics.DEFAULT_SHARDS else str(spec.partitions)) in row


def test_the_limits_are_those_of_the_code() -> None:
    text = specification()
    for said in (
        f"more than {headers.MAX_HEADERS} headers",
        f"more than {headers.MAX_OWN_BYTES:,} bytes",
        f"{headers.MAX_TEXT_CHARACTERS} characters;",
        f"saga ids {headers.MAX_SAGA_ID_CHARACTERS}, run ids {headers.MAX_RUN_ID_CHARACTERS}",
        f"longer than {codec.MAX_PAYLOAD_BYTES // 1024 // 1024} MiB",
        f"deeper than {reading.MAX_DEPTH}",
        f"cut to {records.MAX_MESSAGE_CHARACTERS:,} characters",
        f"when the namespace is created ({topics.DEFAULT_SHARDS})",
    ):
        assert said in text, said


# --- a stranger, with nothing but the specification


def murmur2(data: bytes) -> int:
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) - len(data) % 4
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at : at + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


@given(st.binary(min_size=1, max_size=40), st.integers(1, 300))
def test_a_stranger_finds_the_same_partition(key: bytes, count: int) -> None:
    assert partition_for(key, count) == (murmur2(key) & 0x7FFFFFFF) % count


@pytest.mark.parametrize(
    ("key", "signed"), re.findall(r'murmur2\("(\w+)"\)` (?:is )?(-?\d+)', specification())
)
def test_the_murmurs_that_are_named(key: str, signed: str) -> None:
    assert murmur2(key.encode()) == int(signed) % 2**32


class Stranger:
    """Reads Avro by hand."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def long(self) -> int:
        result = shift = 0
        while True:
            byte = self.data[self.at]
            self.at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (result >> 1) ^ -(result & 1)
            shift += 7

    def string(self) -> str:
        size = self.long()
        self.at += size
        return self.data[self.at - size : self.at].decode()


def example_records() -> dict[str, tuple[dict[str, str], bytes]]:
    """The records of the example, read out of the specification's text."""
    found: dict[str, tuple[dict[str, str], bytes]] = {}
    for title, block in re.findall(r"#### (.*?)\n\n```text\n(.*?)```", specification(), re.S):
        head, _, value = block.partition("value\n")
        fields = dict(line.split(maxsplit=1) for line in head.splitlines())
        found[title] = (fields, bytes.fromhex("".join(line.partition("#")[0] for line in value.splitlines())))
    return found


def test_a_stranger_can_read_the_example() -> None:
    published = re.findall(r"key `(\d+)` on `shop.schemas`\):\n\n```json\n(.*?)\n```", specification(), re.S)
    ids = {int(key) for key, _ in published}
    for key, text in published:
        assert int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") & 0x7FFFFFFF == int(key)
    found = example_records()
    assert len(found) == 7
    for fields, value in found.values():
        assert value[0] == 0
        assert int.from_bytes(value[1:5], "big") in ids
        assert fields["ce_subject"] == fields["key"] == "order-14"
    fields, value = found["The command"]
    assert int(fields["partition"]) == (murmur2(b"order-14") & 0x7FFFFFFF) % 4
    read = Stranger(value[5:])
    assert [read.string(), read.string(), read.long(), read.long()] == ["order-14", "chair", 2, 0]
    assert read.at == len(value) - 5
    fields, value = found["The undo"]
    read = Stranger(value[5:])
    assert [read.string(), read.string(), read.long(), read.long()] == ["order-14", "chair", 2, 0]
    assert [read.long(), read.string(), read.string()] == [1, "r-7", "the card was declined"]
    assert [read.long(), read.string(), read.at] == [1, "2", len(value) - 5]
    fields, value = found["The reply when it was done"]
    assert fields["topic"] + "/" + fields["partition"] == found["The command"][0]["ce_replyto"]
    assert fields["ce_id"] == found["The command"][0]["ce_id"] + ".r"
    assert Stranger(value[5:]).string() == "r-7"
