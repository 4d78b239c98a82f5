"""The listener with a Kafka that refuses, forgets and moves: nothing is lost, and nothing blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import pytest
from pydantic import BaseModel

from kasaga import App, Event, SagaContext, saga
from kasaga.orchestrator import listener
from kasaga.orchestrator.awaited_events import AwaitedEvents
from kasaga.orchestrator.listener import Clients, Listener
from kasaga.orchestrator.matching import Matcher
from kasaga.orchestrator.rows import Addresses
from kasaga.store.memory import MemoryStore
from kasaga_wire.errors import DeliveryError, KafkaUnavailable
from kasaga_wire.kafka_lanes import OnAck
from kasaga_wire.kafka_records import EndOfPartition, PartitionError, Place, Record
from kasaga_wire.topics import Topics

Answer = Record | EndOfPartition | PartitionError


class Order(BaseModel):
    id: str


def app(begin: Literal["latest", "earliest"] = "latest") -> App:
    @saga("order", on=Event("orders", Order, id=lambda order: order.id, begin=begin))
    async def order(ctx: SagaContext, order: Order) -> None: ...

    return App("shop", sagas=[order])


def record(offset: int, value: object = None, partition: int = 0) -> Record:
    body = json.dumps({"id": f"o-{offset}"} if value is None else value).encode()
    return Record("orders", partition, offset, None, body, [], 1)


class Group:
    """The group's consumer; what it gives is put into `gives`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.fatal: str | None = None
        self.closed = False
        self._on_assign: Callable[[list[Place]], None] | None = None

    def subscribe(
        self, topics: Iterable[str], on_assign: Callable[[list[Place]], None] | None = None
    ) -> None:
        self._on_assign = on_assign

    def consume(self, max_records: int, timeout: float) -> Sequence[Answer]:
        if self.world.assigns and self._on_assign is not None:
            places, self.world.assigns = self.world.assigns, []
            self._on_assign(places)
        return self.world.gives.pop(0) if self.world.gives else []

    def offsets(
        self, places: Sequence[Place], which: Literal["begin", "end", "group"], timeout: float
    ) -> dict[Place, int]:
        assert places
        if self.world.mute:
            raise KafkaUnavailable("nobody answers")
        if which == "group":
            return {place: self.world.committed[place] for place in places if place in self.world.committed}
        return dict.fromkeys(places, 2 if which == "begin" else 9)

    def seek(self, place: Place, offset: int) -> None:
        self.world.sought.append((place, offset))

    def commit(self, offsets: Mapping[Place, int], *, wait: bool = False) -> None:
        assert wait
        if self.world.deaf:
            raise KafkaUnavailable("nobody listens")
        self.world.committed.update(offsets)

    def assignment(self) -> set[Place]:
        return {("orders", 0), ("orders", 1)}

    def close(self) -> None:
        self.closed = True


