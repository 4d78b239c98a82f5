"""Which of its two clients a producer sends a record through."""

from __future__ import annotations

from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka_errors import ErrorLog
from kasaga_wire.kafka_lanes import OnAck, Waiting
from kasaga_wire.kafka_producer import BATCH_LINGER_MS, LanedProducer


class Client:
    """Keeps what it is given; empty, it is false, as librdkafka's is."""

    def __init__(self, linger_ms: float) -> None:
        self.linger_ms = linger_ms
        self.out: list[bytes | None] = []
        self.acks: list[OnAck] = []

    def ack(self) -> None:
        """Acknowledge what is out."""
        acks, self.acks = self.acks, []
        for on_ack in acks:
            on_ack(None)

    def send(self, topic: str, partition: int, record: Waiting, on_ack: OnAck) -> DeliveryError | None:
        self.out.append(record.value)
        self.acks.append(on_ack)
        return None

    def poll(self, timeout: float, /) -> int:
        return 0

    def flush(self, timeout: float, /) -> int:
        return len(self.out)

    def purge(self) -> None: ...

    def __len__(self) -> int:
        return len(self.out)


def test_a_batch_goes_through_the_client_that_lingers_and_single_records_through_the_other() -> None:
    made: list[Client] = []

    def make(*, linger_ms: float) -> Client:
        made.append(Client(linger_ms))
        return made[-1]

    producer = LanedProducer(make, ErrorLog("test"), 1000)
    producer.warm()
    producer.warm()
    quick, batches = made
    assert (quick.linger_ms, batches.linger_ms) == (0.0, BATCH_LINGER_MS)
    producer.produce("t", 0, None, b"alone", None, lambda error: None)
    for number in range(50):
        producer.produce("t", 1, None, b"%d" % number, None, lambda error: None)
    producer.hand_over()
    batches.ack()
    producer.hand_over()
    assert quick.out == [b"alone"]
    assert batches.out == [b"%d" % number for number in range(50)]


def test_a_record_that_shows_whether_the_clients_are_ready_goes_through_each_of_them() -> None:
    made: list[Client] = []

    def make(*, linger_ms: float) -> Client:
        made.append(Client(linger_ms))
        return made[-1]

    producer = LanedProducer(make, ErrorLog("test"), 1000)
    producer.produce_by_each("t", 0, b"key", b"value", lambda error: None)
    assert [client.out for client in made] == [[b"value"], [b"value"]]
    assert len(producer) == 2
