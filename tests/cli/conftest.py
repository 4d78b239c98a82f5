from __future__ import annotations

from pathlib import Path

import pytest

from cli.shell import Shell
from cli.tales import Tale


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """The command line, on an empty store."""
    for name in ("KASAGA_DEBUG", "NO_COLOR", "KASAGA_DATABASE_URL", "KASAGA_TOPIC_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    return Shell(capsys, tmp_path)


@pytest.fixture
def shop(shell: Shell) -> Shell:
    """The command line, on a store with a saga of each kind, one second apart."""
    shell.keep(
        Tale(1).reserved().completed(),
        Tale(2).reserved().charge_refused().released(),
        Tale(3).reserved().charge_refused().release_fails(),
        Tale(4, shard=5).reserved().parked(),
        Tale(5, saga_id="p-5").reserved(),
    )
    return shell
