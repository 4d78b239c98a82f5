"""`.ci/helm` finds a helm, or has Go build one, once; tried with a helm and a Go that are played."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helm.chart import ROOT

SCRIPT = ROOT / ".ci" / "helm"
NEEDED = (
    "bash",
    "cat",
    "chmod",
    "dirname",
    "env",
    "flock",
    "head",
    "mkdir",
    "mktemp",
    "mv",
    "printf",
    "rm",
    "sort",
)

GO = """#!/usr/bin/env bash
echo built >>"$WORK/builds"
printf '%s\\n' "$*" >"$WORK/asked"
echo '#!/bin/sh' >"$GOBIN/helm"
chmod +x "$GOBIN/helm"
"""


class Place:
    """A machine with what a test gives it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in NEEDED:
            [found] = [p for p in map(Path, (f"/usr/bin/{name}", f"/bin/{name}")) if p.exists()][:1]
            (self.bin / name).symlink_to(found)

    def has(self, name: str, text: str) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def has_helm(self, version: str) -> Path:
        return self.has("helm", f"#!/bin/sh\nprintf %s '{version}'\n")

    def run(self) -> tuple[int, str, str]:
        environment = {"PATH": str(self.bin), "HOME": str(self.folder), "WORK": str(self.folder)}
        done = subprocess.run([SCRIPT], env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip(), done.stderr

    @property
    def builds(self) -> int:
        path = self.folder / "builds"
        return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("version", ["v3.18.0", "v3.19.5+gabc", "v4.0.1"])
def test_the_machines_own_is_taken(place: Place, version: str) -> None:
    helm = place.has_helm(version)
    assert place.run()[:2] == (0, str(helm))


@pytest.mark.parametrize("version", ["v2.17.0", "v3.17.3", "v3.9.4", "v5.0.0", "", "garbage"])
def test_one_that_is_too_old_or_unknown_is_not(place: Place, version: str) -> None:
    place.has_helm(version)
    place.has("go", GO)
    status, path, _ = place.run()
    assert status == 0
    assert path.startswith(str(place.folder / ".cache" / "kasaga"))
    assert place.builds == 1


def test_it_is_built_once_and_at_a_fixed_version(place: Place) -> None:
    place.has("go", GO)
    first, second = place.run(), place.run()
    assert first[:2] == second[:2]
    assert os.access(first[1], os.X_OK)
    assert place.builds == 1
    assert "helm.sh/helm/v3/cmd/helm@v3." in (place.folder / "asked").read_text()


def test_two_at_once_build_one(place: Place) -> None:
    place.has("go", GO)
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(place.run) for _ in range(4)]
        said = {each.result()[:2] for each in running}
    assert len(said) == 1
    assert place.builds == 1


def test_a_build_that_failed_leaves_nothing_that_looks_like_one(place: Place) -> None:
    place.has("go", "#!/bin/sh\nexit 1\n")
    assert place.run()[0] != 0
    assert not list(place.folder.glob(".cache/kasaga/*/helm"))
    assert not list(place.folder.glob(".cache/kasaga/*/building-*"))
    place.has("go", GO)
    assert place.run()[0] == 0


def test_without_both_it_says_what_to_install(place: Place) -> None:
    status, path, said = place.run()
    assert (status, path) == (1, "")
    assert "need helm 3.18 or newer" in said
    assert "Go 1.24 or newer" in said
