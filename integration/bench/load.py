"""Starts payment sagas and waits for their ends: as many in flight as asked, or at a steady rate.

Run as a process of its own; the figures go to stdout as one JSON line. It speaks the wire directly,
as a client in another language would: one producer, one consumer of answers.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from datetime import UTC, datetime
from uuid import uuid4

from bench.payment_app import Order, payment
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import ReplyTo, StartEnvelope
from kasaga_wire.errors import KafkaUnavailable
from kasaga_wire.kafka import Consumer, KafkaSettings, Producer, Record, partition_for
from kasaga_wire.records import answer_codec
from kasaga_wire.topics import Topics

SHARDS = 16


class Load:
    """One client: sagas in flight by run id, and how long the ended ones took."""

    def __init__(self, bootstrap: str, sku: str) -> None:
        settings = KafkaSettings(bootstrap)
        self._topics = Topics("bench")
        self._producer = Producer(settings)
        self._consumer = Consumer(settings, group=f"load-{uuid4()}", options={"fetch.wait.max.ms": 10})
        self._partition = 0
        place = (self._topics.answers, self._partition)
        self._consumer.assign({place: self._end(place)})
        self._prefix = uuid4().hex[:8]
        self._schemas = Schemas()
        self._sku = sku
        self.started = 0
        self.sent: dict[str, float] = {}
        self.seconds: list[float] = []
        self.ends: dict[str, int] = {}

    def _end(self, place: tuple[str, int]) -> int:
        """The end of the answers; the orchestrator makes the topic when it starts."""
        end = time.monotonic() + 60
        while True:
            try:
                return self._consumer.watermarks(*place)[1]
            except KafkaUnavailable:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def start(self, at: float) -> None:
        """Start one saga; `at` is when it should have begun."""
        self.started += 1
        saga_id, run_id = f"{self._prefix}-{self.started}", str(uuid4())
        envelope = StartEnvelope(
            run_id=run_id,
            source="/kasaga/clients/bench",
            time=datetime.now(UTC),
            saga_id=saga_id,
            saga="payment",
            reply_to=ReplyTo(self._topics.answers, self._partition),
        )
        payload = payment.input.encode(Order(order_id=saga_id, amount=1999, sku=self._sku))
        key = saga_id.encode()
        self.sent[run_id] = at
        self._producer.produce(
            self._topics.sagas, partition_for(key, SHARDS), key, payload, envelope.to_headers(), _acked
        )

    def collect(self, timeout: float) -> int:
        """Take answers in; returns how many sagas ended."""
        self._producer.poll(0)
        ended = 0
        for record in self._consumer.consume(1000, timeout):
            if isinstance(record, Record) and record.value is not None:
                answer = answer_codec.decode(record.value, self._schemas)
                at = self.sent.pop(answer.about, None)
                if at is not None:
                    ended += 1
                    self.seconds.append(time.perf_counter() - at)
                    self.ends[answer.what] = self.ends.get(answer.what, 0) + 1
        return ended

    def closed(self, in_flight: int, seconds: float) -> float:
        """Keep `in_flight` sagas going for `seconds`; returns sagas ended per second."""
        self.seconds.clear()
        begun = time.perf_counter()
        ended = 0
        while (now := time.perf_counter()) < begun + seconds:
            while len(self.sent) < in_flight:
                self.start(now)
            ended += self.collect(0.05)
        return ended / (time.perf_counter() - begun)

    def offered(self, rate: float, seconds: float) -> None:
        """Start at a steady rate, whatever comes back; waiting counts from when a saga was due."""
        self.seconds.clear()
        begun = time.perf_counter()
        due = 0
        while (now := time.perf_counter()) < begun + seconds:
            while due < (now - begun) * rate:
                self.start(begun + due / rate)
                due += 1
            self.collect(0.002)

    def drain(self, seconds: float = 60.0) -> None:
        """Wait for what is in flight."""
        end = time.perf_counter() + seconds
        while self.sent and time.perf_counter() < end:
            self.collect(0.05)
        if self.sent:
            sys.exit(f"{len(self.sent)} sagas have not ended")


def _acked(error: Exception | None) -> None:
    if error is not None:
        sys.exit(f"a start was not acknowledged: {error}")


def quantile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("--in-flight", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0)
    parser.add_argument("--runs", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--warm-up", type=float, default=3.0)
    parser.add_argument("--sku", default="book")
    options = parser.parse_args()
    load = Load(options.bootstrap, options.sku)
    load.closed(options.in_flight, options.warm_up)
    load.drain()
    load.ends.clear()
    print("warm", flush=True)
    sys.stdin.readline()
    used = time.process_time()
    rate = 0.0
    if options.runs:
        load.seconds.clear()
        for _ in range(options.runs):
            load.start(time.perf_counter())
            while load.sent:
                load.collect(1.0)
    elif options.rate:
        load.offered(options.rate, options.seconds)
    else:
        rate = load.closed(options.in_flight, options.seconds)
    measured = list(load.seconds)
    load.drain()
    print(
        json.dumps(
            {
                "rate": rate,
                "ended": sum(load.ends.values()),
                "ends": load.ends,
                "p50_ms": quantile(measured, 0.5) * 1000,
                "p99_ms": quantile(measured, 0.99) * 1000,
                "cpu_s": time.process_time() - used,
                "pid": os.getpid(),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
