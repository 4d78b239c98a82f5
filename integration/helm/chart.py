"""The chart, rendered by a real helm: what the tests of this folder ask of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "kasaga"
CI = sorted(CHART.glob("ci/*-values.yaml"))

Object = dict[str, Any]
"""One object of Kubernetes, as YAML has it."""


class ChartRefused(Exception):
    """Helm doesn't render this; the message is what a user sees."""


@dataclass(frozen=True)
class Helm:
    """One helm binary."""

    path: str

    def run(self, *arguments: str) -> str:
        done = subprocess.run([self.path, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChartRefused(done.stdout + done.stderr)
        return done.stdout

    def template(
        self,
        values: Mapping[str, Any] | Path,
        *flags: str,
        more: Mapping[str, Any] | None = None,
        release: str = "kasaga",
        tests: bool = False,
    ) -> Rendered:
        """Render with a file of values, or with values; `more` come on top."""
        given = ["--values", str(values)] if isinstance(values, Path) else _set(values)
        skip = [] if tests else ["--skip-tests"]
        text = self.run(
            "template", release, str(CHART), "--namespace", "shop", *skip, *given, *_set(more or {}), *flags
        )
        return Rendered([each for each in yaml.safe_load_all(text) if each])


def _set(values: Mapping[str, Any]) -> list[str]:
    return [part for key, value in values.items() for part in ("--set-json", f"{key}={json.dumps(value)}")]


@dataclass(frozen=True)
class Rendered:
    """What one render gave."""

    objects: Sequence[Object]

    def of(self, kind: str) -> dict[str, Object]:
        """All objects of a kind, by name."""
        return {each["metadata"]["name"]: each for each in self.objects if each["kind"] == kind}

    def one(self, kind: str, name: str) -> Object:
        found = self.of(kind)
        assert name in found, f"no {kind} {name}, only {sorted(found)}"
        return found[name]

    def pods(self) -> dict[str, Object]:
        """All pods and templates of pods, by the names of what has them."""
        found: dict[str, Object] = {}
        for each in self.objects:
            if each["kind"] in ("Deployment", "Job"):
                found[each["metadata"]["name"]] = each["spec"]["template"]
            elif each["kind"] == "Pod":
                found[each["metadata"]["name"]] = each
        return found

    def environment(self, pod: str) -> dict[str, str]:
        """What the first container of a pod gets as variables; a reference is shown as such."""
        [container, *_] = self.pods()[pod]["spec"]["containers"]
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            if "configMapRef" in source:
                found |= self.one("ConfigMap", source["configMapRef"]["name"])["data"]
        for variable in container.get("env", []):
            found[variable["name"]] = (
                variable["value"] if "value" in variable else json.dumps(variable["valueFrom"])
            )
        return found
