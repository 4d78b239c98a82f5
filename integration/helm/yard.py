"""What the chart renders, run on this machine: each pod a process with its command, environment and secrets.

A yard stands in for Kubernetes as far as that goes: secrets are files, ports are free ones of this machine, a
Service's name is 127.0.0.1. Whether the objects themselves work is for a real Kubernetes to say.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from signal import SIGTERM
from typing import Any

from helm.chart import Rendered
from kasaga.dev.process import Process, log_tail
from kasaga.dev.servers import free_port

SECRETS = "/etc/kasaga"
PATIENCE = 120.0


class Yard:
    """The pods of one render."""

    def __init__(self, folder: Path, rendered: Rendered, secrets: Mapping[str, Mapping[str, str]]) -> None:
        """`secrets` are the Secrets that the values name, with their keys."""
        self.rendered = rendered
        self._folder = folder
        self._secrets = secrets
        self._running: dict[str, Process] = {}
        self._ports: dict[tuple[str, str], int] = {}

    def start(self, name: str) -> None:
        """Start the process of a Deployment's pod."""
        self._running[name] = Process(
            self._argv(name), log=self._log(name), cwd=self._folder, env=self._environment(name)
        )

    def run(self, name: str, **instead: str) -> tuple[int, str]:
        """Run the pod of a Job or of a test to its end; `instead` are variables with other values here."""
        done = subprocess.run(
            self._argv(name),
            env=self._environment(name) | instead,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return done.returncode, done.stdout + done.stderr

    def probe(self, name: str, probe: str) -> tuple[int, str]:
        """Ask what Kubernetes would ask; 0 where nobody answers."""
        [container] = self.rendered.pods()[name]["spec"]["containers"]
        get = container[probe]["httpGet"]
        return self.ask(name, get["port"], get["path"])

    def ask(self, name: str, port: str, path: str) -> tuple[int, str]:
        """The answer of a pod's port; 0 where nobody answers."""
        url = f"http://127.0.0.1:{self.port(name, port)}{path}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def is_ready(self, name: str) -> bool:
        ended = self._running[name].ended()
        assert ended is None, f"{name} has ended with {ended}: {self.log(name)}"
        status, said = self.probe(name, "readinessProbe")
        assert status == 200, f"{name}: {said}\n{self.log(name)}"
        return True

    def port(self, name: str, port: str) -> int:
        """The port here that stands for a container's port."""
        return self._ports.setdefault((name, port), free_port())

    def end(self, name: str) -> int | None:
        """SIGTERM, and the status it ends with; None if it doesn't within its grace period."""
        process = self._running.pop(name)
        grace = self.rendered.pods()[name]["spec"]["terminationGracePeriodSeconds"]
        process.stop(SIGTERM, grace)
        return process.ended()

    def log(self, name: str) -> str:
        return log_tail(self._log(name), 60)

    def close(self) -> None:
        for process in self._running.values():
            process.kill()
        self._running.clear()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _argv(self, name: str) -> list[str]:
        [container] = self.rendered.pods()[name]["spec"]["containers"]
        words = [*container["command"], *container.get("args", [])]
        program = {"kasaga": ["-m", "kasaga"], "python": list[str]()}[words[0]]
        return [sys.executable, *program, *words[1:]]

    def _environment(self, name: str) -> dict[str, str]:
        """The pod's own variables, and of this machine's only what Python needs."""
        pod = self.rendered.pods()[name]
        found = {key: os.environ[key] for key in ("PATH", "HOME", "LD_LIBRARY_PATH") if key in os.environ}
        found |= self.rendered.environment(name)
        place = self._mount(name, pod)
        for variable, value in found.items():
            if value.startswith(SECRETS):
                found[variable] = str(place / value.removeprefix(SECRETS).lstrip("/"))
        if "KASAGA_HTTP_PORT" in found:
            found["KASAGA_HTTP_PORT"] = str(self.port(name, "metrics"))
        if "KASAGA_API_PORT" in found:
            found["KASAGA_API_PORT"] = str(self.port(name, "http"))
        return found

    def _mount(self, name: str, pod: Mapping[str, Any]) -> Path:
        place = self._folder / "mounts" / name
        mounts = {each["name"]: each["mountPath"] for each in pod["spec"]["containers"][0]["volumeMounts"]}
        for volume in pod["spec"]["volumes"]:
            if "secret" not in volume:
                continue
            target = place / mounts[volume["name"]].removeprefix(SECRETS).lstrip("/")
            target.mkdir(parents=True, exist_ok=True)
            for item in volume["secret"]["items"]:
                (target / item["path"]).write_text(self._secrets[volume["secret"]["secretName"]][item["key"]])
        return place
