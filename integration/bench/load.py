"""Starts sagas and waits for their ends: as many in flight as asked, one by one, or at a steady rate.

A process of its own, driven by `driver.py`: each line of its standard input asks for one measurement, each
line of its output answers one. It speaks the wire directly, as a client in another language would: one
producer, one consumer of answers.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pydantic

from bench.payment_app import Order, payment
from bench.work_app import Nap, Plan, nap, plan
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import ReplyTo, StartEnvelope
from kasaga_wire.errors import KafkaUnavailable
from kasaga_wire.kafka import Consumer, KafkaSettings, Producer, Record, partition_for
from kasaga_wire.records import answer_codec
from kasaga_wire.topics import Topics

WAIT_SECONDS = 120.0
"""For the namespace's topics at first, and for each end of sagas."""

MAX_WAITING = 10_000
"""Starts on their way to Kafka; more wait for those."""


class Sort(pydantic.BaseModel):
    """Which sagas to start."""

    saga: str = "payment"
    input: dict[str, Any] = {}

    def payload(self) -> Callable[[str], bytes]:
        """The input of the saga of an id; only a payment's says it."""
        if self.saga == "payment":
            order = Order.model_validate({"order_id": "", "amount": 1999, "sku": "book", **self.input})
            return lambda saga_id: payment.input.encode(order.model_copy(update={"order_id": saga_id}))
        made = (
            plan.input.encode(Plan(**self.input))
            if self.saga == "plan"
            else nap.input.encode(Nap(**self.input))
        )
        return lambda _: made


