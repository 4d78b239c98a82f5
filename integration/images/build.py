"""`make images`: builds the project's images on a machine that reaches no image registry.

The base comes from Debian by debootstrap and is given to the Dockerfile as BASE_IMAGE; the rest is what
`docker build` would do. Nothing is built again that is there and hasn't changed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import kasaga_wire
from debian import MachineError, bring
from images.podman import Podman, PodmanError, alone

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "helm" / "images" / "Dockerfile"

IMAGES = {
    "kasaga": "kasaga",
    "kasaga-examples-sagas": "examples-sagas",
    "kasaga-examples": "examples",
}
"""Each image, and its target in the Dockerfile."""

SUITE = "bookworm"
BASE = f"kasaga-base:{SUITE}"
BUILD = f"kasaga-build:{SUITE}"

PROGRAMS = {
    "podman": "podman",
    "conmon": "conmon",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "unshare": "util-linux",
    "ip": "iproute2",
}

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""The machine's own: a company's certificate may be needed to reach an index."""

NOT_NEEDED = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache",
    "var/lib/apt/lists",
)
"""What a base can do without; official slim images lack it, too."""

BOOTSTRAP_SECONDS, BUILD_SECONDS, PRUNE_SECONDS = 900.0, 1800.0, 300.0

Tell = Callable[[str], None]


def build(tell: Tell) -> dict[str, str]:
    """Builds what is missing or old. Gives each image's `name:tag`; raises MachineError, PodmanError."""
    if os.geteuid() != 0:
        raise MachineError(
            "Podman is used as root here. With docker: docker build -f helm/images/Dockerfile -t kasaga ."
        )
    bring(PROGRAMS, tell)
    podman = Podman()
    _base(podman, tell)
    tag = sources_sum()
    names = {image: f"{image}:{tag}" for image in IMAGES}
    there = podman.names()
    for image, target in IMAGES.items():
        if names[image] not in there:
            _build(podman, names[image], target, tell)
    # Older ones are of no use, nor is what yesterday's were made of: with vfs a file system for each step.
    for name in there:
        if name.partition(":")[0] in IMAGES and name not in names.values():
            podman.run(["rmi", "--force", name], seconds=60)
    young = [] if podman.driver == "vfs" else ["--filter=until=24h"]
    podman.run(["image", "prune", "--force", *young], seconds=PRUNE_SECONDS)
    return names


def sources_sum() -> str:
    """A sum of all that goes into the images; their tag."""
    total = hashlib.sha256()
    for path in sorted(sources()):
        total.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def sources() -> Iterator[Path]:
    """The files that `.dockerignore` lets through, and the Dockerfile."""
    yield DOCKERFILE
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            path = ROOT / line[1:]
            files = path.rglob("*") if path.is_dir() else [path]
            yield from (f for f in files if f.is_file() and "__pycache__" not in f.parts)


def _base(podman: Podman, tell: Tell) -> None:
    """Makes the base image and the one to build with, unless they are there."""
    there = podman.names()
    if BASE not in there:
        tell("making a base image from Debian: about a minute")
        with tempfile.TemporaryDirectory(prefix="kasaga-base-") as directory:
            root, archive = Path(directory, "root"), Path(directory, "root.tar")
            _run(["debootstrap", "--variant=minbase", "--include=ca-certificates,python3", SUITE, str(root)])
            for name in NOT_NEEDED:
                _run(["find", str(root / name), "-mindepth", "1", "-delete"])
            _run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."])
            podman.run(["import", "--change=CMD python3", str(archive), BASE], seconds=BOOTSTRAP_SECONDS)
    if BUILD not in there:
        tell("making an image to build with")
        with tempfile.TemporaryDirectory(prefix="kasaga-build-") as directory:
            Path(directory, "Dockerfile").write_text(
                f"FROM {BASE}\n"
                "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends python3-venv\n"
            )
            podman.run([*_building(), f"--tag={BUILD}", directory], seconds=BUILD_SECONDS)


def _build(podman: Podman, name: str, target: str, tell: Tell) -> None:
    tell(f"building {name}")
    began = time.monotonic()
    arguments = {
        "BASE_IMAGE": BASE,
        "BUILD_IMAGE": BUILD,
        "VERSION": kasaga_wire.__version__,
        "REVISION": _revision(),
    }
    mounts: list[str] = []
    if CERTIFICATES.exists():
        arguments["PIP_CERT"] = str(CERTIFICATES)
        mounts = [f"--volume={CERTIFICATES}:{CERTIFICATES}:ro"]
    podman.run(
        [
            *_building(),
            *mounts,
            *(f"--build-arg={key}={value}" for key, value in arguments.items()),
            f"--file={DOCKERFILE}",
            f"--target={target}",
            f"--tag={name}",
            str(ROOT),
        ],
        seconds=BUILD_SECONDS,
    )
    tell(f"built {name} in {time.monotonic() - began:.0f} s")


def _building() -> list[str]:
    return ["build", "--isolation=chroot", "--network=host", "--pull=never", "--quiet"]


def _revision() -> str:
    """The commit, or nothing outside of a clone; with a plus sign when files differ from it."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=BOOTSTRAP_SECONDS)
    if done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise MachineError(f"{argv[0]} failed:\n{tail}")


def main() -> int:
    """Builds all images and says how large they are."""

    def tell(text: str) -> None:
        print(f"images: {text}", flush=True)

    try:
        with alone(tell):
            names = build(tell)
    except (MachineError, PodmanError) as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    podman = Podman()
    base = int(podman.inspect(BASE)["Size"])
    print(f"{'image':40}  {'MB':>5}  of which the base")
    for name in names.values():
        size = int(podman.inspect(name)["Size"])
        print(f"{name:40}  {size / 1e6:5.0f}  {base / 1e6:.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
