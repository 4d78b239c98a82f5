"""What holds of every pod of the chart, whatever the values: who it runs as, what it knows, how it ends."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import kasaga_wire
from helm.chart import CI, ROOT, Helm, Object, Rendered
from kasaga.api.serve import GRACE_SECONDS
from kasaga.api.settings import ApiSettings, api_variable
from kasaga.orchestrator.loop import FLUSH_SECONDS
from kasaga.settings import Settings
from kasaga.store.settings import StoreSettings
from kasaga_participant.app import Participant
from kasaga_wire.tracing import CLOSE_SECONDS

GUIDES = ("orchestrator/README.md", "orchestrator/api.md", "participants/README.md")

ELSEWHERE = {"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER_ARG"}
"""OpenTelemetry's own guide has them."""

EVERYTHING = CI[-1].with_name("production-values.yaml")

CHANGES: dict[str, Mapping[str, Any]] = {
    "as it is": {},
    "examples too": {"examples.enabled": True, "examples.database.existingSecret.name": "databases"},
    "without the API": {"api.enabled": False},
    "no account": {"serviceAccount.create": False},
    "an account of theirs": {"serviceAccount.create": False, "serviceAccount.name": "theirs"},
    "no migration": {"migration.enabled": False},
    "no policies": {"networkPolicy.enabled": False},
    "open egress": {"networkPolicy.egress.enabled": False, "networkPolicy.apiFrom": []},
    "no budgets": {
        "orchestrator.podDisruptionBudget.enabled": False,
        "api.podDisruptionBudget.enabled": False,
    },
    "traced": {"tracing.endpoint": "http://collector:4318", "tracing.headers.existingSecret.name": "headers"},
    "one of each": {"orchestrator.replicas": 1, "api.replicas": 1},
    "other names": {"fullnameOverride": "a-name-that-is-far-too-long-for-what-kubernetes-takes-as-a-label"},
    "watched": {"metrics.serviceMonitor.enabled": True, "metrics.dashboard.enabled": True},
}
WAYS = [
    pytest.param(values, more, id=f"{values.name}, {name}") for values in CI for name, more in CHANGES.items()
]


def containers(rendered: Rendered) -> list[tuple[str, Object]]:
    return [(name, each) for name, pod in rendered.pods().items() for each in pod["spec"]["containers"]]


@pytest.mark.parametrize(("values", "more"), WAYS)
def test_every_install_holds_together(helm: Helm, values: Path, more: Mapping[str, Any]) -> None:
    rendered = helm.template(values, more=more, tests=True)
    check_restricted(rendered)
    check_references(rendered)
    check_selectors(rendered)
    check_names(rendered)
    check_hooks(rendered)
    check_variables(rendered)


def check_restricted(rendered: Rendered) -> None:
    """Pod Security's "restricted", and what it doesn't ask for: no token, a read-only disk, limits."""
    for name, pod in rendered.pods().items():
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}, name
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= {"emptyDir", "secret", "configMap"}, name
    for name, container in containers(rendered):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert container["resources"]["limits"]["memory"], name
        assert "cpu" not in container["resources"]["limits"], name
        assert all("hostPort" not in port for port in container.get("ports", [])), name


def check_references(rendered: Rendered) -> None:
    """What pods name is there: ConfigMaps, accounts, ports, volumes."""
    maps, accounts = rendered.of("ConfigMap"), rendered.of("ServiceAccount")
    for name, pod in rendered.pods().items():
        account = pod["spec"].get("serviceAccountName", "default")
        hook = any(each["metadata"]["name"] == name and is_hook(each) for each in rendered.objects)
        assert account in accounts or account in ("default", "theirs", "database-owner"), name
        volumes = {each["name"] for each in pod["spec"]["volumes"]}
        for container in pod["spec"]["containers"]:
            for source in container.get("envFrom", []):
                assert source["configMapRef"]["name"] in maps, name
            assert {each["name"] for each in container["volumeMounts"]} == volumes, name
            ports = {each["name"] for each in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                assert hook or container[probe]["httpGet"]["port"] in ports, name


def check_selectors(rendered: Rendered) -> None:
    """Services, budgets and Deployments choose pods of one component; ServiceMonitors choose Services."""
    labels = {name: pod["metadata"]["labels"] for name, pod in rendered.pods().items()}

    def chosen(selector: Mapping[str, str]) -> list[str]:
        return [name for name, has in labels.items() if selector.items() <= has.items()]

    for kind in ("Service", "PodDisruptionBudget", "Deployment"):
        for name, each in rendered.of(kind).items():
            selector = each["spec"]["selector"]
            assert chosen(selector.get("matchLabels", selector)) == [name], f"{kind} {name}"
    for policy in rendered.of("NetworkPolicy").values():
        assert chosen(policy["spec"]["podSelector"]["matchLabels"])
    services = [each["metadata"]["labels"] for each in rendered.of("Service").values()]
    for monitor in rendered.of("ServiceMonitor").values():
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        assert all(wanted <= each.items() for each in services)


def check_names(rendered: Rendered) -> None:
    seen: set[tuple[str, str]] = set()
    for each in rendered.objects:
        name = each["metadata"]["name"]
        assert (each["kind"], name) not in seen, name
        seen.add((each["kind"], name))
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name), name
        assert len(name) <= 63, name
        assert {"app.kubernetes.io/name", "app.kubernetes.io/instance"} <= each["metadata"]["labels"].keys()


