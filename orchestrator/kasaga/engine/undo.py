"""Undoing: compensations one after the other in reverse, and voids of steps of unknown outcome.

A step of unknown outcome is cleared by its compensation where the contract has one (the fence at
the participant makes that a void when the step never happened), otherwise by a void. Undos are
retried without end; after a stated number the saga is STUCK while they go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kasaga_wire.codec import schema_id
from kasaga_wire.contracts import CompensationSpec
from kasaga_wire.errors import KasagaError

from . import lifecycle
from ..errors import CannotUndo, UndoFails, UnknownContract
from .backoff import backoff
from .model import DONE, LOCAL, UNDO, VOID, Clear, Fired, Move, Ran, Replied, RunLocal, Send, Undeliverable

if TYPE_CHECKING:
    from .decide import Turn
    from .state import Step

CLEARED = frozenset({"undone", "nothing", "lost", "voided", "refused", "done"})
"""Answers after which nothing of the step is left at its participant."""

TRY_AGAIN = frozenset({"failed", "expired", "undecodable", "conflict"})
"""Answers that count only for the attempt that they answer."""

VOID_TYPE = "kasaga.void"


def advance(turn: Turn) -> None:
    """Send the next undo, or end the saga when none is left."""
    state = turn.state
    if state.undo_cursor < 0:
        state.undo_cursor = len(state.order)
    while state.undo_cursor > 0:
        step = state.order[state.undo_cursor - 1]
        if step.undo_open:
            if step.blocked is not None and state.state != lifecycle.STUCK:
                turn.stuck(step.blocked)
            return
        if step.to_undo:
            send(turn, step, state.undo_reason, state.undo_step)
            return
        state.undo_cursor -= 1
    turn.finish(lifecycle.COMPENSATED)


def send(turn: Turn, step: Step, reason: str, failed_step: str) -> None:
    """Let the first attempt of a step's undo or void go out."""
    policy = step.undo_policy
    assert policy is not None
    if step.kind == LOCAL:
        turn.add(RunLocal(step.path, UNDO, 1, step.compensation))
        return
    due = turn.at + policy.timeout
    if not step.compensation:
        turn.add(Send(step.path, VOID, 1, VOID_TYPE, step.participant, due, 0, step.key))
        return
    try:
        payload = _payload(turn, step, reason, failed_step)
    except KasagaError as error:
        move = Move(lifecycle.STUCK, error.code, error.message, error.remedy, step.path, False, turn.defs.fingerprint)
        if turn.state.state != lifecycle.STUCK or turn.state.reason != move.reason:
            turn.stuck(move)
        return
    turn.add(Send(step.path, UNDO, 1, step.compensation, step.participant, due, 0, step.key, payload))


def _payload(turn: Turn, step: Step, reason: str, failed_step: str) -> bytes:
    spec = compensation(turn, step)
    schemas = turn.defs.schemas
    done = step.outcome == DONE and step.result
    return spec.payload.encode(
        step.payload,
        schemas.require(schema_id(step.payload)),
        step.result if done else None,
        schemas.require(schema_id(step.result)) if done else None,
        reason,
        failed_step or None,
    )


def compensation(turn: Turn, step: Step) -> CompensationSpec:
    """Find the contract's compensation of a step; raises UnknownContract."""
    contract = turn.defs.contracts.get(step.participant)
    name = step.compensation.removeprefix(f"{step.participant}.")
    spec = contract.compensations.get(name) if contract else None
    if spec is None:
        raise UnknownContract(f"step {step.path} is undone by {step.compensation}, which no contract of the App has")
    return spec


def note(turn: Turn, step: Step, event: Replied | Fired | Ran | Undeliverable) -> None:
    """Note the answer to an undo or a void."""
    if not step.undo_open:
        return
    if isinstance(event, Replied):
        if event.outcome in CLEARED:
            clear(turn, step, event.outcome)
        elif event.outcome in TRY_AGAIN:
            if event.attempt == step.undo_attempt:
                retry(turn, step, event.error or event.outcome, at_once=event.error_type == "Refused")
        else:
            error = CannotUndo(
                f"{step.type} (step {step.path}) was executed though its answer never came, and it has no compensation"
                if event.outcome == "executed"
                else f"{step.type} (step {step.path}): its participant can't say whether it was executed"
            )
            turn.stuck(Move(lifecycle.STUCK, error.code, error.message, error.remedy, step.path))
    elif isinstance(event, Ran):
        if event.ok:
            clear(turn, step, "undone")
        elif event.attempt == step.undo_attempt:
            retry(turn, step, f"{event.error_type}: {event.error}")
    elif isinstance(event, Undeliverable):
        retry(turn, step, event.error)
    elif step.blocked is None or step.blocked.code == UndoFails.code:
        retry(turn, step, "no answer in time")


def retry(turn: Turn, step: Step, error: str, *, at_once: bool = False) -> None:
    """Plan the next attempt; say STUCK after as many as the policy names, or `at_once`."""
    policy = step.undo_policy
    assert policy is not None
    tried = step.undo_attempt
    name = step.compensation or VOID_TYPE
    wait = backoff(policy, tried, f"{turn.state.run_id}.{step.path}~{step.undo_form}")
    again(turn, step, turn.at + wait)
    if at_once or (policy.maximum_attempts and tried >= policy.maximum_attempts):
        if turn.state.state != lifecycle.STUCK:
            fails = UndoFails(f"{name} (undo of step {step.path}) has failed {tried} times, the last time with: {error}")
            turn.stuck(Move(lifecycle.STUCK, fails.code, fails.message, fails.remedy, step.path))


def again(turn: Turn, step: Step, send_at: int) -> None:
    """Send the undo or void once more, with the same bytes."""
    policy = step.undo_policy
    assert policy is not None
    attempt = step.undo_attempt + 1
    if step.kind == LOCAL:
        turn.add(RunLocal(step.path, UNDO, attempt, step.compensation, send_at))
        return
    name = step.compensation if step.undo_form == UNDO else VOID_TYPE
    due = send_at + policy.timeout
    turn.add(Send(step.path, step.undo_form, attempt, name, step.participant, due, send_at, step.key))


def clear(turn: Turn, step: Step, how: str) -> None:
    """A step needs no undo any more."""
    turn.add(Clear(step.path, how))
    state = turn.state
    if state.state == lifecycle.STUCK and state.stuck_step == step.path and not state.parked:
        turn.unstuck()
        for other in state.order:
            if other.blocked is not None:
                turn.stuck(other.blocked)
                break
