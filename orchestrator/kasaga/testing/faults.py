"""What can go wrong with a step: the kinds of faults, and which of them strike where.

Station: named by tests (`Fault.refused("payments.charge")`), drawn by the matrix and by the simulation,
carried out by `delivery.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from kasaga_wire.contracts import command_of

REFUSED = "refused"
FAILED = "failed"
TIMEOUT_HAPPENED = "timeout_happened"
TIMEOUT_NOT_HAPPENED = "timeout_not_happened"
DUPLICATED = "duplicated"
SLOW_REPLY = "slow_reply"
LATE_REPLY = "late_reply"
LATE_COMMAND = "late_command"
CRASH_BEFORE_COMMIT = "crash_before_commit"
CRASH_AFTER_COMMIT = "crash_after_commit"
RESTART = "restart"
CANCELLED = "cancelled"
PAUSED = "paused"
TERMINATED = "terminated"
UNDO_FAILS = "undo_fails"
UNDO_CRASHES = "undo_crashes"
UNDO_DUPLICATED = "undo_duplicated"

KINDS: dict[str, tuple[str, str]] = {
    REFUSED: ("refused", "the participant says no, for good"),
    FAILED: ("fails", "every attempt fails, until the retries end"),
    TIMEOUT_HAPPENED: ("timed out, happened", "it is executed, and no attempt's reply ever comes"),
    TIMEOUT_NOT_HAPPENED: ("timed out, didn't happen", "no attempt reaches the participant"),
    DUPLICATED: ("duplicated", "command and reply come twice"),
    SLOW_REPLY: ("slow reply", "each reply comes after its attempt has timed out"),
    LATE_REPLY: ("late reply", "the replies come when the step is being undone"),
    LATE_COMMAND: ("late command", "the commands come when the step has been undone"),
    CRASH_BEFORE_COMMIT: ("crash before commit", "the participant dies with the handler's work uncommitted"),
    CRASH_AFTER_COMMIT: ("crash after commit", "the participant dies before it has replied"),
    RESTART: ("restart", "the orchestrator restarts while it waits for the step, and replays the saga"),
    CANCELLED: ("cancelled", "somebody cancels the saga while it waits for the step"),
    PAUSED: ("paused", "somebody pauses the saga while it waits for the step, and resumes it 7 s later"),
    UNDO_FAILS: ("undo fails", "its compensation fails, again and again"),
    UNDO_CRASHES: ("undo crashes", "the participant dies before the compensation's commit"),
    UNDO_DUPLICATED: ("undo duplicated", "its compensation comes twice"),
}
"""Of each kind the head of its column, and what it means."""

NAMED: dict[str, tuple[str, str]] = {
    **KINDS,
    TERMINATED: ("terminated", "somebody ends the saga as it is while it waits for the step"),
}
"""With those that only a test names: after the last resort no promise of an author's is kept."""

UNDO_KINDS = frozenset({UNDO_FAILS, UNDO_CRASHES, UNDO_DUPLICATED})
"""Those that strike when the step is undone."""
ENDING = frozenset(
    {REFUSED, FAILED, TIMEOUT_HAPPENED, TIMEOUT_NOT_HAPPENED, LATE_REPLY, LATE_COMMAND, CANCELLED}
)
"""Those after which a saga that catches nothing is undone."""
PASSING = frozenset(KINDS) - ENDING - UNDO_KINDS
"""Those that a saga shouldn't notice."""
EXCLUDE: tuple[frozenset[str], ...] = (
    ENDING - {CANCELLED} | {SLOW_REPLY},
    frozenset({CRASH_BEFORE_COMMIT, CRASH_AFTER_COMMIT}),
    frozenset({UNDO_FAILS, UNDO_CRASHES}),
)
"""Of each group a step can meet one only."""

