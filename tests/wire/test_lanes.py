"""Lanes: what of each partition is handed over when, without a Kafka."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka_lanes import IN_FLIGHT, KNOWN_SECONDS, Lane, Lanes, NoRoom, Waiting

TOO_LARGE = DeliveryError("MSG_SIZE_TOO_LARGE", "too large", permanent=True)


class Client:
    """Takes records as librdkafka does, and acknowledges them when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lanes = Lanes(self.send, lambda: self.now)
        self.room = 1_000_000
        self.flying: list[tuple[Lane, Waiting]] = []
        self.sent: list[tuple[str, int, bytes]] = []
        self.batches: list[bool] = []
        self.acked: list[bytes] = []
        self.errors: list[DeliveryError] = []

    def send(self, lane: Lane, record: Waiting) -> DeliveryError | None:
        if len(self.flying) >= self.room:
            raise NoRoom
        if record.value is None:
            return TOO_LARGE
        self.flying.append((lane, record))
        self.sent.append((lane.topic, lane.partition, record.value))
        self.batches.append(lane.batch)
        return None

    def put(self, value: bytes | None, partition: int = 0) -> None:
        def on_ack(error: DeliveryError | None) -> None:
            if error is None:
                self.acked.append(value or b"")
            else:
                self.errors.append(error)

        self.lanes.put("t", partition, Waiting(value, b"key", None, on_ack))

    def count_flying(self) -> Counter[int]:
        return Counter(lane.partition for lane, _ in self.flying)

    def land(self, count: int, error: DeliveryError | None = None) -> None:
        for lane, record in self.flying[:count]:
            self.lanes.landed(lane, record.on_ack, error)
        del self.flying[:count]


def known_client() -> Client:
    """Gives one that brokers know in three partitions: it has sent single records and batches."""
    client = Client()
    for count in (1, IN_FLIGHT + 1):
        for partition in range(3):
            for _ in range(count):
                client.put(b"before", partition)
        while len(client.lanes):
            client.lanes.hand_over()
            client.land(1)
    for noted in (client.sent, client.batches, client.acked):
        noted.clear()
    return client


def values(client: Client) -> list[bytes]:
    return [value for _, _, value in client.sent]


def test_nothing_goes_before_it_is_handed_over() -> None:
    client = known_client()
    client.put(b"1")
    assert (client.sent, len(client.lanes), client.lanes.waiting) == ([], 1, 1)
    client.lanes.hand_over()
    assert (values(client), len(client.lanes), client.lanes.waiting) == ([b"1"], 1, 0)
    client.land(1)
    assert (client.acked, len(client.lanes)) == ([b"1"], 0)


def test_the_records_of_a_partition_go_one_behind_the_other() -> None:
    client = known_client()
    for number in range(6):
        client.put(b"%d" % number, partition=number % 2)
    client.lanes.hand_over()
    assert values(client) == [b"0", b"2", b"4", b"1", b"3", b"5"]


def test_behind_a_batch_the_next_one_gathers() -> None:
    client = known_client()
    for number in range(IN_FLIGHT):
        client.put(b"%d" % number)
    client.lanes.hand_over()
    client.put(b"a")
    client.put(b"other", partition=1)
    client.lanes.hand_over()
    assert values(client)[IN_FLIGHT:] == [b"other"]
    client.put(b"b")
    client.land(1)
    client.put(b"c")
    client.lanes.hand_over()
    assert values(client)[IN_FLIGHT + 1 :] == []
    client.land(2)
    client.lanes.hand_over()
    assert values(client)[IN_FLIGHT + 1 :] == [b"a", b"b", b"c"]


def test_nothing_joins_a_batch_on_its_way() -> None:
    client = known_client()
    for number in range(IN_FLIGHT + 1):
        client.put(b"%d" % number)
    client.lanes.hand_over()
    client.put(b"a")
    client.land(IN_FLIGHT)
    client.lanes.hand_over()
    assert values(client)[IN_FLIGHT + 1 :] == []
    client.land(1)
    client.lanes.hand_over()
    assert values(client)[IN_FLIGHT + 1 :] == [b"a"]
    assert client.batches == [True] * (IN_FLIGHT + 1) + [False]


def test_a_few_may_overtake_nobody_and_wait_for_nobody() -> None:
    client = known_client()
    for number in range(IN_FLIGHT - 1):
        client.put(b"%d" % number)
        client.lanes.hand_over()
    client.put(b"last")
    client.lanes.hand_over()
    assert values(client)[-1] == b"last"


