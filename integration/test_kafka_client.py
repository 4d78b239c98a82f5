"""Our side of Kafka against a real broker: topics, groups, transactions, and a broker that goes away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import admin as raw_admin

from eventually import eventually
from fix_proxy import TcpProxy
from kasaga.dev.servers import KafkaServer
from kasaga_wire.errors import DeliveryError, KafkaUnavailable, TopicMismatch, TopicRefused
from kasaga_wire.kafka import (
    EARLIEST,
    LATEST,
    Admin,
    Consumer,
    EndOfPartition,
    GroupConsumer,
    KafkaSettings,
    PartitionError,
    Producer,
    Record,
    partition_for,
)
from kasaga_wire.topics import Topics, TopicSpec

_raw: Any = raw_admin

IDLE_LATENCY_SECONDS = 0.05
"""Far above what it takes (1 to 2 ms), far below what a linger or a full batch's wait would add."""


@pytest.fixture
def settings(kafka: KafkaServer) -> KafkaSettings:
    return KafkaSettings(kafka.bootstrap)


@pytest.fixture
def admin(settings: KafkaSettings) -> Generator[Admin]:
    made = Admin(settings)
    yield made
    made.close()


@pytest.fixture
def producer(settings: KafkaSettings) -> Generator[Producer]:
    made = Producer(settings)
    yield made
    made.close()


@pytest.fixture
def topic(admin: Admin, topic_prefix: str) -> str:
    name = f"{topic_prefix}inventory.commands"
    admin.ensure_topics([TopicSpec(name, 4, {"cleanup.policy": "delete"})])
    return name


@pytest.fixture
def consumer(settings: KafkaSettings, namespace: str) -> Generator[Consumer]:
    made = Consumer(settings, group=namespace)
    yield made
    made.close()


def produce(producer: Producer, topic: str, partition: int, *values: bytes) -> None:
    acks: list[DeliveryError | None] = []
    for value in values:
        producer.produce(topic, partition, b"key", value, [("ce_id", value)], acks.append)
    eventually(lambda: producer.poll(0.01) >= 0 and len(acks) == len(values))
    assert set(acks) <= {None}


Reader = Consumer | GroupConsumer


def read(reader: Reader, enough: Callable[[list[Any]], bool]) -> list[Any]:
    got: list[Any] = []

    def more() -> bool:
        got.extend(reader.consume(500, 0.1))
        return enough(got)

    eventually(more)
    return got


def values(got: list[Any]) -> list[bytes | None]:
    return [each.value for each in got if isinstance(each, Record)]


def to_the_end(reader: Consumer) -> list[bytes | None]:
    return values(read(reader, lambda got: isinstance(got[-1], EndOfPartition) if got else False))


# --- topics


def test_topics_are_created_with_their_settings_and_found_again(admin: Admin, topic_prefix: str) -> None:
    topics = Topics("shop", topic_prefix)
    specs = [*topics.orchestrator_specs(shards=3), *topics.participant_specs("inventory", partitions=2)]
    created = {report.name: report for report in admin.ensure_topics(specs)}
    assert all(report.created for report in created.values())
    assert created[topics.replies].partitions == 3
    assert created[topics.replies].config["cleanup.policy"] == "delete"
    assert created[topics.replies].config["retention.ms"] == str(7 * 24 * 60 * 60 * 1000)
    assert created[topics.schemas].config["cleanup.policy"] == "compact"
    assert created[topics.replies].replication == 1
    assert "the loss of one broker's disk" in created[topics.replies].warnings[0]
    again = admin.ensure_topics(specs)
    assert not any(report.created for report in again)
    assert {report.name for report in again} == {spec.name for spec in specs}
    assert admin.describe(["no.such.topic"]) == {}


