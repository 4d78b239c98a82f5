"""A counterexample in words: the model prints numbers, people read steps and outcomes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

OUTCOMES = {
    1: "done",
    2: "refused",
    3: "failed",
    4: "undone",
    5: "nothing to undo",
    6: "voided",
    7: "executed",
    8: "a tombstone",
}
SETTLED = {1: "Done", 2: "Refused", 5: "Unknown"}

_ROW = re.compile(r"row=(\d+)(?: attempt (\d+))?")
_OUTCOME = re.compile(r"outcome=(\d+)")
_SETTLED = re.compile(r"settled=(\d+)")
_WHO = re.compile(r"^(owner|participant) (\d+)")


def told(lines: Iterable[str], owners: int) -> Iterator[str]:
    """Each line of a counterexample as a sentence; `owners`: how many processes are orchestrators."""
    for line in lines:
        text = _ROW.sub(lambda found: _row(int(found[1]), found[2]), line)
        text = _OUTCOME.sub(lambda found: OUTCOMES[int(found[1])], text)
        text = _SETTLED.sub(lambda found: SETTLED[int(found[1])], text)
        yield _WHO.sub(lambda found: _who(found[1], int(found[2]), owners), text)


def _row(row: int, attempt: str | None) -> str:
    what = "the undo (or void) of step" if row % 2 else "step"
    name = f"{what} {row // 2 + 1}"
    return f"attempt {attempt} of {name}" if attempt else name


def _who(kind: str, number: int, owners: int) -> str:
    if kind == "owner":
        return f"owner {'AB'[number] if number < 2 else number}"
    return f"participant {number - owners + 1}"