Step = str | Callable[..., Any]
"""`payments.charge`, `Payments.charge`, or the step's number in the history: `2`."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong at one step."""

    kind: str
    step: str

    def __post_init__(self) -> None:
        """Refuse what never strikes."""
        if self.kind not in NAMED:
            raise ValueError(f"{self.kind!r} is no fault; there are {', '.join(NAMED)}")

    def __str__(self) -> str:
        return f"{self.step} {NAMED[self.kind][0]}"

    @classmethod
    def of(cls, kind: str, step: Step) -> Fault:
        """Any fault by the name of its kind. Raises ValueError and ContractError."""
        return cls(kind, step if isinstance(step, str) else command_of(step).type)

    @classmethod
    def refused(cls, step: Step) -> Fault:
        """The participant says no, for good."""
        return cls.of(REFUSED, step)

    @classmethod
    def failed(cls, step: Step) -> Fault:
        """Every attempt fails, until the retries end."""
        return cls.of(FAILED, step)

    @classmethod
    def timeout_happened(cls, step: Step) -> Fault:
        """It is executed, and no attempt's reply ever comes."""
        return cls.of(TIMEOUT_HAPPENED, step)

    @classmethod
    def timeout_not_happened(cls, step: Step) -> Fault:
        """No attempt reaches the participant."""
        return cls.of(TIMEOUT_NOT_HAPPENED, step)

    @classmethod
    def duplicated(cls, step: Step) -> Fault:
        """Command and reply come twice."""
        return cls.of(DUPLICATED, step)

    @classmethod
    def slow_reply(cls, step: Step) -> Fault:
        """Each reply comes after its attempt has timed out."""
        return cls.of(SLOW_REPLY, step)

    @classmethod
    def late_reply(cls, step: Step) -> Fault:
        """The replies come when the step has been given up, and is being undone."""
        return cls.of(LATE_REPLY, step)

    @classmethod
    def late_command(cls, step: Step) -> Fault:
        """The commands come when the step has been given up, and undone."""
        return cls.of(LATE_COMMAND, step)

    @classmethod
    def crash_before_commit(cls, step: Step) -> Fault:
        """The participant dies with the handler's work uncommitted, and comes back."""
        return cls.of(CRASH_BEFORE_COMMIT, step)

    @classmethod
    def crash_after_commit(cls, step: Step) -> Fault:
        """The participant dies before it has replied, and comes back."""
        return cls.of(CRASH_AFTER_COMMIT, step)

    @classmethod
    def restart(cls, step: Step) -> Fault:
        """The orchestrator restarts while it waits for the step, and replays the saga's code."""
        return cls.of(RESTART, step)

    @classmethod
    def cancelled(cls, step: Step) -> Fault:
        """Somebody cancels the saga while it waits for the step."""
        return cls.of(CANCELLED, step)

    @classmethod
    def paused(cls, step: Step) -> Fault:
        """Somebody pauses the saga while it waits for the step, and resumes it 7 s later."""
        return cls.of(PAUSED, step)

    @classmethod
    def terminated(cls, step: Step) -> Fault:
        """Somebody ends the saga as it is while it waits for the step."""
        return cls.of(TERMINATED, step)

    @classmethod
    def undo_fails(cls, step: Step) -> Fault:
        """The step's compensation fails, again and again."""
        return cls.of(UNDO_FAILS, step)

    @classmethod
    def undo_crashes(cls, step: Step) -> Fault:
        """The participant dies before the compensation's commit, and comes back."""
        return cls.of(UNDO_CRASHES, step)

    @classmethod
    def undo_duplicated(cls, step: Step) -> Fault:
        """The step's compensation comes twice."""
        return cls.of(UNDO_DUPLICATED, step)


class Plan(Protocol):
    """Says which kinds of faults strike a step."""

    def kinds(self, path: str, type_: str, /) -> frozenset[str]:
        """By the step's number in the history and its command's type."""
        ...


class Given:
    """The faults that a test names."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)

    def kinds(self, path: str, type_: str, /) -> frozenset[str]:
        """Those that name the step by its number or by its type."""
        return frozenset(fault.kind for fault in self.faults if fault.step in (path, type_))


class Drawn:
    """Faults drawn from a seed, step by step: the same seed and the same steps get the same faults."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._kinds: dict[str, frozenset[str]] = {}

    def kinds(self, path: str, type_: str, /) -> frozenset[str]:
        """Up to three that can meet."""
        known = self._kinds.get(path)
        if known is None:
            known = self._kinds[path] = self._draw(Random(f"{self._seed}/{path}/{type_}"))
        return known

    def _draw(self, dice: Random) -> frozenset[str]:
        passing, ending, undo = sorted(PASSING), sorted(ENDING), sorted(UNDO_KINDS)
        found: set[str] = set()
        for kinds, odds in ((passing, 0.4), (passing, 0.2), (ending, 0.25), (undo, 0.3)):
            if dice.random() < odds:
                kind = dice.choice(kinds)
                if not any(kind in group and group & found for group in EXCLUDE):
                    found.add(kind)
        return frozenset(found)
