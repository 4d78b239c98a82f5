"""A link whose other end is played by the test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from kasaga.client.link import Heard, Outgoing
from kasaga_wire.envelope import CommandEnvelope, ReplyEnvelope
from kasaga_wire.errors import KasagaError
from kasaga_wire.kafka import Record
from kasaga_wire.records import clean_error, errors_codec

Reply = tuple[str, bytes]
"""Outcome and payload."""


def failure(type_: str, message: str = "no") -> bytes:
    return errors_codec.encode(clean_error(type_, message))


class FakeLink:
    """Answers each question by what `answer` says: replies, or an error of the sending."""

    def __init__(
        self, answer: Callable[[CommandEnvelope, bytes], Iterable[Reply] | KasagaError], answers: int = 4
    ) -> None:
        self._answer = answer
        self._answers = answers
        self._heard: Heard | None = None
        self.sent: list[Outgoing] = []
        self.published: list[Outgoing] = []
        self.closed = False

    def open(self) -> tuple[int, int]:
        return 0, self._answers

    def listen(self, partition: int, heard: Heard) -> None:
        assert 0 <= partition < self._answers
        self._heard = heard

    def schemas(self) -> list[str]:
        return []

    def close(self) -> None:
        self.closed = True

    def send(self, outgoing: Outgoing) -> None:
        if outgoing.topic.endswith(".schemas"):
            self.published.append(outgoing)
            outgoing.done(None)
            return
        self.sent.append(outgoing)
        envelope = CommandEnvelope.parse(outgoing.headers)
        said = self._answer(envelope, outgoing.value or b"")
        if isinstance(said, KasagaError):
            outgoing.done(said)
            return
        outgoing.done(None)
        for outcome, payload in said:
            self.reply(envelope, outcome, payload)

    def reply(self, envelope: CommandEnvelope, outcome: str, payload: bytes) -> None:
        reply = ReplyEnvelope.to(envelope, outcome, source="/p", time=datetime.now(UTC))
        self.tell(list(reply.to_headers()), payload)

    def tell(self, headers: list[Any], payload: bytes | None) -> None:
        assert self._heard is not None
        self._heard(Record("shop.answers", 0, 0, b"k", payload, headers, 0))
