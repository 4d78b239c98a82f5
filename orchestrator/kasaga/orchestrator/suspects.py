"""Suspect mode: what is known of a saga that may end the process that steps it.

After two deaths on a shard its sagas are stepped one a transaction, each marked in the store before it is
(`Loop`). A claim counts the death for the saga that was marked then (`Store.claim`); with the second it is
parked, unrun (`Decider`). Here: what is said of it, and its line, which is written down before the death.
"""

from __future__ import annotations

import inspect

from kasaga_wire.nodes import clean_text

from ..engine import lifecycle
from ..engine.decide import Definitions, Run
from ..engine.driver import Driver, place
from ..engine.kinship import Recalled
from ..engine.model import Asked, CodeArrived, Event, Faulted, Started, Updated
from ..engine.state import State
from ..errors import KilledProcess
from ..saga import App
from ..store.base import Suspect

MAX_PLACE = 300
"""Characters of a line's name: it is written twice for each saga that is stepped."""


def killed(suspect: Suspect) -> Faulted:
    """What is said of a saga that ended its processes when it was stepped."""
    where = f", the last time on from {suspect.place}" if suspect.place else ""
    error = KilledProcess(f"the process has died {suspect.deaths} times while it stepped this saga{where}")
    return Faulted(error.code, error.message, error.remedy)


def goes_on_from(app: App, defs: Definitions, run: Run | None, event: Event | None) -> str:
    """Say from which line a saga goes on, as far as that is known without running its code."""
    if run is not None and run.driver is not None:
        return line(run.driver)
    if run is not None and run.state.saga_id:
        name, version = ("", 0) if run.state.begun_at else (run.state.name, run.state.version)
    elif isinstance(event, Started):
        name, version = event.name, event.version or app.latest(event.name)
    else:
        return ""
    found = defs.sagas.get((name, version))
    code = getattr(inspect.unwrap(found.function), "__code__", None) if found is not None else None
    return clean_text(place(code.co_filename, code.co_firstlineno, code.co_name), MAX_PLACE) if code else ""


def line(driver: Driver) -> str:
    """The line at which a live coroutine is suspended."""
    return clean_text(driver.line(), MAX_PLACE)


def wakes(state: State, event: Event | None) -> bool:
    """Say whether the event runs the saga's code, so that to rebuild it before that adds no danger."""
    if state.phase != lifecycle.RUNNING or state.returned is not None or not state.begun_at:
        return False
    if isinstance(event, Asked):
        return event.action not in ("watch", "cancel", "pause", "terminate")
    if isinstance(event, Faulted | Started | Recalled):
        return False
    if state.paused is not None:
        return isinstance(event, Updated) and not state.parked  # its validator runs
    return not state.parked or isinstance(event, CodeArrived)