def test_a_topic_that_would_lose_records_is_refused(admin: Admin, topic_prefix: str) -> None:
    name = f"{topic_prefix}shop.replies"
    admin.ensure_topics([TopicSpec(name, 2, {"cleanup.policy": "compact"}, never_compact=False)])
    with pytest.raises(TopicRefused, match=f"{name} has cleanup.policy=compact"):
        admin.ensure_topics([TopicSpec(name, 2, {"cleanup.policy": "delete"})])
    with pytest.raises(TopicMismatch, match="2 partitions, 3 are needed"):
        admin.ensure_topics([TopicSpec(name, 3, {"cleanup.policy": "compact"}, never_compact=False)])


def test_two_that_create_a_topic_at_once_both_succeed(settings: KafkaSettings, topic_prefix: str) -> None:
    one, other = Admin(settings), Admin(settings)
    specs = [TopicSpec(f"{topic_prefix}{number}", 1) for number in range(5)]
    one.ensure_topics(specs[:3])
    assert [report.created for report in other.ensure_topics(specs)] == [False, False, False, True, True]
    one.close()
    other.close()


# --- producing and consuming


def test_a_record_goes_there_and_back_quickly(producer: Producer, consumer: Consumer, topic: str) -> None:
    partition = partition_for(b"key", 4)
    consumer.assign({(topic, partition): EARLIEST})
    to_the_end(consumer)
    took: list[float] = []
    for _ in range(20):
        begun = time.perf_counter()
        producer.produce(topic, partition, b"key", b"v", None, lambda error: None)
        producer.hand_over()
        while not values(consumer.consume(500, 1.0)):
            producer.poll(0)
        took.append(time.perf_counter() - begun)
    assert sorted(took)[10] < IDLE_LATENCY_SECONDS


def test_many_records_come_in_large_batches(producer: Producer, consumer: Consumer, topic: str) -> None:
    produce(producer, topic, 0, *(b"%d" % number for number in range(5_000)))
    consumer.assign({(topic, 0): EARLIEST})
    sizes: list[int] = []

    def all_read() -> bool:
        sizes.append(len(consumer.consume(500, 1.0)))
        return sum(sizes) > 5_000

    eventually(all_read)
    assert max(sizes) > 100
    assert max(sizes) <= 500


def test_reading_begins_where_it_is_told(producer: Producer, consumer: Consumer, topic: str) -> None:
    produce(producer, topic, 1, b"a", b"b", b"c")
    consumer.assign({(topic, 1): 1})
    assert to_the_end(consumer) == [b"b", b"c"]
    consumer.assign({(topic, 1): LATEST})
    read(consumer, lambda got: any(isinstance(each, EndOfPartition) for each in got))
    produce(producer, topic, 1, b"d")
    assert values(read(consumer, lambda got: bool(values(got)))) == [b"d"]
    assert consumer.watermarks(topic, 1) == (0, 4)


def test_ends_are_asked_for_without_waiting_and_not_behind_the_consumers_fetch(
    settings: KafkaSettings, producer: Producer, consumer: Consumer, topic: str
) -> None:
    """A question of the consumer's own client waits for its fetch; this one overtakes it."""
    produce(producer, topic, 1, b"a", b"b")
    admin, places = Admin(settings), [(topic, 0), (topic, 1)]
    assert admin.ask_offsets(places, timeout=10).wait() == {(topic, 0): 0, (topic, 1): 2}
    consumer.assign({(topic, 0): EARLIEST})
    took: list[float] = []
    for _ in range(20):
        consumer.consume(1, 0.03)
        begun = time.monotonic()
        asked = admin.ask_offsets(places, timeout=10)
        assert asked.wait() == asked.answer()
        took.append(time.monotonic() - begun)
    assert min(took) < 0.02
    produce(producer, topic, 1, b"c")
    assert admin.ask_offsets(places, timeout=10).wait() == {(topic, 0): 0, (topic, 1): 3}
    assert admin.ask_offsets(places, first=True, timeout=10).wait() == {(topic, 0): 0, (topic, 1): 0}


