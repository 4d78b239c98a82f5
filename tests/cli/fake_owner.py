"""A Link without Kafka: its other end answers as the owner of every shard does, or doesn't."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from kasaga.client.link import Heard, Outgoing
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import AnswerEnvelope, ControlEnvelope, StartEnvelope
from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka import Record
from kasaga_wire.messages import KINDS, MessageEnvelope
from kasaga_wire.records import Answer, Control, answer_codec, control_codec

SHARDS, ANSWERS = 16, 4


@dataclass
class Sage:
    """One saga, as the owner knows it."""

    run_id: str
    name: str
    value: bytes
    state: str = "RUNNING"
    result: bytes | None = None
    reason: str = ""
    step: str = ""
    watchers: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])


class FakeOwner:
    """Sagas by id; what was sent; and what is to go wrong."""

    def __init__(self, namespace: str = "orders") -> None:
        self.namespace = namespace
        self.sent: list[Outgoing] = []
        self.sagas: dict[str, Sage] = {}
        self.asked: list[tuple[str, str, Control]] = []
        self.published: list[str] = []
        self.confirm: Callable[[Outgoing], DeliveryError | bool | None] = lambda outgoing: None
        """What Kafka says of a record; True: it says nothing."""
        self.deaf = 0
        """So many control records go unanswered."""
        self.unread_starts = False
        """Starts lie in their topic, read by nobody yet."""
        self.ends_at_once: tuple[str, bytes | None] | None = None
        self.ends_because = ""
        self.refuse = self.refuse_code = ""
        self.messages: list[tuple[MessageEnvelope, bytes]] = []
        """Signals and updates."""
        self._heard: dict[int, Heard] = {}
        self._unread: list[Outgoing] = []
        self._done: set[str] = set()
        self.opened = self.closed = False

    # --- the Link

    def open(self) -> tuple[int, int]:
        self.opened = True
        return SHARDS, ANSWERS

    def send(self, outgoing: Outgoing) -> None:
        self.sent.append(outgoing)
        said = self.confirm(outgoing)
        if said is True:
            return
        outgoing.done(said or None)
        if said:
            return
        if outgoing.topic.endswith(".sagas"):
            self._unread.append(outgoing)
            if not self.unread_starts:
                self.read_starts()
        elif outgoing.topic.endswith(".control"):
            self._control(outgoing)

    def listen(self, partition: int, heard: Heard) -> None:
        self._heard[partition] = heard

    def schemas(self) -> list[str]:
        return self.published

    def close(self) -> None:
        self.closed = True

    # --- the owner

    def read_starts(self) -> None:
        unread, self._unread = self._unread, []
        for outgoing in unread:
            envelope = StartEnvelope.parse(list(outgoing.headers))
            reply = envelope.reply_to.partition if envelope.reply_to else None
            known = self.sagas.get(envelope.saga_id)
            if known is None:
                sage = self.sagas[envelope.saga_id] = Sage(
                    envelope.run_id, envelope.saga, outgoing.value or b""
                )
                if reply is not None:
                    sage.watchers.append((reply, envelope.run_id))
                if self.ends_at_once is not None:
                    self.end(envelope.saga_id, *self.ends_at_once, reason=self.ends_because)
            elif known.run_id != envelope.run_id and reply is not None:
                same = (known.name, known.value) == (envelope.saga, outgoing.value)
                self._tell(reply, envelope.run_id, envelope.saga_id, "duplicate" if same else "rejected")
                if same:
                    self._watch(known, reply, envelope.run_id, envelope.saga_id)

    def _control(self, outgoing: Outgoing) -> None:
        envelope = ControlEnvelope.parse(list(outgoing.headers))
        if envelope.action in KINDS.values():
            self._message(outgoing)
            return
        body = control_codec.decode(outgoing.value or b"", Schemas())
        self.asked.append((envelope.action, envelope.saga_id, body))
        if self.deaf:
            self.deaf -= 1
            return
        assert envelope.reply_to is not None
        reply = envelope.reply_to.partition
        known = self.sagas.get(envelope.saga_id)
        if known is None:
            self._tell(reply, envelope.id, envelope.saga_id, "unknown")
        elif envelope.action == "query" and not self.refuse:
            self._tell(reply, envelope.id, envelope.saga_id, "answered", result=b'["a"]')
        elif envelope.action == "watch":
            self._watch(known, reply, envelope.id, envelope.saga_id)
        elif self.refuse:
            self._tell(reply, envelope.id, envelope.saga_id, "not_applicable", reason=self.refuse)
        else:
            self._done.add(envelope.id)
            self._tell(reply, envelope.id, envelope.saga_id, "applied")

    def _watch(self, known: Sage, reply: int, about: str, saga_id: str) -> None:
        if known.state in ("COMPLETED", "COMPENSATED", "STUCK"):
            self._tell(reply, about, saga_id, known.state)
        else:
            self._tell(reply, about, saga_id, "running")
        known.watchers.append((reply, about))

    def _message(self, outgoing: Outgoing) -> None:
        envelope = MessageEnvelope.parse(list(outgoing.headers))
        self.messages.append((envelope, outgoing.value or b""))
        if self.deaf:
            self.deaf -= 1
            return
        assert envelope.reply_to is not None
        reply, key, saga_id = envelope.reply_to.partition, envelope.key, envelope.saga_id
        if saga_id not in self.sagas:
            self._tell(reply, key, saga_id, "unknown")
        elif self.refuse:
            self._tell(reply, key, saga_id, "not_applicable", reason=self.refuse, error=self.refuse_code)
        elif envelope.kind == "update":
            self._tell(reply, key, saga_id, "answered", result=b'{"done": true}')
        else:
            self._tell(reply, key, saga_id, "accepted")

    def end(
        self, saga_id: str, state: str, result: bytes | None = None, *, reason: str = "", step: str = ""
    ) -> None:
        """Let a saga change its state, and tell those who wait for it."""
        sage = self.sagas[saga_id]
        sage.state, sage.result, sage.reason, sage.step = state, result, reason, step
        for reply, about in sage.watchers:
            self._tell(reply, about, saga_id, state)

    def _tell(
        self,
        reply: int,
        about: str,
        saga_id: str,
        what: str,
        *,
        reason: str = "",
        result: bytes | None = None,
        error: str | None = None,
    ) -> None:
        sage = self.sagas.get(saga_id)
        body = Answer(
            saga_id=saga_id,
            run_id=sage.run_id if sage else "",
            what=what,
            state=sage.state if sage else None,
            result=result or (sage.result if sage else None),
            error=error,
            reason=reason or (sage.reason if sage else None) or None,
            step=sage.step if sage and sage.step else None,
            about=about,
        )
        headers = AnswerEnvelope(
            asked=about, what=what.lower(), source="/kasaga/orders", time=datetime.now(UTC), saga_id=saga_id
        ).to_headers()
        self.hear(reply, [*headers], answer_codec.encode(body))

    def hear(self, reply: int, headers: Iterable[tuple[str, bytes | None]], value: bytes) -> None:
        """Put a record on a partition of the answers' topic."""
        if reply in self._heard:
            topic = f"{self.namespace}.answers"
            self._heard[reply](Record(topic, reply, 0, b"", value, list(headers), 0))
