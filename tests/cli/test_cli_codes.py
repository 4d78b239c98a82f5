"""Each error of the client, the CLI and the HTTP API has a code of its own and a section that explains it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

import kasaga.api.errors
import kasaga.cli.errors
import kasaga.client.errors
from kasaga.dev.lock import FolderInUse
from kasaga.dev.process import ServerError
from kasaga_wire.errors import KasagaError

PAGE = Path(__file__).parents[2] / "orchestrator" / "errors.md"
SECTIONS = dict(re.findall(r"^## (KSG-5\d\d) (\w+)$", PAGE.read_text(), re.MULTILINE))
MODULES = (kasaga.client.errors, kasaga.cli.errors, kasaga.api.errors)
OURS: list[type[KasagaError]] = [
    *(
        each
        for module in MODULES
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, KasagaError) and each.__module__ == module.__name__
    ),
    ServerError,
    FolderInUse,
]


def test_the_sections_are_those_of_the_errors() -> None:
    assert {each.code: each.__name__ for each in OURS} == SECTIONS


def test_every_code_belongs_to_one_error() -> None:
    assert max(Counter(each.code for each in OURS).values()) == 1


@pytest.mark.parametrize("module", MODULES)
def test_each_module_draws_its_tree(module: ModuleType) -> None:
    drawn = re.findall(r"^[│ ]*[├└]── (\w+)", module.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(each.__name__ for each in OURS if each.__module__ == module.__name__)
