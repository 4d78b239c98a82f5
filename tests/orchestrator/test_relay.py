"""Rows to Kafka: in order, until acknowledged, and never more counted than that."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kasaga.orchestrator.clock import Clock, to_datetime
from kasaga.orchestrator.relay import LONGEST_WAIT, ORDER_SLACK, Relay
from kasaga.orchestrator.shards import Shard
from kasaga.store.base import Offsets, OutboxRow, RowKind, ShardRow
from kasaga.testing import network
from kasaga_wire.errors import DeliveryError, QueueFull
from kasaga_wire.kafka import Producer

RUN = UUID(int=1)


def a_shard(sent_row: int, acked_row: int) -> Shard:
    now = datetime(2030, 1, 1, tzinfo=UTC)
    row = ShardRow(0, UUID(int=9), 1, Offsets(), 0, acked_row, sent_row, now, 0)
    return Shard.taken(row)


class Ticks(Clock):
    """Time passes by waiting alone; at a given time Kafka confirms."""

    nanos, confirms_at = 0, 0

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        super().__init__()

    def ticks(self) -> int:
        return self.nanos

    def wait(self, until: threading.Event, seconds: float) -> None:
        self.nanos += round(seconds * 1e9)
        self._bench.confirms = self.nanos >= self.confirms_at


class Bench:
    """A relay with one shard, and a Kafka whose producers deliver only when told to."""

    def __init__(self) -> None:
        self.kafka = network.Kafka()
        self.kafka.create("commands", 1)
        self.kafka.create("events", 1)
        self.producers: list[network.Producer] = []
        self.relay = Relay(self._make, network.Partitions(self.kafka))
        self.relay.now = lambda: self.now
        self.now = 1_900_000_000_000_000
        self.relay.own(0)
        self.delivers = self.confirms = True

    def _make(self) -> Producer:
        producer = network.Producer(self.kafka)
        producer.deliver = lambda waiting: waiting if self.delivers else 0
        producer.confirm = lambda landed: landed if self.confirms else 0
        self.producers.append(producer)
        return cast("Producer", producer)

    def row(self, seq: int, kind: RowKind = RowKind.COMMAND, delay: int = 0, **about: object) -> OutboxRow:
        send_at = to_datetime(self.now + delay) if delay else None
        topic = "commands" if kind is RowKind.COMMAND else "events"
        made = OutboxRow(0, seq, kind, RUN, "1", topic, None, b"k", [], b"%d" % seq, 1, send_at, None)
        for name, value in about.items():
            setattr(made, name, value)
        return made

    def send(self, *rows: OutboxRow) -> None:
        self.relay.send(rows, self.now)

    def poll(self, later: int = 0) -> None:
        self.now += later
        self.relay.poll(self.now)

    def sent(self, topic: str = "commands") -> list[int]:
        return [int(record.value or b"0") for record in self.kafka.all(topic)]


def test_rows_go_out_in_order_and_count_as_sent_when_they_are_acknowledged() -> None:
    bench = Bench()
    bench.confirms = False
    bench.send(bench.row(5), bench.row(6))
    bench.poll()
    assert bench.sent() == [5, 6]
    assert bench.relay.acknowledged(0, 7) == 4
    assert bench.relay.unacknowledged == 2

    bench.confirms = True
    bench.poll()
    assert bench.relay.acknowledged(0, 7) == 6
    assert bench.relay.unacknowledged == 0


def test_a_batch_whose_rows_go_out_saga_by_saga_is_acknowledged_up_to_the_lowest_that_is_out() -> None:
    bench = Bench()
    bench.confirms = False
    bench.send(bench.row(5), bench.row(8), bench.row(6), bench.row(7))
    bench.poll()
    bench.producers[0].confirm = lambda landed: 1
    bench.poll()
    assert bench.relay.acknowledged(0, 9) == 5, "8 was sent before 6, and says nothing about it"
    for position in (5, 6, 8):
        bench.poll()
        assert bench.relay.acknowledged(0, 9) == position


def test_what_was_not_handed_in_is_not_acknowledged() -> None:
    bench = Bench()
    assert bench.relay.acknowledged(0, 100) == 99


def test_a_row_that_was_answered_before_its_acknowledgement_holds_nothing_back() -> None:
    bench = Bench()
    bench.delivers = False
    bench.send(bench.row(5), bench.row(6))
    bench.relay.closed(0, 5)
    assert bench.relay.acknowledged(0, 7) == 5
    bench.relay.closed(0, 6)
    assert bench.relay.acknowledged(0, 7) == 6


def test_timers_and_functions_are_not_sent() -> None:
    bench = Bench()
    bench.send(bench.row(5, RowKind.TIMER), bench.row(6, RowKind.LOCAL))
    bench.poll()
    assert bench.sent() == bench.sent("events") == []
    assert bench.relay.acknowledged(0, 7) == 6


def test_a_delayed_row_goes_out_at_its_time_and_holds_nothing_back() -> None:
    bench = Bench()
    bench.send(bench.row(5, delay=1_000), bench.row(6))
    bench.poll()
    assert bench.sent() == [6]
    assert bench.relay.unacknowledged == 0, "it may wait for hours; nothing else stands still for it"
    assert bench.relay.next_due == bench.now + 1_000
    bench.poll(1_000)
    bench.poll()
    assert bench.sent() == [6, 5]


def test_a_delayed_row_that_was_answered_meanwhile_never_goes_out() -> None:
    bench = Bench()
    bench.send(bench.row(5, delay=1_000))
    bench.relay.closed(0, 5)
    bench.poll(2_000)
    bench.poll()
    assert bench.sent() == []


@pytest.mark.parametrize(("confirmed_after", "waits"), [(0.0, 0.001), (0.01, 0.01), (9.0, 0.05)])
def test_a_hand_over_waits_a_moment_for_what_is_on_its_way(confirmed_after: float, waits: float) -> None:
    bench = Bench()
    clock = Ticks(bench)
    clock.confirms_at = round(confirmed_after * 1e9)
    bench.confirms = False
    bench.send(bench.row(5), bench.row(6), bench.row(7, delay=1_000_000))
    here = a_shard(sent_row=8, acked_row=4)
    bench.relay.settle([here], clock, 0.05)
    assert waits <= clock.seconds() < waits + 0.005
    told = 4 if confirmed_after > 0.05 else 7
    assert bench.relay.acknowledged(0, 8) == told, "nobody waits for a delayed row"
    bench.relay.settle([here], clock, 0.0)


def test_a_shard_that_sends_nothing_is_not_waited_for() -> None:
    bench = Bench()
    clock = Ticks(bench)
    bench.relay.settle([a_shard(sent_row=8, acked_row=4)], clock, 0.05)
    assert clock.seconds() == 0


def test_acknowledged_records_are_to_be_deleted_once() -> None:
    bench = Bench()
    bench.send(bench.row(5, RowKind.RECORD), bench.row(6))
    bench.poll()
    here = a_shard(sent_row=7, acked_row=6)
    assert bench.relay.has_more(here), "a record is to be deleted"
    assert bench.relay.take_acked(0) == [(0, 5)]
    assert not bench.relay.has_more(here)
    assert bench.relay.has_more(a_shard(sent_row=7, acked_row=5)), "a command isn't written down yet"
    bench.relay.put_back_acked([(0, 5), (7, 1)])
    assert bench.relay.take_acked(0) == [(0, 5)]


def test_a_failed_delivery_is_tried_again_more_and_more_seldom() -> None:
    bench = Bench()
    error = DeliveryError("_MSG_TIMED_OUT", "no broker", permanent=False)
    bench.producers[0].refuse = lambda topic: error
    bench.send(bench.row(5))
    waits: list[int] = []
    bench.poll()
    for _ in range(8):
        due = bench.relay.next_due
        assert due is not None
        waits.append(due - bench.now)
        assert bench.relay.acknowledged(0, 6) == 4
        bench.poll(due - bench.now)
        bench.poll()
    assert waits == sorted(waits)
    assert waits[-1] == LONGEST_WAIT

    bench.producers[0].refuse = lambda topic: None
    bench.poll(LONGEST_WAIT)
    bench.poll()
    assert bench.sent() == [5]
    assert bench.relay.acknowledged(0, 6) == 5


def test_a_command_that_kafka_refuses_for_good_is_the_engines_to_decide() -> None:
    bench = Bench()
    bench.send(bench.row(5, topic="no-such-topic"), bench.row(6))
    bench.poll()
    assert [(each.shard, each.step, each.attempt) for each in bench.relay.refusals] == [(0, "1", 1)]
    assert "no-such-topic" in bench.relay.refusals[0].error
    assert bench.sent() == [6]


def test_a_record_that_no_topic_takes_stays_and_stops_nobody() -> None:
    bench = Bench()
    bench.producers[0].refuse = lambda topic: (
        DeliveryError("TOPIC_AUTHORIZATION_FAILED", topic, permanent=True) if topic == "events" else None
    )
    bench.send(bench.row(5, RowKind.RECORD))
    for seq in range(6, 6 + 5 * ORDER_SLACK):
        bench.send(bench.row(seq))
        bench.poll()
    assert not bench.relay.refusals
    assert bench.relay.unacknowledged == 0
    assert bench.relay.acknowledged(0, 10_000) == 4
    sent = bench.relay._shards[0]  # pyright: ignore[reportPrivateUsage]
    assert len(sent.order) <= ORDER_SLACK + 3, "one row must not keep all that came after it in memory"

    bench.producers[0].refuse = lambda topic: None
    bench.poll(LONGEST_WAIT)
    bench.poll()
    assert bench.sent("events") == [5]
    assert bench.relay.acknowledged(0, 10_000) == 9_999


def test_a_fence_that_nobody_is_there_to_read_is_given_up() -> None:
    """Its saga was terminated, and nobody waits: it must not be tried for ever."""
    bench = Bench()
    bench.producers[0].refuse = lambda topic: DeliveryError("UNKNOWN_TOPIC", topic, permanent=True)
    bench.send(bench.row(5, RowKind.RECORD, step="1~void", topic="commands"))
    bench.poll()
    assert bench.relay.take_acked(0) == [(0, 5)]
    assert bench.relay.acknowledged(0, 6) == 5
    bench.producers[0].refuse = lambda topic: None
    bench.poll(LONGEST_WAIT)
    assert bench.sent() == []


def test_a_producer_that_died_is_replaced_and_all_that_is_not_acknowledged_goes_out_in_order() -> None:
    bench = Bench()
    bench.delivers = False
    bench.send(*[bench.row(seq) for seq in range(5, 10)])
    bench.producers[0].die("a fatal error")
    bench.delivers = True
    bench.poll()
    bench.poll()
    assert len(bench.producers) == 2
    assert bench.sent()[:5] == [5, 6, 7, 8, 9]
    assert bench.relay.acknowledged(0, 10) == 9


def test_a_full_queue_is_no_failure() -> None:
    bench = Bench()
    producer = bench.producers[0]
    produce, full = producer.produce, [True]

    def refuse(*about: object) -> None:
        if full[0]:
            raise QueueFull("full")
        produce(*about)  # type: ignore[arg-type]

    producer.produce = refuse  # type: ignore[method-assign, assignment]
    bench.send(bench.row(5), bench.row(6))
    bench.poll()
    assert bench.relay.unacknowledged == 2
    assert bench.relay.next_due == 0
    full[0] = False
    bench.poll()
    bench.poll()
    assert bench.sent() == [5, 6]
    assert bench.relay.failed == 0


def test_what_comes_for_a_shard_of_a_former_time_changes_nothing() -> None:
    bench = Bench()
    bench.confirms = False
    bench.send(bench.row(5, RowKind.RECORD))
    bench.poll()
    bench.relay.disown(0)
    bench.relay.own(0)
    bench.confirms = True
    bench.poll()
    assert bench.relay.take_acked(0) == []
    bench.send(bench.row(5, RowKind.RECORD))
    assert bench.relay.acknowledged(0, 6) == 4


def test_closing_waits_for_what_is_on_its_way_and_says_what_is_missing() -> None:
    bench = Bench()
    bench.delivers = False
    bench.send(bench.row(5))
    bench.kafka.down = True
    assert bench.relay.close(1.0) == 1
    assert bench.relay.acknowledged(0, 6) == 4


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from(["command", "record", "delayed"]), st.integers(1, 3)),
            st.tuples(st.sampled_from(["deliver", "confirm", "answer", "fail", "die"]), st.integers(0, 6)),
            st.tuples(st.just("pass"), st.integers(1, 6_000_000)),
        ),
        max_size=60,
    )
)
def test_the_acknowledged_position_never_passes_a_row_that_may_be_missing(
    happened: list[tuple[str, int]],
) -> None:
    bench = Bench()
    bench.delivers = bench.confirms = False
    seq = 1
    needed: set[int] = set()
    """Rows whose loss nobody would notice: handed in, not answered, not delayed."""
    for what, number in happened:
        if what in ("command", "record", "delayed"):
            rows: list[OutboxRow] = []
            for _ in range(number):
                kind = RowKind.RECORD if what == "record" else RowKind.COMMAND
                rows.append(bench.row(seq, kind, delay=500_000 if what == "delayed" else 0))
                if what != "delayed":
                    needed.add(seq)
                seq += 1
            bench.send(*rows)
        elif what == "answer":
            answered = sorted(needed)[:number]
            for each in answered:
                bench.relay.closed(0, each)
            needed -= set(answered)
        elif what == "fail":
            error = DeliveryError("_TRANSPORT", "away", permanent=False)
            bench.producers[-1].refuse = lambda topic, error=error: error  # type: ignore[misc]
            bench.producers[-1].land(min(number, bench.producers[-1].waiting))
            bench.producers[-1].refuse = lambda topic: None
        elif what == "die":
            bench.producers[-1].die("fatal")
            bench.poll()
        elif what == "pass":
            bench.poll(number)
        else:
            bench.delivers, bench.confirms = True, what == "confirm"
            bench.poll()
            bench.delivers = bench.confirms = False
        there = {*bench.sent(), *bench.sent("events")}
        position = bench.relay.acknowledged(0, seq)
        assert position < seq
        missing = [each for each in needed if each <= position and each not in there]
        assert not missing, f"{missing} aren't in Kafka, and the position is {position}"
    bench.delivers = bench.confirms = True
    for _ in range(30):
        bench.poll(LONGEST_WAIT)
    assert bench.relay.acknowledged(0, seq) == seq - 1
    assert needed <= {*bench.sent(), *bench.sent("events")}
