"""`make demo` from outside: what it prints, its exit status, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from eventually import eventually
from examples import demo
from examples.orders import COMPLETED, forecast, load_orders

RUN_SECONDS = 300.0


@pytest.fixture
def directory() -> Generator[Path]:
    """Where the demo puts everything; Postgres' user has to be able to come through."""
    with tempfile.TemporaryDirectory(prefix="kasaga-demo-test-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


@contextlib.contextmanager
def running_demo(directory: Path, *arguments: str, jaeger: str = "") -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, demo.__file__, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(directory), "JAEGER": jaeger},
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def processes_of(directory: Path) -> list[str]:
    """Who was told to put temporary files into this directory: the demo and all that it started."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={directory}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def test_the_demo_survives_its_kills_and_cleans_up(directory: Path) -> None:
    count = 150
    with running_demo(directory, "--orders", str(count), "--seed", "5", jaeger="1") as running:
        output, _ = running.communicate(timeout=RUN_SECONDS)
    completed = forecast(load_orders(count))[COMPLETED]
    assert output.splitlines()[-1] == (
        f"demo: {count} sagas: {completed} completed, {count - completed} compensated, 0 stuck; "
        "audit: 0 violations; 2 kills survived"
    ), output
    assert running.returncode == 0
    assert len(re.findall(r"is killed \(SIGKILL\)", output)) == 2
    assert len(re.findall(r"is started again", output)) == 2
    assert re.search(r"\$ kasaga history o-\d{5}\n", output)
    assert "inventory.release" in output
    assert re.search(r"trace of o-\d{5}: http://127.0.0.1:\d+/api/traces/[0-9a-f]{32}", output)
    assert re.search(rf"^jaeger: {count} traces are whole, of {count}; [\d,]+ spans$", output, re.MULTILINE)
    assert list(directory.iterdir()) == []
    assert processes_of(directory) == []


STARTING, AT_WORK = "a Postgres and a Kafka run", "orders come"


@pytest.mark.parametrize(
    ("how", "when", "status", "leaves_files"),
    [
        (signal.SIGTERM, STARTING, 130, False),
        (signal.SIGINT, AT_WORK, 130, False),
        (signal.SIGKILL, AT_WORK, -signal.SIGKILL, True),
    ],
)
def test_nothing_goes_on_when_the_demo_is_ended(
    directory: Path, how: signal.Signals, when: str, status: int, leaves_files: bool
) -> None:
    with running_demo(directory) as running:
        assert running.stdout is not None
        told: list[str] = []
        for line in running.stdout:
            told.append(line)
            if when in line:
                break
        assert len(processes_of(directory)) > 2, told
        running.send_signal(how)
        told.append(running.stdout.read())
        assert running.wait(RUN_SECONDS) == status, told
    eventually(lambda: processes_of(directory) == [])
    assert any(directory.iterdir()) == leaves_files
