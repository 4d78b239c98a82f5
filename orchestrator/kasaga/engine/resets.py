"""What is decided about a saga that is set back to an earlier step. Part of model.py's unions."""

from __future__ import annotations

from typing import NamedTuple

RESET = "reset"
"""Why the saga's code waits no more for a step: it came after the one that the saga was set back to."""


class Reset(NamedTuple):
    """The saga is set back to where its code was given the outcome of `step`.

    What was asked for after that is undone, last first; then the code is given that outcome anew.
    """

    step: str
    numbers: int
    """The last number of a step so far: those that follow go on behind it, so that no id is used again."""
