"""Today's engine reads and replays what every release has written, and refuses what can't be by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from examples.sagas import app
from kasaga.gate import Kind, judge, read_file
from kasaga_wire import __version__
from kasaga_wire.codec import Schemas
from replay.golden_plays import GOOD, bad

FOLDER = Path(__file__).parent.parent / "golden_histories"
RELEASES = sorted(path.name for path in FOLDER.iterdir())


def verdicts(path: Path) -> dict[str, tuple[str, str, str, str]]:
    schemas = Schemas()
    defs = app.definitions(schemas, max_payload=900_000)
    with path.open("rb") as file:
        judged = [judge(defs, history) for history in read_file(file, path.name, schemas)]
    return {each.saga_id: (each.kind, each.code, each.step, each.message) for each in judged}


def test_this_release_has_its_histories() -> None:
    assert __version__ in RELEASES


@pytest.mark.parametrize("release", RELEASES)
def test_good_ones_are_the_same_for_ever(release: str) -> None:
    found = verdicts(FOLDER / release / "good.jsonl")
    assert set(found.values()) == {(Kind.SAME, "", "", "")}
    if release == __version__:
        assert sorted(found) == sorted(f"golden-{name}" for name in GOOD)


@pytest.mark.parametrize("release", RELEASES)
def test_bad_ones_are_named(release: str) -> None:
    found = verdicts(FOLDER / release / "bad.jsonl")
    expected = json.loads((FOLDER / release / "bad.json").read_text(encoding="utf-8"))
    assert sorted(found) == sorted(expected)
    for saga_id, want in expected.items():
        kind, code, step, message = found[saga_id]
        assert (kind, code, step) == (want["verdict"], want["code"], want["step"]), saga_id
        assert want["says"] in message
    if release == __version__:
        assert sorted(found) == sorted(f"golden-{name}" for name in bad())
