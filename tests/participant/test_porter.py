"""What becomes of large payloads in a participant, when its store is there, away and slow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from kasaga_participant import porter as module
from kasaga_participant.calls import Calls
from kasaga_participant.inbox.memory import MemoryInbox
from kasaga_participant.inbox.rows import Rules
from kasaga_participant.metrics import Metrics
from kasaga_participant.porter import Porter, room_of
from kasaga_participant.progress import Progress, Room
from kasaga_participant.runtime import Parts, Runtime
from kasaga_participant.sender import Headers, OnAck, Sender
from kasaga_participant.store import MemoryStore
from kasaga_participant.tracing import NoTracing
from kasaga_wire.claims import Claims, fetch, is_claim
from kasaga_wire.contracts import contract_of
from kasaga_wire.envelope import CommandEnvelope, ReplyEnvelope, ReplyTo
from kasaga_wire.kafka import Record
from kasaga_wire.objects import Objects
from kasaga_wire.records import errors_codec
from kasaga_wire.schema import Schemas
from orchestrator.shelf import Shelf
from participant.services import Inventory, Notes, Order, Reservation, async_app

RUN = "01934f3e-7a5c-7cc0-8c3f-0123456789ab"
TOPIC = "inventory.commands"
CODECS = contract_of(Inventory).commands["reserve"]
LARGE = "book " * 100


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    def soon(tries: int) -> float:
        return 0.001

    monkeypatch.setattr(module, "delay", soon)
    monkeypatch.setattr(module, "SECONDS", 2.0)


class Producer:
    """Acknowledges at once."""

    fatal = None

    def __init__(self) -> None:
        self.sent: list[tuple[bytes | None, Headers | None]] = []

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: OnAck,
    ) -> None:
        self.sent.append((value, headers))
        asyncio.get_running_loop().call_soon(on_ack, None)

    def hand_over(self) -> None: ...

    def poll(self, timeout: float = 0.0) -> int:
        return 0

    def close(self, timeout: float = 5.0) -> None: ...


class Scene:
    """A participant whose payloads over 10 bytes are objects."""

    def __init__(self, over: int = 10) -> None:
        self.shelf, self.notes, self.producer = Shelf(), Notes(), Producer()
        self.claims = self.shelf.claims(over)
        self.room = Room(100, 100_000)
        self.meanwhile: Callable[[], None] = lambda: None

    def record(self, number: int = 1, *, claim: bool = True) -> Record:
        value = CODECS.input.encode(Order(id=f"o-{number}", sku=LARGE))
        envelope = CommandEnvelope(
            command_id=f"{RUN}.{number}",
            type="inventory.reserve",
            attempt=1,
            source="/kasaga/shop",
            time=datetime.now(UTC),
            saga_id="s-1",
            saga="order",
            saga_version=1,
            reply_to=ReplyTo("replies", 0),
        )
        if claim:
            value = self.claims.put(RUN, value)
        headers: list[tuple[str, bytes | None]] = [*envelope.to_headers()]
        return Record(TOPIC, 0, number, b"s-1", value, headers, 0)

    def run(self, *records: Record) -> list[tuple[bytes, ReplyEnvelope]]:
        async def main() -> None:
            metrics = Metrics(CollectorRegistry())
            porter = Porter(self.claims)
            app = async_app(self.notes)
            parts = Parts(
                sender=Sender(lambda: self.producer),
                room=self.room,
                metrics=metrics,
                calls=Calls(Schemas(), metrics, NoTracing()),
                tracing=NoTracing(),
                rules=Rules(86_400, 2 * 86_400),
                reply_allowed=lambda topic: True,
                dead_letters=lambda name: "dlq",
                refresh_schemas=self._nothing,
                batch=8,
                concurrency=2,
                porter=porter,
            )
            runtime = Runtime({TOPIC: (app.registries["inventory"], MemoryStore(MemoryInbox()))}, parts)
            progress = Progress((TOPIC, 0))
            self.room.take(
                len(records), sum(len(each.key or b"") + len(each.value or b"") for each in records)
            )
            runtime.accept(TOPIC, [(each, progress) for each in records])
            self.meanwhile()
            assert await runtime.finish(10.0)
            assert progress.position == max(each.offset for each in records) + 1
            porter.close()

        asyncio.run(main())
        return [(value or b"", ReplyEnvelope.parse(headers or [])) for value, headers in self.producer.sent]

    async def _nothing(self) -> None: ...


def test_a_command_is_fetched_and_its_large_result_written() -> None:
    scene = Scene(over=3)
    ((value, reply),) = scene.run(scene.record())
    assert reply.outcome == "done"
    assert is_claim(value)
    found = fetch(scene.claims, f"{RUN}.1", value)
    assert CODECS.result.decode(found, Schemas()) == Reservation(number=1)
    assert scene.notes.reserved == ["o-1"]


def test_the_room_is_as_it_was() -> None:
    scene = Scene()
    records = [scene.record(number) for number in (1, 2, 3)]
    assert room_of(records[0].value) > len(LARGE)
    scene.run(*records)
    assert scene.room.wait(0) == 100
    assert sorted(scene.notes.reserved) == ["o-1", "o-2", "o-3"]


@pytest.mark.parametrize("what", ["gone", "changed", "away", "elsewhere"])
def test_a_command_that_can_not_be_fetched_has_failed_and_others_go_on(what: str) -> None:
    scene = Scene(over=5000)
    first, second = scene.record(1), scene.record(2, claim=False)
    for name in list(scene.shelf.objects):
        if what == "gone":
            del scene.shelf.objects[name]
        elif what == "changed":
            scene.shelf.objects[name] = b"?" * len(scene.shelf.objects[name])
    scene.shelf.away = what == "away"
    if what == "elsewhere":
        first = Record(TOPIC, 0, 1, b"s-1", scene.claims.put("other", b"x" * 200), first.headers, 0)
    replies = {reply.command_id: (value, reply) for value, reply in scene.run(first, second)}
    value, reply = replies[f"{RUN}.1"]
    assert reply.outcome == "failed"
    error = errors_codec.decode(value, Schemas())
    assert error.code == "KSG-115"
    assert error.retryable
    assert replies[f"{RUN}.2"][1].outcome == "done"
    assert scene.notes.reserved == ["o-2"]


def test_a_result_that_can_not_be_written_has_failed_and_is_there_when_it_is_asked_for_again() -> None:
    scene = Scene(over=3)
    first = scene.record(1, claim=False)
    scene.shelf.away = True
    ((value, reply),) = scene.run(first)
    assert reply.outcome == "failed"
    assert errors_codec.decode(value, Schemas()).code == "KSG-155"
    assert scene.notes.reserved == ["o-1"]


def test_a_store_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.01)
    monkeypatch.setattr(module, "TRIES", 1)
    scene = Scene(over=5000)
    record, free = scene.record(), threading.Event()

    class Slow(Shelf):
        def read(self, name: str, *, most: int | None = None) -> bytes | None:
            free.wait()
            return None

    scene.claims = Claims(cast("Objects", Slow()), 5000)
    try:
        ((_, reply),) = scene.run(record)
    finally:
        free.set()
    assert reply.outcome == "failed"
