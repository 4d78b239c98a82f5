"""One `kasaga dev` in a folder, one server on its data: locks that end with the processes that hold them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

from eventually import eventually
from kasaga.dev.lock import FolderInUse, lock_data, lock_folder
from kasaga.dev.process import ServerError

HOLDER = """
import subprocess, sys
from pathlib import Path
from kasaga.dev.lock import {take}

lock = {call}
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=sys.stdin, pass_fds={pass_fds})
lock.note(child.pid if {pass_fds} else {own})
print(child.pid, flush=True)
child.wait()
"""
FOLDER = HOLDER.format(
    take="lock_folder", call="lock_folder(Path(sys.argv[1]))", pass_fds="()", own="__import__('os').getpid()"
)
DATA = HOLDER.format(
    take="lock_data",
    call="lock_data('Kafka', Path(sys.argv[1]))",
    pass_fds="(lock.descriptor,)",
    own="0",
)


class Holder:
    """A process that holds a lock, and its child, which has it as well or not."""

    def __init__(self, code: str, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.child = int(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End the child too: it reads until the pipe ends."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def command(tmp_path: Path) -> Generator[Holder]:
    holder = Holder(FOLDER, tmp_path)
    yield holder
    holder.close()


@pytest.fixture
def server(tmp_path: Path) -> Generator[Holder]:
    holder = Holder(DATA, tmp_path)
    yield holder
    holder.close()


def test_the_second_command_is_told_who_has_the_folder_and_what_to_do(
    command: Holder, tmp_path: Path
) -> None:
    with pytest.raises(FolderInUse) as raised:
        lock_folder(tmp_path)

    assert str(raised.value) == (
        f"KSG-591: `kasaga dev` already runs in {tmp_path.parent} (process {command.process.pid}). Remedy: "
        f"Use that one, end it (Ctrl-C, or kill {command.process.pid}), or start this one in another folder."
    )


def test_a_command_that_is_killed_leaves_no_lock_though_a_child_of_it_lives(
    command: Holder, tmp_path: Path
) -> None:
    command.kill()
    os.kill(command.child, 0)

    lock_folder(tmp_path).close()


def test_a_server_that_outlives_the_command_keeps_its_data(
    server: Holder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kasaga.dev.lock.SERVER_SECONDS", 0.1)
    server.kill()

    with pytest.raises(FolderInUse, match=rf"another Kafka \(process {server.child}\) works in {tmp_path}"):
        lock_data("Kafka", tmp_path)

    os.kill(server.child, signal.SIGKILL)
    eventually(lambda: lock_data("Kafka", tmp_path)).close()


def test_a_server_in_its_last_moments_is_waited_for(server: Holder, tmp_path: Path) -> None:
    server.kill()
    late = f"import os, time; time.sleep(0.3); os.kill({server.child}, 9)"
    with subprocess.Popen([sys.executable, "-c", late]):
        lock_data("Kafka", tmp_path).close()


def test_a_file_that_was_put_in_the_place_of_the_locked_one_is_locked_itself(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        (tmp_path / "lock").unlink()
        with lock_folder(tmp_path), pytest.raises(FolderInUse):
            lock_folder(tmp_path)


def test_a_lock_whose_holder_is_not_legible_is_an_error_all_the_same(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        (tmp_path / "lock").write_text("\0 garbage, and more of it than a number has")
        with pytest.raises(FolderInUse, match=r"\(process \?\)"):
            lock_folder(tmp_path)


def test_a_folder_that_can_not_be_locked_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()

    with pytest.raises(ServerError, match=re.escape(f"{tmp_path}/lock can't be locked")) as raised:
        lock_folder(tmp_path)

    assert raised.value.code == "KSG-590"
