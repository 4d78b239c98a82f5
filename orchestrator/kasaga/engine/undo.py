"""Undoing: compensations one after the other in reverse, and voids of steps of unknown outcome.

A step of unknown outcome is cleared by its compensation where the contract has one (the fence at
the participant makes that a void when the step never happened), otherwise by a void. Undos are
retried without end; after a stated number the saga is STUCK while they go on.
"""

from __future__ import annotations

from kasaga_wire.codec import schema_id
from kasaga_wire.contracts import CompensationSpec
from kasaga_wire.errors import KasagaError

from ..errors import CannotUndo, StillWaiting, UndoFails, UnknownContract
from . import lifecycle
from .backoff import backoff
from .decisions import Decisions
from .model import (
    COMMAND,
    CUT_OFF,
    DONE,
    LOCAL,
    SCOPE,
    SCOPED,
    UNDO,
    UNDONE,
    UNKNOWN,
    VOID,
    Clear,
    Ran,
    Replied,
    RunLocal,
    Send,
    Settle,
    Unblock,
    Undeliverable,
)
from .relevance import CLEARED, EXECUTED
from .resets import RESET
from .state import SKIPPED, Step, StepEvent

VOID_TYPE = "kasaga.void"

LOST_RACE = "kasaga.LostRace"
"""Error type of a step that was in flight when its branch lost a race."""


def advance(turn: Decisions) -> bool:
    """Send the next undo in reverse order of scheduling; say whether none is left."""
    state = turn.state
    if state.undo_cursor < 0:
        state.undo_cursor = len(state.order)
    while state.undo_cursor > 0:
        step = state.order[state.undo_cursor - 1]
        if step.to_undo and step.blocked is None:
            send(turn, step, state.undo_reason, state.undo_step)
        if step.undo_open or step.blocked is not None:
            return False
        state.undo_cursor -= 1
    return True


def advance_lost(turn: Decisions) -> bool:
    """The same of what is undone though the saga goes on, each list by itself."""
    state = turn.state
    if not state.lost:
        return True
    for steps in state.lost:
        while steps:
            step = steps[-1]
            if step.to_undo and step.blocked is None:
                send(turn, step, *_why(step, steps[0]))
            if step.undo_open or step.blocked is not None:
                break
            if not step.outcome:
                if step.kind != SCOPE:
                    break  # in flight yet: its outcome is waited for
                turn.add(Settle(step.path, UNDONE, b"", "", step.error))
            steps.pop()
    state.lost = [steps for steps in state.lost if steps]
    return not state.lost


def _why(step: Step, first: Step) -> tuple[str, str]:
    """Why a step is undone though the saga goes on, and because of which other step."""
    if first.left == SCOPED:
        return first.error, first.details
    if step.left == RESET:
        return "the saga was set back to an earlier step", ""
    return "the time of its block is over" if step.left == CUT_OFF else "its branch lost a race", ""


def send(turn: Decisions, step: Step, reason: str, failed_step: str) -> None:
    """Let the first attempt of a step's undo or void go out."""
    policy = step.undo_policy
    assert policy is not None
    if step.kind == LOCAL:
        turn.add(RunLocal(step.path, UNDO, 1, step.compensation))
    elif not step.compensation:
        send_void(turn, step)
    else:
        try:
            payload = b"" if step.child else _payload(turn, step, reason, failed_step)
        except KasagaError as error:
            turn.block(step, error, fingerprint=turn.defs.fingerprint)
            return
        due = turn.at + policy.timeout
        turn.add(Send(step.path, UNDO, 1, step.compensation, step.participant, due, 0, step.key, payload))


def send_void(turn: Decisions, step: Step) -> None:
    """Ask the participant to make sure that the step never happens, or to say that it did."""
    policy = step.undo_policy
    assert policy is not None
    turn.add(Send(step.path, VOID, 1, VOID_TYPE, step.participant, turn.at + policy.timeout, 0, step.key))


def _payload(turn: Decisions, step: Step, reason: str, failed_step: str) -> bytes:
    """Encode an undo's input; a result that would make it too large is left out.

    The participant has the stored one, unless its inbox has forgotten the step.
    """
    spec = compensation(turn, step)
    schemas = turn.defs.schemas
    of_input = schemas.require(schema_id(step.payload))
    if step.outcome == DONE:
        result = (step.result, schemas.require(schema_id(step.result)))
        payload = spec.payload.encode(step.payload, of_input, *result, reason, failed_step or None)
        if len(payload) <= turn.defs.max_payload:
            return payload
    return spec.payload.encode(step.payload, of_input, None, None, reason, failed_step or None)


