"""What an audit can find, each with a code that stays the same for ever and a remedy.

Each code has a section in orchestrator/errors.md; a test holds that.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """What is wrong. The value is the code."""

    EFFECT_MISSING = "KSG-640"
    EFFECT_LEFT = "KSG-641"
    FENCE_MISSING = "KSG-642"
    NOT_UNDONE = "KSG-643"
    UNDONE_UNASKED = "KSG-644"
    OTHER_CONTENT = "KSG-645"
    UNKNOWN_STEP = "KSG-646"
    HALF_DONE = "KSG-647"
    UNREADABLE = "KSG-648"

    @property
    def remedy(self) -> str:
        """What to do."""
        return REMEDIES[self]


REMEDIES: dict[Rule, str] = {
    Rule.EFFECT_MISSING: (
        "Look for the effect in the participant's own tables. If it is missing, do it by hand or undo the "
        "other steps; find out whether its database was restored or its inbox emptied"
    ),
    Rule.EFFECT_LEFT: (
        "Undo this effect by hand at the participant, and find out who let the command pass its fence: a "
        "handler outside of the inbox's transaction, rows deleted early, a database restored"
    ),
    Rule.FENCE_MISSING: (
        "A late copy of the command would be executed. See that none is in the topic, that the participant's "
        "retention is at least twice its max_age, and that nobody else deletes from its inbox"
    ),
    Rule.NOT_UNDONE: (
        "Look in the participant's tables whether the effect is still there, and undo it by hand; find out "
        "whether its database was restored"
    ),
    Rule.UNDONE_UNASKED: (
        "Do the step again by hand, or undo the others; find out who sent the undo: a second orchestrator, "
        "or one whose database went back in time"
    ),
    Rule.OTHER_CONTENT: (
        "The command was executed with something else than the saga knows: compare `kasaga history` with the "
        "participant's tables, and correct one of the two by hand"
    ),
    Rule.UNKNOWN_STEP: (
        "Undo this effect by hand: no saga knows of it. The orchestrator's database has probably gone back "
        "in time"
    ),
    Rule.HALF_DONE: (
        "Report it with `kasaga export`; undo or finish by hand what `kasaga history` shows as open"
    ),
    Rule.UNREADABLE: "Restore the damaged rows from a backup, see KSG-211; until then nobody can tell",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One step, or one saga, that isn't what its history says."""

    rule: Rule
    saga_id: str
    run_id: str
    saga: str
    state: str
    step: str
    """Its path, or empty where the finding is about the whole saga."""
    type: str
    participant: str
    history: str
    """What the history says, in words."""
    inbox: str
    """What the participant says, in words; empty where it wasn't asked."""

    def document(self) -> dict[str, str]:
        """As JSON."""
        return {
            "code": self.rule.value,
            "saga_id": self.saga_id,
            "run_id": self.run_id,
            "saga": self.saga,
            "state": self.state,
            "step": self.step,
            "command": self.type,
            "participant": self.participant,
            "history": self.history,
            "inbox": self.inbox,
            "remedy": self.rule.remedy,
        }

    def line(self) -> str:
        """As a sentence or two."""
        where = f"step {self.step} ({self.type})" if self.step else "the saga"
        says = f"; {self.participant} says: {self.inbox}" if self.inbox else ""
        return (
            f"{self.rule.value}  {self.saga} {self.saga_id} ({self.state}), {where}: "
            f"history says: {self.history}{says}"
        )
