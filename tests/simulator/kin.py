"""What must be true of sagas and their children: two histories that know of each other by messages alone.

Station: called by the book, at the commit that begins a child, and at the end for all sagas.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from kasaga.engine.codec import decode
from kasaga.engine.kinship import AWAIT, Recall, Recalled
from kasaga.engine.lifecycle import COMPENSATED, COMPLETED, FINAL, TERMINATED
from kasaga.engine.model import (
    COMMAND,
    CUT_OFF,
    DONE,
    LOST,
    REFUSED,
    SCOPED,
    UNDO_FORMS,
    Record,
    Send,
    Started,
)
from kasaga.engine.state import State, fold
from kasaga.engine.step import Step
from kasaga.orchestrator.children import child_run_id
from kasaga.store.base import FINAL_STATES, SagaRow
from kasaga_wire.records import NULL_PAYLOAD
from simulator import halted

if TYPE_CHECKING:
    from simulator.audit import Audit
    from simulator.world import World

BY_HAND = ("skipped", "resolved")


def records_of(world: World, run_id: UUID) -> list[Record]:
    """What a run has decided, also what Postgres has lost of it since."""
    tables = world.store._tables  # pyright: ignore[reportPrivateUsage]
    rows = [(row.seq, row.body) for row in tables.history.get(run_id, {}).values()]
    return [decode(seq, body) for seq, body in (*rows, *world.book.lost_rows.get(run_id, []))]


def unasked(world: World, run_id: UUID, first: bytes) -> str:
    """Say what is wrong with a saga that begins as a child: its parent must have committed that."""
    event = decode(1, first).event
    if not isinstance(event, Started) or event.parent is None:
        return ""
    parent_id, _, path = event.parent.command.partition(".")
    forms = UNDO_FORMS if event.parent.fence else {COMMAND}
    records = records_of(world, UUID(parent_id))
    sends = [each for each in _sends(records) if each.step == path]
    if event.parent.fence and (f"{path}~void", event.parent.attempt) in halted.fences(records):
        return ""
    if any(each.form in forms and each.attempt == event.parent.attempt for each in sends):
        return ""
    return f"{event.saga_id} ({run_id}) began as a child that its parent hasn't asked for"


def _sends(records: Iterable[Record]) -> Iterator[Send]:
    return (each for record in records for each in record.decisions if isinstance(each, Send))


def waits(world: World, row: SagaRow, leaves: Callable[[SagaRow], bool]) -> bool:
    """Whether a saga waits for a child, or a child's being undone, that an operator has left as it is."""
    if row.state in FINAL_STATES:
        return False
    state = fold(str(row.run_id), [decode(each.seq, each.body) for each in world.store.history(row)])
    runs = {each.run_id: each for each in world.sagas()}
    open_children = (
        runs.get(UUID(child_run_id(f"{state.run_id}.{step.path}")))
        for step in state.order
        if step.child and (not step.outcome or step.undo_open)
    )
    return any(child is not None and leaves(child) for child in open_children)


@dataclass
class Ties:
    """Who is whose child, at the end."""

    world: World
    audits: Mapping[UUID, Audit]

    def wrong(self) -> Iterator[tuple[Audit, str]]:
        """Everything that isn't as promised: whose, and what."""
        for audit in self.audits.values():
            for why in self._recalls(audit):
                yield audit, why
            for step in audit.state.order:
                if step.child:
                    for why in self._step(audit, step):
                        yield audit, why

    def _recalls(self, audit: Audit) -> Iterator[str]:
        """A saga is taken back by its parent alone, once."""
        recalls = [each for record in audit.records for each in record.decisions if isinstance(each, Recall)]
        if len(recalls) > 1:
            yield f"it was taken back {len(recalls)} times"
        parent = audit.state.parent
        for record in audit.records:
            event = record.event
            if not isinstance(event, Recalled):
                continue
            run_id, _, path = event.command.partition(".")
            if parent is None or (event.command, event.run_id) != (parent.command, audit.state.run_id):
                yield f"it was taken back by {event.parent.saga_id}, which isn't its parent"
                continue
            asked = [
                each
                for each in _sends(records_of(self.world, UUID(run_id)))
                if each.step == path and each.form == event.form
            ]
            if not asked:
                yield "it was taken back, and its parent hasn't asked for that"

    def _step(self, audit: Audit, step: Step) -> Iterator[str]:
        """How a child stands, and what its parent knows of it."""
        state = audit.state
        if state.state not in FINAL or step.undo_how in BY_HAND or halted.resolved(audit.records, step.path):
            return
        child = self.audits.get(UUID(child_run_id(f"{state.run_id}.{step.path}")))
        if audit.excused or (child is not None and child.excused):
            return
        began = child is not None and not (child.state.parent is not None and child.state.parent.fence)
        how = child.state.state if child is not None and began else "never begun"
        what = f"child {step.key.decode()} (step {step.path}, {step.type}) is {how}"
        known = _known(step, how, began, state)
        if known:
            yield f"{what}, and {known}"
        done = step.child == AWAIT and step.outcome == DONE and not step.undo_form
        if done and child is not None and step.result != (child.returned or NULL_PAYLOAD):
            yield f"{what}, and its result isn't what its parent has"
        if not began or how in (COMPENSATED, "STUCK"):
            return
        if state.state == COMPENSATED and step.compensation:
            yield f"{what}, and its parent is COMPENSATED"
        if state.state == COMPLETED and step.compensation and step.left in (SCOPED, CUT_OFF, LOST):
            yield f"{what}, though its parent has left it ({step.left})"
        if state.state == TERMINATED and f"{step.path} ({step.type})" not in state.reason:
            yield f"{what}, and its parent, which was terminated, doesn't say so"


def _known(step: Step, how: str, began: bool, parent: State) -> str:
    """What the parent has recorded, if that isn't so."""
    if step.undo_how == "undone":
        return "" if how == COMPENSATED else "its parent takes it for undone"
    if step.undo_how in ("nothing", "voided"):
        return "its parent takes it for never begun" if began else ""
    if step.outcome == REFUSED:
        return "" if how in (COMPENSATED, "never begun") else "its parent takes it for refused"
    if step.outcome != DONE or step.undo_form:
        return ""
    if step.child == AWAIT:
        return "" if how == COMPLETED else "its parent takes it for done"
    return "its parent takes it for begun" if not began else ""
