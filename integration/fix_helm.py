"""A real helm: the machine's own if it is new enough, else one that `.ci/helm` builds once."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "helm"


@pytest.fixture(scope="session")
def helm_path(progress: Callable[[str], None]) -> str:
    """Where helm is."""
    progress("helm: looking for one, else building it, which takes some minutes")
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