def test_a_partition_that_is_not_there_is_left_out_of_the_answer(settings: KafkaSettings, topic: str) -> None:
    admin = Admin(settings)

    def led() -> bool:
        """Whether the topic, which is new, has all its leaders."""
        with contextlib.suppress(KafkaUnavailable):
            return len(admin.ask_offsets([(topic, 0), (topic, 1)], timeout=30).wait()) == 2
        return False

    eventually(led)
    assert admin.ask_offsets([(topic, 0), (topic, 99)], timeout=30).wait() == {(topic, 0): 0}
    with pytest.raises(KafkaUnavailable, match="asking for offsets"):
        admin.ask_offsets([(topic, 99)], timeout=30).wait()


def test_a_paused_partition_is_silent_and_nothing_of_it_is_lost(
    producer: Producer, consumer: Consumer, topic: str
) -> None:
    consumer.assign({(topic, 0): EARLIEST, (topic, 1): EARLIEST})
    read(consumer, lambda got: len([each for each in got if isinstance(each, EndOfPartition)]) == 2)
    consumer.pause([(topic, 0)])
    produce(producer, topic, 0, b"later")
    produce(producer, topic, 1, b"now")
    assert values(read(consumer, lambda got: bool(values(got)))) == [b"now"]
    consumer.resume([(topic, 0)])
    assert values(read(consumer, lambda got: bool(values(got)))) == [b"later"]


@pytest.mark.parametrize("offset", [2, 99])
def test_an_offset_that_is_gone_or_not_yet_there_is_out_of_range(
    settings: KafkaSettings, producer: Producer, consumer: Consumer, topic: str, offset: int
) -> None:
    produce(producer, topic, 0, *(b"%d" % number for number in range(6)))
    client: Any = _raw.AdminClient({"bootstrap.servers": settings.bootstrap})
    for future in client.delete_records([confluent_kafka.TopicPartition(topic, 0, 4)]).values():
        future.result(10)
    consumer.assign({(topic, 0): offset})
    got = read(consumer, lambda got: any(isinstance(each, PartitionError) for each in got))
    assert [each.out_of_range for each in got] == [True]
    assert consumer.watermarks(topic, 0) == (4, 6)
    consumer.assign({(topic, 0): 4})
    assert to_the_end(consumer) == [b"4", b"5"]


def test_records_of_an_open_transaction_wait_and_those_of_an_aborted_one_never_come(
    settings: KafkaSettings, producer: Producer, consumer: Consumer, topic: str
) -> None:
    stranger: Any = confluent_kafka.Producer(
        {"bootstrap.servers": settings.bootstrap, "transactional.id": topic}
    )
    stranger.init_transactions(10)
    stranger.begin_transaction()
    stranger.produce(topic, b"open", partition=0)
    stranger.flush(10)
    produce(producer, topic, 0, b"behind")
    consumer.assign({(topic, 0): EARLIEST})
    begun = time.monotonic()
    while time.monotonic() - begun < 0.5:
        assert not values(consumer.consume(100, 0.1))
    stranger.abort_transaction(10)
    assert values(read(consumer, lambda got: bool(values(got)))) == [b"behind"]


@pytest.mark.parametrize(
    ("size", "partition", "name"), [(2_000_000, 0, "MSG_SIZE_TOO_LARGE"), (10, 77, "_UNKNOWN_PARTITION")]
)
def test_what_can_never_be_delivered_is_permanent(
    producer: Producer, topic: str, size: int, partition: int, name: str
) -> None:
    produce(producer, topic, 0, b"known")
    acks: list[DeliveryError | None] = []
    producer.produce(topic, partition, b"key", b"x" * size, None, acks.append)
    eventually(lambda: producer.poll(0.05) >= 0 and acks)
    assert [(each.name, each.permanent) for each in acks if each is not None] == [(name, True)]


def test_a_topic_that_refuses_the_size_says_so_too(
    settings: KafkaSettings, admin: Admin, topic_prefix: str
) -> None:
    name = f"{topic_prefix}narrow"
    admin.ensure_topics([TopicSpec(name, 1, {"max.message.bytes": "1000"})])
    producer = Producer(settings, options={"compression.type": "none"})
    acks: list[DeliveryError | None] = []
    producer.produce(name, 0, b"key", bytes(range(256)) * 8, None, acks.append)
    eventually(lambda: producer.poll(0.05) >= 0 and acks)
    assert [(each.name, each.permanent) for each in acks if each is not None] == [
        ("MSG_SIZE_TOO_LARGE", True)
    ]
    assert producer.fatal is None
    producer.close()


