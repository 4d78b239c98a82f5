"""Kafka without anything of ours, for tests that look at it from outside."""

from __future__ import annotations

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from eventually import eventually

PATIENCE_SECONDS = 30.0


def create_topic(bootstrap: str, topic: str, partitions: int = 1) -> None:
    """Makes a topic and waits until it is there."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions)])[topic].result()  # pyright: ignore[reportUnknownMemberType]


def brokers(bootstrap: str) -> list[str]:
    """Where the brokers say that they live; clients go there, and not where they were told to ask."""
    known = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=PATIENCE_SECONDS).brokers
    return [f"{broker.host}:{broker.port}" for broker in known.values()]


def remake_topic(bootstrap: str, topic: str, partitions: int) -> None:
    """Deletes a topic with all that is in it, and makes it again."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result()  # pyright: ignore[reportUnknownMemberType]
    eventually(lambda: topic not in admin.list_topics(timeout=PATIENCE_SECONDS).topics)
    create_topic(bootstrap, topic, partitions)


def cut(bootstrap: str, topic: str, partitions: int) -> None:
    """Deletes all records there are."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    ends = [TopicPartition(topic, partition, OFFSET_END) for partition in range(partitions)]
    for future in admin.delete_records(ends).values():  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        future.result()  # pyright: ignore[reportUnknownMemberType]


def producer(bootstrap: str) -> Producer:
    """Gives a producer that comes back quickly, and keeps silent on what the test does to its broker."""
    return Producer({"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 200, "log_level": 0})


def flushes(sender: Producer, patience: float = PATIENCE_SECONDS) -> bool:
    """Says whether everything that was sent has been acknowledged, at last."""
    return sender.flush(patience) == 0


def write(bootstrap: str, topic: str, value: bytes) -> None:
    """Writes one record to partition 0 and waits until it is acknowledged."""
    sender = producer(bootstrap)
    sender.produce(topic, value, partition=0)
    assert flushes(sender)


def read(bootstrap: str, topic: str, count: int) -> list[str | bytes | None]:
    """Reads partition 0 from its beginning."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic, "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [message.value() for message in consumer.consume(count, PATIENCE_SECONDS)]
    finally:
        consumer.close()
