"""The reader against a consumer that does as it is told: room, pauses, rebalances, failures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import pytest

from eventually import eventually
from kasaga_participant import outage as outage_module
from kasaga_participant import reader as module
from kasaga_participant.progress import Place, Progress, Room
from kasaga_participant.reader import Delivered, Reader
from kasaga_participant.schemabook import SchemaBook
from kasaga_participant.sender import Headers, OnAck
from kasaga_wire import kafka_watch as watch_module
from kasaga_wire.errors import KafkaUnavailable
from kasaga_wire.kafka import Consumer, EndOfPartition, GroupConsumer, Record
from kasaga_wire.kafka_watch import Which
from kasaga_wire.schema import Schema, Schemas

TOPIC = "shop.commands"
ZERO, ONE = (TOPIC, 0), (TOPIC, 1)
Found = Record | EndOfPartition


def record(offset: int, partition: int = 0, value: bytes = b"v") -> Record:
    return Record(TOPIC, partition, offset, b"k", value, [], 0)


class FakeConsumer:
    """A group consumer whose events the test writes."""

    def __init__(self) -> None:
        self.fatal: str | None = None
        self.script: list[Callable[[], list[Found]]] = []
        self.commits: list[dict[Place, int]] = []
        self.paused = False
        self.still: set[Place] = set()
        self.closed = threading.Event()
        self.turns = 0
        self.asked = 0
        self.answers = True
        self.on: dict[str, Callable[[list[Place]], None]] = {}
        self.fetched: set[Place] = set()
        """What something has come of since it was assigned."""
        self.end: dict[Place, int] = {}

    def subscribe(self, topics: Sequence[str], on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self.on = {"assign": on_assign, "revoke": on_revoke, "lost": on_lost}

    def consume(self, most: int, timeout: float) -> list[Found]:
        self.turns += 1
        if self.script:
            found = self.script.pop(0)()
            self.fetched |= {(each.topic, each.partition) for each in found}
            return found
        self.closed.wait(0.002)
        return []

    def happens(self, what: str, *places: Place) -> None:
        def act() -> list[Found]:
            self.on[what](list(places))
            self.fetched -= set(places)
            return []

        self.script.append(act)

    def brings(self, *records: Found) -> None:
        self.script.append(lambda: list(records))

    def pause(self, places: Iterable[Place]) -> None:
        more = set(places)
        assert more <= self.fetched, "paused before it was seen to be read"
        self.still |= more
        self.paused = True

    def resume(self, places: Iterable[Place]) -> None:
        fewer = set(places)
        assert fewer <= self.still, "resumed what isn't paused"
        self.still -= fewer
        self.paused = False

    def commit(self, offsets: Mapping[Place, int], *, wait: bool = False) -> None:
        self.commits.append(dict(offsets))

    def offsets(self, places: Sequence[Place], which: Which, timeout: float) -> dict[Place, int]:
        ends = {place: self.end[place] for place in places if place in self.end}
        return ends if which == "end" else dict.fromkeys(places, 0) if which == "begin" else {}

    def coordinator_answers(self, topic: str, timeout: float) -> bool:
        self.asked += 1
        return self.answers

    def close(self) -> None:
        self.closed.set()


class FakeHub:
    def __init__(self) -> None:
        self.delivered: list[tuple[Record, Progress]] = []
        self.dropped: list[Place] = []
        self.errors: list[BaseException] = []
        self.stalls = 0
        self.quiet = True
        self.quiesced: list[Place] = []
        self.committed: Callable[[], int] = lambda: 0
        self.before_commits: list[int] = []
        """How many commits there were each time that one was announced."""

    def deliver(self, reader: Reader, records: Delivered) -> None:
        for each, progress in records:
            progress.begin(each.offset)
            self.delivered.append((each, progress))

    def quiesce(self, partitions: Sequence[Progress], finished: threading.Event) -> None:
        self.quiesced += [each.place for each in partitions]
        if self.quiet:
            finished.set()

    def drop(self, partitions: Sequence[Progress]) -> None:
        self.dropped += [each.place for each in partitions]

    def commits(self) -> None:
        self.before_commits.append(self.committed())

    def stalled(self, reader: Reader) -> None:
        self.stalls += 1

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


class Bench:
    def __init__(self, room: Room) -> None:
        self.room = room
        self.hub = FakeHub()
        self.consumers: list[FakeConsumer] = []
        self.reader = Reader(TOPIC, self._make, room, self.hub)

    def _make(self) -> GroupConsumer:
        self.consumers.append(FakeConsumer())
        return cast(GroupConsumer, self.consumers[-1])

    def start(self) -> FakeConsumer:
        self.reader.start()
        eventually(lambda: self.consumers and self.consumers[0].on)
        return self.consumers[0]

    def end(self) -> None:
        self.reader.end()
        self.reader.join(20)
        assert not self.reader.is_alive()
        assert self.hub.errors == []


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(module, "PAUSE_AFTER_SECONDS", 0.03)
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.01)
    monkeypatch.setattr(module, "REPLACE_SECONDS", 0.01)
    monkeypatch.setattr(module, "REVOKE_SECONDS", 0.05)
    monkeypatch.setattr(outage_module, "BACKOFF_FIRST_SECONDS", 0.001)
    return Bench(Room(4, 1_000))


def test_what_is_finished_is_committed(bench: Bench) -> None:
    consumer = bench.start()
    bench.hub.committed = lambda: len(consumer.commits)
    consumer.happens("assign", ZERO)
    consumer.brings(record(5), record(6))
    eventually(lambda: len(bench.hub.delivered) == 2)
    progress = bench.hub.delivered[0][1]
    assert consumer.commits == []

    progress.finish(6)
    progress.finish(5)
    eventually(lambda: consumer.commits)
    bench.end()

    assert consumer.commits == [{ZERO: 7}]
    assert bench.hub.before_commits == [0], "what must go first, such as spans, can"


def test_without_room_it_pauses_and_goes_on_polling(bench: Bench) -> None:
    consumer = bench.start()
    consumer.happens("assign", ZERO)
    consumer.brings(*(record(n) for n in range(4)))
    eventually(lambda: consumer.paused)
    turns = consumer.turns
    eventually(lambda: consumer.turns > turns + 3)  # the group sees it alive

    bench.room.give(4, 8)
    eventually(lambda: not consumer.paused)
    bench.end()


def test_a_revoke_waits_for_what_runs_then_commits_and_drops(bench: Bench) -> None:
    consumer = bench.start()
    consumer.happens("assign", ZERO, ONE)
    consumer.brings(record(1), record(1, partition=1))
    eventually(lambda: len(bench.hub.delivered) == 2)
    for _, progress in bench.hub.delivered:
        progress.finish(1)

    consumer.happens("revoke", ZERO)
    eventually(lambda: bench.hub.dropped)
    consumer.brings(record(2), record(2, partition=1))
    eventually(lambda: len(bench.hub.delivered) == 3)
    bench.end()

    assert bench.hub.quiesced == [ZERO]
    assert bench.hub.dropped == [ZERO]
    assert {ZERO: 2}.items() <= {k: v for commit in consumer.commits for k, v in commit.items()}.items()
    assert bench.hub.delivered[2][0].partition == 1  # nothing of what was taken away
    assert [progress.active for _, progress in bench.hub.delivered] == [False, True, True]


def test_a_revoke_does_not_wait_for_ever(bench: Bench) -> None:
    bench.hub.quiet = False
    consumer = bench.start()
    consumer.happens("assign", ZERO)
    consumer.happens("revoke", ZERO)
    eventually(lambda: bench.hub.dropped == [ZERO])
    bench.end()


def test_lost_partitions_are_dropped_without_a_commit(bench: Bench) -> None:
    consumer = bench.start()
    consumer.happens("assign", ZERO)
    consumer.brings(record(1))
    eventually(lambda: bench.hub.delivered)
    progress = bench.hub.delivered[0][1]

    consumer.happens("lost", ZERO)
    eventually(lambda: bench.hub.dropped == [ZERO])
    progress.finish(1)
    bench.end()

    assert consumer.commits == []


def test_a_partition_that_comes_back_begins_anew(bench: Bench) -> None:
    consumer = bench.start()
    consumer.happens("assign", ZERO)
    consumer.brings(record(1))
    consumer.happens("lost", ZERO)
    consumer.happens("assign", ZERO)
    consumer.brings(record(1))
    eventually(lambda: len(bench.hub.delivered) == 2)
    (_, old), (_, new) = bench.hub.delivered

    old.finish(1)
    assert new.position is None
    new.finish(1)
    eventually(lambda: consumer.commits == [{ZERO: 2}])
    bench.end()


@pytest.mark.parametrize("how", ["lost", "revoke"])
def test_a_partition_lost_while_it_was_paused_is_read_when_it_comes_back(bench: Bench, how: str) -> None:
    consumer = bench.start()
    consumer.happens("assign", ZERO)
    consumer.brings(*(record(n) for n in range(4)))
    eventually(lambda: consumer.still == {ZERO})  # full
    consumer.happens(how, ZERO)
    eventually(lambda: bench.hub.dropped == [ZERO])
    assert consumer.still == set()  # else librdkafka remembers it, though nobody asks for it

    consumer.happens("assign", ZERO)
    eventually(lambda: not consumer.script)
    turns = consumer.turns
    eventually(lambda: consumer.turns > turns + 3)
    assert consumer.still == set()
    consumer.brings(record(0))
    eventually(lambda: consumer.still == {ZERO})  # still full
    bench.room.give(5, 10)
    eventually(lambda: not consumer.paused)
    bench.end()


def test_what_is_new_while_there_is_no_room_is_paused_once_it_brings_something(bench: Bench) -> None:
    consumer = bench.start()
    consumer.happens("assign", ZERO)
    consumer.brings(*(record(n) for n in range(4)))
    eventually(lambda: consumer.still == {ZERO})
    consumer.happens("assign", ONE)
    eventually(lambda: not consumer.script)
    turns = consumer.turns
    eventually(lambda: consumer.turns > turns + 3)
    assert consumer.still == {ZERO}

    consumer.brings(EndOfPartition(TOPIC, 1, 0))
    eventually(lambda: consumer.still == {ZERO, ONE})
    bench.end()


def test_a_partition_that_is_not_read_costs_the_consumer_its_place(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("FIRST_SECONDS", "AGAIN_SECONDS", "SURE_SECONDS", "GAP_SECONDS"):
        monkeypatch.setattr(watch_module, name, 0.02)
    consumer = bench.start()
    consumer.end = {ZERO: 4, ONE: 7}
    consumer.happens("assign", ZERO, ONE)
    consumer.brings(record(3))
    eventually(lambda: len(bench.consumers) == 2 and bench.consumers[1].on)
    assert "partition 1 is not read at 0, and ends at 7" in caplog.text
    assert bench.hub.stalls == 1
    assert consumer.closed.wait(20)

    successor = bench.consumers[1]
    successor.end = {ONE: 7}
    successor.happens("assign", ONE)
    turns = successor.turns
    eventually(lambda: successor.turns > turns + 100)  # the same end is no reason again
    assert len(bench.consumers) == 2
    bench.end()


def test_while_it_holds_it_reads_nothing_and_stays(bench: Bench) -> None:
    consumer = bench.start()
    consumer.happens("assign", ZERO, ONE)
    consumer.brings(record(1))
    eventually(lambda: len(bench.hub.delivered) == 1)
    bench.reader.hold()
    eventually(lambda: consumer.still == {ZERO})
    consumer.brings(record(5, partition=1))  # can't be paused before
    eventually(lambda: consumer.still == {ZERO, ONE})
    assert not consumer.closed.is_set()
    assert len(bench.hub.delivered) == 1
    bench.end()
    assert consumer.closed.is_set()


def test_a_consumer_that_fails_for_good_is_replaced(bench: Bench) -> None:
    consumer = bench.start()
    consumer.happens("assign", ZERO)
    eventually(lambda: not consumer.script)
    consumer.fatal = "fenced"

    eventually(lambda: len(bench.consumers) == 2 and bench.consumers[1].on)
    assert consumer.closed.is_set()
    assert bench.hub.dropped == [ZERO]
    bench.end()


def test_a_consumer_that_lost_its_group_for_good_is_replaced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECK_SECONDS", 0.02)
    consumer = bench.start()
    consumer.happens("assign", ZERO)
    eventually(lambda: consumer.asked > 3)  # it answers, so all is well
    assert len(bench.consumers) == 1

    consumer.answers = False
    eventually(lambda: len(bench.consumers) == 2 and bench.consumers[1].on)
    assert bench.hub.dropped == [ZERO]
    assert consumer.closed.wait(20)
    successor = bench.consumers[1]
    successor.happens("assign", ZERO)
    eventually(lambda: not successor.script)
    consumer.on["revoke"]([ZERO])  # what the old one still says concerns nobody
    assert bench.hub.quiesced == []
    bench.end()


def test_brokers_that_are_away_are_waited_for(bench: Bench) -> None:
    def away() -> list[Found]:
        raise KafkaUnavailable("no brokers")

    consumer = bench.start()
    consumer.happens("assign", ZERO)
    consumer.script += [away, away]
    consumer.brings(record(1))
    eventually(lambda: bench.hub.delivered)
    bench.end()


# --- schemas


class SchemaTopic:
    """A compacted topic, read and written."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, bytes | None]] = []
        self.reads = 0
        self.answers = True
        self._acks: list[OnAck] = []

    # as a consumer

    def watermarks(self, topic: str, partition: int) -> tuple[int, int]:
        self.reads += 1
        return 0, len(self.log)

    def assign(self, positions: Mapping[Place, int]) -> None:
        [self._at] = positions.values()

    def consume(self, most: int, timeout: float) -> list[Record | EndOfPartition]:
        found: list[Record | EndOfPartition] = [
            Record("s", 0, n, key, value, [], 0) for n, (key, value) in enumerate(self.log) if n >= self._at
        ]
        return [*found, EndOfPartition("s", 0, len(self.log))]

    # as a producer

    fatal: str | None = None

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: OnAck,
    ) -> None:
        self.log.append((key or b"", value))
        self._acks.append(on_ack)

    def hand_over(self) -> None: ...

    def poll(self, timeout: float = 0.0) -> int:
        acks, self._acks = self._acks, []
        for on_ack in acks if self.answers else []:
            on_ack(None)
        return len(acks)

    def close(self, timeout: float = 5.0) -> None: ...


