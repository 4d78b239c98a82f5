"""Kubernetes' own programs, helm and the network plugins: built once from `tools/`, then cached.

Everything comes as Go modules, held to the sums in `tools/go.sum`. Called by `__main__.py`, outside of the
sandbox.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from debian import MachineError
from kasaga.dev.jars import cache

TOOLS = Path(__file__).parent / "tools"

PACKAGES = {
    "bridge": "github.com/containernetworking/plugins/plugins/main/bridge",
    "host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
    "loopback": "github.com/containernetworking/plugins/plugins/main/loopback",
    "coredns": "./coredns",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "pause": "./pause",
}
"""Each program, and the Go package that it is built from."""

OLDEST_GO = (1, 24)

BUILD_SECONDS = 3600.0
LOG_LINES_SHOWN = 25

STAMPS = "k8s.io/component-base/version"
"""Whose variables hold the version: unset, the server calls itself v0.0.0, and helm refuses every chart."""


def kubernetes_version() -> str:
    """The version that `tools/go.mod` requires, such as v1.34.2."""
    found = re.search(r"^\tk8s\.io/kubernetes (v\S+)", (TOOLS / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise MachineError("tools/go.mod requires no k8s.io/kubernetes.")
    return found[1]


def binaries(tell: Callable[[str], None]) -> Path:
    """Gives the directory with all programs; builds those that are missing. Raises MachineError."""
    directory = cache() / "kubernetes" / sources_sum()
    directory.mkdir(parents=True, exist_ok=True)
    missing = [name for name in PACKAGES if not (directory / name).exists()]
    if missing:
        go = find_go()
        tell(f"building {len(missing)} programs of Kubernetes {kubernetes_version()}: some minutes, once")
        for name in missing:
            began = time.monotonic()
            _build(go, name, directory)
            tell(f"built {name} in {time.monotonic() - began:.0f} s")
    # Of other versions nothing is kept: half a gigabyte each.
    for other in directory.parent.iterdir():
        if other != directory:
            shutil.rmtree(other, ignore_errors=True)
    return directory


def sources_sum() -> str:
    """A sum of what the programs are built from and how."""
    total = hashlib.sha256(json.dumps([PACKAGES, flags()]).encode())
    for path in (TOOLS / "go.mod", TOOLS / "go.sum", *sorted(TOOLS.rglob("*.go"))):
        total.update(path.read_bytes())
    return total.hexdigest()[:16]


def flags() -> list[str]:
    """How each is built."""
    version = kubernetes_version()
    major, minor, _ = version[1:].split(".", 2)
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    stamped = " ".join(f"-X {STAMPS}.{name}={value}" for name, value in stamps.items())
    return ["-trimpath", "-mod=readonly", "-buildvcs=false", "-ldflags", f"-s -w {stamped}"]


def find_go() -> str:
    """Gives a Go that is new enough; raises MachineError."""
    go = shutil.which("go", path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    wanted = ".".join(map(str, OLDEST_GO))
    if go is None:
        raise MachineError(f"Kubernetes is built with Go {wanted} or newer, and there is no go here.")
    said = subprocess.run([go, "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout
    found = re.match(r"go(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < OLDEST_GO:
        raise MachineError(f"Kubernetes is built with Go {wanted} or newer; {go} is {said.strip()}.")
    return go


def _build(go: str, name: str, directory: Path) -> None:
    """Builds one program beside its place, so that what is there is whole."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=directory) as place:
        made = Path(place, name)
        # At the lowest priority: two cores are busy with it for minutes.
        argv = ["nice", "-n", "19", go, "build", *flags(), "-o", str(made), PACKAGES[name]]
        done = subprocess.run(
            argv,
            check=False,
            cwd=TOOLS,
            env={**os.environ, "CGO_ENABLED": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
        )
        if done.returncode != 0:
            tail = "\n".join(done.stdout.splitlines()[-LOG_LINES_SHOWN:])
            raise MachineError(f"building {name} failed:\n{tail}")
        made.rename(directory / name)
