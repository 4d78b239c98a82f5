"""What must hold of sagas that somebody acted upon: what stands is said, what is sent is decided."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kasaga.engine.leftovers import leftovers
from kasaga.engine.lifecycle import TERMINATED
from kasaga.engine.model import COMMAND, Asked, Fence, Record, Settle
from kasaga.engine.state import State


def fences(records: Iterable[Record]) -> set[tuple[str, int]]:
    """The voids that went out behind sagas that were terminated: step and attempt."""
    return {
        (f"{decision.step}~void", 1)
        for record in records
        for decision in record.decisions
        if isinstance(decision, Fence)
    }


def unsaid(state: State, stands: set[str]) -> Iterator[str]:
    """Whatever stands of a terminated saga is among what it says that it leaves."""
    if state.state != TERMINATED:
        return
    left = {each.step for each in leftovers(state)}
    for step in state.order:
        by_hand = step.undo_how in ("skipped", "resolved")
        if step.kind == COMMAND and step.path in stands - left and not by_hand:
            yield f"it is TERMINATED, and {step.type} (step {step.path}) stands, which it doesn't say"


def resolved(records: Iterable[Record], path: str) -> bool:
    """Whether an operator has said how a step ended."""
    return any(
        isinstance(decision, Settle) and decision.step == path
        for record in records
        if isinstance(record.event, Asked) and record.event.action == "resolve"
        for decision in record.decisions
    )
