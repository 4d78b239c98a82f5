"""A server that dies under `kasaga dev` is told of and started again, later each time, and not for ever."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path
from typing import ClassVar

import pytest

from eventually import eventually
from kasaga.dev import keeper as keeping
from kasaga.dev.keeper import FAILURES, Keeper
from kasaga.dev.process import Process, ServerError
from kasaga.dev.server import Server


class Mortal(Server):
    """A server that does nothing but live; while `broken`, not even that."""

    name: ClassVar[str] = "Mortal"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    port_taken: ClassVar[str] = "taken"
    broken = False

    def _prepare(self) -> None:
        pass

    def _launch(self) -> Process:
        code = "raise SystemExit('no disk')" if self.broken else "import time; time.sleep(600)"
        return Process([sys.executable, "-c", code], log=self.output, cwd=self.directory)

    def _answers(self) -> bool:
        return not self.broken

    def dies(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        eventually(lambda: self.ended() is not None)


class Kept:
    """A server, what keeps it, and what was said of it."""

    def __init__(self, folder: Path) -> None:
        self.told: list[str] = []
        self.turns = 0
        self.server = Mortal(folder, 1234, lambda _: None)
        self.server.start()
        self.keeper = Keeper(self.server, self.told.append, self._turn)

    def _turn(self) -> None:
        self.turns += 1

    def looks_until_it_serves(self) -> None:
        def serves() -> bool:
            self.keeper.look()
            return self.server.is_running

        eventually(serves)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Kept]:
    monkeypatch.setattr(keeping, "FIRST_WAIT", 0.01)
    made = Kept(tmp_path)
    yield made
    made.server.stop()


def test_a_server_that_lives_is_left_alone(kept: Kept) -> None:
    pid = kept.server.pid
    for _ in range(5):
        kept.keeper.look()
    assert (kept.server.pid, kept.told) == (pid, [])


def test_a_dead_server_is_told_of_with_its_log_and_started_again(kept: Kept) -> None:
    first = kept.server.pid
    kept.server.dies()

    kept.keeper.look()
    assert kept.told == [
        f"Mortal has ended with status -9; it is started again in 0.01 s. Its log: {kept.server.log}"
    ]
    kept.looks_until_it_serves()

    assert kept.server.pid != first
    assert kept.told[1:] == ["Mortal serves again on port 1234, with the same data"]


def test_a_server_that_does_not_start_again_ends_it_with_the_log_after_some_failures(kept: Kept) -> None:
    kept.server.broken = True
    kept.server.dies()

    def too_many() -> ServerError | None:
        try:
            kept.keeper.look()
        except ServerError as error:
            return error
        return None

    error = eventually(too_many)
    assert error is not None

    assert f"has failed {FAILURES} times in a row" in error.message
    assert (error.log, error.log_tail) == (kept.server.log, "\n".join(["no disk"] * 3))
    waits = [0.01 * 2**failure for failure in range(FAILURES - 1)]
    assert [f"in {wait:g} s" in told for wait, told in zip(waits, kept.told, strict=True)] == [True] * 4
    assert kept.turns > 0  # the rest went on meanwhile


def test_deaths_one_after_another_count_though_it_serves_in_between(kept: Kept) -> None:
    for _ in range(FAILURES - 1):
        kept.server.dies()
        kept.keeper.look()
        kept.looks_until_it_serves()
    kept.server.dies()
    with pytest.raises(ServerError, match="in a row"):
        kept.keeper.look()


def test_a_server_that_has_served_long_enough_begins_to_count_anew(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "WELL_SECONDS", 0.0)
    for _ in range(FAILURES + 1):
        kept.server.dies()
        kept.keeper.look()
        kept.looks_until_it_serves()
    assert not [told for told in kept.told if "in 0.02 s" in told]
