"""What a sandbox leaves when it is killed is found and removed by the next; living ones are left alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest

import sandbox

NAME = f"{sandbox.NAME}ofthetest"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Other places, with control groups of both kinds: below each controller's, and right below the root."""
    monkeypatch.setattr(sandbox, "PLACE", tmp_path / "place")
    monkeypatch.setattr(sandbox, "CGROUPS", tmp_path / "groups")
    (tmp_path / "place" / NAME / "logs").mkdir(parents=True)
    for group in ("cpu", "memory", "."):
        (tmp_path / "groups" / group / NAME / "kubepods" / "pod1").mkdir(parents=True)
    (tmp_path / "groups" / "cpu" / "system").mkdir()
    (tmp_path / "place" / "other").mkdir()
    return tmp_path


@pytest.fixture
def somebody_inside() -> Generator[None]:
    argv = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, env={sandbox.DIRECTORY: f"/var/tmp/{NAME}"}
    ) as process:
        yield
        process.kill()


def things_left_behind() -> list[str]:
    """Without processes: a real sandbox may be at work on this machine."""
    return [sentence for sentence in sandbox.left_behind() if "still runs" not in sentence]


def test_what_the_killed_have_left_is_removed(places: Path) -> None:
    assert sandbox.stale() == [NAME]
    assert len(things_left_behind()) == 4
    sandbox.remove(NAME)
    assert sandbox.stale() == []
    assert things_left_behind() == []
    assert sorted(path.name for path in places.rglob("*")) == [
        "cpu", "groups", "memory", "other", "place", "system",
    ]  # fmt: skip


@pytest.mark.usefixtures("places", "somebody_inside")
def test_a_room_with_somebody_in_it_is_not_stale() -> None:
    assert sandbox.stale() == []
    assert any("still runs" in sentence for sentence in sandbox.left_behind())


def test_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    told: list[str] = []
    assert sandbox.enter("nothing", [], keep=False, tell=told.append) == 1
    assert told == ["this needs root: namespaces, mounts and a network of its own"]
