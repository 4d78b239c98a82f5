"""How bugs are planted, one at a time: a name, what it replaces, and by which faults it shows soonest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

Plant = Callable[[], contextlib.AbstractContextManager[Any]]


class Bug(NamedTuple):
    """One mistake, and by which faults it shows soonest."""

    plant: Plant
    odds: tuple[tuple[str, float], ...]


PLANTED: dict[str, Bug] = {}


def plant(name: str, **odds: float) -> Callable[[Plant], Plant]:
    """Add a bug to those that must be found."""

    def add(plant: Plant) -> Plant:
        PLANTED[name] = Bug(plant, tuple(odds.items()))
        return plant

    return add


@contextlib.contextmanager
def both(*patches: contextlib.AbstractContextManager[Any]) -> Generator[None]:
    """Several replacements that are one mistake."""
    with contextlib.ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield
