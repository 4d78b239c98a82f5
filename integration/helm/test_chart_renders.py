"""Each file of values in the chart's ci folder is a whole install: helm and Kubernetes' schemas accept it."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from kubernetes_validate.utils import all_versions

from helm.chart import CHART, CI, Helm, Object
from helm.make_golden import GOLDEN, objects

OLDEST = (1, 30)
"""The oldest minor version of Kubernetes in Chart.yaml."""

KNOWN = [v for v in all_versions() if tuple(map(int, v.split(".")[:2])) >= OLDEST]
VERSIONS = [KNOWN[0], KNOWN[len(KNOWN) // 2], KNOWN[-1]]
"""A check takes a tenth of a second for each object: the oldest, one in the middle and the newest must do."""

FOREIGN = {"ServiceMonitor"}
"""Kinds of operators, which Kubernetes' schemas don't have."""


def names(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("values", CI, ids=names)
def test_the_linter_has_nothing_to_say(helm: Helm, values: Path) -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm.run(
        "lint", "--strict", "--values", str(values), str(CHART)
    )


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("values", CI, ids=names)
def test_kubernetes_takes_every_object(helm: Helm, values: Path, version: str) -> None:
    rendered = helm.template(values, "--kube-version", version, tests=True)
    assert {each["kind"] for each in rendered.objects} >= {"Deployment", "Service", "Job", "ConfigMap"}
    for each in rendered.objects:
        check(each, version)


def check(each: Object, version: str) -> None:
    if each["kind"] not in FOREIGN:
        assert version.startswith(kubernetes_validate.validate(each, version, strict=True))


def test_versions_are_what_the_chart_promises() -> None:
    assert f">={OLDEST[0]}.{OLDEST[1]}.0-0" in (CHART / "Chart.yaml").read_text()
    assert VERSIONS[0].startswith("1.30")
    assert len(set(VERSIONS)) == 3


def test_a_wrong_object_would_be_found(helm: Helm) -> None:
    deployment = helm.template(CI[0]).one("Deployment", "kasaga-orchestrator")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(deployment, VERSIONS[0])


def test_what_is_packed_is_what_an_install_needs(helm: Helm, tmp_path: Path) -> None:
    helm.run("package", str(CHART), "--destination", str(tmp_path))
    [archive] = tmp_path.glob("kasaga-*.tgz")
    with tarfile.open(archive) as packed:
        names = {name.removeprefix("kasaga/") for name in packed.getnames()}
    assert {"Chart.yaml", "README.md", "values.yaml", "values.schema.json", "templates/NOTES.txt"} <= names
    assert {"files/order.json", "files/ask_api.py", "dashboards/kasaga.json"} <= names
    assert not [name for name in names if re.search(r"^ci/|__pycache__|\.pyc$|/\.", name)]
    assert archive.stat().st_size < 1_000_000, "Helm keeps each release in a Secret, of 1 MiB at most"


def test_the_smallest_install_is_what_it_was(helm: Helm) -> None:
    """`make_golden.py` writes it anew; what has changed is to be read."""
    assert objects(helm) == list(yaml.safe_load_all(GOLDEN.read_text()))
