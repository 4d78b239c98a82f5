"""What a saga would leave behind if it ended now: what stands, what may stand, what is being undone.

Pure, from the state alone. Said by halt.py when a saga is terminated, and before that by whoever tells what
would happen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .model import DONE, REFUSED, Ran, Replied
from .relevance import CLEARED, EXECUTED
from .step import NO_EFFECT, SKIPPED

if TYPE_CHECKING:
    from .state import State
    from .step import Step, StepEvent

STANDS, MAYBE, UNDOING = "done", "unknown", "undoing"
"""It is done and nobody undoes it; it may have happened, or happen yet; its undo is out, and nobody waits for
what becomes of it."""

NAMED = 20
"""Steps of each sort that a sentence names; all of them are data."""


class Leftover(NamedTuple):
    """One step that a saga leaves behind."""

    step: str
    name: str
    what: str
    """`done`, `unknown` or `undoing`."""
    compensation: str
    """What would undo it, or empty: nothing does."""


def leftovers(state: State) -> list[Leftover]:
    """Say what the saga leaves, in the order in which its steps were scheduled.

    Answers that came while it was held, and that aren't decided yet, count.
    """
    news: dict[tuple[str, str], str] = {}
    for event in state.pending:
        if (outcome := said(event)) in (DONE, REFUSED, EXECUTED) or outcome in CLEARED.get(event.form, ()):
            news[event.step, event.form] = outcome
    found: list[Leftover] = []
    for step in state.order:
        what = _what(step, news)
        if what:
            found.append(Leftover(step.path, step.type, what, step.compensation))
    return found


def said(event: StepEvent) -> str:
    """What news of a step say in one word: a reply's outcome; of a local function done, refused or failed."""
    if isinstance(event, Replied):
        return event.outcome
    if isinstance(event, Ran) and event.ok:
        return DONE
    return REFUSED if isinstance(event, Ran) and event.error_type == "SagaFailed" else ""


def _what(step: Step, news: dict[tuple[str, str], str]) -> str:
    if step.kind in NO_EFFECT:
        return ""
    if step.undo_how:
        return STANDS if step.undo_how in (SKIPPED, EXECUTED) else ""
    outcome = step.outcome or news.get((step.path, step.kind), "")
    if outcome == REFUSED:
        return ""
    if step.undo_form:
        how = news.get((step.path, step.undo_form), "")
        if how == EXECUTED or (step.blocked is not None and step.blocked.halted):
            return STANDS
        return "" if how else UNDOING
    return STANDS if outcome == DONE else MAYBE


def told(left: list[Leftover]) -> str:
    """Say in one sentence what is left."""
    parts: list[str] = []
    for what, words in (
        (STANDS, "done and not undone"),
        (MAYBE, "may have happened"),
        (UNDOING, "being undone"),
    ):
        names = [f"{each.step} ({each.name})" for each in left if each.what == what]
        if names:
            more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
            parts.append(f"{words}: {', '.join([*names[:NAMED], *more])}")
    return f"it leaves {'; '.join(parts)}" if parts else "it leaves nothing"
