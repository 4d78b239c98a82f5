"""Moving a running saga to another version of its code: only where that code does what its history has.

The saga is brought back in the other version, as a new owner would bring it back, and thrown away again.
What is recorded is the version alone: from then on it is this code that is replayed, from the first step.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from ..errors import SagaCodeError
from . import lifecycle
from .driver import Guard, words
from .model import Asked
from .replay import replay
from .run import driver_of
from .versions import Adopt

if TYPE_CHECKING:
    from .driver import Definition
    from .run import Definitions, Run
    from .state import State
    from .turn import Turn

MAX_VERSION = 2**31 - 1


def refuses_state(state: State, event: Asked) -> str:
    """Say why a saga can't be moved to the version that is asked for, by its state alone."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", event.value) or int(event.value) > MAX_VERSION:
        return f"a version is a number from 1, not {event.value[:40] or 'nothing'}"
    if state.phase != lifecycle.RUNNING:
        return "the saga is being undone, which needs no code of it"
    if int(event.value) == state.version:
        return f"the saga is of version {state.version} already"
    return ""


def refuses_code(defs: Definitions, run: Run, event: Asked, guard: Guard) -> str:
    """Say why the other version's code can't go on where the saga is; runs that code."""
    state, version = run.state, int(event.value)
    definition = defs.sagas.get((state.name, version))
    if definition is None:
        known = sorted(each for name, each in defs.sagas if name == state.name)
        here = f"it has {', '.join(map(str, known))}" if known else "it has none"
        return f"the saga's owner has no {state.name} version {version}: {here}"
    if not state.begun_at:
        return _refuses_input(defs, definition, state, guard)
    driver = driver_of(defs, state, definition, guard)
    try:
        replay(driver, state, defs.schemas)
    except SagaCodeError as error:
        return f"version {version} doesn't do what the saga's history has: {error.message}"
    finally:
        driver.evict()
    return ""


def _refuses_input(defs: Definitions, definition: Definition, state: State, guard: Guard) -> str:
    """Say that the other version can't read the input, all that there is of a saga that hasn't begun."""
    try:
        guard(partial(definition.input.decode, schemas=defs.schemas), state.input)
    except Exception as error:  # noqa: BLE001 - the author's model
        return f"version {definition.version} can't read the saga's input: {words(error)}"
    return ""


def move(turn: Turn, event: Asked) -> None:
    """Go on in the other version, at once where the saga's own code kept it from going on."""
    turn.run.evict()
    turn.add(Adopt(int(event.value)))
    if turn.state.parked and turn.state.paused is None:
        turn.unpark()
