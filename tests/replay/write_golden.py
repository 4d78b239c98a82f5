"""Writes the golden histories of the release at hand, once.

`PYTHONPATH=tests python tests/replay/write_golden.py`. A release's files are never written again: what they
hold is what its orchestrators have written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from examples.sagas import app
from kasaga.gate import History, write_file
from kasaga_wire import __version__
from replay.golden_plays import GOOD, bad, history, of, poor_input, version_9

FOLDER = Path(__file__).parent.parent / "golden_histories"


def texts() -> list[str]:
    """Every schema that some of the histories need."""
    from kasaga_wire.codec import Schemas

    schemas = Schemas()
    for each in (app, of(poor_input), of(version_9)):
        each.definitions(schemas, max_payload=900_000)
    return [schema.json for schema in schemas]


def write(path: Path, histories: list[History]) -> None:
    with path.open("wb") as file:
        write_file(file, texts(), histories)


def main() -> None:
    folder = FOLDER / __version__
    if folder.exists() and "--again" not in sys.argv:
        sys.exit(f"{folder.name} is there: a release's histories are written once")
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "good.jsonl", [history(name, play()) for name, play in GOOD.items()])
    spoiled = bad()
    write(folder / "bad.jsonl", [each[0] for each in spoiled.values()])
    expected = {
        history.saga_id: {"verdict": kind.value, "code": code, "step": step, "says": says}
        for history, kind, code, step, says in spoiled.values()
    }
    (folder / "bad.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