def compensation(turn: Decisions, step: Step) -> CompensationSpec:
    """Find the contract's compensation of a step; raises UnknownContract."""
    contract = turn.defs.contracts.get(step.participant)
    name = step.compensation.removeprefix(f"{step.participant}.")
    spec = contract.compensations.get(name) if contract else None
    if spec is None:
        undone = f"step {step.path} is undone by {step.compensation}"
        raise UnknownContract(f"{undone}, which no contract of the App has")
    return spec


def note(turn: Decisions, step: Step, event: StepEvent) -> None:
    """Note what became of an undo or a void."""
    if isinstance(event, Replied):
        _replied(turn, step, event)
    elif isinstance(event, Ran):
        if event.ok:
            turn.add(Clear(step.path, "undone"))
        else:
            _retry(turn, step, f"{event.error_type}: {event.error}")
    elif isinstance(event, Undeliverable):
        _retry(turn, step, event.error)
    else:
        _retry(turn, step, "no answer in time")


def _replied(turn: Decisions, step: Step, event: Replied) -> None:
    outcome, what = event.outcome, f"{step.type} (step {step.path})"
    if outcome in CLEARED[event.form]:
        turn.add(Clear(step.path, outcome))
    elif outcome == EXECUTED and step.skipping:
        turn.add(Clear(step.path, SKIPPED))
    elif outcome == EXECUTED and (step.error_type == LOST_RACE or step.child):
        turn.add(Clear(step.path, EXECUTED))  # like a step that is done and that nothing undoes
    elif outcome == EXECUTED:
        error = CannotUndo(f"{what} was executed though its answer never came, and nothing undoes it")
        turn.block(step, error, halted=True)
    elif outcome == "expired" and event.form == VOID:
        said = event.error or "it is too old to tell"
        _retry(turn, step, said, stuck=CannotUndo(f"nobody can know whether {what} was executed: {said}"))
    else:
        said = f"{event.error_type}: {event.error}" if event.error else outcome
        hopeless = event.error_type == "Refused" or outcome not in _FAILURES
        _retry(turn, step, said, stuck=_fails(step, said) if hopeless else None)


_FAILURES = frozenset({"failed", "expired", "undecodable"})
"""Ways in which an attempt fails that a later one may not."""


def _retry(turn: Decisions, step: Step, error: str, *, stuck: StillWaiting | None = None) -> None:
    """Plan the next attempt; be STUCK after as many as the policy names, or at once with `stuck`."""
    policy = step.undo_policy
    assert policy is not None
    tried = step.undo_attempt
    if step.blocked is None and (stuck or (policy.maximum_attempts and tried >= policy.maximum_attempts)):
        turn.block(step, stuck or _fails(step, error))
    again(turn, step, turn.at + backoff(policy, tried, f"{turn.state.run_id}.{step.path}~{step.undo_form}"))


def _fails(step: Step, error: str) -> UndoFails:
    name = step.compensation if step.undo_form == UNDO else f"the void of {step.type}"
    times = "once" if step.undo_attempt <= 1 else f"{step.undo_attempt} times"
    return UndoFails(f"{name} (undo of step {step.path}) has failed {times}: {error}")


def again(turn: Decisions, step: Step, send_at: int) -> None:
    """Send the undo or void once more, with the same bytes."""
    send_attempt(turn, step, step.undo_attempt + 1, send_at)


def send_attempt(turn: Decisions, step: Step, attempt: int, send_at: int) -> None:
    """Let one attempt of an undo or void go out that isn't its first."""
    policy = step.undo_policy
    assert policy is not None
    delayed = send_at if send_at > turn.at else 0
    if step.kind == LOCAL:
        turn.add(RunLocal(step.path, UNDO, attempt, step.compensation, delayed))
        return
    name = step.compensation if step.undo_form == UNDO else VOID_TYPE
    due = send_at + policy.timeout
    turn.add(Send(step.path, step.undo_form, attempt, name, step.participant, due, delayed, step.key))


def go_on(turn: Decisions, step: Step) -> None:
    """Try again at once what a step is blocked by."""
    turn.add(Unblock(step.path))
    if not step.outcome:
        turn.resend(step)
    elif step.undo_open:
        again(turn, step, turn.at)
    elif turn.state.phase == lifecycle.RUNNING:
        send(turn, step, step.error, step.path)
    # else: `advance` sends it when it is its turn


def skip(turn: Decisions, step: Step) -> None:
    """Leave a step as it is. Of an unknown one the participant is told, so that it can't happen yet."""
    if step.kind == COMMAND and step.outcome == UNKNOWN and step.compensation and not step.skipping:
        turn.add(Unblock(step.path))
        send_void(turn, step)
    else:
        turn.add(Clear(step.path, SKIPPED))
