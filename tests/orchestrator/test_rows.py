"""Decisions to rows, word for word: databases and topics hold what older releases have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from kasaga.orchestrator.rows import split_step, step_name
from orchestrator.rows_story import tell

GOLDEN = Path(__file__).with_name("golden_rows.txt")


def test_the_rows_of_some_sagas_are_what_they_always_were() -> None:
    assert list(tell()) == GOLDEN.read_text().splitlines()


@pytest.mark.parametrize(
    ("step", "form", "name"),
    [("3", "command", "3"), ("3", "undo", "3~undo"), ("2.1.0", "void", "2.1.0~void")],
)
def test_a_steps_name_says_its_form(step: str, form: str, name: str) -> None:
    assert step_name(step, form) == name
    assert split_step(name) == (step, form)
