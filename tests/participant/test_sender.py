"""Replies and dead letters until they are acknowledged, on a Kafka that misbehaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kasaga_participant import sender as module
from kasaga_participant.sender import Headers, OnAck, Outgoing, Sender
from kasaga_wire.errors import DeliveryError, QueueFull


class Kafka:
    """Producers that do as they are told."""

    def __init__(self) -> None:
        self.made: list[FakeProducer] = []

    def make(self) -> FakeProducer:
        self.made.append(FakeProducer())
        return self.made[-1]

    @property
    def now(self) -> FakeProducer:
        return self.made[-1]


class FakeProducer:
    def __init__(self) -> None:
        self.fatal: str | None = None
        self.full = False
        self.given: list[tuple[bytes | None, OnAck]] = []
        self.due: list[Callable[[], None]] = []

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: OnAck,
    ) -> None:
        if self.full:
            raise QueueFull("full")
        self.given.append((value, on_ack))

    def acknowledge(self, error: DeliveryError | None = None) -> None:
        _, on_ack = self.given.pop(0)
        self.due.append(lambda: on_ack(error))

    def hand_over(self) -> None: ...

    def poll(self, timeout: float = 0.0) -> int:
        due, self.due = self.due, []
        for call in due:
            call()
        return len(due)

    def close(self, timeout: float = 5.0) -> None:
        pass


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    monkeypatch.setattr(module, "delay", lambda tries: 0.0)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    return Kafka()


class Told:
    def __init__(self) -> None:
        self.done: list[bytes] = []
        self.given_up: list[str] = []

    def record(self, value: bytes, *, may_give_up: bool = True) -> Outgoing:
        def give_up(error: DeliveryError) -> None:
            self.given_up.append(error.name)

        done = self.done.append
        return Outgoing("t", 0, b"k", value, [], lambda: done(value), give_up if may_give_up else None)


TRANSIENT = DeliveryError("_MSG_TIMED_OUT", "no broker", permanent=False)
MISSING = DeliveryError("UNKNOWN_TOPIC_OR_PART", "no topic", permanent=True)
LARGE = DeliveryError("MSG_SIZE_TOO_LARGE", "too large", permanent=True)
FATAL = DeliveryError("_FATAL", "out of order", permanent=False, fatal=True)


def test_done_means_acknowledged(kafka: Kafka) -> None:
    sender, told = Sender(kafka.make), Told()
    sender.send(told.record(b"a"))
    assert (sender.poll(), told.done, len(sender)) == (0, [], 1)

    kafka.now.acknowledge()

    assert (sender.poll(), told.done, len(sender)) == (1, [b"a"], 0)


def test_what_fails_for_now_is_sent_again(kafka: Kafka) -> None:
    sender, told = Sender(kafka.make), Told()
    sender.send(told.record(b"a"))
    for error in (TRANSIENT, MISSING, TRANSIENT, None):
        kafka.now.acknowledge(error)
        sender.poll()
        sender.poll()

    assert (told.done, told.given_up, len(sender)) == ([b"a"], [], 0)


def test_what_is_missing_for_long_is_given_up(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERMANENT_SECONDS", -1.0)
    sender, told = Sender(kafka.make), Told()
    sender.send(told.record(b"a"))
    sender.send(told.record(b"b", may_give_up=False))
    for _ in range(2):
        kafka.now.acknowledge(MISSING)
    sender.poll()

    assert told.given_up == ["UNKNOWN_TOPIC_OR_PART"]
    assert len(sender) == 1  # tried for ever


def test_what_is_too_large_is_given_up_at_once(kafka: Kafka) -> None:
    sender, told = Sender(kafka.make), Told()
    sender.send(told.record(b"a"))
    kafka.now.acknowledge(LARGE)
    sender.poll()

    assert (told.given_up, len(sender)) == (["MSG_SIZE_TOO_LARGE"], 0)


def test_a_full_queue_is_waited_for(kafka: Kafka) -> None:
    sender, told = Sender(kafka.make), Told()
    kafka.now.full = True
    sender.send(told.record(b"a"))
    kafka.now.full = False
    sender.poll()
    kafka.now.acknowledge()
    sender.poll()

    assert told.done == [b"a"]


def test_a_failed_producer_is_replaced_and_all_is_sent_again_in_order(kafka: Kafka) -> None:
    sender, told = Sender(kafka.make), Told()
    for value in (b"a", b"b", b"c"):
        sender.send(told.record(value))
    old = kafka.now
    old.acknowledge()
    old.acknowledge(FATAL)
    old.fatal = "out of order"
    sender.poll()

    assert told.done == [b"a"]
    assert [value for value, _ in kafka.now.given] == [b"b", b"c"]
    old.acknowledge()  # too late: it belongs to another life
    old.poll()
    assert told.done == [b"a"]
    kafka.now.acknowledge()
    kafka.now.acknowledge()
    sender.poll()
    assert told.done == [b"a", b"b", b"c"]


def test_closing_says_what_is_missing(kafka: Kafka) -> None:
    sender, told = Sender(kafka.make), Told()
    sender.send(told.record(b"a"))
    sender.send(told.record(b"b"))
    kafka.now.acknowledge()

    assert sender.close(0.05) == 1
    assert told.done == [b"a"]
