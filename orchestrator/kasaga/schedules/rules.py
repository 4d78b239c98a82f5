"""When a schedule is due: cron expressions, intervals, and times of a calendar; with time zones.

Station: pure. A rule answers one question, which due time comes next after a moment, in UTC; so it has no
state,
and any process gives the same answer. What two changes of the clock do is a rule of each class.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeAlias, cast
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from .errors import ScheduleInvalid

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SHORTEST = 1.0
"""Seconds between two due times, at least: the scheduler looks about as often."""
LONGEST = 400 * 86_400.0
"""Seconds of an interval, at most: about a year, and one of a century is a slip of the pen."""
YEARS = 50
"""So far ahead a calendar is searched: what isn't due until then never is."""
LAST = datetime(9000, 1, 1, tzinfo=UTC)
"""Python's years end soon after it."""
MAX_TIMES = 1440
"""Times of day in one calendar: one a minute."""


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone by its IANA name; raises ScheduleInvalid."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, LookupError):
        raise ScheduleInvalid(
            f"zone {name[:80]!r} is not known",
            remedy="Use a name of the IANA database, such as Europe/Berlin or UTC.",
        ) from None


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron expression of five fields, by the clocks of a zone.

    As in Debian's cron: where minute and hour are both given, a time that the clocks skip is due at the
    first minute
    that exists after it, and one that they show twice is due the first time only. Where either begins with
    `*`, it is
    due whenever the clocks show it.
    """

    expression: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if len(self.expression.split()) != 5:
            raise ScheduleInvalid(
                f"Cron({self.expression[:80]!r}) has not five fields",
                remedy="Give minute, hour, day of the month, month and day of the week: '0 3 * * *'.",
            )
        zone_of(self.zone)
        try:
            CronSim(self.expression, EPOCH)
        except (CronSimError, ValueError) as error:
            raise ScheduleInvalid(
                f"Cron({self.expression[:80]!r}): {error}",
                remedy="Mend the field: '0 3 * * *' is 03:00 daily.",
            ) from None
        if self.after(datetime(2000, 1, 1, tzinfo=UTC)) is None:
            raise ScheduleInvalid(
                f"Cron({self.expression[:80]!r}) is never due", remedy="Name a day that its months have."
            )

    def after(self, moment: datetime) -> datetime | None:
        """Return the next due time after a moment, in UTC; None: never."""
        if moment >= LAST:
            return None
        # The expression's own search begins with wall times: the first may be of an hour that has passed.
        for found in CronSim(self.expression, moment.astimezone(zone_of(self.zone))):
            due = found.astimezone(UTC)
            if due > moment:
                return due
        return None

    def form(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"kind": "cron", "expression": self.expression, "zone": self.zone}

    def __str__(self) -> str:
        return f"cron {self.expression} ({self.zone})"


@dataclass(frozen=True, slots=True)
class Every:
    """An interval in seconds: due at its multiples since 1970-01-01T00:00Z, and `offset` seconds after.

    Clocks and restarts move nothing, and all processes agree.
    """

    seconds: float
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not SHORTEST <= self.seconds <= LONGEST:
            raise ScheduleInvalid(f"Every({self.seconds!r})", remedy="Use 1 second up to 400 days.")
        if not 0 <= self.offset < self.seconds:
            raise ScheduleInvalid(
                f"Every({self.seconds!r}, offset={self.offset!r})", remedy="Use an offset below the interval."
            )

    def after(self, moment: datetime) -> datetime | None:
        """Return the next due time after a moment, in UTC; None: never."""
        if moment >= LAST:
            return None
        period, offset = timedelta(seconds=self.seconds), timedelta(seconds=self.offset)
        return EPOCH + offset + ((moment - EPOCH - offset) // period + 1) * period

    def form(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"kind": "every", "seconds": self.seconds, "offset": self.offset}

    def __str__(self) -> str:
        return f"every {self.seconds:g} s" + (f" + {self.offset:g} s" if self.offset else "")


@dataclass(frozen=True, slots=True)
class Calendar:
    """Times of day on chosen days, by the clocks of a zone; all that is left empty means each.

    A time that the clocks skip is due as much later as they skip (02:30 becomes 03:30), and one that they
    show twice
    is due the first time only: so each chosen time of each chosen day is due once.
    """

    at: Sequence[time]
    weekdays: Sequence[int] = ()
    """1 is Monday, 7 is Sunday."""
    days: Sequence[int] = ()
    """Of the month; negative ones from its end: -1 is its last day."""
    months: Sequence[int] = ()
    except_on: Sequence[date] = ()
    """Days that are left out, such as holidays."""
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if not 1 <= len(self.at) <= MAX_TIMES or any(each.tzinfo is not None for each in self.at):
            raise ScheduleInvalid(
                f"Calendar(at=…) has {len(self.at)} times",
                remedy=f"Give 1 to {MAX_TIMES} times without a zone.",
            )
        days = {*range(1, 32), *range(-31, 0)}
        for name, given, known in (
            ("weekdays", self.weekdays, set(range(1, 8))),
            ("days", self.days, days),
            ("months", self.months, set(range(1, 13))),
        ):
            if wrong := sorted(set(given) - known):
                raise ScheduleInvalid(
                    f"Calendar({name}={wrong})",
                    remedy=f"Use whole numbers from {min(known)} to {max(known)}, without 0.",
                )
        zone_of(self.zone)
        if self.after(datetime(2000, 1, 1, tzinfo=UTC)) is None:
            raise ScheduleInvalid("the Calendar is never due", remedy="Name a day that its months have.")

    def after(self, moment: datetime) -> datetime | None:
        """Return the next due time after a moment, in UTC; None: never."""
        if moment >= LAST:
            return None
        zone = zone_of(self.zone)
        day = moment.astimezone(zone).date() - timedelta(days=1)  # what was skipped then may be due now
        for _ in range(366 * YEARS):
            if self._chosen(day) and (due := self._first(day, zone, moment)) is not None:
                tomorrow = day + timedelta(days=1)
                other = self._first(tomorrow, zone, moment) if self._chosen(tomorrow) else None
                return min(due, other) if other is not None else due
            day += timedelta(days=1)
        return None

    def _first(self, day: date, zone: ZoneInfo, moment: datetime) -> datetime | None:
        """The first due time of a day that is after a moment."""
        dues = (datetime.combine(day, at, zone).astimezone(UTC) for at in self.at)
        return min((due for due in dues if due > moment), default=None)

    def _chosen(self, day: date) -> bool:
        length = ((day.replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)).day
        return (
            (not self.months or day.month in self.months)
            and (not self.weekdays or day.isoweekday() in self.weekdays)
            and (not self.days or day.day in self.days or day.day - length - 1 in self.days)
            and day not in self.except_on
        )

    def form(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "kind": "calendar",
            "at": [each.isoformat() for each in self.at],
            "weekdays": list(self.weekdays),
            "days": list(self.days),
            "months": list(self.months),
            "except_on": [each.isoformat() for each in self.except_on],
            "zone": self.zone,
        }

    def __str__(self) -> str:
        parts = [", ".join(each.isoformat("auto") for each in self.at)]
        for name in ("weekdays", "days", "months"):
            if chosen := cast(Sequence[int], getattr(self, name)):
                parts.append(f"{name} {', '.join(map(str, chosen))}")
        if self.except_on:
            parts.append(f"but {len(self.except_on)} days")
        return f"calendar {'; '.join(parts)} ({self.zone})"


When: TypeAlias = Cron | Every | Calendar


def rule_of(form: Mapping[str, Any]) -> When:
    """Return the rule that `form` has made; raises ScheduleInvalid for what no release has written."""
    fields = {name: value for name, value in form.items() if name != "kind"}
    try:
        if form["kind"] == "cron":
            return Cron(**fields)
        if form["kind"] == "every":
            return Every(**fields)
        fields["at"] = tuple(time.fromisoformat(each) for each in fields["at"])
        fields["except_on"] = tuple(date.fromisoformat(each) for each in fields["except_on"])
        return Calendar(**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ScheduleInvalid(
            f"a schedule's rule can't be read: {error}", remedy="Use the release that has written it."
        ) from None


def dues(rule: When, after: datetime, until: datetime, limit: int) -> Iterator[datetime]:
    """Give the due times after one moment up to another, at most `limit`."""
    due = rule.after(after)
    while due is not None and due <= until and limit > 0:
        yield due
        limit -= 1
        due = rule.after(due)
