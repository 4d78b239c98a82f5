"""Our side of librdkafka, against the broker it brings along for tests: no network, no Java.

What depends on a real broker is in integration/test_kafka_client.py.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Generator
from typing import Any

import confluent_kafka
import pytest

from eventually import eventually
from kasaga_wire.errors import DeliveryError, KafkaUnavailable, QueueFull, SettingsError
from kasaga_wire.kafka import (
    EARLIEST,
    Admin,
    Consumer,
    EndOfPartition,
    KafkaSettings,
    PartitionError,
    Producer,
    Record,
    partition_for,
)
from kasaga_wire.kafka_errors import LOADING_SECONDS, SAME_LOG_LINE_SECONDS, ErrorLog, Muffler, unavailable

_numbers = itertools.count()


@pytest.fixture
def topic() -> str:
    """One that no other test uses; the broker makes it when it is first named."""
    return f"test-{next(_numbers)}.commands"


@pytest.fixture(scope="module")
def settings() -> Generator[KafkaSettings]:
    """A broker that lives as long as the client it belongs to."""
    client: Any = confluent_kafka.Producer({"test.mock.num.brokers": 1, "log_level": 0})
    brokers = client.list_topics(timeout=10).brokers.values()
    yield KafkaSettings(",".join(f"{each.host}:{each.port}" for each in brokers))
    del client


@pytest.fixture
def producer(settings: KafkaSettings) -> Generator[Producer]:
    made = Producer(settings)
    yield made
    made.close()


@pytest.fixture
def consumer(settings: KafkaSettings) -> Generator[Consumer]:
    made = Consumer(settings, group="test")
    yield made
    made.close()


# toPositive(murmur2(key)) of Java's client, from its own tests.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("count", [1, 3, 16, 1000, 2**31 - 1])
@pytest.mark.parametrize("key", JAVA, ids=lambda key: key.decode())
def test_partitions_are_those_of_javas_client(key: bytes, count: int) -> None:
    assert partition_for(key, count) == (JAVA[key] & 0x7FFFFFFF) % count


def test_an_empty_key_has_no_partition() -> None:
    with pytest.raises(ValueError, match="ce_subject"):
        partition_for(b"", 16)


def produce(producer: Producer, topic: str, partition: int, value: bytes = b"v") -> None:
    acks: list[DeliveryError | None] = []
    producer.produce(topic, partition, b"key", value, [("ce_id", b"1"), ("none", None)], acks.append)
    eventually(lambda: producer.poll(0.05) or acks)
    assert acks == [None]


def read(consumer: Consumer, enough: Callable[[list[Any]], bool]) -> list[Any]:
    got: list[Any] = []

    def more() -> bool:
        got.extend(consumer.consume(100, 0.1))
        return enough(got)

    eventually(more)
    return got


def test_a_record_comes_out_as_it_went_in(producer: Producer, consumer: Consumer, topic: str) -> None:
    before = int(time.time() * 1000)
    produce(producer, topic, 0)
    consumer.assign({(topic, 0): EARLIEST})
    got = read(consumer, lambda got: EndOfPartition(topic, 0, 1) in got)
    records = [each for each in got if isinstance(each, Record)]
    assert len(records) == 1
    record = records[0]
    assert (record.topic, record.partition, record.offset, record.key, record.value) == (
        topic,
        0,
        0,
        b"key",
        b"v",
    )
    assert record.headers == [("ce_id", b"1"), ("none", None)]
    assert before <= record.timestamp_ms <= int(time.time() * 1000)
    assert consumer.assignment() == {(topic, 0)}
    assert consumer.watermarks(topic, 0) == (0, 1)


def test_many_come_at_once_and_none_costs_no_more_than_the_timeout(
    producer: Producer, consumer: Consumer, topic: str
) -> None:
    acks: list[DeliveryError | None] = []
    for number in range(300):
        producer.produce(topic, 1, b"key", b"%d" % number, None, acks.append)
    eventually(lambda: producer.poll(0.05) >= 0 and len(acks) == 300)
    consumer.assign({(topic, 1): 0})
    batches: list[int] = []

    def all_read() -> bool:
        got = [each for each in consumer.consume(200, 1.0) if isinstance(each, Record)]
        assert len(got) <= 200
        batches.append(len(got))
        return sum(batches) == 300

    eventually(all_read)
    assert max(batches) > 50
    begun = time.monotonic()
    while consumer.consume(100, 0.05):
        pass
    assert time.monotonic() - begun < 1.0


def test_an_offset_that_is_not_there_is_an_error_and_no_jump(
    producer: Producer, consumer: Consumer, topic: str
) -> None:
    produce(producer, topic, 2)
    consumer.assign({(topic, 2): 50})
    got = read(consumer, lambda got: any(isinstance(each, PartitionError) for each in got))
    error = next(each for each in got if isinstance(each, PartitionError))
    assert (error.topic, error.partition, error.out_of_range) == (topic, 2, True)
    assert not any(isinstance(each, Record) for each in got)


def test_partitions_come_and_go(producer: Producer, consumer: Consumer, topic: str) -> None:
    produce(producer, topic, 3)
    consumer.assign({(topic, 0): EARLIEST})
    consumer.incremental_assign({(topic, 3): EARLIEST})
    read(consumer, lambda got: any(isinstance(each, Record) and each.partition == 3 for each in got))
    consumer.pause([(topic, 3)])
    consumer.resume([(topic, 3)])
    consumer.incremental_unassign([(topic, 3)])
    assert consumer.assignment() == {(topic, 0)}
    with pytest.raises(Exception, match="the assignment can't change"):
        consumer.incremental_unassign([(topic, 3)])


def test_offsets_are_committed(producer: Producer, consumer: Consumer, topic: str) -> None:
    produce(producer, topic, 0)
    consumer.assign({(topic, 0): EARLIEST})
    consumer.commit({(topic, 0): 1}, wait=True)
    consumer.commit({(topic, 0): 1})
    consumer.commit({})


def test_what_can_never_be_delivered_says_so(producer: Producer, topic: str) -> None:
    produce(producer, topic, 0)  # so that the topic's partitions are known
    acks: list[DeliveryError | None] = []
    producer.produce(topic, 0, b"key", b"x" * 2_000_000, None, acks.append)
    producer.produce(topic, 99, b"key", b"x", None, acks.append)
    assert acks == []  # called by poll, never by produce
    assert len(producer) >= 2
    eventually(lambda: producer.poll(0.05) >= 0 and len(acks) == 2)
    names = [(each.name, each.permanent, each.fatal) for each in acks if each is not None]
    assert names == [("MSG_SIZE_TOO_LARGE", True, False), ("_UNKNOWN_PARTITION", True, False)]
    assert producer.fatal is None


def test_a_full_queue_is_said_and_passes(settings: KafkaSettings, topic: str) -> None:
    producer = Producer(settings, options={"queue.buffering.max.messages": 2})
    acks: list[DeliveryError | None] = []

    def fill() -> None:
        for _ in range(100):
            producer.produce(topic, 0, b"key", b"v", None, acks.append)

    with pytest.raises(QueueFull):
        fill()
    assert producer.flush(10) == 0
    producer.produce(topic, 0, b"key", b"v", None, acks.append)
    producer.close()
    assert len(producer) == 0
    assert set(acks) == {None}


def test_closing_gives_up_what_no_broker_takes(caplog: pytest.LogCaptureFixture, topic: str) -> None:
    producer = Producer(KafkaSettings("127.0.0.1:1"))
    acks: list[DeliveryError | None] = []
    producer.produce(topic, 0, b"key", b"v", None, acks.append)
    producer.close(0.3)
    (error,) = acks
    assert error is not None
    assert error.name == "_PURGE_QUEUE"
    assert not error.permanent
    lines = [record for record in caplog.records if record.name == "kasaga.kafka"]
    assert {getattr(line, "kafka_error", "") for line in lines} >= {"_TRANSPORT"}


def test_questions_that_nobody_answers_are_unavailable(monkeypatch: pytest.MonkeyPatch, topic: str) -> None:
    monkeypatch.setattr("kasaga_wire.kafka.METADATA_SECONDS", 0.2)
    nowhere = KafkaSettings("127.0.0.1:1", {"log_level": "0"})
    consumer = Consumer(nowhere, group="test")
    with pytest.raises(KafkaUnavailable, match="watermarks of test"):
        consumer.watermarks(topic, 0, 0.2)
    consumer.close()
    consumer.close()
    admin = Admin(nowhere)
    with pytest.raises(KafkaUnavailable, match="asking for offsets"):
        admin.ask_offsets([(topic, 0)], timeout=0.2).wait()
    with pytest.raises(KafkaUnavailable, match="listing topics"):
        admin.describe([topic])
    admin.close()


@pytest.mark.parametrize("options", [{"nonsense": "1"}, {"message.timeout.ms": "soon"}])
def test_a_key_that_librdkafka_does_not_know_is_a_settings_error(options: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="KSG-140"):
        Producer(KafkaSettings("127.0.0.1:1", options))


class FakeError:
    def __init__(self, name: str, *, fatal: bool = False) -> None:
        self._name, self._fatal = name, fatal

    def name(self) -> str:
        return self._name

    def str(self) -> str:
        return "what happened"

    def fatal(self) -> bool:
        return self._fatal


def test_the_same_error_is_logged_once_in_a_while(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("kasaga_wire.kafka_errors.time.monotonic", lambda: clock[0])
    log = ErrorLog("producer")
    for _ in range(5):
        log(FakeError("_TRANSPORT"))
    log(FakeError("_AUTHENTICATION"))
    clock[0] += SAME_LOG_LINE_SECONDS
    log(FakeError("_TRANSPORT"))
    assert [(r.__dict__["kafka_error"], r.__dict__["kafka_muted"]) for r in caplog.records] == [
        ("_TRANSPORT", 0),
        ("_AUTHENTICATION", 0),
        ("_TRANSPORT", 4),
    ]
    before = log.fatal
    log(FakeError("_FATAL", fatal=True))
    assert (before, log.fatal) == (None, "_FATAL: what happened")
    assert caplog.records[-1].levelno == logging.ERROR


def test_librdkafkas_own_lines_are_muffled_by_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("kasaga_wire.kafka_errors.time.monotonic", lambda: clock[0])
    muffler = Muffler()

    def passes(text: str) -> bool:
        return muffler.filter(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))

    assert [passes("FAIL [a]"), passes("FAIL [b]"), passes("REQTMOUT [a]")] == [True, False, True]
    clock[0] += SAME_LOG_LINE_SECONDS
    assert passes("FAIL [b]")


def test_a_coordinator_that_loads_is_news_only_when_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("kasaga_wire.kafka_errors.time.monotonic", lambda: clock[0])
    muffler = Muffler()
    text = "GETPID [x] Failed to acquire idempotence PID: Broker: Coordinator load in progress: retrying"

    def passes_after(seconds: float) -> bool:
        clock[0] += seconds
        return muffler.filter(logging.LogRecord("x", logging.INFO, "", 0, text, None, None))

    assert [passes_after(0), passes_after(LOADING_SECONDS / 2)] == [False, False]
    assert passes_after(LOADING_SECONDS / 2)
    assert not passes_after(SAME_LOG_LINE_SECONDS)  # another time, from the beginning


@pytest.mark.parametrize(
    ("code", "leaderless"),
    [("NOT_LEADER_FOR_PARTITION", True), ("LEADER_NOT_AVAILABLE", True), ("_TRANSPORT", False)],
)
def test_a_partition_without_a_leader_is_told_from_a_broker_that_is_away(code: str, leaderless: bool) -> None:
    error = confluent_kafka.KafkaError(getattr(confluent_kafka.KafkaError, code))
    assert unavailable("asking", error).leaderless is leaderless