def book_of(topic: SchemaTopic) -> tuple[SchemaBook, Schemas]:
    schemas = Schemas()
    return SchemaBook(schemas, ["s"], lambda: cast(Consumer, topic)), schemas


STRING, LONG = Schema.of('"string"'), Schema.of('"long"')


def test_only_what_is_missing_is_published() -> None:
    topic = SchemaTopic()
    topic.log = [(str(STRING.id).encode(), STRING.json.encode()), (b"old", None), (b"?", b"\xff")]
    book, schemas = book_of(topic)

    book.publish(topic, [STRING, LONG])
    book.publish(topic, [STRING, LONG])

    assert topic.log[3:] == [(str(LONG.id).encode(), LONG.json.encode())]
    assert {each.id for each in schemas} == {STRING.id, LONG.id}


def test_an_unacknowledged_schema_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kasaga_participant.schemabook.READ_SECONDS", 0.01)
    topic = SchemaTopic()
    book, _ = book_of(topic)
    topic.answers = False

    with pytest.raises(KafkaUnavailable, match="not published"):
        book.publish(topic, [STRING])


def test_what_is_new_is_read_but_not_a_thousand_times_a_second() -> None:
    topic = SchemaTopic()
    book, schemas = book_of(topic)
    topic.log.append((b"1", STRING.json.encode()))

    for _ in range(1000):
        book.refresh()

    assert [each.id for each in schemas] == [STRING.id]
    assert topic.reads == 1
