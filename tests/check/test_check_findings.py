"""What the check finds, line by line, and what it leaves alone."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path

import pytest

from check.shops import expected, package, shop
from kasaga.check import Finding, check_app
from kasaga.check.rules import RULES


def found_in(folder: Path, name: str, files: dict[str, str]) -> list[Finding]:
    with package(folder, f"{name}_shop", files):
        return check_app(importlib.import_module(f"{name}_shop.sagas").app)


def places(findings: list[Finding]) -> Counter[tuple[str, int, str]]:
    return Counter((Path(each.file).name, each.line, each.code) for each in findings)


@pytest.mark.parametrize("name", ["doubtful", "fine"])
def test_what_is_found_is_what_the_comments_say(tmp_path: Path, name: str) -> None:
    files = shop(name)
    found = found_in(tmp_path, name, files)
    wanted = expected(files)
    said = {(Path(each.file).name, each.line, each.code): each.message for each in found}
    missing = wanted - places(found)
    extra = {place: said[place] for place in places(found) - wanted}
    assert (missing, extra) == (Counter(), {})


def test_every_rule_is_tried() -> None:
    codes = {code for _, _, code in expected(shop("doubtful"))}
    assert set(RULES) - codes == {"KSG-619"}  # test_check_whole.py has it
