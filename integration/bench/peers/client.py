"""Clients as processes: asked for one measurement by a line, each answers by one, as `bench.load` does."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.driver import INTEGRATION, Measured
from bench.errors import BenchError

END_SECONDS = 10.0

RAMP_SECONDS = 4.0
"""At least, before the seconds that count; those begin when as many have ended as are in flight."""

LOG_SHOWN = 2000


class Clients:
    """Some processes that share the load; what they measured is added up. A context manager."""

    def __init__(
        self, commands: Sequence[Sequence[str]], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self._processes: list[subprocess.Popen[str]] = []
        with log.open("ab") as errors, ExitStack() as stack:
            stack.callback(self._end)
            for command in commands:
                self._processes.append(
                    subprocess.Popen(
                        list(command),
                        env={**os.environ, "PYTHONPATH": str(INTEGRATION), **(environment or {})},
                        cwd=log.parent,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        stderr=errors,
                        text=True,
                    )
                )
            stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        """Their input ends, and so do they."""
        for each in self._processes:
            assert each.stdin is not None
            each.stdin.close()
        for each in self._processes:
            try:
                each.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                each.kill()
                each.wait()
            assert each.stdout is not None
            each.stdout.close()

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [each.pid for each in self._processes]

    def closed(self, in_flight: int, seconds: float) -> Measured:
        """Keep so many in flight for so many seconds. Raises BenchError if one doesn't complete."""
        shares = divide(in_flight, len(self._processes))
        ask = {"do": "closed", "ramp": RAMP_SECONDS, "seconds": seconds}
        return self._measure([{**ask, "amount": share} for share in shares])

    def single(self, count: int) -> Measured:
        """So many by the first process, each when the one before has ended. Raises as `closed` does."""
        return self._measure([{"do": "single", "amount": count, "seconds": 0.0}])

    def _measure(self, asks: Sequence[Mapping[str, object]]) -> Measured:
        asked = self._processes[: len(asks)]
        for each, ask in zip(asked, asks, strict=True):
            assert each.stdin is not None
            try:
                each.stdin.write(json.dumps(ask) + "\n")
                each.stdin.flush()
            except BrokenPipeError:
                raise self._ended() from None
        answers: list[Measured] = []
        for each in asked:
            assert each.stdout is not None
            line = each.stdout.readline()
            if not line:
                raise self._ended()
            answers.append(Measured.model_validate_json(line))
        found = together(answers)
        if found.missing or set(found.ends) != {"completed"}:
            raise BenchError(
                f"{found.missing} failed, the others: {found.ends}\n{self._log.read_text()[-LOG_SHOWN:]}"
            )
        return found

    def _ended(self) -> BenchError:
        return BenchError(f"a client has ended:\n{self._log.read_text()[-LOG_SHOWN:]}")


def divide(number: int, by: int) -> list[int]:
    """As even shares as there are; each at least 1."""
    return [max(1, number // by + (index < number % by)) for index in range(by)]


def together(answers: Sequence[Measured]) -> Measured:
    """What processes measured at the same time. Of latencies the worst process's."""
    ends: dict[str, int] = {}
    for each in answers:
        for what, count in each.ends.items():
            ends[what] = ends.get(what, 0) + count
    return Measured(
        rate=sum(each.rate for each in answers),
        ends=ends,
        missing=sum(each.missing for each in answers),
        p50_ms=max(each.p50_ms for each in answers),
        p99_ms=max(each.p99_ms for each in answers),
        cpu_s=sum(each.cpu_s for each in answers),
    )
