"""Rebuilds a saga's coroutine from its history, and notices when the code asks for something else.

The coroutine is fed exactly where a Resume stands in the history, with the recorded outcomes and
the recorded times. What it then asks for is compared with what was decided there: kind, command,
participant, key, path; and the input as today's model reads the recorded bytes, so that a
compatible change of a model is no difference.
"""

from __future__ import annotations

from collections.abc import Sequence

from kasaga_wire.codec import Schemas
from kasaga_wire.errors import KasagaError

from . import lifecycle
from ..errors import Nondeterminism, Unreadable
from .driver import Broken, Driver, Progress, Raised, Wants
from .model import Decision, Move, Record, Resume, Return, RunLocal, Send, Sleep
from .requests import Call, LocalCall, Pause, Request
from .state import State


def replay(driver: Driver, state: State, records: Sequence[Record], schemas: Schemas) -> None:
    """Bring a new driver to where the history ends; raises SagaCodeError.

    `state` is the fold of `records`, which gives the outcomes.
    """
    for record in records:
        for index, decision in enumerate(record.decisions):
            if isinstance(decision, Resume):
                driver.host.now = record.at
                progress = driver.resume(state.steps[decision.step]) if decision.step else driver.start(state.input)
                _compare(driver, state, progress, _next_asked(record.decisions[index + 1 :]), schemas)


def _next_asked(decisions: Sequence[Decision]) -> Decision | None:
    """What the code asked for after a Resume, as it was recorded."""
    for decision in decisions:
        match decision:
            case Send(form="command", attempt=1) | RunLocal(form="local", attempt=1) | Sleep() | Return():
                return decision
            case Move(state=lifecycle.COMPENSATING | lifecycle.STUCK):
                return decision
            case _:
                continue
    return None


def _compare(
    driver: Driver, state: State, progress: Progress, recorded: Decision | None, schemas: Schemas
) -> None:
    if isinstance(progress, Broken):
        raise progress.error
    if isinstance(progress, Wants):
        difference = _differs(progress.request, recorded, schemas)
        asked = f"{progress.request.describe()} at {driver.line()}"
    elif isinstance(progress, Raised):
        difference = not isinstance(recorded, Move)
        asked = f"to be undone ({progress.reason})"
    else:
        difference = not isinstance(recorded, Return)
        asked = "to return"
    if difference:
        raise Nondeterminism(
            f"saga {state.name} version {state.version} now asks {asked}"
            f"{'' if difference is True else f' ({difference})'}; its history holds {_name(recorded)}"
        )


def _differs(request: Request, recorded: Decision | None, schemas: Schemas) -> bool | str:
    """Return False, or True, or what differs."""
    if isinstance(request, Pause):
        return not isinstance(recorded, Sleep)
    if isinstance(request, LocalCall):
        return not (isinstance(recorded, RunLocal) and recorded.name == request.name)
    if not (isinstance(request, Call) and isinstance(recorded, Send)):
        return True
    if (request.type, request.participant) != (recorded.type, recorded.participant):
        return True
    if request.key != recorded.key:
        return "another key"
    if request.payload == recorded.payload:
        return False
    return _other_input(request, recorded, schemas)


def _other_input(request: Call, recorded: Send, schemas: Schemas) -> bool | str:
    try:
        before = request.input.decode(recorded.payload, schemas)
        after = request.input.decode(request.payload, schemas)
    except KasagaError as error:
        raise Unreadable(f"the input of step {recorded.step} ({recorded.type}): {error}") from error
    return False if before == after else f"another input: {after!r:.200} instead of {before!r:.200}"


def _name(recorded: Decision | None) -> str:
    match recorded:
        case Send():
            return f"{recorded.type} as step {recorded.step}"
        case RunLocal():
            return f"run {recorded.name} as step {recorded.step}"
        case Sleep():
            return f"sleep as step {recorded.step}"
        case Return():
            return "the saga's return"
        case Move():
            return "the saga's undoing"
        case _:
            return "nothing there"