class Load:
    """One client: sagas in flight by run id, and how long the ended ones took."""

    def __init__(self, settings: KafkaSettings, shards: int) -> None:
        self._topics = Topics("bench")
        self._shards = shards
        self._producer = Producer(settings)
        self._consumer = Consumer(settings, group=f"load-{uuid4()}", options={"fetch.wait.max.ms": 10})
        self._partition = 0
        place = (self._topics.answers, self._partition)
        self._consumer.assign({place: self._end(place)})
        self._prefix = uuid4().hex[:8]
        self._schemas = Schemas()
        self._started = 0
        self._sent: dict[str, float] = {}
        self._seconds: list[float] = []
        self._ends: dict[str, int] = {}
        self._begun = datetime.now(UTC)
        self._sort = Sort()
        self._payload = self._sort.payload()

    def _end(self, place: tuple[str, int]) -> int:
        """The end of the answers; the orchestrator makes the topic when it starts."""
        end = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return self._consumer.watermarks(*place)[1]
            except KafkaUnavailable:
                if time.monotonic() > end:
                    raise
                time.sleep(0.02)

    def of(self, sort: Sort) -> None:
        """Start such sagas from now on, and count anew."""
        self._sort, self._payload = sort, sort.payload()
        self._seconds.clear()
        self._ends.clear()
        self._begun = datetime.now(UTC)

    def start(self, at: float, *, answered: bool = True) -> None:
        """Start one saga; `at` is when it should have begun."""
        self._started += 1
        saga_id, run_id = f"{self._prefix}-{self._started}", str(uuid4())
        envelope = StartEnvelope(
            run_id=run_id,
            source="/kasaga/clients/bench",
            time=datetime.now(UTC),
            saga_id=saga_id,
            saga=self._sort.saga,
            reply_to=ReplyTo(self._topics.answers, self._partition) if answered else None,
        )
        key = saga_id.encode()
        if answered:
            self._sent[run_id] = at
        self._producer.produce(
            self._topics.sagas,
            partition_for(key, self._shards),
            key,
            self._payload(saga_id),
            envelope.to_headers(),
            _acked,
        )

    def collect(self, timeout: float) -> int:
        """Take answers in; returns how many sagas ended."""
        self._producer.poll(0)
        ended = 0
        for record in self._consumer.consume(1000, timeout):
            if isinstance(record, Record) and record.value is not None:
                answer = answer_codec.decode(record.value, self._schemas)
                at = self._sent.pop(answer.about, None)
                if at is not None:
                    ended += 1
                    self._seconds.append(time.perf_counter() - at)
                    self._ends[answer.what] = self._ends.get(answer.what, 0) + 1
        return ended

    def closed(self, in_flight: int, seconds: float, ramp: float) -> float:
        """Keep `in_flight` sagas going for `seconds`; returns sagas ended per second.

        That time begins when `ramp` seconds are over and as many have ended as are in flight: until then the
        rate would be that of one burst. It goes on if fewer than that end in it.
        """
        ended = self._keep(in_flight, ramp)
        if ended < in_flight:
            ended += self._keep(in_flight, WAIT_SECONDS, enough=in_flight - ended)
        if ended < in_flight:
            sys.exit(f"{ended} sagas have ended in {WAIT_SECONDS:.0f} s, with {in_flight} in flight")
        self._seconds.clear()
        self._begun = datetime.now(UTC)
        begun = time.perf_counter()
        ended = self._keep(in_flight, seconds)
        if ended < in_flight:
            # Sagas that go in step with each other end in waves; between two of them the rate would be none.
            ended += self._keep(in_flight, WAIT_SECONDS, enough=in_flight - ended)
        return ended / (time.perf_counter() - begun)

    def _keep(self, in_flight: int, seconds: float, enough: int | None = None) -> int:
        """Keep sagas in flight for so long, or until enough have ended; returns how many have."""
        end = time.perf_counter() + seconds
        ended = 0
        while (now := time.perf_counter()) < end and (enough is None or ended < enough):
            while len(self._sent) < in_flight and len(self._producer) < MAX_WAITING:
                self.start(now)
            ended += self.collect(0.05)
        return ended

    def offered(self, rate: float, seconds: float) -> float:
        """Start at a steady rate, whatever comes back; waiting counts from when a saga was due."""
        begun = time.perf_counter()
        due = ended = 0
        while (now := time.perf_counter()) < begun + seconds:
            while due < (now - begun) * rate:
                self.start(begun + due / rate)
                due += 1
            ended += self.collect(max(0.0, min(0.002, begun + due / rate - time.perf_counter())))
        return ended / (time.perf_counter() - begun)

    def single(self, count: int) -> float:
        """One after the other; returns how many a second."""
        begun = time.perf_counter()
        for _ in range(count):
            self.start(time.perf_counter())
            while self._sent:
                self.collect(1.0)
        return count / (time.perf_counter() - begun)

    def park(self, count: int) -> float:
        """Start so many and wait for none of them; returns how many a second Kafka has taken."""
        begun = time.perf_counter()
        for _ in range(count):
            self.start(0.0, answered=False)
            while len(self._producer) >= MAX_WAITING:
                self._producer.poll(0.05)
        self._producer.flush(WAIT_SECONDS)
        return count / (time.perf_counter() - begun)

    def measured(self, rate: float, cpu_s: float) -> dict[str, object]:
        """Wait for what is in flight, and say what there was; latencies are those of the measured time."""
        seconds = sorted(self._seconds)
        end = time.perf_counter() + WAIT_SECONDS
        while self._sent and time.perf_counter() < end:
            self.collect(0.05)
        return {
            "rate": rate,
            "begun": self._begun.isoformat(),
            "ends": self._ends,
            "missing": len(self._sent),
            "p50_ms": _quantile(seconds, 0.5) * 1000,
            "p99_ms": _quantile(seconds, 0.99) * 1000,
            "cpu_s": cpu_s,
        }


class Ask(pydantic.BaseModel):
    """One measurement."""

    do: str
    amount: float
    """Sagas in flight, sagas a second, or how many."""
    seconds: float = 0.0
    ramp: float = 0.0
    """Seconds before those; see `Load.closed`."""
    sort: Sort = Sort()


def _run(load: Load, ask: Ask) -> float:
    if ask.do == "closed":
        return load.closed(int(ask.amount), ask.seconds, ask.ramp)
    if ask.do == "offered":
        return load.offered(ask.amount, ask.seconds)
    return load.single(int(ask.amount)) if ask.do == "single" else load.park(int(ask.amount))


def _acked(error: Exception | None) -> None:
    if error is not None:
        sys.exit(f"a start was not acknowledged: {error}")


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def main() -> None:
    """Do what the lines of the standard input ask."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, required=True)
    options = parser.parse_args()
    load = Load(KafkaSettings.from_env(), options.shards)
    for line in sys.stdin:
        ask = Ask.model_validate_json(line)
        load.of(ask.sort)
        used = time.process_time()
        rate = _run(load, ask)
        print(json.dumps(load.measured(rate, time.process_time() - used)), flush=True)


if __name__ == "__main__":
    main()
