"""The bench's side of the load generator: asks `load.py`, a process of its own, for its measurements."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import pydantic

from bench.errors import BenchError

INTEGRATION = Path(__file__).parent.parent


class Measured(pydantic.BaseModel):
    """What a measurement gave; latencies from when a saga was due to its answer."""

    rate: float
    """Sagas that ended per second; of `park`, those that were started."""
    begun: datetime | None = None
    """When the measured time began; None of what was put together from several."""
    ends: dict[str, int]
    """How they ended: `COMPLETED`, `COMPENSATED`. Those before and after the measured time, too."""
    missing: int
    p50_ms: float
    p99_ms: float
    cpu_s: float

    @property
    def ended(self) -> int:
        """All sagas that ended."""
        return sum(self.ends.values())


class LoadProcess:
    """The load generator. A measurement waits for all of its sagas, and raises BenchError if one is missing.

    `saga` and `inputs` name other sagas than the payment: see `load.Sort`. A saga that ends otherwise than
    `expect` says is an error too.
    """

    def __init__(
        self, bootstrap: str, shards: int, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.load", f"--shards={shards}"],
                cwd=INTEGRATION,
                env={
                    **os.environ,
                    **(environment or {}),
                    "PYTHONPATH": str(INTEGRATION),
                    "KASAGA_KAFKA_BOOTSTRAP_SERVERS": bootstrap,
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._log = log
        self.sagas = 0
        """That ended so far."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def closed(
        self,
        in_flight: int,
        seconds: float,
        *,
        saga: str = "payment",
        inputs: Mapping[str, object] | None = None,
        expect: str = "COMPLETED",
        ramp: float = 0.0,
    ) -> Measured:
        """Keep so many sagas in flight, and measure for so many seconds; `ramp`: see `Load.closed`."""
        return self._ask("closed", in_flight, seconds, saga, inputs, expect, ramp)

    def offered(self, rate: float, seconds: float) -> Measured:
        """Offer payments by the clock, so many a second, whatever comes back."""
        return self._ask("offered", rate, seconds, "payment", None, "COMPLETED")

    def single(
        self, count: int, *, saga: str = "payment", inputs: Mapping[str, object] | None = None
    ) -> Measured:
        """So many sagas, each when the one before has ended."""
        return self._ask("single", count, 0.0, saga, inputs, "COMPLETED")

    def park(self, count: int, *, saga: str = "nap", inputs: Mapping[str, object] | None = None) -> Measured:
        """Start so many sagas whose end nobody waits for. Returns when Kafka has them."""
        return self._ask("park", count, 0.0, saga, inputs, "COMPLETED")

    def _ask(
        self,
        do: str,
        amount: float,
        seconds: float,
        saga: str,
        inputs: Mapping[str, object] | None,
        expect: str,
        ramp: float = 0.0,
    ) -> Measured:
        sort = {"saga": saga, "input": dict(inputs or {})}
        ask = {"do": do, "amount": amount, "seconds": seconds, "ramp": ramp, "sort": sort}
        answer = self._exchange(json.dumps(ask))
        if not answer:
            raise BenchError(f"the load generator has ended: {self._log.read_text()[-2000:]}")
        measured = Measured.model_validate_json(answer)
        if measured.missing or set(measured.ends) - {expect}:
            raise BenchError(f"{measured.missing} sagas have not ended; the others: {measured.ends}")
        self.sagas += measured.ended
        return measured

    def _exchange(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return ""
        return self._process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
