"""Partitions that librdkafka doesn't fetch although they are assigned, on a real Kafka."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence

import pytest

from eventually import eventually
from kasaga.dev.servers import KafkaServer
from kasaga.orchestrator.clock import Clock
from kasaga.orchestrator.source import Source
from kasaga.store.base import Offsets
from kasaga_participant.progress import Progress, Room
from kasaga_participant.reader import Delivered, Reader
from kasaga_wire import kafka_watch
from kasaga_wire.codec import Schemas
from kasaga_wire.errors import KafkaUnavailable
from kasaga_wire.kafka import Admin, Consumer, GroupConsumer, KafkaSettings, Producer
from kasaga_wire.topics import Topics, TopicSpec

SHARDS = 4


@pytest.fixture
def settings(kafka: KafkaServer) -> KafkaSettings:
    return KafkaSettings(kafka.bootstrap)


@pytest.fixture
def admin(settings: KafkaSettings) -> Generator[Admin]:
    made = Admin(settings)
    yield made
    made.close()


@pytest.fixture
def put(settings: KafkaSettings) -> Generator[Callable[[str, int, bytes], None]]:
    producer = Producer(settings)

    def produce(topic: str, partition: int, value: bytes) -> None:
        producer.produce(topic, partition, b"key", value, None, lambda error: None)
        assert producer.flush(20) == 0

    yield produce
    producer.close()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks follow each other quickly."""
    for name in ("FIRST_SECONDS", "QUIET_SECONDS", "AGAIN_SECONDS", "SURE_SECONDS"):
        monkeypatch.setattr(kafka_watch, name, 0.5)
    monkeypatch.setattr(kafka_watch, "GAP_SECONDS", 0.1)


# --- the orchestrator


class Reading:
    """A source, and what it has read."""

    def __init__(self, settings: KafkaSettings, admin: Admin, topics: Topics) -> None:
        self.consumer = Consumer(settings, group=f"{topics.prefix}orchestrator")
        self.stalls = 0
        self.source = Source(self.consumer, admin, topics, Schemas(), Clock(), self._stalled)
        self.got: list[tuple[str, int, bytes | None]] = []

    def _stalled(self) -> None:
        self.stalls += 1

    def turn(self) -> bool:
        """Reads once. False, so that an `or` may follow."""
        self.got += [(each.topic, each.partition, each.value) for each in self.source.read(100, 0.05)]
        self.source.silent_seconds()
        return False


@pytest.fixture
def topics(admin: Admin, namespace: str, topic_prefix: str) -> Topics:
    made = Topics(namespace, topic_prefix)
    admin.ensure_topics(made.orchestrator_specs(SHARDS))
    return made


@pytest.fixture
def reading(settings: KafkaSettings, admin: Admin, topics: Topics) -> Generator[Reading]:
    def make() -> Reading | None:
        try:
            return Reading(settings, admin, topics)
        except KafkaUnavailable:  # the topics were made a moment ago
            return None

    made = eventually(make)
    assert made is not None
    yield made
    made.source.close()


def test_a_shard_that_went_while_starts_were_paused_is_read_when_it_comes_back(
    reading: Reading, topics: Topics, put: Callable[[str, int, bytes], None]
) -> None:
    for shard in range(SHARDS):
        put(topics.sagas, shard, b"first")
        reading.source.assign(shard, Offsets(), known=True)
    eventually(lambda: reading.turn() or len(reading.got) == SHARDS)
    reading.source.pause_starts(True)
    reading.source.unassign(1)
    reading.source.pause_starts(False)
    put(topics.sagas, 1, b"second")
    reading.source.assign(1, Offsets(sagas=1), known=True)
    eventually(lambda: reading.turn() or (topics.sagas, 1, b"second") in reading.got)
    assert len(reading.got) == SHARDS + 1
    assert reading.stalls == 0


@pytest.mark.usefixtures("soon")
def test_a_partition_that_is_not_fetched_is_assigned_anew(
    reading: Reading, topics: Topics, put: Callable[[str, int, bytes], None], caplog: pytest.LogCaptureFixture
) -> None:
    for shard in range(SHARDS):
        reading.source.assign(shard, Offsets(), known=True)
    put(topics.replies, 2, b"first")
    eventually(lambda: reading.turn() or reading.got)
    reading.consumer.pause([(topics.replies, 2)])  # nobody knows of it
    put(topics.replies, 2, b"second")
    eventually(lambda: reading.turn() or len(reading.got) == 2)
    assert reading.got[1] == (topics.replies, 2, b"second")
    assert reading.stalls == 1
    assert "a partition is not read" in caplog.text
    put(topics.replies, 2, b"third")
    eventually(lambda: reading.turn() or len(reading.got) == 3)
    assert reading.stalls == 1


# --- a participant


class Hub:
    """Takes what comes, and stops a partition's fetching in a way that the reader doesn't know of."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self.stalls = 0
        self.errors: list[BaseException] = []
        self.before: Callable[[], None] = lambda: None

    def deliver(self, reader: Reader, records: Delivered) -> None:
        before, self.before = self.before, lambda: None
        before()
        for record, progress in records:
            progress.begin(record.offset)
            self.values.append(record.value)
            progress.finish(record.offset)

    def quiesce(self, partitions: Sequence[Progress], finished: threading.Event) -> None:
        finished.set()

    def drop(self, partitions: Sequence[Progress]) -> None: ...

    def commits(self) -> None: ...

    def stalled(self, reader: Reader) -> None:
        self.stalls += 1

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("static", [True, False])
def test_a_participant_whose_partition_is_not_fetched_begins_anew(
    settings: KafkaSettings,
    admin: Admin,
    topic_prefix: str,
    put: Callable[[str, int, bytes], None],
    *,
    static: bool,
) -> None:
    topic = f"{topic_prefix}shop.commands"
    admin.ensure_topics([TopicSpec(topic, 3, {})])
    options = {"group.instance.id": "shop-0"} if static else {}
    consumers: list[GroupConsumer] = []

    def make() -> GroupConsumer:
        consumers.append(GroupConsumer(settings, group=topic, options=options))
        return consumers[-1]

    hub = Hub()
    hub.before = lambda: consumers[0].pause([(topic, 1)])
    reader = Reader(topic, make, Room(100, 100_000), hub)
    reader.start()
    try:
        put(topic, 0, b"first")
        eventually(lambda: hub.values == [b"first"])
        put(topic, 1, b"second")
        eventually(lambda: b"second" in hub.values)
        assert hub.stalls == 1
        put(topic, 1, b"third")
        eventually(lambda: b"third" in hub.values)
        assert hub.stalls == 1
    finally:
        reader.end()
        reader.join(20)
    assert not reader.is_alive()
    assert hub.errors == []
