"""What the chart takes for values, what it refuses, and with which sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import kasaga_wire
from examples.contracts import Inventory, Order, Payments, Shipping
from examples.orders import COMPLETED, forecast
from helm import make_docs
from helm.chart import CHART, CI, ROOT, ChartRefused, Helm
from kasaga.api.settings import ApiSettings, api_variable
from kasaga.settings import Settings, variable_of
from kasaga_wire.contracts import contract_of
from kasaga_wire.kafka import KafkaSettings
from kasaga_wire.settings import RESERVED
from kasaga_wire.topics import DEFAULT_SHARDS

MINIMAL, EXAMPLES, PRODUCTION = (
    CHART / "ci" / f"{name}-values.yaml" for name in ("minimal", "examples", "production")
)
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())

Where = tuple[str, ...]


def refusal(helm: Helm, values: Path | Mapping[str, Any], more: Mapping[str, Any] | None = None) -> str:
    with pytest.raises(ChartRefused) as caught:
        helm.template(values, more=more)
    return str(caught.value)


# --- the schema


def resolved(node: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        node = SCHEMA["definitions"][node["$ref"].rpartition("/")[2]]
    return node


def closed(node: Mapping[str, Any], path: Where = ()) -> Iterator[Where]:
    """The paths of all objects that the schema knows the properties of."""
    node = resolved(node)
    if "properties" in node and node.get("type") == "object":
        assert node["additionalProperties"] is False, path
        yield path
        for name, below in node["properties"].items():
            yield from closed(below, (*path, name))


FREE = {"settings", "pod", "resources"}
"""Objects whose defaults leave out what they may have."""


def test_every_default_stands_in_the_schema_and_the_other_way_round() -> None:
    for path in closed(SCHEMA):
        node: Mapping[str, Any] = SCHEMA
        defaults: Any = DEFAULTS
        if FREE & set(path):
            continue
        for name in path:
            node, defaults = resolved(node)["properties"][name], defaults[name]
        optional = {"global", "enabled"} if path == () else set[str]()
        assert set(resolved(node)["properties"]) - optional == set(defaults), path


@pytest.mark.parametrize("path", sorted(closed(SCHEMA)), ids=".".join)
def test_a_misspelt_value_is_refused_at_every_level(path: Where) -> None:
    """By the schema itself; that helm asks it, the next test shows."""
    values: dict[str, Any] = {}
    place = values
    for name in path:
        place = place.setdefault(name, {})
    validator: Any = jsonschema.Draft7Validator(SCHEMA)
    before = len(list(validator.iter_errors(values)))
    place["mispelt"] = 1
    assert len(list(validator.iter_errors(values))) == before + 1


def test_every_value_says_what_it_is_for() -> None:
    told = make_docs.comments((CHART / "values.yaml").read_text())
    for path in make_docs.leaves(DEFAULTS):
        assert any(path[:length] in told for length in range(1, len(path) + 1)), path
    assert all(len(about) > 5 and about.endswith(".") for about in told.values())


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ("app.shards", 0),
        ("app.shards", 2000),
        ("app.shards", "16"),
        ("app.target", "shop.sagas"),
        ("app.target", "shop sagas:app"),
        ("app.namespace", "Shop"),
        ("image.digest", "latest"),
        ("image.repository", "shop@sha256:0"),
        ("image.pullPolicy", "Sometimes"),
        ("database.existingSecret.name", "Not A Name"),
        ("database.url", "postgresql://kasaga:secret@db/shop"),
        ("kafka.config", {"SASL_MECHANISM": "PLAIN"}),
        ("kafka.config", {"enable.idempotence": False}),
        ("kafka.config", {"bootstrap.servers": "kafka:9092"}),
        ("kafka.bootstrapServers", "kafka:9092, kafka:9093"),
        ("tracing.endpoint", "collector:4318"),
        ("tracing.endpoint", "http://user:password@collector:4318"),
        ("tracing.protocol", "http/json"),
        ("tracing.resourceAttributes", {"a": "b,c=d"}),
        ("log.level", "verbose"),
        ("listen", "127.0.0.1"),
        ("orchestrator.replicas", -1),
        ("orchestrator.settings", {"leaseSecond": 5}),
        ("orchestrator.settings", {"leaseSeconds": 0}),
        ("orchestrator.settings", {"leaseSeconds": "5"}),
        ("orchestrator.settings", {"maxBatch": 1.5}),
        ("orchestrator.settings", {"httpPort": 1}),
        ("orchestrator.terminationGracePeriodSeconds", 0),
        ("orchestrator.podDisruptionBudget.maxUnavailable", "half"),
        ("orchestrator.pod", {"nodeselector": {}}),
        ("orchestrator.nodeSelector", {}),
        ("api.token", "secret"),
        ("api.settings", {"token": "secret"}),
        ("api.settings", {"maxWaitSeconds": 10_000}),
        ("api.allowedHosts", ["https://sagas.example.com"]),
        ("migration.phase", "post"),
        ("migration.finish", True),
        ("extraEnv", [{"value": "nameless"}]),
        ("podAnnotations", {"number": 1}),
        ("metrics.serviceMonitor.interval", "15"),
    ],
    ids=lambda value: json.dumps(value) if not isinstance(value, str) else value,
)
def test_what_can_not_be_is_refused_by_its_name(helm: Helm, value: str, given: object) -> None:
    said = refusal(helm, MINIMAL, {value: given})
    assert "values don't meet the specifications of the schema" in said
    named = [value.partition(".")[0], *re.findall(r'"(\S+)":', json.dumps(given))]
    assert any(name in said for name in named), said


@pytest.mark.parametrize(
    ("value", "given"),
    [
        ("global", {"anything": 1}),
        ("enabled", True),
        ("orchestrator.settings", {"leaseSeconds": 0.5, "maxInFlight": 10_000_000}),
        ("orchestrator.podDisruptionBudget.maxUnavailable", "50%"),
        ("orchestrator.terminationGracePeriodSeconds", None),
        ("image.digest", "sha256:" + "0a" * 32),
        ("tracing.samplerArg", 0.05),
        ("orchestrator.pod", {"tolerations": [{"operator": "Exists"}], "priorityClassName": "high"}),
    ],
    ids=lambda value: json.dumps(value) if not isinstance(value, str) else value,
)
def test_what_can_be_is_taken(helm: Helm, value: str, given: object) -> None:
    assert helm.template(MINIMAL, more={value: given}).of("Deployment")


# --- sentences


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"app.target": ""}, "app.target is empty: name the App"),
        ({"app.namespace": ""}, "app.namespace is empty: name the App's namespace"),
        ({"image.repository": ""}, "image.repository is empty: name an image with your App"),
        ({"database.existingSecret.name": ""}, "database.existingSecret.name is empty: name a Secret"),
        ({"kafka.bootstrapServers": ""}, "kafka.bootstrapServers is empty: name your brokers"),
        ({"kafka.config": {"sasl.password": "x"}}, "kafka.config has sasl.password, which is a secret"),
        ({"kafka.existingSecret.keys": {"sasl.password": "x"}}, "kafka.existingSecret.name is empty"),
        (
            {"kafka.config": {"sasl.username": "x"}, "kafka.existingSecret.keys": {"sasl.username": "user"}},
            "sasl.username stands in kafka.config and in kafka.existingSecret.keys",
        ),
        ({"api.token.existingSecret.name": ""}, "api.token.existingSecret.name is empty"),
        ({"examples.enabled": True}, "examples.database.existingSecret.name is empty"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
def test_what_is_missing_is_said(helm: Helm, more: Mapping[str, Any], says: str) -> None:
    assert says in refusal(helm, MINIMAL, more)


def test_without_the_api_no_token_is_asked_for(helm: Helm) -> None:
    rendered = helm.template(MINIMAL, more={"api.token.existingSecret.name": "", "api.enabled": False})
    assert sorted(rendered.of("Deployment")) == ["kasaga-orchestrator"]


def test_no_secret_of_kafkas_settings_passes_as_config(helm: Helm) -> None:
    """What the programs hide in their logs is what the chart refuses to have in a ConfigMap."""
    secret = [
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
    ]
    assert len(KafkaSettings("a:1", dict.fromkeys(secret, "x")).secrets) == len(secret)
    for key in secret:
        assert "which is a secret" in refusal(helm, MINIMAL, {"kafka.config": {key: "x"}})


def test_keys_that_the_promise_rests_on_are_refused_here_too() -> None:
    names = SCHEMA["properties"]["kafka"]["properties"]["config"]["propertyNames"]
    assert set(names["not"]["enum"]) == RESERVED | {"bootstrap.servers"}


# --- settings


def test_every_setting_of_the_programs_can_be_set(helm: Helm) -> None:
    orchestrator = {name for name in Settings.model_fields if name not in make_docs.CHARTS_OWN}
    api = {name for name in ApiSettings.model_fields if name not in make_docs.APIS_OWN}
    rendered = helm.template(
        MINIMAL,
        more={
            "orchestrator.settings": {make_docs.camel(name): 1000 for name in orchestrator},
            "api.settings": {
                make_docs.camel(name): 1000 if name == "max_body_bytes" else 100 for name in api
            },
        },
    )
    environment = rendered.environment("kasaga-orchestrator")
    assert {variable_of(name) for name in orchestrator} <= environment.keys()
    assert {api_variable(name) for name in api} <= rendered.environment("kasaga-api").keys()
    without_files = {name: value for name, value in environment.items() if not name.endswith("_FILE")}
    made = Settings.from_env(without_files, database_url="postgresql://")
    assert {getattr(made, name) for name in orchestrator} == {1000}


@pytest.mark.parametrize(
    ("given", "told"),
    [(900_000, "900000"), (10_000_000, "10000000"), (0.5, "0.5"), (3, "3"), (1e-3, "0.001")],
)
def test_numbers_arrive_as_they_were_written(helm: Helm, given: float, told: str) -> None:
    rendered = helm.template(MINIMAL, more={"orchestrator.settings.hangSeconds": given})
    assert rendered.environment("kasaga-orchestrator")["KASAGA_HANG_SECONDS"] == told


def test_pods_listen_where_the_kubelet_can_reach_them(helm: Helm) -> None:
    for listen in ("0.0.0.0", "::"):
        rendered = helm.template(MINIMAL, more={"listen": listen})
        assert rendered.environment("kasaga-orchestrator")["KASAGA_HTTP_HOST"] == listen
        assert rendered.environment("kasaga-api")["KASAGA_HTTP_HOST"] == listen
        assert rendered.environment("kasaga-api")["KASAGA_API_HOST"] == listen


def test_shards_are_the_programs_own_number_by_default() -> None:
    assert DEFAULTS["app"]["shards"] == DEFAULT_SHARDS


# --- values for all pods, and for some


def test_a_component_has_more_than_all_or_something_else(helm: Helm) -> None:
    spec = helm.template(
        MINIMAL,
        more={
            "nodeSelector": {"a": "1", "b": "1"},
            "tolerations": [{"key": "all"}],
            "extraEnv": [{"name": "ALL", "value": "1"}],
            "orchestrator.pod": {
                "nodeSelector": {"b": "2"},
                "tolerations": [{"key": "own"}],
                "extraEnv": [{"name": "OWN", "value": "1"}],
                "topologySpreadConstraints": [],
            },
        },
    )
    own, other = (spec.pods()[f"kasaga-{name}"]["spec"] for name in ("orchestrator", "api"))
    assert own["nodeSelector"] == {"a": "1", "b": "2"}
    assert other["nodeSelector"] == {"a": "1", "b": "1"}
    assert own["tolerations"] == [{"key": "own"}]
    assert other["tolerations"] == [{"key": "all"}]
    assert {"ALL", "OWN"} <= spec.environment("kasaga-orchestrator").keys()
    assert "OWN" not in spec.environment("kasaga-api")
    assert "topologySpreadConstraints" not in own
    assert other["topologySpreadConstraints"]


def test_pods_are_spread_by_component_and_roll_out_unless_the_constraint_says_whom_it_counts(
    helm: Helm,
) -> None:
    constraint = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
    mine = {**constraint, "labelSelector": {"matchLabels": {"team": "shop"}}}
    rendered = helm.template(MINIMAL, more={"topologySpreadConstraints": [constraint, mine]})
    first, second = rendered.pods()["kasaga-api"]["spec"]["topologySpreadConstraints"]
    assert first["labelSelector"]["matchLabels"]["app.kubernetes.io/component"] == "api"
    assert first["matchLabelKeys"] == ["pod-template-hash"]
    assert second == mine


def test_what_is_for_the_sagas_code_is_not_for_the_examples(helm: Helm) -> None:
    more = {
        "extraEnv": [{"name": "ALL", "value": "1"}],
        "examples.pod.extraEnv": [{"name": "X", "value": ""}],
    }
    rendered = helm.template(EXAMPLES, more=more)
    assert "ALL" in rendered.environment("kasaga-orchestrator")
    assert "ALL" not in rendered.environment("kasaga-payments")
    assert rendered.environment("kasaga-payments")["X"] == ""


def test_images(helm: Helm) -> None:
    def image(more: Mapping[str, Any], pod: str = "kasaga-orchestrator") -> str:
        return str(helm.template(EXAMPLES, more=more).pods()[pod]["spec"]["containers"][0]["image"])

    version = kasaga_wire.__version__
    digest = "sha256:" + "0a" * 32
    assert image({}) == f"kasaga-examples-sagas:{version}"
    assert image({}, "kasaga-payments") == f"kasaga-examples:{version}"
    assert image({"image.repository": "r/x", "image.tag": "1"}) == "r/x:1"
    assert image({"image.repository": "r/x", "image.tag": "1", "image.digest": digest}) == f"r/x@{digest}"
    assert image({}, "kasaga-migration") == image(
        {"image.tag": ""}, "kasaga-test-saga-not-rendered"[:6] + "-api"
    )


def test_a_policy_with_egress_reaches_what_it_names_from_the_first_hook_on(helm: Helm) -> None:
    policies = helm.template(PRODUCTION).of("NetworkPolicy")
    assert sorted(policies) == ["shop", "shop-api", "shop-migration"]
    rules = (
        DEFAULTS["networkPolicy"]["egress"]["rules"]
        or yaml.safe_load(PRODUCTION.read_text())["networkPolicy"]["egress"]["rules"]
    )
    for name in ("shop", "shop-migration"):
        assert [rule for rule in policies[name]["spec"]["egress"] if rule in rules] == rules
        [dns] = [rule for rule in policies[name]["spec"]["egress"] if "to" not in rule]
        assert {port["port"] for port in dns["ports"]} == {53}


def test_metrics_can_be_asked_of_pods_that_are_not_ready(helm: Helm) -> None:
    rendered = helm.template(EXAMPLES)
    for name in ("orchestrator", "inventory", "payments", "shipping"):
        service = rendered.one("Service", f"kasaga-{name}")
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert service["spec"]["clusterIP"] == "None"
    assert "publishNotReadyAddresses" not in rendered.one("Service", "kasaga-api")["spec"]


def test_the_dashboard_is_the_file(helm: Helm) -> None:
    data = helm.template(PRODUCTION).one("ConfigMap", "shop-dashboard")["data"]
    files = {path.name: json.loads(path.read_text()) for path in (CHART / "dashboards").glob("*.json")}
    assert {name: json.loads(text) for name, text in data.items()} == files
    assert files


# --- the chart's files


def test_the_documents_are_what_the_values_say() -> None:
    for path, text in make_docs.derived().items():
        assert path.read_text() == text, f"{path.name}: run python integration/helm/make_docs.py"


def test_the_chart_has_the_projects_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == kasaga_wire.__version__


@pytest.mark.parametrize("page", [CHART / "README.md", ROOT / "helm" / "README.md"], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }
    for link in re.findall(r"\]\(([^)]+)\)", text):
        file, _, heading = link.partition("#")
        assert not file or (page.parent / file).exists(), link
        assert file or heading in headings, link


def test_the_order_of_helm_test_is_one_that_goes_through() -> None:
    order = Order.model_validate_json((CHART / "files" / "order.json").read_text())
    assert forecast([order]) == {COMPLETED: 1}
    assert {contract_of(each).name for each in (Inventory, Payments, Shipping)} == set(
        DEFAULTS["examples"]["database"]["existingSecret"]["keys"]
    )


def test_every_file_of_values_is_named_in_the_readme() -> None:
    readme = (CHART / "README.md").read_text()
    assert len(CI) >= 3
    assert all(f"(ci/{path.name})" in readme for path in CI)
