"""One history on the new code: read, folded, replayed by the engine, and what of it could be undone."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from enum import StrEnum

from kasaga_wire.errors import KasagaError
from kasaga_wire.schema import schema_id

from ..engine import lifecycle
from ..engine.codec import decode
from ..engine.driver import Guard, unguarded
from ..engine.model import DONE, LOCAL, REFUSED
from ..engine.replay import replay
from ..engine.run import Definitions, driver_of
from ..engine.state import State, Step, fold
from ..errors import (
    HistoryUnreadable,
    MissingVersion,
    Nondeterminism,
    SagaCodeError,
    UnknownContract,
    Unreadable,
)
from .histories import History

_LINE = re.compile(r"(?:\(at|, at) ([^()]+:\d+ in [^\s()]+)\)?$")
"""Where the engine puts the line into a message whose code has ended by an exception."""


class Kind(StrEnum):
    """What the new code does with a history."""

    SAME = "same"
    PATCH = "needs a patch"
    """It asks for something else than it did: give the change a new version."""
    BREAKS = "breaks"
    """It raises, or what was recorded can't be read any more."""
    GONE = "gone"
    """There is nothing to try: the saga has ended, and its version is gone, or its history."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the new code does with one history, and where."""

    kind: Kind
    saga_id: str
    run_id: str
    name: str
    version: int
    state: str
    live: bool
    """The saga hasn't ended: it will meet the new code."""
    code: str = ""
    message: str = ""
    remedy: str = ""
    step: str = ""
    line: str = ""


def judge(defs: Definitions, history: History, guard: Guard = unguarded) -> Verdict:
    """Try new code on one history. None of its I/O happens: functions of ctx.run aren't called."""
    live = history.state not in lifecycle.FINAL
    about = (history.saga_id, history.run_id, history.name, history.version, history.state, live)
    if not history.rows and not live:
        return Verdict(Kind.GONE, *about)
    try:
        state = fold(history.run_id, (decode(seq, body) for seq, body in history.rows))
        if not state.saga_id:
            raise HistoryUnreadable(f"saga {history.saga_id} has no history")
        if state.final and (state.name, state.version) not in defs.sagas:
            return Verdict(Kind.GONE, *about)
        _code(defs, state, guard)
        if not state.final:
            for step in state.order:
                _undo(defs, step)
    except Nondeterminism as error:
        return Verdict(Kind.PATCH, *about, *_told(error))
    except HistoryUnreadable as error:
        known = live and history.code == error.code  # it is STUCK with that already
        return Verdict(Kind.SAME, *about) if known else Verdict(Kind.BREAKS, *about, *_told(error))
    except KasagaError as error:
        return Verdict(Kind.BREAKS, *about, *_told(error))
    return Verdict(Kind.SAME, *about)


def _told(error: KasagaError) -> tuple[str, str, str, str, str]:
    step, line = getattr(error, "step", ""), getattr(error, "line", "")
    found = _LINE.search(error.message)
    return error.code, error.message, error.remedy, str(step), str(line) or (found[1] if found else "")


def _code(defs: Definitions, state: State, guard: Guard) -> None:
    """Replay the saga's code, unless it will never run again because the saga is being undone."""
    if not state.final and state.phase in lifecycle.UNDOING:
        return
    if (state.name, state.version) not in defs.sagas:
        raise MissingVersion(f"the App has no saga {state.name} version {state.version}, which still runs")
    definition = defs.sagas[state.name, state.version]
    if not state.begun_at:
        try:
            definition.input.decode(state.input, defs.schemas)
        except KasagaError as error:
            raise Unreadable(f"the input of saga {state.name}: {error.message}") from error
        return
    driver = driver_of(defs, state, definition, guard)
    try:
        replay(driver, state, defs.schemas)
    except SagaCodeError as error:
        if state.parked and state.code == error.code and not isinstance(error, Nondeterminism):
            return  # it is STUCK with that already: the new code changes nothing
        raise
    finally:
        driver.evict()


def _undo(defs: Definitions, step: Step) -> None:
    """Make sure that a step can still be undone: its compensation is there, and reads what was recorded."""
    if not step.compensation or step.child or step.undo_how or step.outcome == REFUSED:
        return
    try:
        if step.kind == LOCAL:
            _importable(step.compensation)
        else:
            _encodable(defs, step)
    except SagaCodeError as error:
        error.step = step.path
        raise


def _importable(name: str) -> None:
    module, _, path = name.partition(":")
    try:
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:
        said = f"{name}, which undoes it, can't be imported: {type(error).__name__}: {error}"
        raise SagaCodeError(said, remedy="Keep the function where it was, under its name.") from error


def _encodable(defs: Definitions, step: Step) -> None:
    contract = defs.contracts.get(step.participant)
    name = step.compensation.removeprefix(f"{step.participant}.")
    spec = contract.compensations.get(name) if contract else None
    if spec is None:
        raise UnknownContract(
            f"step {step.path} is undone by {step.compensation}, which no contract of the App has"
        )
    schemas = defs.schemas
    try:
        of_input = schemas.require(schema_id(step.payload))
        if step.outcome == DONE:
            of_result = schemas.require(schema_id(step.result))
            spec.payload.encode(step.payload, of_input, step.result, of_result, "", None)
        else:
            spec.payload.encode(step.payload, of_input, None, None, "", None)
    except KasagaError as error:
        said = f"the input of {step.compensation}, which undoes step {step.path}: {error.message}"
        raise Unreadable(said) from error
