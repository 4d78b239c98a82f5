"""What OpenTelemetry's package of conventions calls current."""

from __future__ import annotations

import inspect
import re
from importlib import import_module

DECLARED = re.compile(
    r'^[A-Z_]+: Final = \(?\s*"([a-z0-9_.]+)"\s*\)?\n(?:"""\n(.*?)""")?', re.MULTILINE | re.DOTALL
)


def current(group: str) -> set[str]:
    """The names of a group's attributes, such as `messaging`, that aren't deprecated."""
    module = import_module(f"opentelemetry.semconv._incubating.attributes.{group}_attributes")
    declared = DECLARED.findall(inspect.getsource(module))
    found = {name for name, text in declared if "Deprecated" not in text}
    assert 5 < len(found) < len(declared), "and some are deprecated"
    return found
