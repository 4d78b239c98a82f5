"""What every store keeps of schedules: how far each is planned, and its recent firings.

Station: a part of `base.Store`. The owner of shard 0 plans and fires (`orchestrator.scheduler`), fenced by
that shard's
token; people pause, trigger and backfill from anywhere, by rows that it finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

RECENT = 20
"""Starts kept of each schedule that nothing is to be done about any more; as many of what didn't begin."""
MAX_WAITING = 1000
"""Firings of one schedule that wait: no more can be asked for."""


class FiringState(StrEnum):
    """How far a firing has come."""

    WAITING = "waiting"
    """For its time, or for a saga before it."""
    SENDING = "sending"
    """It is decided that its saga begins; sent until Kafka has it, by whoever owns shard 0."""
    SENT = "sent"
    SKIPPED = "skipped"
    MISSED = "missed"
    FAILED = "failed"
    """Its input can't be made."""


OPEN = frozenset({FiringState.WAITING, FiringState.SENDING})


class Cause(StrEnum):
    """Why a saga begins."""

    DUE = "due"
    TRIGGER = "trigger"
    BACKFILL = "backfill"


@dataclass(slots=True)
class Firing:
    """One due time of one schedule; there is one row for each."""

    due: datetime
    cause: Cause
    state: FiringState
    at: datetime
    """When it is to begin while it waits; else when the state became what it is."""
    saga_id: str
    reason: str = ""


@dataclass(slots=True)
class ScheduleRow:
    """One schedule."""

    name: str
    definition: str
    """JSON, as `schedules.Schedule.definition` makes it."""
    declared: bool
    """Whether the App that was announced last has it. Else it isn't fired."""
    paused: bool
    by: str
    """Who paused or resumed it, and why."""
    position: datetime
    """Due times up to here are planned."""
    firings: list[Firing] = field(default_factory=list[Firing])
    """By due time."""


class Scheduling(Protocol):
    """A part of `base.Store`; its methods may be called by any thread. Each raises StoreUnavailable.

    `token`: shard 0's; where it isn't that any more, nothing is written and False or 0 returned.
    """

    def declare_schedules(self, token: UUID, definitions: Mapping[str, str]) -> bool:
        """Keep what the App declares, by name.

        New ones begin now; those that aren't among them are kept as they were, undeclared.
        """
        ...

    def schedules(self, name: str = "") -> tuple[datetime, list[ScheduleRow]]:
        """Return the database's time, and all schedules by name with their firings, or the one of a name."""
        ...

    def plan_schedule(
        self, token: UUID, name: str, was: datetime, position: datetime, firings: Sequence[Firing]
    ) -> bool:
        """Move the position from where it `was` and add firings, together; those there already stay."""
        ...

    def move_firing(
        self, token: UUID, name: str, due: datetime, was: FiringState, to: FiringState, reason: str = ""
    ) -> bool:
        """Change a firing's state from what it `was`; forget settled ones but the `RECENT` newest."""
        ...

    def pause_schedule(self, name: str, by: str, *, paused: bool) -> bool:
        """Pause or resume it; False: there is none. Resumed, it goes on with what is due from now on."""
        ...

    def ask_firings(self, name: str, firings: Sequence[Firing]) -> int:
        """Add firings that people ask for, and let those that were skipped, missed or failed wait again.

        Returns how many, and none at all where more than `MAX_WAITING` would wait.
        """
        ...
