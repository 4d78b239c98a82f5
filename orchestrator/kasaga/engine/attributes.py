"""Search attributes: the decision that sets them, and what a saga has after it. Pure.

Values are JSON text in the history (`kasaga_wire.attributes`), as they came on the start. They are notes
about a saga and nothing that it does: a replay compares none of them, so code that sets others is no other
version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kasaga_wire.attributes import MAX_ATTRIBUTES, Changes, from_text, merged

from ..errors import WrongAttributes

if TYPE_CHECKING:
    from .model import Record
    from .state import State


class SetAttributes(NamedTuple):
    """Search attributes that the saga's code sets, or takes away with a null. No row, and no step."""

    changes: bytes
    """JSON text."""


def change(state: State, changes: bytes) -> None:
    """Take what is set into the state."""
    state.attributes = merged(state.attributes or {}, from_text(changes))


def apply(state: State, decision: SetAttributes, row: int) -> None:
    """Fold the decision."""
    change(state, decision.changes)


def too_many(state: State, effects: list[SetAttributes]) -> WrongAttributes | None:
    """Say that a saga would have more attributes than one may."""
    known = dict(state.attributes or {})
    for effect in effects:
        known = merged(known, from_text(effect.changes))
    if len(known) <= MAX_ATTRIBUTES:
        return None
    said = f"the saga would have {len(known)} attributes, over {MAX_ATTRIBUTES}"
    return WrongAttributes(said, remedy="Take some away, by setting them to None, or search by fewer")


def changed_by(record: Record) -> Changes:
    """What one record sets and takes away."""
    made: Changes = {}
    texts = [getattr(record.event, "attributes", b"")]
    texts += [each.changes for each in record.decisions if isinstance(each, SetAttributes)]
    for text in texts:
        made.update(from_text(text))
    return made