def test_a_topic_that_is_not_there_is_permanent_in_the_end(
    settings: KafkaSettings, topic_prefix: str
) -> None:
    producer = Producer(settings, options={"topic.metadata.propagation.max.ms": 500})
    acks: list[DeliveryError | None] = []
    producer.produce(f"{topic_prefix}absent", 0, b"key", b"v", None, acks.append)
    eventually(lambda: producer.poll(0.05) >= 0 and acks)
    (error,) = acks
    assert error is not None
    assert error.permanent
    assert "UNKNOWN_TOPIC" in error.name
    producer.close()


# --- groups


class Member:
    """A group's member, and what its callbacks were told."""

    def __init__(self, settings: KafkaSettings, group: str, topic: str) -> None:
        self.consumer = GroupConsumer(settings, group=group, options={"heartbeat.interval.ms": 200})
        self.places: set[tuple[str, int]] = set()
        self.told: list[str] = []
        self.got: list[Record] = []
        self.consumer.subscribe([topic], self._assigned, self._revoked, self._lost)

    def _assigned(self, places: list[tuple[str, int]]) -> None:
        self.told.append("assigned")
        self.places |= set(places)

    def _revoked(self, places: list[tuple[str, int]]) -> None:
        self.told.append("revoked")
        self.places -= set(places)

    def _lost(self, places: list[tuple[str, int]]) -> None:
        self.told.append("lost")
        self.places -= set(places)

    def turn(self) -> bool:
        """Reads once. False, so that an `or` may follow."""
        self.got += [each for each in self.consumer.consume(500, 0.05) if isinstance(each, Record)]
        return False


def test_members_share_partitions_and_take_over_at_the_committed_offset(
    settings: KafkaSettings, producer: Producer, topic: str, namespace: str
) -> None:
    every = {(topic, partition) for partition in range(4)}
    one = Member(settings, namespace, topic)
    eventually(lambda: one.turn() or one.places == every)
    for partition in range(4):
        produce(producer, topic, partition, b"first")
    eventually(lambda: one.turn() or len(one.got) == 4)
    one.consumer.commit(dict.fromkeys(every, 1), wait=True)

    other = Member(settings, namespace, topic)
    eventually(lambda: one.turn() or other.turn() or (len(one.places), len(other.places)) == (2, 2))
    assert one.places | other.places == every
    assert one.places == one.consumer.assignment()
    for partition in range(4):
        produce(producer, topic, partition, b"second")
    eventually(lambda: one.turn() or other.turn() or len(one.got) + len(other.got) == 8)
    assert [record.value for record in other.got] == [b"second"] * 2

    other.consumer.close()
    assert other.places == set()
    assert other.told[-1] == "revoked"
    eventually(lambda: one.turn() or one.places == every)
    eventually(lambda: one.turn() or len(one.got) == 8)  # what the other had read and not committed
    one.consumer.close()


def test_a_group_begins_at_the_beginning(
    settings: KafkaSettings, producer: Producer, topic: str, namespace: str
) -> None:
    produce(producer, topic, 3, b"sent before anybody was there")
    member = Member(settings, namespace, topic)
    eventually(lambda: member.turn() or member.got)
    member.consumer.close()


def test_committed_offsets_show_as_lag(
    settings: KafkaSettings, producer: Producer, consumer: Consumer, topic: str, namespace: str
) -> None:
    produce(producer, topic, 0, b"a", b"b", b"c")
    consumer.assign({(topic, 0): EARLIEST})
    to_the_end(consumer)
    consumer.commit({(topic, 0): 2})
    outside: Any = confluent_kafka.Consumer({"bootstrap.servers": settings.bootstrap, "group.id": namespace})
    place = confluent_kafka.TopicPartition(topic, 0)
    eventually(lambda: consumer.consume(1, 0.05) or outside.committed([place], 10)[0].offset == 2)
    outside.close()


