"""A saga's code that doesn't come back is interrupted, at its own line and nowhere else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator

import pytest

from eventually import eventually
from kasaga.engine.driver import HangInterrupt
from kasaga.orchestrator.watchdog import Spent, Watchdog, waited_for_processor

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


# --- what isn't a saga's doing ---

STOPPED = """
import os, signal, sys, time
from kasaga.orchestrator.watchdog import Watchdog

def stops(argument):
    os.kill(os.getpid(), signal.SIGSTOP)
    for _ in range(16):
        time.sleep(0.01)
    return "went on"

watchdog = Watchdog(limit=0.4)
watchdog.start()
sys.stdout.write(watchdog.guard(stops, None))
watchdog.stop()
"""


def test_a_process_that_was_stopped_has_no_saga_that_hangs() -> None:
    with subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True) as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        time.sleep(1.5)  # more than the limit: that is what is tried
        process.send_signal(signal.SIGCONT)
        said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "went on")


def test_what_counts_is_the_time_in_which_the_thread_could_run() -> None:
    spent = Spent(tick=0.25)
    assert spent.look(10.0, 0.0, 1.0) == 0.0
    assert spent.look(10.25, 10.0, 1.0) == 0.25
    assert spent.look(10.5, 10.0, 1.2) == pytest.approx(0.3), "it waited for a processor for 0.2"
    assert spent.look(17.0, 10.0, 1.2) == pytest.approx(0.8), "nobody looked: the process did not run"
    assert spent.look(17.25, 10.0, 9.0) == pytest.approx(0.8)
    assert spent.look(17.5, 17.4, 9.0) == pytest.approx(0.1), "another call"
    assert spent.look(17.75, 0.0, 9.0) == 0.0


def test_a_thread_s_wait_for_a_processor_is_known_where_linux_tells() -> None:
    assert 0.0 <= waited_for_processor(threading.get_native_id()) < 3600
    assert waited_for_processor(0) == 0.0
