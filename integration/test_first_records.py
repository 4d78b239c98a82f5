"""A partition that was just made: its broker refuses one request for it, and takes the next one.

It does for as long as it doesn't know yet that it leads the partition. Seen from a client: a first request
fails and is to be sent again, and the second one, sent behind it, is written.
"""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Generator

import pytest

from eventually import eventually
from fix_proxy import TcpProxy
from kasaga.dev.servers import KafkaServer
from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka import KafkaSettings, Producer
from kasaga_wire.kafka_lanes import IN_FLIGHT
from raw_kafka import create_topic, read

PRODUCE = 0
ANOTHER = 1_000
"""A partition that isn't there: whoever writes to it is told to look where it is, and to try again."""

HELD_SECONDS = 0.5
"""How long the first request is on its way: the client sends another one meanwhile, if it ever does."""


class Refusing(TcpProxy):
    """Has the broker refuse the first request that writes to a topic: it reads of another partition."""

    def __init__(self, server: KafkaServer, topic: str) -> None:
        super().__init__(server.proxy_target, server.proxy_port)
        self.refused = 0
        self._head = topic.encode() + struct.pack(">bi", 1 + 1, 0)
        """As it stands in a request: the topic, of which one partition follows (counted from 1), number 0."""
        self._counting = threading.Lock()

    def change(self, data: bytes, *, asks: bool) -> bytes:
        if not asks or data[4:6] != struct.pack(">h", PRODUCE):
            return data
        with self._counting:
            at = data.find(self._head)
            if at < 0 or self.refused:
                return data
            self.refused += 1
        time.sleep(HELD_SECONDS)
        number = at + len(self._head) - 4
        return data[:number] + struct.pack(">i", ANOTHER) + data[number + 4 :]


@pytest.fixture
def topic(kafka: KafkaServer, namespace: str) -> str:
    name = f"{namespace}.first"
    create_topic(kafka.bootstrap, name)
    return name


@pytest.fixture
def refusing(kafka: KafkaServer, topic: str) -> Generator[Refusing]:
    proxy = Refusing(kafka, topic)
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.mark.parametrize("count", [2, IN_FLIGHT, IN_FLIGHT + 1, 100])
def test_what_is_acknowledged_is_there_though_the_first_request_was_refused(
    kafka: KafkaServer, refusing: Refusing, topic: str, count: int
) -> None:
    acknowledged: list[bytes] = []
    values = [b"%d" % number for number in range(count)]
    producer = Producer(KafkaSettings(kafka.proxied_bootstrap))

    def produce(value: bytes) -> None:
        def on_ack(error: DeliveryError | None) -> None:
            assert error is None
            acknowledged.append(value)

        producer.produce(topic, 0, None, value, None, on_ack)

    produce(values[0])
    producer.hand_over()
    eventually(lambda: refusing.refused == 1)
    for value in values[1:]:
        produce(value)
        producer.hand_over()
    assert producer.flush(30.0) == 0
    producer.close()

    assert acknowledged == values
    assert read(kafka.bootstrap, topic, count) == values