class Sender:
    """A producer; `world.refuses` says what becomes of records, by their order of being sent."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.fatal: str | None = None
        self._waiting: list[tuple[str, bytes | None, list[str], OnAck]] = []

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] | None,
        on_ack: OnAck,
    ) -> None:
        self._waiting.append((topic, key, [name for name, _ in headers or ()], on_ack))

    def poll(self, timeout: float = 0.0) -> int:
        return 0

    def flush(self, timeout: float) -> int:
        for topic, key, _, on_ack in self._waiting:
            name = self.world.refuses.pop(0) if self.world.refuses else ""
            if name == "silent":
                continue
            if not name:
                self.world.sent.append((topic, (key or b"").decode()))
            on_ack(DeliveryError(name, "no", permanent=False) if name else None)
        self._waiting = []
        return 0

    def close(self, timeout: float = 5.0) -> None: ...


class World:
    """Kafka, as far as a listener sees it."""

    def __init__(self, begin: Literal["latest", "earliest"] = "latest") -> None:
        self.assigns: list[Place] = []
        self.gives: list[list[Answer]] = []
        self.committed: dict[Place, int] = {}
        self.sought: list[tuple[Place, int]] = []
        self.refuses: list[str] = []
        self.sent: list[tuple[str, str]] = []
        self.mute = self.deaf = False
        self.present = {"orders": 2}
        self.groups: list[Group] = []
        self.senders: list[Sender] = []
        self.counted: list[str] = []
        self.missing: list[bool] = []
        topics = Topics("shop")
        self.listener = Listener(
            Matcher(app(begin), topics, max_payload=1000),
            Addresses(topics, "/kasaga/shop", 4),
            Clients(self._group, self._sender, self._present),
            self,
            AwaitedEvents(MemoryStore(), {}),
        )

    def _group(self) -> Group:
        self.groups.append(Group(self))
        return self.groups[-1]

    def _sender(self) -> Sender:
        self.senders.append(Sender(self))
        return self.senders[-1]

    def _present(self, topics: Iterable[str]) -> Mapping[str, int]:
        return {topic: self.present[topic] for topic in topics if topic in self.present}

    def heard(self, topic: str, outcome: str) -> None:
        self.counted.append(outcome)

    def unheard(self, topics: Mapping[str, bool]) -> None:
        self.missing.append(topics["orders"])

    def dead_letter(self) -> None:
        self.counted.append("dead letter")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(listener, "LOOK_SECONDS", 0.0)


def test_offsets_are_committed_when_all_is_taken() -> None:
    world = World()
    world.gives = [[record(3), record(4, {"id": 7}), record(5), record(0, partition=1)]]
    world.refuses = ["", "_TIMED_OUT", "silent"]
    world.listener.turn()
    assert world.sent == [
        ("shop.sagas", "o-3"),
        ("shop.sagas", "o-0"),
        ("shop.dlq", ""),
        ("shop.sagas", "o-5"),
    ]
    assert world.committed == {("orders", 0): 6, ("orders", 1): 1}
    assert sorted(world.counted) == ["dead letter", "start", "start", "start", "unusable"]
    assert len(world.senders) == 2  # the one that was silent might still send


def test_what_is_too_large_for_kafka_is_a_dead_letter() -> None:
    world = World()
    world.gives = [[record(3)]]
    world.refuses = ["MSG_SIZE_TOO_LARGE"]
    world.listener.turn()
    assert (world.sent, world.committed) == ([("shop.dlq", "")], {("orders", 0): 4})
    world.gives = [[record(4)]]
    world.refuses = ["MSG_SIZE_TOO_LARGE", "MSG_SIZE_TOO_LARGE"]
    world.listener.turn()
    assert world.committed == {("orders", 0): 5}


def test_who_is_asked_to_end_commits_nothing_that_is_not_taken() -> None:
    world = World()
    world.gives = [[record(3)]]
    world.refuses = ["_TIMED_OUT"]
    world.listener.end()
    world.listener.turn()
    assert (world.sent, world.committed) == ([], {})


def test_what_was_not_committed_is_committed_with_the_next() -> None:
    world = World()
    world.gives = [[record(3)], [record(4)]]
    world.deaf = True
    world.listener.turn()
    world.deaf = False
    world.listener.turn()
    assert world.committed == {("orders", 0): 5}


@pytest.mark.parametrize(
    ("begin", "committed", "present", "at"),
    [
        ("latest", {}, True, 9),
        ("earliest", {}, True, 2),
        ("latest", {("orders", 1): 5}, True, 2),  # a partition that was added
        ("latest", {}, False, 2),  # a topic that was made
        ("latest", {("orders", 0): 4}, True, 4),
    ],
)
def test_where_it_begins_is_written_down_before_anything_is_read(
    begin: Literal["latest", "earliest"], committed: dict[Place, int], present: bool, at: int
) -> None:
    world = World(begin)
    world.committed = dict(committed)
    if not present:
        world.present = {}
        world.listener.turn()
        world.present = {"orders": 2}
    world.assigns = [("orders", 0)]
    world.listener.turn()
    assert world.committed[("orders", 0)] == at
    assert world.missing == ([True, True, False] if not present else [False, False])


def lost(world: World) -> None:
    world.gives = [[PartitionError("orders", 0, -1, "_AUTO_OFFSET_RESET", "none", True, False)]]


def test_a_beginning_that_nobody_told_is_asked_for_again() -> None:
    world = World()
    world.mute = True
    world.assigns = [("orders", 0)]
    world.listener.turn()
    assert world.committed == {}
    world.mute = False
    lost(world)
    world.listener.turn()
    assert (world.committed, world.sought) == ({("orders", 0): 9}, [(("orders", 0), 9)])


def test_records_that_are_gone_are_passed_over() -> None:
    world = World()
    world.committed = {("orders", 0): 1}
    lost(world)
    world.listener.turn()
    assert world.sought == [(("orders", 0), 2)]


def test_after_an_error_another_consumer_reads_it_again() -> None:
    world = World()
    world.mute = True
    lost(world)
    with pytest.raises(KafkaUnavailable):
        world.listener.turn()
    assert world.groups[0].closed
    world.listener.turn()
    assert len(world.groups) == 2
    world.groups[1].fatal = "fenced"
    world.listener.turn()
    world.listener.turn()
    assert len(world.groups) == 3
