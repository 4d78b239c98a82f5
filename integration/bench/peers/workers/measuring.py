"""The clients' side of a measurement, for peers whose clients are in Python: see `bench.peers.client.Client`.

Each line of the standard input asks for one measurement, each line of the output answers one. Runs on what
`requirements.txt` names, and imports nothing of Kasaga.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Queue
from threading import Lock, Thread
from typing import NoReturn, TypedDict
from uuid import uuid4


class Order(TypedDict):
    """What is paid."""

    order_id: str
    amount: int
    sku: str


class Done(TypedDict):
    """What a step gives."""

    order_id: str
    ref: str


MOST_RAMP_SECONDS = 60.0
"""After which the time that counts has not begun, and nothing counts."""

PREFIX = uuid4().hex[:8]


class Measurement:
    """What is still to be started, and what has ended. Threads may share one."""

    def __init__(self, line: str) -> None:
        asked = json.loads(line)
        closed = asked["do"] == "closed"
        self.workers = int(asked["amount"]) if closed else 1
        self._left = math.inf if closed else int(asked["amount"])
        self._seconds = float(asked["seconds"]) if closed else None
        self._lock = Lock()
        self._latencies: list[float] = []
        self._ends: dict[str, int] = {}
        self._missing = 0
        self._cpu = time.process_time()
        self._begun = self._last = time.perf_counter()
        self._until = math.inf
        self._ramp_until: float | None = None
        if closed:
            self._ramp_until = self._begun + float(asked["ramp"])
            self._until = self._ramp_until + MOST_RAMP_SECONDS

    def begin(self) -> float | None:
        """When the next one starts, which is now; None if there is none."""
        with self._lock:
            self._left -= 1
            now = time.perf_counter()
            return now if self._left >= 0 and now < self._until else None

    def done(self, at: float, status: str) -> None:
        """One that was started then has ended so."""
        with self._lock:
            now = time.perf_counter()
            self._ends[status] = self._ends.get(status, 0) + 1
            if self._ramp_until is not None:
                # What counts begins when as many have ended as are in flight, and the ramp is over.
                if now >= self._ramp_until and sum(self._ends.values()) >= self.workers:
                    self._ramp_until = None
                    self._until = now + (self._seconds or 0.0)
            elif now < self._until:
                self._latencies.append((now - at) * 1000)
                self._last = now

    def failed(self, error: Exception) -> None:
        """One has not ended."""
        with self._lock:
            self._missing += 1
        sys.stderr.write(f"{error!r}\n")

    def answer(self) -> str:
        """What there was."""
        ordered = sorted(self._latencies)
        took = self._seconds or (self._last - self._begun)
        return json.dumps(
            {
                "rate": len(ordered) / took if took else 0.0,
                "ends": self._ends,
                "missing": self._missing,
                "p50_ms": _quantile(ordered, 0.5),
                "p99_ms": _quantile(ordered, 0.99),
                "cpu_s": time.process_time() - self._cpu,
            }
        )


async def serve(pay: Callable[[Order], Awaitable[str]]) -> NoReturn:
    """Measure on this event loop until the input ends. `pay` gives how a payment ended."""
    number = 0

    async def work(measurement: Measurement) -> None:
        nonlocal number
        while (at := measurement.begin()) is not None:
            number += 1
            try:
                measurement.done(at, await pay(_order(number)))
            except Exception as error:  # noqa: BLE001 - whatever a peer raises is counted, and fails the run
                measurement.failed(error)

    lines = _lines()
    while True:
        line = await asyncio.to_thread(lines.get)
        measurement = Measurement(line)
        await asyncio.gather(*(work(measurement) for _ in range(measurement.workers)))
        _say(measurement)


def serve_threads(pay: Callable[[Order], str]) -> NoReturn:
    """Measure on threads, one for each in flight, until the input ends. `pay` gives how a payment ended."""
    numbers = iter(range(1, sys.maxsize))

    def work(measurement: Measurement) -> None:
        while (at := measurement.begin()) is not None:
            try:
                measurement.done(at, pay(_order(next(numbers))))
            except Exception as error:  # noqa: BLE001 - as above
                measurement.failed(error)

    lines = _lines()
    while True:
        measurement = Measurement(lines.get())
        with ThreadPoolExecutor(measurement.workers) as pool:
            for future in [pool.submit(work, measurement) for _ in range(measurement.workers)]:
                future.result()
        _say(measurement)


def _lines() -> Queue[str]:
    """The lines of the standard input. When that ends, so does this process, whatever it is about."""
    lines: Queue[str] = Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    Thread(target=read, daemon=True).start()
    return lines


def _order(number: int) -> Order:
    return {"order_id": f"{PREFIX}-{number}", "amount": 1999, "sku": "book"}


def _say(measurement: Measurement) -> None:
    sys.stdout.write(measurement.answer() + "\n")
    sys.stdout.flush()


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0
