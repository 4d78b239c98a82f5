"""Sagas that begin at a time: what authors declare, and what follows from it. Pure.

Station: `App(schedules=[Schedule(…)])`; `orchestrator/scheduler.py` fires them, `store/scheduling.py` says
what is kept.
"""

from .declare import MAX_SCHEDULES, Overlap, Schedule
from .errors import BackfillRefused, ScheduleInvalid, UnknownSchedule
from .rules import Calendar, Cron, Every, When, rule_of

__all__ = [
    "MAX_SCHEDULES",
    "BackfillRefused",
    "Calendar",
    "Cron",
    "Every",
    "Overlap",
    "Schedule",
    "ScheduleInvalid",
    "UnknownSchedule",
    "When",
    "rule_of",
]
