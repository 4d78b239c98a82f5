"""The chart on the cluster: what it is given, what helm does with it, and what can be seen of its pods.

Called by `scenario.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kubernetes.cluster import Cluster, ClusterError
from sandbox import directory

CHART = Path(__file__).parents[2] / "helm" / "kasaga"
EXAMPLES = CHART / "ci" / "examples-values.yaml"

RELEASE, SPACE = "shop", "shop"
"""The release's name, and the namespace of Kubernetes that it is in."""

DATABASES_SECRET, TOKEN_SECRET = "kasaga-databases", "kasaga-api"
"""As `ci/examples-values.yaml` calls them."""

ORCHESTRATORS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=orchestrator"
OURS = f"app.kubernetes.io/instance={RELEASE}"
UNINSTALLED = f"{OURS},app.kubernetes.io/component!=test"
"""What `helm uninstall` has to remove: all but the pods of `helm test`, which stay to be read."""

HELM_SECONDS = 300
"""What one command of helm may take: rollouts of seven pods on two cores that do other things too."""

GONE_SECONDS = 120.0
LOOK_SECONDS = 0.5
LOG_LINES_SHOWN = 12

KINDS = "all,configmaps,secrets,serviceaccounts,poddisruptionbudgets,networkpolicies,ingresses"


class Install:
    """One release of the chart."""

    def __init__(self, cluster: Cluster, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._tell = tell

    def prepare(self, secrets: Mapping[str, Mapping[str, str]], values: Mapping[str, Any]) -> None:
        """Makes the namespace, which lets only the strictest pods in, and the user's own Secrets."""
        space = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": SPACE, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }
        made = [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": SPACE},
                "stringData": data,
            }
            for name, data in secrets.items()
        ]
        self._apply([space, *made])
        self._values.write_text(json.dumps(values))

    def install(self) -> None:
        """`helm install`; returns when all pods are ready."""
        self._helm("install", RELEASE, str(CHART), *self._given(), "--wait")

    def upgrade(self, **changes: str) -> None:
        """`helm upgrade` with changed values; returns when all new pods are ready."""
        changed = [f"--set={name.replace('__', '.')}={value}" for name, value in changes.items()]
        self._helm("upgrade", RELEASE, str(CHART), *self._given(), *changed, "--wait")

    def rollback(self) -> None:
        """`helm rollback` to the revision before."""
        self._helm("rollback", RELEASE, "--wait")

    def test(self) -> str:
        """`helm test`; gives what it prints."""
        return self._helm("test", RELEASE, "--logs")

    def uninstall(self) -> None:
        """`helm uninstall`; returns when no pod is left. Raises ClusterError when anything else is."""
        self._helm("uninstall", RELEASE, "--wait")
        self._until("no pod is left", lambda: not self.pods(UNINSTALLED))
        left = self._cluster.get(KINDS, f"--namespace={SPACE}", f"--selector={UNINSTALLED}")
        if left:
            names = [f"{each['kind']} {each['metadata']['name']}" for each in left]
            raise ClusterError(f"helm uninstall leaves {', '.join(names)}")

    def lose_an_orchestrator(self) -> None:
        """Deletes a pod with force, as when its node is lost; returns when another one is ready."""
        before = {pod["metadata"]["uid"] for pod in self.pods(ORCHESTRATORS)}
        victim = self.pods(ORCHESTRATORS)[0]["metadata"]["name"]
        self._kubectl("delete", "pod", victim, "--force", "--grace-period=0")
        self._tell(f"{victim} is deleted with force")

        def replaced() -> bool:
            pods = self.pods(ORCHESTRATORS)
            new = [pod for pod in pods if pod["metadata"]["uid"] not in before]
            return bool(new) and len(pods) == len(before) and all(map(is_ready, pods))

        self._until("the lost pod is replaced", replaced)

    def pods(self, selector: str) -> list[dict[str, Any]]:
        """The pods of a selector."""
        return self._cluster.get("pods", f"--namespace={SPACE}", f"--selector={selector}")

    def restarts(self) -> dict[str, int]:
        """The pods whose containers have been started again: none should ever be."""
        return {
            pod["metadata"]["name"]: restarts
            for pod in self.pods(OURS)
            if (restarts := sum(each["restartCount"] for each in pod["status"].get("containerStatuses", [])))
        }

    def wait_until_all_run(self, tag: str) -> None:
        """Returns when every pod runs images of that tag: helm doesn't wait for the old ones to end."""

        def replaced() -> bool:
            pods = [pod for pod in self.pods(OURS) if pod["status"]["phase"] == "Running"]
            images = [container["image"] for pod in pods for container in pod["spec"]["containers"]]
            return bool(images) and all(image.endswith(f":{tag}") for image in images)

        self._until(f"all pods run {tag}", replaced)

    def api(self) -> str:
        """The address of the API's Service."""
        (service,) = self._cluster.get(
            "services", f"--namespace={SPACE}", f"--selector={OURS},app.kubernetes.io/component=api"
        )
        return f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"

    def trouble(self) -> str:
        """What there is to see when something has failed: pods, events, ends of logs."""
        said: list[str] = []
        for arguments in (
            ["get", "pods,jobs", "--output=wide"],
            ["get", "events", "--sort-by=.lastTimestamp", "--field-selector=type!=Normal"],
            ["logs", f"--selector={OURS}", f"--tail={LOG_LINES_SHOWN}", "--prefix", "--max-log-requests=50"],
        ):
            try:
                said.append(self._kubectl(*arguments))
            except ClusterError as error:
                said.append(str(error))
        return "\n".join(said)

    # --- within

    @property
    def _values(self) -> Path:
        return directory() / "values.json"

    def _given(self) -> list[str]:
        return [f"--values={EXAMPLES}", f"--values={self._values}"]

    def _helm(self, command: str, *arguments: str) -> str:
        time_out = f"--timeout={HELM_SECONDS}s"
        return self._cluster.helm(
            command, *arguments, f"--namespace={SPACE}", time_out, seconds=HELM_SECONDS + 30
        )

    def _kubectl(self, command: str, *arguments: str) -> str:
        return self._cluster.kubectl(command, *arguments, f"--namespace={SPACE}")

    def _apply(self, objects: list[Mapping[str, Any]]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self._cluster.kubectl("apply", "--filename=-", given=json.dumps(listed))

    def _until(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + GONE_SECONDS
        while not done():
            self._cluster.check()
            if time.monotonic() > deadline:
                raise ClusterError(f"after {GONE_SECONDS:.0f} s it still isn't so that {what}")
            time.sleep(LOOK_SECONDS)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready, and not on its way out."""
    conditions = pod["status"].get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
