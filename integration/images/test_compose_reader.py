"""`compose.yaml`, read by the code that Docker Compose reads it with."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from images.composition import FILE, services
from kubernetes.binaries import find_go

READER = Path(__file__).parent / "compose"

Read = Callable[[Path], "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    """Builds the reader; its modules are held to its go.sum."""
    reader = tmp_path_factory.mktemp("compose") / "compose"
    subprocess.run(
        [find_go(), "build", "-mod=readonly", "-buildvcs=false", "-o", str(reader), "."],
        check=True,
        cwd=READER,
        env={**os.environ, "CGO_ENABLED": "0"},
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KASAGA_")}

    def run(file: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(reader), str(file)], check=False, capture_output=True, text=True, env=environment
        )

    return run


def test_docker_compose_understands_what_we_do(read: Read) -> None:
    done = read(FILE)
    assert done.returncode == 0, done.stderr
    understood = json.loads(done.stdout)["services"]
    for name, service in services().items():
        assert understood[name]["image"] == service.image
        assert (understood[name].get("command") or []) == service.command
        ours, theirs = service.environment, understood[name]["environment"]
        assert theirs.pop("KASAGA_API_TOKEN", "") == ("for-this-machine-alone" if name == "api" else "")
        assert theirs == {key: value for key, value in ours.items() if key != "KASAGA_API_TOKEN"}


@pytest.mark.parametrize(
    ("good", "bad", "why"),
    [
        ("read_only: true", "readonly: true", "readonly"),
        ("    migrate: {condition", "    migration: {condition", "migration"),
        ("source: databases", "source: nothing", "nothing"),
    ],
    ids=["a key that isn't known", "a service that isn't there", "a config that isn't there"],
)
def test_docker_compose_would_refuse_a_slip(
    read: Read, tmp_path: Path, good: str, bad: str, why: str
) -> None:
    text = FILE.read_text()
    assert good in text
    (tmp_path / "compose.yaml").write_text(text.replace(good, bad))
    done = read(tmp_path / "compose.yaml")
    assert done.returncode == 1
    assert why in done.stderr
