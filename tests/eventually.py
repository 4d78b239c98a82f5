"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

PATIENCE_SECONDS = 30.0
"""Long on purpose: it is only ever spent when a test fails."""

INTERVAL_SECONDS = 0.02


def eventually(
    question: Callable[[], T], *, timeout: float = PATIENCE_SECONDS, interval: float = INTERVAL_SECONDS
) -> T:
    """Asks until the answer is true, and gives it. An AssertionError inside counts as "not yet".

    >>> rows = eventually(lambda: fetch_rows() or None)
    """
    deadline = time.monotonic() + timeout
    while True:
        problem: AssertionError | None = None
        answer: T | None = None
        try:
            answer = question()
            if answer:
                return answer
        except AssertionError as error:
            problem = error
        if time.monotonic() >= deadline:
            said = f"the last answer was {answer!r}" if problem is None else str(problem)
            raise AssertionError(f"not true within {timeout:g} s: {said}") from problem
        time.sleep(interval)


def never(question: Callable[[], object], *, during: float, interval: float = INTERVAL_SECONDS) -> None:
    """Asks for a while, and fails if the answer is ever true. Keep `during` short: it is always spent."""
    deadline = time.monotonic() + during
    while time.monotonic() < deadline:
        if answer := question():
            raise AssertionError(f"became true, and never should: {answer!r}")
        time.sleep(interval)
