"""What people do with schedules: look, pause, trigger, backfill: rows that the owner of shard 0 finds.

Station: below the command line; reads and writes the store, and needs none of the author's code.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from ..store.base import Store
from ..store.scheduling import MAX_WAITING, OPEN, Cause, Firing, FiringState, ScheduleRow
from .declare import saga_id
from .errors import BackfillRefused, UnknownSchedule
from .rules import When, dues, rule_of


def found(store: Store, name: str) -> tuple[datetime, ScheduleRow]:
    """Return the database's time and a schedule; raises UnknownSchedule."""
    now, rows = store.schedules(name) if name else store.schedules()
    if not name or not rows:
        raise UnknownSchedule(f"there is no schedule {name!r}")
    return now, rows[0]


def rule(row: ScheduleRow) -> When:
    """Return when a schedule is due. Raises ScheduleInvalid for what another release has written."""
    return rule_of(json.loads(row.definition)["when"])


def pause(store: Store, name: str, by: str, *, paused: bool) -> None:
    """Pause or resume it; raises UnknownSchedule."""
    if not store.pause_schedule(name, by, paused=paused):
        raise UnknownSchedule(f"there is no schedule {name!r}")


def trigger(store: Store, name: str, by: str) -> str:
    """Have one saga begin now, whatever runs, also of a paused schedule; returns its id.

    Raises UnknownSchedule; BackfillRefused where too much waits, or nobody would fire it.
    """
    now, row = found(store, name)
    _check(row)
    begun = saga_id(name, now)
    if not store.ask_firings(name, [Firing(now, Cause.TRIGGER, FiringState.WAITING, now, begun, f"by {by}")]):
        raise BackfillRefused(f"schedule {name!r} has {MAX_WAITING} starts that wait")
    return begun


def backfill(store: Store, name: str, since: datetime, until: datetime, by: str) -> int:
    """Have the sagas begin that were due from one time to another, both included.

    Returns how many are asked for: not those whose saga has begun already. Raises UnknownSchedule,
    BackfillRefused.
    """
    now, row = found(store, name)
    _check(row)
    if until > now or since > until:
        raise BackfillRefused(
            f"from {since.isoformat()} to {until.isoformat()} can't be backfilled",
            remedy="Name a time that has passed, its beginning first.",
        )
    room = MAX_WAITING - sum(each.state in OPEN for each in row.firings)
    times = list(dues(rule(row), since - timedelta(microseconds=1), until, room + 1))
    if not times:
        raise BackfillRefused(
            f"schedule {name!r} was not due then", remedy="`describe` shows when it is due."
        )
    firings = [
        Firing(due, Cause.BACKFILL, FiringState.WAITING, now, saga_id(name, due), f"by {by}") for due in times
    ]
    if len(times) > room:
        raise BackfillRefused(f"schedule {name!r} was due more than {room} times then")
    return store.ask_firings(name, firings)


def _check(row: ScheduleRow) -> None:
    if not row.declared:
        raise BackfillRefused(
            f"schedule {row.name!r} is not of the App that runs", remedy="Run an App that lists it."
        )


def document(row: ScheduleRow, now: datetime) -> dict[str, Any]:
    """Return a schedule as JSON has it."""
    due = None if row.paused or not row.declared else rule(row).after(max(now, row.position))
    return {
        "name": row.name,
        **json.loads(row.definition),
        "declared": row.declared,
        "paused": row.paused,
        "by": row.by,
        "next_due": due.isoformat() if due is not None else None,
        "firings": [
            {
                "due": each.due.isoformat(),
                "cause": each.cause.value,
                "state": each.state.value,
                "at": each.at.isoformat(),
                "saga_id": each.saga_id,
                "reason": each.reason,
            }
            for each in row.firings
        ],
    }