def test_a_client_sends_one_record_alone_into_a_partition_that_does_not_know_it() -> None:
    """More than one request of an unknown producer, and the first one's failure is taken for its success."""
    client = Client()
    for number in range(3):
        client.put(b"%d" % number)
    client.put(b"other", partition=1)
    client.lanes.hand_over()
    client.put(b"3")
    client.lanes.hand_over()
    assert values(client) == [b"0", b"other"]
    client.land(2)
    client.lanes.hand_over()
    assert values(client) == [b"0", b"other", b"1", b"2", b"3"]


def test_each_of_the_two_clients_has_to_be_known() -> None:
    client = Client()
    client.put(b"alone")
    client.lanes.hand_over()
    client.land(1)
    for number in range(IN_FLIGHT + 1):
        client.put(b"%d" % number)
    client.lanes.hand_over()
    assert (values(client), client.batches) == ([b"alone", b"0"], [False, True])
    client.land(1)
    for number in range(IN_FLIGHT + 1, IN_FLIGHT + 4):
        client.put(b"%d" % number)
    client.lanes.hand_over()
    assert client.batches == [False, *[True] * (IN_FLIGHT + 4)]


@pytest.mark.parametrize("why", ["long ago", "an error"])
def test_what_a_broker_may_have_forgotten_is_not_known(why: str) -> None:
    client = known_client()
    if why == "long ago":
        client.now += KNOWN_SECONDS
    else:
        client.put(b"failed")
        client.lanes.hand_over()
        client.land(1, DeliveryError("_MSG_TIMED_OUT", "not delivered", permanent=False))
    client.sent.clear()
    for number in range(3):
        client.put(b"%d" % number)
    client.lanes.hand_over()
    assert values(client) == [b"0"]
    client.land(1)
    client.lanes.hand_over()
    assert values(client) == [b"0", b"1", b"2"]


def test_what_has_no_room_goes_later() -> None:
    client = known_client()
    client.room = 3
    for number in range(IN_FLIGHT):
        client.put(b"%d" % number)
    client.put(b"other", partition=1)
    client.lanes.hand_over()
    assert client.lanes.waiting == 3
    client.land(2)
    client.lanes.hand_over()
    assert client.lanes.waiting == 1
    client.land(3)
    client.lanes.hand_over()
    assert values(client) == [b"0", b"1", b"2", b"other", b"3", b"4"]


def test_what_can_never_go_is_told_later_and_holds_nobody_up() -> None:
    client = known_client()
    client.put(None)
    client.put(b"1")
    client.lanes.hand_over()
    assert (values(client), client.errors, len(client.lanes)) == ([b"1"], [], 2)
    assert client.lanes.call_refused() == 1
    assert (client.errors, len(client.lanes)) == ([TOO_LARGE], 1)


def test_giving_up_tells_of_everything_that_waits() -> None:
    client = known_client()
    for number in range(IN_FLIGHT):
        client.put(b"%d" % number)
    client.lanes.hand_over()
    client.put(b"a")
    client.put(b"b", partition=1)
    client.lanes.give_up(TOO_LARGE)
    assert client.errors == []
    assert client.lanes.call_refused() == 2
    client.land(IN_FLIGHT)
    client.lanes.hand_over()
    assert (client.errors, len(client.sent), len(client.lanes)) == ([TOO_LARGE] * 2, IN_FLIGHT, 0)


@given(
    acts=st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 2)), st.tuples(st.just("land"), st.integers(1, 9))
        ),
        max_size=80,
    ),
    room=st.integers(1, 20),
    known=st.booleans(),
)
def test_order_holds_nothing_is_lost_and_no_partition_has_more_than_it_may(
    acts: list[tuple[str, int]], room: int, known: bool
) -> None:
    client = known_client() if known else Client()
    client.room = room
    put: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
    for number, (act, argument) in enumerate(acts):
        if act == "put":
            value = b"%d" % number
            client.put(value, argument)
            put[argument].append(value)
            assert len(client.lanes) == sum(map(len, put.values())) - len(client.acked)
            continue
        before = client.count_flying()
        client.lanes.hand_over()
        after = client.count_flying()
        for partition in put:
            # Either nothing is added to what is on its way, or all of it together is a few.
            assert before[partition] in (0, after[partition]) or after[partition] <= IN_FLIGHT
        client.land(argument)
    while len(client.lanes):
        client.lanes.hand_over()
        client.land(1)
    for partition, expected in put.items():
        assert [value for _, there, value in client.sent if there == partition] == expected
    assert len(client.acked) == len(client.sent)
