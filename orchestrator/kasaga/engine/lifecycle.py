"""The states of a saga and the only moves between them.

`RUNNING → COMPLETED`; `RUNNING → COMPENSATING | CANCELLING → COMPENSATED`; STUCK from any of the
three and back; PAUSED from any that hasn't ended, and back to the same; TERMINATED from any that hasn't
ended; a child that is COMPLETED → CANCELLING; RUNNING to RUNNING: it waits for a process with its version, or
does so no more. A move that isn't in the table is an error that names both states.
"""

from __future__ import annotations

RUNNING, COMPENSATING, CANCELLING = "RUNNING", "COMPENSATING", "CANCELLING"
STUCK, PAUSED, COMPLETED, COMPENSATED = "STUCK", "PAUSED", "COMPLETED", "COMPENSATED"
TERMINATED = "TERMINATED"

MOVES: dict[str, frozenset[str]] = {
    "": frozenset({RUNNING}),
    RUNNING: frozenset({RUNNING, COMPLETED, COMPENSATING, CANCELLING, STUCK, PAUSED, TERMINATED}),
    COMPENSATING: frozenset({COMPENSATED, STUCK, PAUSED, TERMINATED}),
    CANCELLING: frozenset({COMPENSATED, STUCK, PAUSED, TERMINATED}),
    STUCK: frozenset({RUNNING, COMPENSATING, CANCELLING, STUCK, PAUSED, TERMINATED}),
    PAUSED: frozenset({RUNNING, COMPENSATING, CANCELLING, STUCK, TERMINATED}),
    COMPLETED: frozenset({CANCELLING}),
    COMPENSATED: frozenset(),
    TERMINATED: frozenset(),
}
"""From each state ("": not begun) the states it may move to. What is COMPLETED is undone only as a step of
another saga that is."""

STATES = frozenset(MOVES) - {""}
FINAL = frozenset({COMPLETED, COMPENSATED, TERMINATED})
LONG_HISTORY = "LONG_HISTORY"
"""No state: what is published of a run whose history has become long."""

PROBLEMS = frozenset({STUCK, COMPENSATED, PAUSED, TERMINATED, LONG_HISTORY})
UNDOING = frozenset({COMPENSATING, CANCELLING})


class IllegalMove(Exception):
    """A bug in the engine: the history would hold a move that can't be."""

    def __init__(self, before: str, after: str) -> None:
        super().__init__(f"a saga can't move from {before or 'nothing'} to {after}")
        self.before = before
        self.after = after


def check_move(before: str, after: str) -> None:
    """Raise IllegalMove unless a saga may move from `before` to `after`."""
    if after not in MOVES[before]:
        raise IllegalMove(before, after)
