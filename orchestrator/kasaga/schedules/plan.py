"""What is to be done about a schedule now. Pure: the same row and time give the same plan, in any process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from ..store.scheduling import Cause, Firing, FiringState, ScheduleRow
from .declare import Schedule, saga_id
from .rules import dues

AT_ONCE = 100
"""Due times planned in one round: the next ones come a round later."""


class Plan(NamedTuple):
    """What a round writes down before anything is sent."""

    position: datetime
    """Due times up to here are planned."""
    firings: list[Firing]


def planned(schedule: Schedule[object], row: ScheduleRow, now: datetime) -> Plan | None:
    """Return the plan for all that has become due; None where nothing has.

    Nothing is due for one that is paused: it goes on behind the time at which it was resumed.
    """
    first = schedule.when.after(row.position)
    if first is None or first > now:
        return None
    if row.paused:
        return Plan(now, [])
    firings: list[Firing] = []
    position, oldest = row.position, now - timedelta(seconds=schedule.catch_up)
    if first < oldest:
        # However many there are, they are one row: after a year's downtime as well.
        reason = f"all before {oldest.isoformat(timespec='seconds')}: over {schedule.catch_up:g} s late"
        firings.append(_firing(schedule, first, FiringState.MISSED, now, reason))
        position = max(position, oldest - timedelta(microseconds=1))
    for due in dues(schedule.when, position, now, AT_ONCE):
        position = due
        firings.append(_firing(schedule, due, FiringState.WAITING, schedule.delayed(due)))
    return Plan(position, firings)


def _firing(
    schedule: Schedule[object], due: datetime, state: FiringState, at: datetime, reason: str = ""
) -> Firing:
    return Firing(due, Cause.DUE, state, at, saga_id(schedule.name, due), reason)


def verdict(
    schedule: Schedule[object], row: ScheduleRow, firing: Firing, running: Callable[[], str]
) -> tuple[FiringState, str] | None:
    """Say what becomes of a firing whose time has come; None: it goes on waiting.

    `running` gives the id of a saga of this schedule that hasn't ended, or an empty text.
    """
    if firing.cause is Cause.TRIGGER or schedule.overlap == "allow":
        return FiringState.SENDING, ""
    before = running()
    if not before:
        return FiringState.SENDING, ""
    if firing.cause is Cause.BACKFILL:
        return None
    if schedule.overlap == "skip":
        return FiringState.SKIPPED, f"{before} still runs"
    earlier = [
        each
        for each in row.firings
        if each.state is FiringState.WAITING and each.cause is Cause.DUE and each.due < firing.due
    ]
    if earlier:
        return FiringState.SKIPPED, f"{earlier[0].saga_id} waits already"
    return None
