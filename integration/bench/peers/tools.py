"""Brings what the peers run on into `build/peers`: from PyPI, npm and Go's modules, held to sums.

Each is done once, and again when what it is made from has changed. Called by `__main__.py`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError
from bench.figures import ROOT, tell

HERE = Path(__file__).parent
TEMPORAL = ("server", "sql")
GO_MODULE_FLAGS = {"GOFLAGS": "-mod=readonly", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
INSTALL_SECONDS = 3600.0
LINES_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Tools:
    """Where everything is."""

    python: Path
    restate: Path
    client: Path
    temporal: Path
    """A directory with `server` and `sql`; empty unless Temporal was asked for."""


def install(directory: Path, *, temporal: bool) -> Tools:
    """Bring what is missing. Raises BenchError if something can't be had, and says what to do."""
    directory.mkdir(parents=True, exist_ok=True)
    python = directory / "python"
    if _changed(python, HERE / "requirements.txt"):
        tell("peers: installing their Python packages")
        uv = str(ROOT / ".ci" / "venv")
        _run(
            [uv, "uv", "venv", "--quiet", "--clear", "--python", str(ROOT / ".venv/bin/python"), str(python)]
        )
        requirements = str(HERE / "requirements.txt")
        _run([uv, "uv", "pip", "sync", "--quiet", "--python", str(python), "--require-hashes", requirements])
        _made(python, HERE / "requirements.txt")
    npm = directory / "npm"
    if _changed(npm, HERE / "package-lock.json"):
        tell("peers: installing Restate's server")
        npm.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, npm)
        command = [_program("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        _run(command, cwd=npm)
        _made(npm, HERE / "package-lock.json")
    servers = sorted(npm.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not servers:
        raise BenchError("npm has no server of Restate for this machine: Linux on x64 or arm64 it must be")
    client = directory / "client"
    sources = (HERE / "client" / "go.mod", HERE / "client" / "main.go")
    if _changed(client, *sources):
        tell("peers: building the HTTP client")
        client.mkdir()
        _go(HERE / "client", client / "client", ".")
        _made(client, *sources)
    if temporal:
        _temporal(directory / "temporal")
    return Tools(python / "bin" / "python", servers[0], client / "client", directory / "temporal")


def _temporal(directory: Path) -> None:
    sources = (HERE / "temporal" / "go.mod", HERE / "temporal" / "go.sum")
    if _changed(directory, *sources):
        tell("peers: building Temporal's server: up to ten minutes, once")
        directory.mkdir()
        for name, package in zip(TEMPORAL, ("cmd/server", "cmd/tools/sql"), strict=True):
            _go(HERE / "temporal", directory / name, f"go.temporal.io/server/{package}")
        _made(directory, *sources)


def _go(module: Path, to: Path, package: str) -> None:
    command = [
        "nice",
        "-n",
        "19",
        _program("go"),
        "build",
        "-trimpath",
        "-ldflags",
        "-s -w",
        "-o",
        str(to),
        package,
    ]
    _run(command, cwd=module, environment=GO_MODULE_FLAGS)


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/go/bin")
    if found is None:
        raise BenchError(f"the peers need {name}, and there is none here: README.md has the list")
    return found


def _run(command: Sequence[str], *, cwd: Path = ROOT, environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    if done.returncode != 0:
        end = "\n".join(done.stdout.splitlines()[-LINES_SHOWN:])
        raise BenchError(f"{' '.join(command)} ended with {done.returncode}:\n{end}")


def _changed(made: Path, *sources: Path) -> bool:
    """Whether it has to be made anew; what there is of it is removed then."""
    stamp = made / ".stamp"
    if stamp.exists() and stamp.read_text() == _sum(sources):
        return False
    shutil.rmtree(made, ignore_errors=True)
    return True


def _made(made: Path, *sources: Path) -> None:
    """What is there is whole."""
    (made / ".stamp").write_text(_sum(sources))


def _sum(sources: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for each in sources:
        total.update(each.read_bytes())
    return total.hexdigest()
