"""One object of the archive: a file of histories as `kasaga export` writes them, by gzip; its lines say more.

What a line says besides: `saga`, its summary as `kasaga list -o json` has it; `history`, its story as JSON,
where nothing is encrypted; `result` and `rows`, the bytes as the tables have them; `keys`, the ids of the
keys that it takes to open them. The same sagas give the same bytes, so that an object that is written again
is the same one.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from kasaga_wire import __version__
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import KasagaError
from kasaga_wire.schema import schema_id
from kasaga_wire.sealing import MAX_HISTORY_BYTES, PLAIN, Sealer, is_sealed, key_of, place

from ..engine.codec import HistoryUnreadable, decode
from ..engine.model import Record
from ..explain import row_json
from ..gate.histories import FORMAT, HEAD, MAX_LINE_BYTES
from ..store.base import HistoryRow, SagaRow, SagaState
from ..store.sealed import open_bodies
from ..timeline import timeline
from ..timeline_data import Decode, as_json, decoder
from .errors import ArchiveUnreadable

EARLIER = "earlier runs"
"""Head of an object with earlier runs of sagas that live on: no histories for `kasaga replay`."""

MAX_SAGAS = 100
MAX_BYTES = 16 * 1024 * 1024
"""Of lines, after which an object is ended. One saga may be larger."""
STORY_BYTES = 8 * 1024 * 1024
"""A larger history isn't told as JSON: it would take several times its size in memory."""


class Sheet:
    """Lines for one object, of sagas that began on one day."""

    def __init__(self, schemas: Schemas, *, earlier: bool = False) -> None:
        """`schemas`: those that the store has. `earlier`: its lines are of sagas that live on."""
        self._schemas, self._head = schemas, EARLIER if earlier else HEAD
        self._lines: list[bytes] = []
        self._written: set[int] = set()
        self._closed = False
        self._decode = self._noting(decoder(schemas))
        self.sagas: list[SagaRow] = []
        self.size = 0

    def _noting(self, plain: Decode) -> Decode:
        """Decode and remember the schema: it goes into the object, too."""

        def decode_payload(data: bytes) -> object:
            if data[:1] == b"\0" and len(data) >= 5:
                self._written.add(schema_id(data))
            return plain(data)

        return decode_payload

    @property
    def day(self) -> str:
        """The day that its sagas began on; empty while there are none."""
        return day_of(self.sagas[0].started_at) if self.sagas else ""

    def takes(self, row: SagaRow) -> bool:
        """Whether there is room for one more, and this one began on the same day."""
        full = len(self.sagas) >= MAX_SAGAS or self.size >= MAX_BYTES
        return not self.sagas or (not full and day_of(row.started_at) == self.day)

    def add(self, row: SagaRow, entries: list[HistoryRow]) -> None:
        """Take one saga in; entries are as the tables have them."""
        line = _json(self._line(row, entries))
        self._lines.append(line)
        self.sagas.append(row)
        self.size += len(line)

    def _line(self, row: SagaRow, entries: list[HistoryRow]) -> dict[str, Any]:
        bodies = [each.body for each in entries] + [row.result or b""]
        made: dict[str, Any] = {
            "saga_id": row.saga_id,
            "run_id": str(row.run_id),
            "name": row.name,
            "version": row.version,
            "state": row.state.value,
            "code": row.code,
            "saga": row_json(row) | {"base": row.base, "input_hash": row.input_hash.hex()},
            "keys": sorted({key_of(body) for body in bodies if is_sealed(body)} - {""}),
            "result": None if row.result is None else _text(row.result),
            "rows": [[each.seq, _text(each.body)] for each in entries],
        }
        # Of what is encrypted nobody can tell which schemas it needs.
        self._closed = self._closed or bool(made["keys"])
        if not made["keys"] and sum(map(len, bodies)) <= STORY_BYTES:
            story = self._story(row.run_id, entries)
            if story is not None:
                made["history"] = story
        return made

    def _story(self, run_id: UUID, entries: list[HistoryRow]) -> list[dict[str, Any]] | None:
        plain = [replace(each) for each in entries]
        open_bodies(PLAIN, run_id, plain)
        try:
            return as_json(timeline([decode(each.seq, each.body) for each in plain]), self._decode)
        except (HistoryUnreadable, LookupError):
            return None  # its bytes are kept as they are

    def finish(self) -> tuple[str, bytes]:
        """Return the object's name, below the namespace, and its bytes."""
        head = {"kasaga": self._head, "format": FORMAT, "release": __version__}
        known = sorted(
            (each for each in self._schemas if self._closed or each.id in self._written),
            key=lambda each: each.id,
        )
        texts = [_json({"schema": each.json}) for each in known]
        lines = b"".join(texts + self._lines)
        runs = sorted(row.run_id for row in self.sagas)
        name = f"{self.day}/{runs[0]}.{runs[-1]}.{hashlib.sha256(lines).hexdigest()[:16]}.jsonl.gz"
        return name, gzip.compress(_json(head) + lines, 6, mtime=0)


