"""Podman with a store of its own, and the flags with which it works without systemd, cgroups v2 or overlayfs.

Called by `build.py` and `check.py`.
"""

from __future__ import annotations

import fcntl
import json
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kasaga.dev.jars import cache

STATE = "/run/kasaga-podman"
"""Where podman keeps what ends with the machine. Always the same place: the store remembers it."""

LOG_LINES_SHOWN = 25


LOCK = Path("/var/tmp/kasaga-podman.lock")


class PodmanError(Exception):
    """Podman has failed; with the end of what it said."""


class Podman:
    """Builds and runs images as root. All it keeps is in our cache, apart from the machine's own images."""

    def __init__(self) -> None:
        home = cache() / "podman"
        home.mkdir(parents=True, exist_ok=True)
        # vfs copies whole file systems, which is slow and works everywhere.
        self.driver = "overlay" if overlayfs_works(home) else "vfs"
        self.store = home / self.driver

    @property
    def argv(self) -> list[str]:
        """How each command begins."""
        return [
            "podman",
            f"--root={self.store}",
            f"--runroot={STATE}",
            f"--tmpdir={STATE}/tmp",
            f"--storage-driver={self.driver}",
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
            "--runtime=runc",
        ]

    def run(self, arguments: Sequence[str], *, seconds: float, log: Path | None = None) -> str:
        """Runs one command of podman and gives what it prints; raises PodmanError."""
        try:
            done = subprocess.run(
                [*self.argv, *arguments],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
            )
        except subprocess.TimeoutExpired as error:
            raise PodmanError(f"podman {arguments[0]} took longer than {seconds:g} s") from error
        if log is not None:
            log.write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            tail = "\n".join((done.stdout + done.stderr).splitlines()[-LOG_LINES_SHOWN:])
            raise PodmanError(f"podman {' '.join(arguments)} ended with status {done.returncode}:\n{tail}")
        return done.stdout

    def names(self) -> set[str]:
        """The names of all images, as `name:tag`."""
        listed: list[dict[str, Any]] | None = json.loads(
            self.run(["images", "--format=json"], seconds=60) or "null"
        )
        names: list[str] = [name for image in listed or [] for name in image.get("Names") or ()]
        return {name.removeprefix("localhost/") for name in names}

    def inspect(self, image: str) -> dict[str, Any]:
        """What podman knows of an image."""
        found: list[dict[str, Any]] = json.loads(self.run(["image", "inspect", image], seconds=60))
        return found[0]


@contextmanager
def alone(tell: Callable[[str], None]) -> Generator[None]:
    """Waits until no other run on this machine uses podman's state, or tidies up what it thinks is left."""
    with LOCK.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell("waiting for another run on this machine to end")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def overlayfs_works(directory: Path) -> bool:
    """Whether overlayfs can be mounted on this directory's disk; not on top of itself, as in a container."""
    with tempfile.TemporaryDirectory(prefix="overlay-", dir=directory) as name:
        for part in ("lower", "upper", "work", "merged"):
            Path(name, part).mkdir()
        options = f"lowerdir={name}/lower,upperdir={name}/upper,workdir={name}/work"
        # In a mount namespace of its own: it is gone with the command.
        mount = ["unshare", "--mount", "mount", "-t", "overlay", "-o", options, "overlay", f"{name}/merged"]
        return subprocess.run(mount, check=False, capture_output=True).returncode == 0


def hardened(name: str, environment: dict[str, str], mounts: Sequence[str] = ()) -> list[str]:
    """The options with which a container runs here as it would where everything is forbidden.

    Nothing can be written, not even /tmp; no capability is left. The limits are those that runc may set on a
    machine that has taken CAP_SYS_RESOURCE from root.
    """
    return [
        "run",
        "--rm",
        f"--name={name}",
        "--network=host",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
        "--ulimit=nofile=1024:1024",
        "--ulimit=nproc=1000:1000",
        "--log-driver=none",
        *(f"--volume={mount}" for mount in mounts),
        *(f"--env={key}={value}" for key, value in environment.items()),
    ]