def is_hook(each: Object) -> bool:
    return "helm.sh/hook" in each["metadata"].get("annotations", {})


def check_hooks(rendered: Rendered) -> None:
    """What runs before the release uses nothing of it; nothing runs when one is rolled back or removed."""
    own = {each["metadata"]["name"] for each in rendered.objects if not is_hook(each)}
    for each in filter(is_hook, rendered.objects):
        annotations = each["metadata"]["annotations"]
        policies = annotations["helm.sh/hook-delete-policy"].split(",")
        assert "before-hook-creation" in policies, "a failed one must not be in the next one's way"
        if annotations["helm.sh/hook"] == "test":
            assert policies == ["before-hook-creation"], "helm test --logs reads it afterwards"
            continue
        assert annotations["helm.sh/hook"] == "pre-install,pre-upgrade"
        if each["kind"] == "Job":
            spec = each["spec"]["template"]["spec"]
            assert spec.get("serviceAccountName", "default") not in own
            assert not [name for c in spec["containers"] for name in c.get("envFrom", [])]


# --- what pods know


def check_variables(rendered: Rendered) -> None:
    """Each stands in a guide, or is a setting of the API, whose guide has tests of its own."""
    guides = "\n".join((ROOT / guide).read_text() for guide in GUIDES)
    known = set(re.findall(r"`((?:KASAGA|OTEL)_\w+)`", guides)) | ELSEWHERE
    known |= {api_variable(name) for name in ApiSettings.model_fields}
    for name in rendered.pods():
        for variable in rendered.environment(name):
            if variable.startswith(("KASAGA_", "OTEL_")) and not variable.startswith("KASAGA_KAFKA_"):
                assert variable.removesuffix("_FILE") in known, f"{name}: {variable}"


@pytest.mark.parametrize("values", CI, ids=lambda path: path.name)
def test_no_secret_is_a_value_an_argument_or_in_a_config_map(helm: Helm, values: Path) -> None:
    rendered = helm.template(values, tests=True)
    assert not rendered.of("Secret"), "Secrets are the user's"
    for name, container in containers(rendered):
        for word in [*container["command"], *container.get("args", [])]:
            assert "postgresql://" not in word, name
        for each in container.get("env", []):
            if re.search(r"PASSWORD|TOKEN|DATABASE_URL|_PEM", each["name"]):
                assert each["name"].endswith("_FILE"), each
                assert each["value"].startswith("/etc/kasaga/"), each
    for config in rendered.of("ConfigMap").values():
        assert not [key for key in config["data"] if re.search(r"PASSWORD|TOKEN|DATABASE_URL", key)]


def test_secrets_are_mounted_where_the_variables_say(helm: Helm) -> None:
    rendered = helm.template(EVERYTHING, tests=True)
    for name, container in containers(rendered):
        mounts = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
        files = {
            f"{mounts[volume['name']]}/{item['path']}"
            for volume in rendered.pods()[name]["spec"]["volumes"]
            if "secret" in volume
            for item in volume["secret"]["items"]
        }
        named = {v for v in rendered.environment(name).values() if v.startswith("/etc/kasaga/")}
        assert named == files, name


# --- how they start, live and end


def test_a_roll_out_never_has_fewer_pods_and_never_two_more(helm: Helm) -> None:
    for name, each in helm.template(EVERYTHING).of("Deployment").items():
        assert each["spec"]["strategy"] == {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
        }, name


def test_only_live_ends_a_pod_and_only_ready_takes_it_out(helm: Helm) -> None:
    for name, container in containers(helm.template(CI[0])):
        if name.endswith("-migration"):
            continue
        assert container["livenessProbe"]["httpGet"]["path"] == "/live", name
        assert container["startupProbe"]["httpGet"]["path"] == "/live", name
        assert container["readinessProbe"]["httpGet"]["path"] == "/ready", name


def test_the_watchdog_comes_before_the_kubelet(helm: Helm) -> None:
    """A saga that blocks the process is found and named by the process itself, after `saga_kill_seconds`."""
    [container] = helm.template(CI[0]).pods()["kasaga-orchestrator"]["spec"]["containers"]
    probe = container["livenessProbe"]
    assert (
        probe["periodSeconds"] * probe["failureThreshold"]
        > Settings.model_fields["saga_kill_seconds"].default
    )


