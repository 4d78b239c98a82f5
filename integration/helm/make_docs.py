"""Writes what is made from the chart's values: the table in README.md, descriptions in values.schema.json.

    python integration/helm/make_docs.py

The comments in values.yaml that begin with `# --` say what a value is for. The schema says what it may be;
its parts about the programs' own settings are made from the settings' classes. A test checks that what is
there is what this would write.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from kasaga.api.settings import SHARED, ApiSettings, api_variable
from kasaga.settings import Settings, variable_of

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "kasaga"
BEGIN, END = "<!-- values: written by integration/helm/make_docs.py -->", "<!-- end of values -->"

CHARTS_OWN = SHARED | {
    *("kafka", "process", "payload_keys", "payload_compress_bytes", "archive_url", "archive_options"),
    *("payload_store_url", "payload_store_options", "payload_store_bytes"),
}
"""Settings that the chart sets by itself, from values of other names."""
APIS_OWN = CHARTS_OWN | {"host", "port", "token", "allowed_hosts"}

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


@dataclass(frozen=True, slots=True)
class Value:
    """One value of the chart, as values.yaml has it."""

    path: tuple[str, ...]
    default: Any
    about: str

    @property
    def name(self) -> str:
        """As `--set` takes it."""
        return ".".join(self.path)


def comments(text: str) -> dict[tuple[str, ...], str]:
    """What the comments say, by the path of the key that they stand above."""
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    said: list[str] = []
    for line in text.splitlines():
        if match := re.match(r" *# -- (.*)", line):
            said = [match[1]]
        elif said and (match := re.match(r" *# (.*)", line)):
            said.append(match[1])
        elif match := re.match(r"( *)([A-Za-z][\w.]*):", line):
            path[len(match[1]) // 2 :] = [match[2]]
            if said:
                found[tuple(path)] = " ".join(said)
                said = []
        else:
            said = []
    return found


def values(text: str) -> list[Value]:
    """All values that have a comment, in order."""
    defaults = yaml.safe_load(text)
    found: list[Value] = []
    for path, about in comments(text).items():
        default = defaults
        for key in path:
            default = default[key]
        found.append(Value(path, default, about))
    return found


def leaves(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The paths of all values that are no maps, or empty ones."""
    for key, value in tree.items():
        here = (*path, key)
        if isinstance(value, dict) and value:
            yield from leaves(value, here)  # pyright: ignore[reportUnknownArgumentType]
        else:
            yield here


# --- README.md


def table(of: list[Value]) -> str:
    """All values as one table."""

    def cell(text: str) -> str:
        return text.replace("|", "\\|")

    rows = (
        f"| `{value.name}` | `{cell(json.dumps(value.default, ensure_ascii=False))}` | {cell(value.about)} |"
        for value in of
    )
    return "\n".join(["| value | default | what |", "|---|---|---|", *rows])


def readme(old: str, of: list[Value]) -> str:
    """README.md with the tables as they should be."""
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{table(of)}\n\n{END}{after}"


# --- values.schema.json


def schema(old: Mapping[str, Any], of: list[Value]) -> dict[str, Any]:
    """The schema with the descriptions and the programs' settings as they should be."""
    made: dict[str, Any] = json.loads(json.dumps(old))
    for value in of:
        node = made
        for key in value.path:
            while "$ref" in node:
                node = made["definitions"][node["$ref"].rpartition("/")[2]]
            if key not in node.get("properties", {}):
                break  # a map that is free below this
            node = node["properties"][key]
        else:
            node.pop("description", None)
            reference = node.pop("$ref", None)
            kept = dict(node)
            node.clear()
            node |= {"description": value.about} | ({"$ref": reference} if reference else {}) | kept
    parts = made["properties"]
    _fill(parts["orchestrator"]["properties"]["settings"], Settings, CHARTS_OWN, variable_of)
    _fill(parts["api"]["properties"]["settings"], ApiSettings, APIS_OWN, api_variable)
    return made


def _fill(node: dict[str, Any], model: type[BaseModel], without: frozenset[str], variable: Any) -> None:
    told = model.model_json_schema()["properties"]
    node["properties"] = {
        camel(name): {
            "description": f"{variable(name)}, {field.default} by default. See the guide's settings.",
            "type": told[name]["type"],
            **{bound: told[name][bound] for bound in _BOUNDS if bound in told[name]},
        }
        for name, field in model.model_fields.items()
        if name not in without
    }


def camel(name: str) -> str:
    """`lease_seconds` as `leaseSeconds`."""
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


# --- both


def derived() -> dict[Path, str]:
    """What the files should hold."""
    text = (CHART / "values.yaml").read_text()
    of = values(text)
    page, rules = CHART / "README.md", CHART / "values.schema.json"
    return {
        page: readme(page.read_text(), of),
        rules: json.dumps(schema(json.loads(rules.read_text()), of), indent=2, ensure_ascii=False) + "\n",
    }


def main() -> None:
    """Write them."""
    for path, text in derived().items():
        if path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"{path.relative_to(ROOT)} is written anew\n")


if __name__ == "__main__":
    main()