@dataclass(frozen=True, slots=True)
class Archived:
    """A saga as a line tells it, or earlier runs of one that lives on."""

    row: SagaRow
    """Its result isn't opened, and its attributes are in `summary` alone."""
    rows: tuple[tuple[int, bytes], ...]
    """Numbers and bodies of its history, not opened."""
    keys: tuple[str, ...]
    summary: dict[str, Any]
    place: str
    """The object's name."""
    earlier: bool

    def records(self, sealer: Sealer) -> list[Record]:
        """Its history. Raises CannotOpen, DecodeError and HistoryUnreadable."""
        made: list[Record] = []
        for seq, body in self.rows:
            where = place("history", self.row.run_id, seq)
            made.append(decode(seq, sealer.open(where, body, most=MAX_HISTORY_BYTES)))
        return made

    def result(self, sealer: Sealer) -> bytes | None:
        """Its result, opened. Raises CannotOpen and DecodeError."""
        data = self.row.result
        return data and sealer.open(place("result", self.row.run_id), data, most=MAX_HISTORY_BYTES)


def day_of(at: datetime) -> str:
    """The folder of sagas that began then. Times of sagas are in UTC."""
    return at.strftime("%Y-%m-%d")


def runs_of(name: str) -> tuple[UUID, UUID] | None:
    """First and last run in an object, by its name; None: the archive has none of that name."""
    parts = name.split(".")
    try:
        return (UUID(parts[0]), UUID(parts[1])) if parts[3:] == ["jsonl", "gz"] else None
    except (ValueError, IndexError):
        return None


def read(data: bytes, name: str, schemas: Schemas, *, saga_id: str = "") -> Iterator[Archived]:
    """Read an object; its schemas are added to `schemas`. With an id, of that saga alone.

    Raises ArchiveUnreadable, which names the object and the line.
    """
    needle = json.dumps(saga_id, ensure_ascii=False).encode() if saga_id else b""
    number, head = 0, ""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            for number, line in enumerate(_bounded(file), 1):
                if number > 1 and needle and needle not in line and not line.startswith(b'{"schema"'):
                    continue
                fields = cast("dict[str, Any]", json.loads(line))
                if number == 1:
                    head = _head(fields)
                elif "schema" in fields:
                    schemas.add(fields["schema"])
                elif not saga_id or fields["saga_id"] == saga_id:
                    yield _archived(fields, name, earlier=head == EARLIER)
    except (
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ArchiveUnreadable(f"{name}:{number + 1}: {type(error).__name__}: {str(error)[:200]}") from None
    except KasagaError as error:
        raise ArchiveUnreadable(f"{name}:{number}: {error.message}") from None
    if not number:
        raise ArchiveUnreadable(f"{name} is empty")


def _bounded(file: gzip.GzipFile) -> Iterator[bytes]:
    while line := file.readline(MAX_LINE_BYTES + 1):
        if len(line) > MAX_LINE_BYTES:
            raise ValueError("a line is larger than any saga")
        yield line


def _head(fields: dict[str, Any]) -> str:
    if fields.get("kasaga") not in (HEAD, EARLIER) or fields.get("format") != FORMAT:
        raise ValueError(f"this release reads format {FORMAT} of {HEAD}")
    return str(fields["kasaga"])


def _archived(fields: dict[str, Any], name: str, *, earlier: bool) -> Archived:
    saga: dict[str, Any] = fields["saga"]
    ended = saga["ended_at"]
    row = SagaRow(
        shard=int(saga["shard"]),
        run_id=UUID(saga["run_id"]),
        saga_id=str(saga["saga_id"]),
        name=str(saga["name"]),
        version=int(saga["version"]),
        state=SagaState(saga["state"]),
        input_hash=bytes.fromhex(saga["input_hash"]),
        started_at=datetime.fromisoformat(saga["started_at"]),
        updated_at=datetime.fromisoformat(saga["updated_at"]),
        ended_at=datetime.fromisoformat(ended) if ended else None,
        step=str(saga["step"] or ""),
        code=str(saga["code"] or ""),
        reason=str(saga["reason"] or ""),
        remedy=str(saga["remedy"] or ""),
        with_exceptions=bool(saga["with_exceptions"]),
        result=None if fields["result"] is None else _bytes(fields["result"]),
        base=int(saga["base"]),
    )
    rows = tuple((int(seq), _bytes(body)) for seq, body in fields["rows"])
    keys = tuple(str(each) for each in fields["keys"])
    return Archived(row, rows, keys, saga, name, earlier)


def _json(value: object) -> bytes:
    return (
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
        + b"\n"
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def joined(found: Iterable[Archived]) -> list[Archived]:
    """One for each run, the newest first: what was written twice is told once, earlier runs go in front."""
    runs: dict[UUID, list[Archived]] = {}
    for each in found:
        runs.setdefault(each.row.run_id, []).append(each)
    made = [_one(each) for each in runs.values()]
    return sorted(made, key=lambda each: each.row.started_at, reverse=True)


def _one(found: list[Archived]) -> Archived:
    """Of a saga that was taken back and ended again, the later end counts."""
    last = max(
        found, key=lambda each: (not each.earlier, each.row.ended_at or each.row.updated_at, len(each.rows))
    )
    rows = {seq: body for each in (*found, last) for seq, body in each.rows}
    return replace(last, rows=tuple(sorted(rows.items())))


__all__ = ["Archived", "Sheet", "day_of", "joined", "read", "runs_of"]
