"""The values that headers hold, and reading them out of a record: sizes, encodings, formats.

Station: `envelope.py` builds on it. Whatever is wrong raises EnvelopeError with the header's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Literal

from .errors import EnvelopeError

Headers = list[tuple[str, bytes]]
RawHeaders = Sequence[tuple[str, bytes | None]]

MAX_HEADERS = 64  # in all, other people's included
MAX_OWN_BYTES = 8 * 1024  # of ours: ce_*, content-type, traceparent, tracestate
MAX_ID_CHARACTERS = 512  # command ids: run id and step path
MAX_SAGA_ID_CHARACTERS = 256
MAX_RUN_ID_CHARACTERS = 64
MAX_TEXT_CHARACTERS = 512
MAX_TRACESTATE_BYTES = 1024

Knowledge = Literal["done", "unknown"]

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_PATH = re.compile(r"[0-9]+(\.[0-9]+)*(~undo|~void)?\Z")
# W3C's own words: version ff, a trace or a parent of zeros are no trace at all.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


# --- values


@lru_cache(maxsize=4096)  # records made at once share their times
def rfc3339(moment: datetime) -> str:
    """UTC with microseconds and a Z, always 27 characters: text order is time order."""
    if moment.tzinfo is not UTC:
        if moment.utcoffset() is None:
            raise EnvelopeError("ce_time", "a naive datetime", remedy="datetime.now(UTC)")
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")[:26] + "Z"


def parse_time(header: str, text: str) -> datetime:
    """RFC 3339 with any offset, as UTC."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.utcoffset() is None or len(text) < len("2026-01-01T00:00:00Z") or text[10] not in "Tt":
            raise ValueError
        return moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise EnvelopeError(
            header, "no RFC 3339 time with an offset", remedy="2026-11-23T01:21:00.000000Z"
        ) from None


@dataclass(frozen=True, slots=True)
class ReplyTo:
    """Where an answer is wanted: `<topic>/<partition>`.

    Whoever replies checks the topic against its allow-list.
    """

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"

    @classmethod
    def parse(cls, text: str) -> ReplyTo:
        """`<topic>/<partition>`."""
        topic, slash, partition = text.rpartition("/")
        if (
            not slash
            or not topic
            or not partition.isdecimal()
            or not partition.isascii()
            or len(partition) > 7
        ):
            raise EnvelopeError("ce_replyto", "not <topic>/<partition>", remedy="such as shop.replies/3")
        return cls(topic, int(partition))


@dataclass(frozen=True, slots=True)
class Undoes:
    """What an undo or a void is about: the command's type, what is known of it, when it was last sent."""

    type: str
    knowledge: Knowledge
    last_sent: datetime

    def __str__(self) -> str:
        return f"{self.type} {self.knowledge} {rfc3339(self.last_sent)}"

    @classmethod
    def parse(cls, text: str) -> Undoes:
        """`<ce_type> done|unknown <RFC 3339>`."""
        parts = text.split(" ")
        if len(parts) != 3 or not parts[0] or parts[1] not in ("done", "unknown"):
            raise EnvelopeError("ce_kasagaundoes", "not <type> done|unknown <time>")
        return cls(
            parts[0], "done" if parts[1] == "done" else "unknown", parse_time("ce_kasagaundoes", parts[2])
        )


def command_id(run_id: str, path: str) -> str:
    """The id that all attempts of a step share."""
    return f"{run_id}.{path}"


def split_command_id(text: str) -> tuple[str, str]:
    """Run id and step path, `~undo` and `~void` still at its end."""
    run_id, dot, path = text.partition(".")
    if not dot or not _RUN_ID.match(run_id) or not _PATH.match(path) or len(text) > MAX_ID_CHARACTERS:
        raise EnvelopeError("ce_kasagacommand", "not <run id>.<step path>")
    return run_id, path


def original_of(text: str) -> str:
    """The id of the command that an undo or a void is about."""
    return text.partition("~")[0]


# --- parsing


class Fields:
    """The headers of one record by name, the first value of each, checked for number and size."""

    __slots__ = ("_values",)

    def __init__(self, headers: RawHeaders | None) -> None:
        if not headers:
            raise EnvelopeError(
                "ce_id", "no headers at all", remedy="see schemas/README.md: the envelope is required"
            )
        if len(headers) > MAX_HEADERS:
            raise EnvelopeError(
                headers[MAX_HEADERS][0][:64], f"{len(headers)} headers; {MAX_HEADERS} are the most"
            )
        values: dict[str, bytes | None] = dict(reversed(headers))  # the first of repeated ones wins
        size = sum(len(value) for value in values.values() if value is not None)
        if size > MAX_OWN_BYTES and (size := _own_bytes(values)) > MAX_OWN_BYTES:
            raise EnvelopeError("ce_*", f"{size} bytes; {MAX_OWN_BYTES} are the most")
        self._values = values
        if (version := values.get("ce_specversion")) != b"1.0":
            raise EnvelopeError(
                "ce_specversion", "missing" if version is None else "not 1.0", remedy="send 1.0"
            )

    def get(self, header: str, limit: int = MAX_TEXT_CHARACTERS) -> str | None:
        """The text, or None when the header is absent."""
        value = self._values.get(header)
        if value is None:
            return None
        try:
            text = value.decode()
        except UnicodeDecodeError:
            raise EnvelopeError(header, "not UTF-8") from None
        if len(text) > limit:
            raise EnvelopeError(header, f"{len(text)} characters; {limit} are the most")
        if not text.isprintable() and _UNPRINTABLE.search(text):
            raise EnvelopeError(header, "a control character")
        return text

    def need(self, header: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
        """The text; missing or empty is an error."""
        text = self.get(header, limit)
        if not text:
            raise EnvelopeError(header, "missing" if text is None else "empty")
        return text

    def run_id(self, header: str) -> str:
        """A required run id: it begins command ids, so it can't hold a dot."""
        text = self.need(header, MAX_RUN_ID_CHARACTERS)
        if not _RUN_ID.match(text):
            raise EnvelopeError(
                header, "no run id", remedy="a UUIDv7 as text; letters, digits, '-' and '_' are allowed"
            )
        return text

    def time(self, header: str) -> datetime:
        """A required time."""
        return parse_time(header, self.need(header))

    def reply_to(self) -> ReplyTo | None:
        """Where the answer is wanted, if one is."""
        text = self.get("ce_replyto")
        return None if text is None else ReplyTo.parse(text)

    def trace(self) -> tuple[str | None, str | None]:
        """W3C says: what can't be understood is as if it were absent. A trace must never cost a record."""
        parent, state = self._values.get("traceparent"), self._values.get("tracestate")
        if parent is None or not is_traceparent(parent):
            return None, None
        if state is None or len(state) > MAX_TRACESTATE_BYTES or not state.isascii():
            return parent.decode(), None
        return parent.decode(), state.decode()


def is_traceparent(value: bytes) -> bool:
    """Whether W3C would take it."""
    return _TRACEPARENT.fullmatch(value) is not None


def _own_bytes(values: dict[str, bytes | None]) -> int:
    ours = ("content-type", "traceparent", "tracestate")
    return sum(
        len(name) + len(value)
        for name, value in values.items()
        if value is not None and (name.startswith("ce_") or name in ours)
    )


def type_of(headers: RawHeaders | None) -> str:
    """The `ce_type` alone, to choose what to parse as."""
    for name, value in headers or ():
        if name == "ce_type" and value:
            return value.decode("utf-8", "replace")
    raise EnvelopeError("ce_type", "missing")
