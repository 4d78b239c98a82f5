"""Whether recorded runs are runs of the model.

Called by `make model` and by test_traces.py. A saga's tellings (trace.py) drive kasaga.pml itself, by way of
follow.pml: what the run tells, the model has to be able to do where it is told, and after each commit its
outbox has to be the run's. What isn't told Spin tries every way.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from model.spin import DEPTH, ModelError, built, run
from model.trace import ATTEMPTS, OWNERS, PARTICIPANTS, STEPS, Telling, written

BOUNDS = {
    "FOLLOWING": 1,
    "STEPS": STEPS,
    "OWNERS": OWNERS,
    "PARTICIPANTS": PARTICIPANTS,
    "TRIES": ATTEMPTS,
    "MOST": ATTEMPTS,
    "ANSWERS": 40,
    "FAULTS": 1,
}
MOST_LINES = 1_999
"""Of one saga; follow.pml has room for one more."""

LEFT_OUT = frozenset(
    {"postgres_back", "inbox_back", "inbox_lost", "purged", "truncate", "tail_lost", "remade"}
)
"""The simulator's faults that the model knows nothing of: databases and logs go back in time, or forget."""

_END = "assertion violated (1000==0)"
_REACHED = re.compile(r"^followed (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Followed:
    """How far the model could follow.

    Attributes:
        whole: to the end.
        reached: how many tellings.
    """

    whole: bool
    reached: int


class Follower:
    """The model, ready to follow sagas one after the other; a context manager."""

    def __init__(self) -> None:
        """Raises ModelError, as `follow` does."""
        self._stack = ExitStack()
        self._here = self._stack.enter_context(built(BOUNDS, "-O0", "-DSAFETY"))

    def __enter__(self) -> Follower:
        """Give it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the program."""
        self._stack.close()

    def follow(self, tellings: Iterable[Telling]) -> Followed:
        """Follow one saga's tellings, numbered."""
        text = written(tellings)
        if text.count("\n") > MOST_LINES:
            raise ModelError("a saga with more tellings than follow.pml has room for")
        (self._here / "tellings").write_text(text)
        said = run(["./pan", "-E", "-n", "-w18", f"-m{DEPTH}"], self._here, {"FOLLOW": "tellings"})
        reached = _REACHED.search(said)
        if reached is None or ("errors: 0" not in said and _END not in said):
            raise ModelError(f"following came to no end:\n{said[:2000]}")
        return Followed(_END in said, int(reached[1]))
