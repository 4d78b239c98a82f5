"""The Grafana dashboard asks for nothing that the processes don't tell, and can be imported anywhere."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector

DASHBOARD = Path(__file__).parents[2] / "helm" / "kasaga" / "dashboards" / "kasaga.json"
TABLES = Path(__file__).parents[2] / "orchestrator" / "metrics.md"

OF_TARGETS = frozenset({"job", "instance"})
"""Labels that Prometheus gives to whatever it scrapes."""

WORDS = frozenset({"by", "without", "on", "ignoring", "and", "or", "unless", "offset", "bool"})
CALLS = frozenset({"sum", "max", "min", "rate", "increase", "histogram_quantile"})

ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<kind>\w+) \| (?P<labels>[^|]*)\|", re.MULTILINE)
SELECTOR = re.compile(r"(?P<name>[a-zA-Z_]\w*)\{(?P<matchers>[^}]*)\}(?P<range>\[[^]]*\])?")
MATCHER = re.compile(r"\s*(?P<label>\w+)\s*(?:=~|!~|!=|=)\s*\"[^\"]*\"\s*(?:,|$)")
GROUPING = re.compile(r"\b(?:by|without) \((?P<labels>[^)]*)\)")


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """By name: the type, and the labels."""
    found = {
        row["name"]: (row["kind"], frozenset(re.findall(r"`(\w+)`", row["labels"])))
        for row in ROW.finditer(TABLES.read_text(encoding="utf-8"))
    }
    assert len(found) > 30
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, frozenset())
    return found


METRICS = documented()


def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def panels() -> Iterator[dict[str, Any]]:
    for panel in dashboard()["panels"]:
        yield panel
        yield from panel.get("panels", ())


def known(name: str) -> tuple[str, frozenset[str]]:
    """Type and labels of a series; those of a histogram have endings of their own."""
    if name in METRICS:
        if METRICS[name][0] == "histogram":
            raise LookupError(f"{name} is a histogram")
        return METRICS[name]
    base, _, ending = name.rpartition("_")
    kind, labels = METRICS.get(base, ("", frozenset[str]()))
    if kind != "histogram" or ending not in ("bucket", "sum", "count"):
        raise LookupError(f"no metric is called {name}")
    return "counter", labels | {"le"} if ending == "bucket" else labels


def complaints(expression: str) -> Iterator[str]:
    """What is wrong with a query."""
    allowed: set[str] = set()
    for found in SELECTOR.finditer(expression):
        try:
            kind, labels = known(found["name"])
        except LookupError as error:
            yield str(error)
            continue
        allowed |= labels | OF_TARGETS
        matchers = found["matchers"]
        used = {each["label"] for each in MATCHER.finditer(matchers)}
        if MATCHER.sub("", matchers).strip():
            yield f"{matchers} can't be read"
        if strange := used - labels - OF_TARGETS:
            yield f"{found['name']} has no label {', '.join(sorted(strange))}"
        if (kind == "counter") != bool(found["range"]):
            yield f"{found['name']} is a {kind}: only counters are asked for their rate, and always are"
    for grouping in GROUPING.finditer(expression):
        if strange := set(re.findall(r"\w+", grouping["labels"])) - allowed:
            yield f"nothing in {expression} has a label {', '.join(sorted(strange))}"
    rest = GROUPING.sub(" ", SELECTOR.sub(" ", expression))
    for word in re.findall(r"[a-zA-Z_]\w*", rest):
        if word not in WORDS | CALLS:
            yield f"{word} in {expression}: neither a function, nor a metric with its labels"


def queries() -> Iterator[tuple[str, str]]:
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(queries()))
def test_a_query_names_only_what_the_tables_name(where: str, expression: str) -> None:
    assert list(complaints(expression)) == []


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ('sum(kasaga_sagaz{job="x"})', "no metric is called kasaga_sagaz"),
        ('sum by (sagas) (kasaga_sagas{job="x"})', "has a label sagas"),
        ('sum(kasaga_sagas{topic="x"})', "has no label topic"),
        ("sum(kasaga_sagas_started_total{})", "asked for their rate"),
        ("sum(rate(kasaga_sagas{}[5m]))", "asked for their rate"),
        ("rate(kasaga_step_seconds{}[5m])", "is a histogram"),
        ("rate(kasaga_step_seconds_max{}[5m])", "no metric is called kasaga_step_seconds_max"),
        ("sum(kasaga_sagas)", "kasaga_sagas in"),
        ("median(kasaga_sagas{})", "median in"),
    ],
)
def test_the_test_finds_what_is_wrong(expression: str, complaint: str) -> None:
    found = list(complaints(expression))
    assert any(complaint in each for each in found), found


def test_what_a_legend_names_is_left_by_the_query() -> None:
    for panel in panels():
        for target in panel.get("targets", ()):
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = {
                label
                for grouping in GROUPING.finditer(target["expr"])
                for label in re.findall(r"\w+", grouping["labels"])
            }
            assert named <= kept, (panel["title"], named - kept)


def test_every_metric_of_the_tables_is_shown_or_left_out_on_purpose() -> None:
    shown = " ".join(expression for _, expression in queries())
    left_out = {
        name
        for name in METRICS
        if name.startswith("kasaga_") and not re.search(rf"\b{name}(_bucket|_sum)?\{{", shown)
    }
    assert left_out == {"kasaga_archive_bytes_total", "kasaga_participant_inbox_rows_purged_total"}


def test_it_can_be_imported_anywhere() -> None:
    found = dashboard()
    ids = Counter(panel["id"] for panel in panels())
    assert max(ids.values()) == 1, "each panel has an id of its own"
    variables = {each["name"]: each for each in found["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    asking = [panel for panel in panels() if panel["type"] != "row"]
    sources = [each["datasource"] for panel in asking for each in (panel, *panel["targets"])]
    sources += [each["datasource"] for each in variables.values() if each["type"] == "query"]
    assert {(each["type"], each["uid"]) for each in sources} == {("prometheus", "${datasource}")}
    assert found["uid"] == "kasaga"
    assert "id" not in found, "Grafana numbers what it imports"
    used = set(re.findall(r"\$(\w+)", " ".join(expression for _, expression in queries())))
    assert used == {"job", "saga", "__rate_interval"}
    assert {"job", "saga"} <= variables.keys()


def test_its_panels_stand_side_by_side_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["targets"]
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == ["Sagas", "Latency", "Steps and participants", "Machinery", "HTTP API", "Processes"]
