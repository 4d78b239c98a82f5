"""What came of one run: how the saga ended, what the participants did, and what is wrong with that.

Station: made by `case.py` from a world that has stopped; read by invariants, by tests and by the report.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kasaga_wire.attributes import Stored, merged

from ..engine.attributes import changed_by
from ..engine.model import Emit, Record
from ..engine.state import State
from ..store.base import SagaRow
from ..timeline import as_text
from ..timeline import timeline as told
from ..timeline_data import Decode
from ..wording import moment
from .delivery import Handling
from .faults import NAMED, Fault

Invariant = Callable[["Result"], object]
"""Raises AssertionError, or gives False, where a result mustn't be."""

WIDTH = 110


class Outside:
    """The base of a part of `data` that no rollback reaches: a card network, a mail server.

    What a handler does to it stays done when its transaction is rolled back, as it does outside of tests.
    """

    def __deepcopy__(self, memo: object) -> Outside:
        """Stay the same in every copy."""
        return self


@dataclass(frozen=True)
class Result:
    """One run of a saga.

    Attributes:
        saga: its name.
        faults: what went wrong; of drawn faults, those that there was occasion for.
        struck: those of them that there was occasion for.
        state: COMPLETED, COMPENSATED, STUCK or TERMINATED; RUNNING or another where it came to no end.
        code, reason, remedy: why it was undone or is stuck, and what a person can do.
        value: what the saga returned, None unless it is COMPLETED.
        handled: what the participants did, in order.
        steps: the type of each command by its number in the history.
        data: what `data=` made for this run, as the handlers have left it.
        before: a copy of it from before the run.
        took: how long the saga took, by the virtual clock.
        left: steps that are done and have no compensation, of a saga that is COMPENSATED.
        violations: what is wrong, a sentence each; empty when all invariants hold.
    """

    saga: str
    faults: tuple[Fault, ...]
    struck: tuple[Fault, ...]
    state: str
    code: str
    reason: str
    remedy: str
    value: Any
    handled: tuple[Handling, ...]
    steps: dict[str, str]
    data: Any
    before: Any
    took: timedelta
    left: tuple[str, ...]
    row: SagaRow = field(repr=False)
    folded: State = field(repr=False)
    records: Sequence[Record] = field(repr=False)
    decode: Decode = field(repr=False)
    moved: bool = field(repr=False)
    turns: int = field(repr=False)
    children: Mapping[str, tuple[State, str]] = field(
        default_factory=dict[str, tuple[State, str]], repr=False
    )
    """By id, each saga that was begun as a child, and what its steps' numbers begin with in `handled`."""
    violations: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        """Whether all invariants hold."""
        return not self.violations

    @property
    def what(self) -> str:
        """What goes wrong, in words: `2 payments.charge timed out, happened`."""
        told_of = [
            f"{each.step} {self.steps[each.step]} {NAMED[each.kind][0]}"
            if each.step in self.steps
            else str(each)
            for each in self.faults
        ]
        return " and ".join(told_of) or "nothing goes wrong"

    @property
    def timeline(self) -> str:
        """The saga's story, as `kasaga history` tells it."""
        lines = as_text(told(self.records), self.decode, now=moment(self.records[-1].at), width=WIDTH)
        return "\n".join(lines)

    @property
    def emitted(self) -> list[tuple[str, str, Any]]:
        """The events that the saga published: topic, type, and the event as JSON has it."""
        return [
            (decision.topic, decision.type, json.loads(decision.payload))
            for record in self.records
            for decision in record.decisions
            if isinstance(decision, Emit)
        ]

    @property
    def attributes(self) -> dict[str, Any]:
        """What the saga can be searched by at its end."""
        known: dict[str, Stored] = {}
        for record in self.records:
            known = merged(known, changed_by(record))
        return dict(known)

    def ran(self, type_: str) -> int:
        """How many runs of a command's or compensation's handler stand: `result.ran("payments.charge")`."""
        return sum(each.stands for each in self.handled if each.type == type_)

    def __str__(self) -> str:
        head = f"{self.saga}, {self.what}: {self.state}" + (f" ({self.code})" if self.code else "")
        wrong = [f"  ✗ {violation}" for violation in self.violations]
        story = [f"    {line}" for line in self.timeline.splitlines()]
        return "\n".join([head, *wrong, *story])
