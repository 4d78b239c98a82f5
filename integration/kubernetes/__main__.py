"""`make kubernetes`: a real Kubernetes on this machine, and 500 sagas through a release's whole life on it.

Outside: builds Kubernetes' programs and our images, once, and opens a sandbox. Inside: the cluster and the
scenario. README.md beside this file has more.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx
import psycopg

import sandbox
from debian import MachineError, bring
from images.build import BUILD_SECONDS, build
from images.check import teller
from images.podman import Podman, PodmanError, alone
from kasaga.dev.jars import kafka_class_path
from kasaga.dev.process import ServerError
from kubernetes.binaries import binaries
from kubernetes.cluster import PROGRAMS, Cluster, ClusterError
from kubernetes.configs import PAUSE_IMAGE
from kubernetes.scenario import Scenario
from shop_desk import DeskError

ROOT = Path(__file__).parents[2]

NEXT = "next"
"""The tag of the images' next release; they are the same, which nobody can tell by the name."""

INSIDE = "--inside"


def tell(text: str) -> None:
    """Writes one line."""
    print(f"kubernetes: {text}", flush=True)


def outside(*, keep: bool) -> int:
    """Brings everything that has to come from elsewhere, then runs the rest in a sandbox."""
    try:
        bring(PROGRAMS, tell)
        helm = find_helm()
        programs = binaries(tell)
        kafka_class_path(tell)
        with alone(tell):
            images = build(tell)
            pause(Podman(), programs)
            given = json.dumps({"programs": str(programs), "helm": helm, "images": images})
            status = sandbox.enter("kubernetes", [INSIDE, given], keep=keep, tell=tell)
    except (MachineError, PodmanError, ServerError) as error:
        tell(f"failed: {error}")
        return 1
    left = sandbox.left_behind()
    for sentence in left:
        tell(sentence)
    return status or len(left)


def find_helm() -> str:
    """Gives the helm that the chart's tests use; builds it where there is none. Raises MachineError."""
    done = subprocess.run([str(ROOT / ".ci" / "helm")], check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise MachineError("there is no helm")
    return done.stdout.strip()


def pause(podman: Podman, programs: Path) -> None:
    """Makes the image of the container that holds a pod's network."""
    with tempfile.TemporaryDirectory(prefix="kasaga-pause-") as directory:
        shutil.copy(programs / "pause", directory)
        Path(directory, "Dockerfile").write_text(
            'FROM scratch\nCOPY pause /\nUSER 10001:10001\nENTRYPOINT ["/pause"]\n'
        )
        name = PAUSE_IMAGE.removeprefix("localhost/")
        podman.run(["build", "--isolation=chroot", f"--tag={name}", directory], seconds=BUILD_SECONDS)


def inside(programs: str, helm: str, images: dict[str, str]) -> int:
    """Runs the cluster and the scenario; the exit status says whether all went well."""
    sandbox.prepare()
    home = sandbox.directory()
    say = teller()
    try:
        names = {f"localhost/{images[name]}" for name in ("kasaga-examples-sagas", "kasaga-examples")}
        podman = Podman()
        later = {f"{name.rpartition(':')[0]}:{NEXT}" for name in names}
        for name in names:
            podman.run(["tag", name, f"{name.rpartition(':')[0]}:{NEXT}"], seconds=60)
        with Cluster(home, Path(programs), Path(helm), say) as cluster:
            cluster.load({PAUSE_IMAGE, *names, *later})
            say("the images are loaded")
            (tag,) = {name.rpartition(":")[2] for name in names}
            last = Scenario(cluster, home, tag=tag, next_tag=NEXT, tell=say).run()
    except (ClusterError, DeskError, PodmanError, ServerError, httpx.HTTPError, psycopg.Error) as error:
        tell(f"failed: {error}")
        return 1
    print(last, flush=True)
    return 0


def main() -> int:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="make kubernetes", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the directory with logs and data")
    parser.add_argument(INSIDE, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        return inside(**json.loads(given.inside))
    return outside(keep=bool(given.keep))


if __name__ == "__main__":
    sys.exit(main())
