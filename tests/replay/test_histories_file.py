"""Files of histories: written and read, and whatever else somebody names as one."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasaga.gate import History, read_file, write_file
from kasaga.gate.errors import FileUnreadable
from kasaga_wire.codec import Schemas

GOLDEN = Path(__file__).parent.parent / "golden_histories" / "0.1.0" / "good.jsonl"
HISTORY = History("s-1", "0199", "payment", 1, "RUNNING", ((1, b"\x00\xff"), (2, b"")), "KSG-1")
HEAD = b'{"kasaga":"histories","format":1}\n'


def read(data: bytes) -> list[History]:
    return list(read_file(io.BytesIO(data), "file", Schemas()))


def test_what_is_written_is_read() -> None:
    file = io.BytesIO()
    assert write_file(file, ['"string"'], [HISTORY]) == 1
    schemas = Schemas()
    assert list(read_file(io.BytesIO(file.getvalue()), "file", schemas)) == [HISTORY]
    assert [schema.json for schema in schemas] == ['"string"']


def test_what_a_newer_release_adds_is_skipped() -> None:
    file = io.BytesIO()
    write_file(file, [], [HISTORY])
    lines = [{**json.loads(line), "new": [1]} for line in file.getvalue().splitlines()]
    assert read("\n".join(json.dumps(line) for line in lines).encode()) == [HISTORY]


LINE = b'{"saga_id":"s","run_id":"r","name":"n","version":1,"state":"RUNNING","rows":[[1,"AA=="]]}'


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "file is empty"),
        (b"\x00\xff", "file:1: this is no JSON"),
        (b"[" * 100_000, "file:1: this is no JSON"),
        (b"[]", "file:1: this is no JSON object"),
        (b"{}", "file:1: this is no file of histories"),
        (b'{"kasaga":"histories","format":2}', "file:1: it has format 2; this release reads 1"),
        (HEAD + b'{"schema":7}', "file:2: schema is no text"),
        (HEAD + LINE.replace(b'"s"', b"7"), "file:2: saga_id is no text"),
        (HEAD + LINE.replace(b":1,", b":true,"), "file:2: version is no whole number"),
        (HEAD + LINE.replace(b'[[1,"AA=="]]', b"7"), "file:2: rows is no list"),
        (HEAD + LINE + b"\n" + LINE.replace(b"AA==", b"A"), "file:3: a row is no pair of number and base64"),
        (HEAD + LINE.replace(b'1,"AA=="', b'"AA=="'), "file:2: a row is no pair"),
    ],
)
def test_what_is_no_file_of_histories(data: bytes, says: str) -> None:
    with pytest.raises(FileUnreadable) as caught:
        read(data)
    assert caught.value.message.startswith(says)


def test_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kasaga.gate.histories.MAX_LINE_BYTES", len(LINE) + 1)
    assert len(read(HEAD + LINE)) == 1
    with pytest.raises(FileUnreadable, match="file:2: more than a file"):
        read(HEAD + LINE + b" " * 10)
    monkeypatch.setattr("kasaga.gate.histories.MAX_LINES", 2)
    with pytest.raises(FileUnreadable, match="file:3: more than a file"):
        read(HEAD + LINE + b"\n" + LINE)


def test_the_error_has_its_section() -> None:
    page = (GOLDEN.parents[3] / "orchestrator" / "errors.md").read_text(encoding="utf-8")
    assert f"\n## {FileUnreadable.code} {FileUnreadable.__name__}\n" in page


@given(st.data())
def test_damage_is_told_or_harmless(data: st.DataObject) -> None:
    """A flipped byte anywhere is either an error with the line, or a history."""
    whole = bytearray(GOLDEN.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    said, found = "file:", list[History]()
    try:
        found = read(bytes(whole))
    except FileUnreadable as error:
        said = error.message
    assert said.startswith("file:")
    assert all(isinstance(each, History) for each in found)
