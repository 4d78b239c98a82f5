"""Rebuilds a saga's coroutine from its state, and notices when the code asks for something else.

The code is given the recorded outcomes in the recorded order, each at its recorded time: after the
start it must ask for the first step, after the first outcome for the second, and so on. What it
asks for is compared with what was decided then: kind, command, participant, key; and the input as
today's model reads the recorded bytes, so that a compatible change of a model is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import Nondeterminism, SagaCodeError, Unreadable
from .driver import Broken, Progress, Returned, Wants, words
from .model import LOCAL, SLEEP
from .requests import Call, LocalCall, Pause, Request

if TYPE_CHECKING:
    from kasaga_wire.codec import Schemas

    from .driver import Driver
    from .state import State, Step


def replay(driver: Driver, state: State, schemas: Schemas) -> None:
    """Bring a new driver to where the history ends; raises SagaCodeError."""
    host, order = driver.host, state.order
    host.now = state.begun_at
    progress = driver.start(state.input)
    for asked, step in enumerate(state.fed):
        _check(driver, state, progress, order[asked], schemas)
        host.now = step.fed_at
        progress = driver.resume(step)
    last = len(state.fed)
    _check(driver, state, progress, order[last] if last < len(order) else None, schemas)


def _check(driver: Driver, state: State, progress: Progress, recorded: Step | None, schemas: Schemas) -> None:
    """Compare, and let an error know where it was met."""
    try:
        _compare(driver, state, progress, recorded, schemas)
    except SagaCodeError as error:
        error.step = recorded.path if recorded is not None else ""
        error.line = driver.line() if driver.waiting is not None else ""
        raise


def _compare(
    driver: Driver, state: State, progress: Progress, recorded: Step | None, schemas: Schemas
) -> None:
    """Raise unless the code did now what it did then; without a step it had ended."""
    if isinstance(progress, Wants):
        difference = "something else" if recorded is None else _differs(progress.request, recorded, schemas)
        if not difference:
            return
        asked = f"asks for {progress.request.describe()} at {driver.line()}"
    elif isinstance(progress, Broken):
        raise progress.error
    elif isinstance(progress, Returned):
        if recorded is None and state.returned is not None:
            return
        difference, asked = "something else", "returns"
    else:
        if recorded is None and state.raised:
            return
        difference, asked = "something else", f"asks to be undone ({progress.reason})"
    what = f" ({difference})" if difference != "something else" else ""
    saga = f"saga {state.name} version {state.version}"
    raise Nondeterminism(f"{saga} now {asked}{what}, where its history has {_then(state, recorded)}")


def _differs(request: Request, recorded: Step, schemas: Schemas) -> str:
    """Say what differs, or return an empty text."""
    if isinstance(request, Call):
        if (request.spec.type, request.spec.participant) != (recorded.type, recorded.participant):
            return "something else"
        if request.options.key != recorded.key:
            return f"with key {_text(request.options.key)} instead of {_text(recorded.key)}"
        return "" if request.payload == recorded.payload else _other_input(request, recorded, schemas)
    if isinstance(request, Pause):
        return "" if recorded.kind == SLEEP else "something else"
    same = isinstance(request, LocalCall) and recorded.kind == LOCAL and recorded.type == request.name
    return "" if same else "something else"


def _other_input(request: Call, recorded: Step, schemas: Schemas) -> str:
    before: Any
    after: Any
    try:
        before = request.spec.input.decode(recorded.payload, schemas)
        after = request.spec.input.decode(request.payload, schemas)
        if before == after:
            return ""
        names: Iterable[str] = getattr(after.__class__, "model_fields", ())
        fields = ", ".join(name for name in names if getattr(before, name) != getattr(after, name))
    except Exception as error:
        said = f"the input of step {recorded.path} ({recorded.type}): {words(error)}"
        raise Unreadable(said) from error
    return f"with another input: {fields}" if fields else "with another input"


def _then(state: State, recorded: Step | None) -> str:
    if recorded is not None:
        return f"{recorded.type or recorded.kind} as step {recorded.path}"
    return "its return" if state.returned is not None else "its undoing" if state.raised else "no step"


def _text(key: bytes) -> str:
    return repr(key.decode("utf-8", "replace"))
