"""Writes golden/minimal.yaml: everything that the smallest install makes, to be read and to be compared.

python integration/helm/make_golden.py
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from helm.chart import CHART, ROOT, Helm, Object

GOLDEN = Path(__file__).with_name("golden") / "minimal.yaml"


def objects(helm: Helm) -> list[Object]:
    """All objects of the smallest install, by kind and name; what each version changes says so."""
    found = helm.template(CHART / "ci" / "minimal-values.yaml", tests=True).objects
    for each in found:
        labels = each["metadata"]["labels"]
        labels["helm.sh/chart"], labels["app.kubernetes.io/version"] = "kasaga-VERSION", "VERSION"
        for container in pod(each).get("containers", []):
            if container["command"][0] == "python":
                container["command"][2:] = ["…"]  # the file stands beside
    return sorted(found, key=lambda each: (each["kind"], each["metadata"]["name"]))


def pod(each: Object) -> Object:
    spec: Object = each.get("spec", {})
    template: Object = spec.get("template", {}).get("spec", spec)
    return template


def main() -> None:
    """Write it."""
    path = subprocess.run([ROOT / ".ci" / "helm"], check=True, capture_output=True, text=True).stdout.strip()
    text = yaml.safe_dump_all(objects(Helm(path)), sort_keys=False, allow_unicode=True, width=120)
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(text)


if __name__ == "__main__":
    main()