# --- a broker that goes away


def test_a_producer_outlives_its_broker(
    kafka: KafkaServer, kafka_proxy: TcpProxy, topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    quick = {"reconnect.backoff.max.ms": "200"}
    producer = Producer(KafkaSettings(kafka.proxied_bootstrap, quick))
    consumer = Consumer(KafkaSettings(kafka.bootstrap), group=topic)
    produce(producer, topic, 0, b"before")
    kafka_proxy.stop()
    acks: list[DeliveryError | None] = []
    for number in range(100):
        producer.produce(topic, 0, b"key", b"%d" % number, None, acks.append)
    begun = time.monotonic()
    while time.monotonic() - begun < 1.0:
        producer.poll(0.1)
    assert acks == []
    assert len(producer) == 100
    lines = {getattr(line, "kafka_error", "") for line in caplog.records if line.name == "kasaga.kafka"}
    assert "_TRANSPORT" in lines or "_ALL_BROKERS_DOWN" in lines
    kafka_proxy.start()
    eventually(lambda: producer.poll(0.05) >= 0 and len(acks) == 100)
    assert set(acks) == {None}
    consumer.assign({(topic, 0): EARLIEST})
    assert to_the_end(consumer) == [b"before", *(b"%d" % number for number in range(100))]
    consumer.close()
    producer.close()


def test_answers_that_are_lost_cost_no_record_and_make_no_duplicate(
    kafka: KafkaServer, kafka_proxy: TcpProxy, topic: str
) -> None:
    quick = {"reconnect.backoff.max.ms": "200", "socket.timeout.ms": "1000", "request.timeout.ms": "1000"}
    producer = Producer(KafkaSettings(kafka.proxied_bootstrap, quick))
    consumer = Consumer(KafkaSettings(kafka.bootstrap), group=topic)
    produce(producer, topic, 0, b"before")
    kafka_proxy.mute()
    acks: list[DeliveryError | None] = []
    producer.produce(topic, 0, b"key", b"once", None, acks.append)
    producer.hand_over()
    consumer.assign({(topic, 0): EARLIEST})
    read(consumer, lambda got: b"once" in values(got))
    assert acks == []
    kafka_proxy.start()
    eventually(lambda: producer.poll(0.05) >= 0 and acks == [None])
    produce(producer, topic, 0, b"after")
    consumer.assign({(topic, 0): EARLIEST})
    assert to_the_end(consumer) == [b"before", b"once", b"after"]
    consumer.close()
    producer.close()


def test_a_consumer_goes_on_after_its_broker_was_away(
    kafka: KafkaServer, kafka_proxy: TcpProxy, producer: Producer, topic: str
) -> None:
    consumer = Consumer(
        KafkaSettings(kafka.proxied_bootstrap, {"reconnect.backoff.max.ms": "200"}), group=topic
    )
    consumer.assign({(topic, 0): EARLIEST})
    produce(producer, topic, 0, b"a")
    read(consumer, lambda got: values(got) == [b"a"])
    kafka_proxy.stop()
    produce(producer, topic, 0, b"b")
    begun = time.monotonic()
    while time.monotonic() - begun < 0.5:
        assert not values(consumer.consume(100, 0.1))
    with pytest.raises(KafkaUnavailable):
        consumer.watermarks(topic, 0, 0.5)
    kafka_proxy.start()
    assert values(read(consumer, lambda got: bool(values(got)))) == [b"b"]
    consumer.close()


def test_closing_while_the_broker_is_deaf_does_not_wait_for_ever(
    kafka: KafkaServer, kafka_proxy: TcpProxy, topic: str
) -> None:
    producer = Producer(KafkaSettings(kafka.proxied_bootstrap))
    produce(producer, topic, 0, b"before")
    kafka_proxy.deaf()
    acks: list[DeliveryError | None] = []
    producer.produce(topic, 0, b"key", b"v", None, acks.append)
    begun = time.monotonic()
    producer.close(0.5)
    assert time.monotonic() - begun < 5
    assert [each is None for each in acks] == [False]
