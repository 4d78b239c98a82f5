"""A saga's code that doesn't come back is interrupted, at its own line and nowhere else."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from eventually import eventually
from kasaga.engine.driver import HangInterrupt
from kasaga.orchestrator.watchdog import Watchdog

LIMIT = 0.02


@pytest.fixture
def watchdog() -> Generator[Watchdog]:
    made = Watchdog(limit=LIMIT, kill_after=3600)
    made.start()
    yield made
    made.stop()


def forever(argument: object) -> None:
    while True:
        pass


def test_what_comes_back_in_time_is_let_be(watchdog: Watchdog) -> None:
    assert [watchdog.guard(lambda number: number + 1, number) for number in range(1000)] == list(
        range(1, 1001)
    )


def test_a_loop_without_end_is_interrupted_each_time(watchdog: Watchdog) -> None:
    for _ in range(5):
        with pytest.raises(HangInterrupt):
            watchdog.guard(forever, None)


def test_an_error_of_the_code_passes(watchdog: Watchdog) -> None:
    with pytest.raises(ZeroDivisionError):
        watchdog.guard(lambda number: 1 / number, 0)


def test_no_interrupt_reaches_the_loop_itself(watchdog: Watchdog) -> None:
    """Code that ends just when its time is over: the interrupt may be on its way."""
    interrupted = 0

    def nearly(argument: object) -> None:
        deadline = time.monotonic() + LIMIT * 1.25
        while time.monotonic() < deadline:
            pass

    for _ in range(60):
        try:
            watchdog.guard(nearly, None)
        except HangInterrupt:
            interrupted += 1
        deadline = time.monotonic() + LIMIT / 2
        while time.monotonic() < deadline:
            pass  # the loop's own code: nothing may be raised here
    assert interrupted <= 60


def test_code_that_swallows_the_interrupt_is_reported_with_its_line(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
) -> None:
    stop: list[bool] = []

    def stubborn(argument: object) -> str:
        while not stop:
            try:
                while not stop:
                    pass
            except BaseException:  # noqa: BLE001 - on purpose
                continue
        return "at last"

    def watch() -> None:
        eventually(lambda: "blocks the loop" in caplog.text)
        stop.append(True)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert watchdog.guard(stubborn, None) == "at last"
    watcher.join()
    lines = [getattr(record, "line", "") for record in caplog.records]
    assert any("test_watchdog.py:" in line for line in lines)
    with pytest.raises(HangInterrupt):
        watchdog.guard(forever, None)
