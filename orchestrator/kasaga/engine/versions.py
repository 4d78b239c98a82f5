"""What is decided about the version of a saga's code. Part of model.py's unions."""

from __future__ import annotations

from typing import NamedTuple


class Await(NamedTuple):
    """No code of the saga's version is here: it waits for a process that has it, held as a parked one.

    Takes one outbox row, by which an owner that has the version finds it.
    """

    name: str
    version: int


class Adopt(NamedTuple):
    """The saga is of this version from now on: it was moved, or nobody had any when it was started."""

    version: int


class Patch(NamedTuple):
    """The saga's code has asked for a patch for the first time, and is on its new branch."""

    id: str
