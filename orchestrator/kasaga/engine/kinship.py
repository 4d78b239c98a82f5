"""A saga and the one that began it: what the child keeps of its parent, and when it answers.

To the parent a child is a step: a command to the participant `kasaga`, whose answers are replies like any
others. So all that a saga does with its steps it does with children. Here is the child's side: it says
`deferred` when it has begun (or `done`, if the parent doesn't wait for its end), and how it ended; and, when
the parent takes it back, `undone` at the end of its own compensations.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from . import lifecycle

if TYPE_CHECKING:
    from .decisions import Decisions
    from .state import State

CHILDREN = "kasaga"
"""Stands as the participant of a step that is a child. No participant can have this name."""

AWAIT, LEAVE = "await", "leave"
"""Whether the step is done when the child is, or when it has begun."""

MAX_DEPTH = 16
"""Children of children: a saga that begins itself would never end."""

MAX_SAGA_ID = 256
"""Characters of a saga's id, as the wire has it."""

ENDED, TOO_DEEP = "kasaga.ChildEnded", "kasaga.TooDeep"
"""Error types of a child that ended undone or was terminated, and of one that never begins."""


class Parent(NamedTuple):
    """Who began this saga, and where it is told what becomes of it."""

    saga_id: str
    command: str
    """The id of the parent's command: its run's, and the step's path."""
    attempt: int
    reply_to: str
    """`topic/partition`."""
    waits: bool
    depth: int
    fence: str = ""
    """The form of the undo or void that came before the child had begun: then it never does."""
    reason: str = ""
    """Why, in words."""


class Recalled(NamedTuple):
    """The parent undoes the step that this saga is."""

    command: str
    """The id of the parent's command, without its suffix."""
    run_id: str
    form: str
    attempt: int
    knowledge: str
    """`done` or `unknown`: what the parent knows of the step."""
    last_sent: int
    """When the parent last asked the child to begin."""
    parent: Parent
    name: str
    version: int
    traceparent: str = ""
    tracestate: str = ""


class Report(NamedTuple):
    """Tell the parent what became of its child. Takes one outbox row.

    A result, or why there is none, is the saga's own at that time.
    """

    form: str
    outcome: str


class Recall(NamedTuple):
    """The parent's undo is carried out: at the saga's end it is told so."""

    form: str
    attempt: int


def child_id(saga_id: str, path: str) -> str:
    """Name a child after its parent's step, where no id is given."""
    name = f"{saga_id}.{path}"
    if len(name) <= MAX_SAGA_ID:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{saga_id[: MAX_SAGA_ID - 17]}~{digest}"


def begun(turn: Decisions) -> None:
    """The child has begun: say so."""
    parent = turn.state.parent
    if parent is not None and not parent.fence:
        turn.add(Report("command", "deferred" if parent.waits else "done"))


def told(turn: Decisions, what: str) -> None:
    """The child has ended, or is STUCK: say so, if the parent waits for its end or its being undone."""
    state = turn.state
    parent = state.parent
    if parent is None or what not in (*lifecycle.FINAL, lifecycle.STUCK):
        return
    if state.recalled:
        turn.add(Report("undo", "undone" if what == lifecycle.COMPENSATED else "failed"))
    elif what == lifecycle.STUCK:
        return  # it may go on, and the parent waits
    elif parent.fence:
        turn.add(Report(parent.fence, "nothing" if parent.fence == "undo" else "voided"))
    elif parent.waits:
        turn.add(Report("command", OUTCOMES[what]))


OUTCOMES = {lifecycle.COMPLETED: "done", lifecycle.COMPENSATED: "refused", lifecycle.TERMINATED: "failed"}
"""What the parent's step is answered by each end."""


def refuses(state: State) -> str:
    """Say why a child that has begun can't be undone, or return an empty text."""
    if state.pivot is not None:
        return "it has passed its pivot: it only goes forward"
    if state.state == lifecycle.TERMINATED:
        return f"it was ended as it was: {state.reason}"
    return ""


def recall(state: State, decision: Recall, row: int) -> None:
    """Apply a Recall."""
    if state.parent is None:
        raise ValueError("only a child is taken back")
    state.recalled = decision.attempt
