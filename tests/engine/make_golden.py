"""Writes golden histories anew, on demand: `PYTHONPATH=tests python tests/engine/make_golden.py NAME`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from engine.golden_sagas import BAD, GOOD, completed, drifted, spoiled
from engine.harness import Play, dump

FOLDER = Path(__file__).parent / "golden"


def told(play: Play) -> dict[str, object]:
    """What must be read out of a history again."""
    state = play.state
    told = dump(state)
    keys = (
        "state",
        "phase",
        "code",
        "reason",
        "undo_reason",
        "stuck_step",
        "next_seq",
        "with_exceptions",
        "blocked",
    )
    steps = {
        step.path: [step.kind, step.type, step.outcome, step.attempt, step.undo_form, step.undo_how]
        for step in state.order
    }
    return {**{key: told[key] for key in keys}, "open": sorted(play.rows), "steps": steps}


def main() -> None:
    for name in sys.argv[1:] or sorted((*GOOD, *BAD)):
        play = drifted() if name == "drifted" else GOOD.get(name, completed)()
        made: dict[str, object] = {
            "saga": play.name,
            "version": play.version,
            "run_id": play.state.run_id,
            "rows": [body.hex() for body in play.bodies],
        }
        if name in GOOD:
            made["tells"] = told(play)
        else:
            rows = play.bodies if name == "drifted" else spoiled(play.bodies, name)
            made["rows"] = [body.hex() for body in rows]
            made["refused"] = BAD[name]
        folder = FOLDER / ("good" if name in GOOD else "bad")
        file = folder / f"{name.replace(' ', '_')}.json"
        file.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