@pytest.mark.parametrize("hang", [None, 10, 45.5, 120])
def test_an_orchestrator_has_time_to_hand_its_shards_over(helm: Helm, hang: float | None) -> None:
    more = {} if hang is None else {"orchestrator.settings.hangSeconds": hang}
    spec = helm.template(CI[0], more=more).pods()["kasaga-orchestrator"]["spec"]
    turn = hang or Settings.model_fields["hang_seconds"].default
    commit = StoreSettings("").answer_timeout
    assert spec["terminationGracePeriodSeconds"] > turn + FLUSH_SECONDS + commit + CLOSE_SECONDS
    own = helm.template(CI[0], more={"orchestrator.terminationGracePeriodSeconds": 20})
    assert own.pods()["kasaga-orchestrator"]["spec"]["terminationGracePeriodSeconds"] == 20


def test_a_participant_has_time_to_answer_what_is_in_hand(helm: Helm) -> None:
    default = inspect.signature(Participant).parameters["stop_timeout"].default.total_seconds()
    spec = helm.template(CI[0].with_name("examples-values.yaml")).pods()["kasaga-payments"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > 2 * default


def test_the_api_ends_its_requests_before_it_is_killed(helm: Helm) -> None:
    spec = helm.template(CI[0]).pods()["kasaga-api"]["spec"]
    drain = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > drain + GRACE_SECONDS


def test_probes_are_asked_where_no_crowd_of_requests_is_in_their_way(helm: Helm) -> None:
    [container] = helm.template(CI[0]).pods()["kasaga-api"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "metrics"
    assert {port["name"] for port in container["ports"]} == {"http", "metrics"}


def test_a_changed_setting_rolls_the_pods_that_read_it(helm: Helm) -> None:
    def sums(more: Mapping[str, Any]) -> dict[str, str]:
        found = helm.template(CI[0].with_name("examples-values.yaml"), more=more).of("Deployment")
        return {
            name: each["spec"]["template"]["metadata"]["annotations"]["checksum/config"]
            for name, each in found.items()
        }

    def changed(more: Mapping[str, Any]) -> set[str]:
        before, after = sums({}), sums(more)
        return {name for name in before if before[name] != after[name]}

    everybody = {
        "kasaga-api",
        "kasaga-inventory",
        "kasaga-orchestrator",
        "kasaga-payments",
        "kasaga-shipping",
    }
    assert changed({"log.level": "debug"}) == everybody
    assert changed({"topicPrefix": "test."}) == everybody
    assert changed({"orchestrator.settings.maxBatch": 100}) == {"kasaga-orchestrator"}
    assert changed({"api.settings.maxRequests": 100}) == {"kasaga-api"}
    assert changed({"orchestrator.replicas": 5, "metrics.serviceMonitor.enabled": True}) == set()


def test_a_new_chart_alone_rolls_no_pod(helm: Helm) -> None:
    for name, pod in helm.template(CI[0]).pods().items():
        assert "helm.sh/chart" not in pod["metadata"]["labels"], name


# --- the migration


def test_the_migration_comes_first_and_fails_before_helm_gives_up(helm: Helm) -> None:
    job = helm.template(EVERYTHING).one("Job", "shop-migration")
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["migrate", "--phase", "pre", "--shards", "32", "--wait", "180"]
    assert job["spec"]["activeDeadlineSeconds"] < 300, "Helm's own time-out"
    assert int(container["args"][-1]) < job["spec"]["activeDeadlineSeconds"]
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never", "pod failure policies ask for it"
    [rule] = job["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {"containerName": "migration", "operator": "In", "values": [1, 2]}
    assert helm.template(EVERYTHING).environment("shop-migration")["KASAGA_NAMESPACE"] == "shop"
    [volume] = [v for v in job["spec"]["template"]["spec"]["volumes"] if v["name"] == "database"]
    assert volume["secret"]["secretName"] == "shop-database-owner"


def test_post_migrations_are_asked_for_by_the_version_that_they_finish(helm: Helm) -> None:
    """A value that `--reuse-values` keeps must do nothing in the next upgrade."""

    def phase(finish: str) -> str:
        job = helm.template(CI[0], more={"migration.finish": finish}).pods()["kasaga-migration"]
        return str(job["spec"]["containers"][0]["args"][2])

    assert phase(kasaga_wire.__version__) == "post"
    assert {phase(finish) for finish in ("", "0.0.9", "1.0.0", "post")} == {"pre"}


def test_what_the_migration_needs_comes_before_it(helm: Helm) -> None:
    hooks = [
        (int(each["metadata"]["annotations"]["helm.sh/hook-weight"]), each["kind"])
        for each in helm.template(EVERYTHING).objects
        if is_hook(each)
    ]
    assert [kind for _, kind in sorted(hooks)] == ["NetworkPolicy", "Job"]
    assert all(first < second for (first, _), (second, _) in pairwise(sorted(hooks)))
