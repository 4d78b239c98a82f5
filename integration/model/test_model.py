"""The model and what is said of it: every small world holds, and each bug is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from model.__main__ import NURSERIES, hunt
from model.spin import Found, bugs, check, every_run_ends, guarantees, set_up
from model.story import told

HERE = Path(__file__).parent


@pytest.fixture(scope="module", autouse=True)
def spin() -> None:
    set_up(print)


@pytest.fixture(scope="module")
def hits(spin: None) -> dict[str, tuple[Found, int]]:
    return hunt(bugs())


def test_every_guarantee_holds_with_one_fault() -> None:
    found = check(NURSERIES[0])
    assert found.broken is None
    assert found.states > 10_000


def test_every_run_ends() -> None:
    assert every_run_ends(NURSERIES[1])


def test_a_command_that_comes_after_its_undo_is_told_as_a_story(hits: dict[str, tuple[Found, int]]) -> None:
    found, owners = hits["no_tombstone"]
    story = list(told(found.story, owners))
    assert any(line.endswith("ends its transaction: nothing to undo") for line in story)
    assert story[-1].strip() == "COMPENSATED" or story[-1].endswith("ends its transaction: done")


def test_every_bug_names_a_guarantee_and_every_guarantee_of_ours_is_broken_by_one() -> None:
    assert {bug.breaks for bug in bugs()} == {*guarantees()} - {"nobody_waits_for_ever"}


def test_every_bug_is_found_and_breaks_what_it_names(hits: dict[str, tuple[Found, int]]) -> None:
    assert {name: found.broken for name, (found, _) in hits.items()} == {
        bug.name: bug.breaks for bug in bugs()
    }


def test_the_page_names_what_the_model_checks() -> None:
    page = (HERE / "README.md").read_text().split("## What holds", 1)[1].split("\n## ", 1)[0]
    assert {*re.findall(r"^\| `([a-z_]+)` \|", page, re.MULTILINE)} == {*guarantees()}
