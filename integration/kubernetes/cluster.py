"""A Kubernetes with one node: etcd, API server, controllers, scheduler, kubelet, proxy, names, containers.

Inside of the sandbox, which ends all of it. Called by `__main__.py`.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from images.podman import Podman, overlayfs_works
from kasaga.dev.process import Process, log_tail
from kubernetes import configs
from kubernetes.configs import BRIDGE, CONTAINERD_SOCKET, HOST, KUBECONFIG, PODS, SERVICES, Places
from sandbox import CGROUPS

PROGRAMS = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "etcd": "etcd-server",
    "ip": "iproute2",
    "iptables": "iptables",
    "openssl": "openssl",
    "setpriv": "util-linux",
    "unshare": "util-linux",
}
"""What comes from Debian, and in which package."""

START_SECONDS = 90.0
"""How long one program may take until it serves, on two cores that do other things too."""

COMMAND_SECONDS = 60.0
IMPORT_SECONDS = 300.0
LOOK_SECONDS = 0.2

NETWORK_SETTINGS = {
    "/proc/sys/net/ipv4/ip_forward": "1",
    # Else what one pod answers another goes over the bridge alone, past the rules that turned the address.
    "/proc/sys/net/bridge/bridge-nf-call-iptables": "1",
}


class ClusterError(Exception):
    """The cluster, or a command to it, has failed; with the end of the log."""


class Cluster:
    """Runs as long as the `with` block."""

    def __init__(self, directory: Path, binaries: Path, helm: Path, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._helm = helm
        home = directory / "cluster"
        home.mkdir()
        snapshotter = "overlayfs" if overlayfs_works(home) else "native"
        self.places = Places(home, binaries, f"/{directory.name}", snapshotter)
        self._logs = directory / "logs"
        self._logs.mkdir()
        self._running: dict[str, Process] = {}

    def __enter__(self) -> Self:
        """Starts everything and waits until pods can run."""
        try:
            self._network()
            self._files()
            self._control()
            self._node()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends everything, pods included."""
        self._end()

    # --- starting

    def _network(self) -> None:
        for command in (
            f"link add {BRIDGE} type bridge",
            f"addr add {HOST}/{PODS.split('/')[1]} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            # For us, who ask services from outside of any pod: before it is turned, a packet needs a route.
            f"route add {SERVICES} dev {BRIDGE}",
        ):
            self.command(["ip", *command.split()])
        for path, value in NETWORK_SETTINGS.items():
            Path(path).write_text(value)

    def _files(self) -> None:
        for name, text in configs.files(self.places, secrets.token_hex(16)).items():
            path = self.places.home / name
            path.parent.mkdir(exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(text)
        key, public = self.places.path("accounts.key"), self.places.path("accounts.pub")
        self.command(["openssl", "genrsa", "-out", key, "2048"])
        self.command(["openssl", "rsa", "-in", key, "-pubout", "-out", public])
        for controller in CGROUPS.iterdir():
            if controller.is_dir():
                (CGROUPS / controller / self.places.cgroup.strip("/")).mkdir(exist_ok=True)

    def _control(self) -> None:
        self._start("etcd", ["etcd", *configs.etcd(self.places)])
        self._start("kube-apiserver", [self._binary("kube-apiserver"), *configs.apiserver(self.places)])
        self._until("the API server", lambda: self._says_ok("/readyz"))
        self._tell(f"the API server of Kubernetes {self.version()} serves")
        manager, scheduler = configs.controller_manager(self.places), configs.scheduler(self.places)
        self._start("kube-controller-manager", [self._binary("kube-controller-manager"), *manager])
        self._start("kube-scheduler", [self._binary("kube-scheduler"), *scheduler])

    def _node(self) -> None:
        self._start("containerd", ["containerd", f"--config={self.places.path('containerd.toml')}"])
        self._until("containerd", lambda: self._succeeds(self._ctr("version")))
        self._start("coredns", [self._binary("coredns"), f"-conf={self.places.path('Corefile')}"])
        proxy = f"--config={self.places.path('proxy.json')}"
        self._start("kubelet", [self._binary("kubelet"), *configs.kubelet(self.places)])
        self._until("the node", self._node_is_ready)
        self._start("kube-proxy", [self._binary("kube-proxy"), proxy])

    def load(self, images: Iterable[str]) -> None:
        """Gives images of our podman to the node."""
        archive = self.places.home / "images.tar"
        names = sorted(images)
        Podman().run(
            ["save", "--quiet", "--multi-image-archive", f"--output={archive}", *names],
            seconds=IMPORT_SECONDS,
        )
        arguments = ["images", "import", f"--snapshotter={self.places.snapshotter}", str(archive)]
        self.command(self._ctr("--namespace=k8s.io", *arguments), seconds=IMPORT_SECONDS)
        archive.unlink()

    # --- asking

    def kubectl(self, *arguments: str, seconds: float = COMMAND_SECONDS, given: str | None = None) -> str:
        """Runs kubectl and gives what it prints; raises ClusterError."""
        return self.command([self._binary("kubectl"), *arguments], seconds=seconds, given=given)

    def helm(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Runs helm and gives what it prints; raises ClusterError."""
        return self.command([str(self._helm), *arguments], seconds=seconds)

    def get(self, *arguments: str) -> list[dict[str, Any]]:
        """The objects that `kubectl get` finds."""
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", *arguments, "--output=json"))["items"]
        return found

    def version(self) -> str:
        """Kubernetes' own."""
        said: Mapping[str, str] = json.loads(self.kubectl("get", "--raw=/version"))
        return said["gitVersion"]

    def check(self) -> None:
        """Raises ClusterError when one of the programs has ended."""
        for name, process in self._running.items():
            if (status := process.ended()) is not None:
                tail = log_tail(self._log(name))
                raise ClusterError(f"{name} ended with status {status}. The end of its log:\n{tail}")

    def command(
        self, argv: Sequence[str], *, seconds: float = COMMAND_SECONDS, given: str | None = None
    ) -> str:
        """Runs a command and gives what it prints; raises ClusterError with all that it said."""
        try:
            done = subprocess.run(
                list(argv),
                check=False,
                input=given or "",
                capture_output=True,
                text=True,
                timeout=seconds,
                env=self._environment(),
            )
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{Path(argv[0]).name} {argv[1]} took longer than {seconds:g} s") from error
        if done.returncode != 0:
            said = f"{done.stdout}{done.stderr}".strip()
            raise ClusterError(f"{Path(argv[0]).name} {' '.join(argv[1:])}: status {done.returncode}\n{said}")
        return done.stdout

    # --- within

    def _environment(self) -> dict[str, str]:
        home = self.places.path("helm")
        return {
            **os.environ,
            "KUBECONFIG": self.places.path(KUBECONFIG),
            "HELM_CACHE_HOME": home,
            "HELM_CONFIG_HOME": home,
            "HELM_DATA_HOME": home,
        }

    def _binary(self, name: str) -> str:
        return str(self.places.binaries / name)

    def _ctr(self, *arguments: str) -> list[str]:
        return ["ctr", f"--address={CONTAINERD_SOCKET}", *arguments]

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"

    def _start(self, name: str, argv: list[str]) -> None:
        self._running[name] = Process(
            argv, log=self._log(name), cwd=self.places.home, env=self._environment()
        )

    def _until(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                tails = "\n".join(f"--- {name}\n{log_tail(self._log(name), 8)}" for name in self._running)
                raise ClusterError(f"{what} didn't get ready within {START_SECONDS:.0f} s\n{tails}")
            time.sleep(LOOK_SECONDS)

    def _succeeds(self, argv: Sequence[str]) -> bool:
        try:
            self.command(argv)
        except ClusterError:
            return False
        return True

    def _says_ok(self, path: str) -> bool:
        try:
            return self.kubectl("get", f"--raw={path}") == "ok"
        except ClusterError:
            return False

    def _node_is_ready(self) -> bool:
        conditions = [each for node in self.get("nodes") for each in node["status"].get("conditions", [])]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    def _end(self) -> None:
        # Backwards, so that nobody tries to mend what is being taken down. The sandbox ends what they leave.
        for name in reversed(list(self._running)):
            self._running.pop(name).kill()
