"""A schedule as authors declare it: which saga, with what input, when, and what if it comes too late."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

from .errors import ScheduleInvalid
from .rules import Calendar, Cron, Every, When

if TYPE_CHECKING:
    from ..saga import Saga

I = TypeVar("I")  # noqa: E741

Overlap = Literal["skip", "buffer", "cancel", "allow"]

MAX_SCHEDULES = 1000
"""In one App: each is looked at once a second."""
MAX_NAME = 100
"""Characters of a name: it is in the ids of its sagas."""
CATCH_UP = 60.0
"""Seconds by which a start may be late, unless the schedule says otherwise."""
LONGEST_CATCH_UP = 366 * 86_400.0
LONGEST_JITTER = 86_400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Schedule(Generic[I]):
    """Begins a saga whenever it is due.

    Args:
        name: of the schedule, in its namespace; its sagas' ids are `name@2026-03-01T03:00:00Z`.
        saga: whose newest version begins.
        input: the saga's, or a pure function of the due time in UTC that makes it.
        when: a Cron, an Every or a Calendar.
        overlap: when the last saga that it began still runs: `skip` the due time, `buffer` one until that
            saga has ended (further ones are skipped), `cancel` that saga and begin when it is undone, or
            `allow` both.
        catch_up: seconds by which a start may be late, after downtime; due times older than that are missed.
        jitter: seconds by which each start is delayed at most, by its name and due time.

    Raises:
        ScheduleInvalid: one of these can't be used.
    """

    name: str
    saga: Saga[I, Any]
    input: I | Callable[[datetime], I]
    when: When
    overlap: Overlap = "skip"
    catch_up: float = CATCH_UP
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or len(self.name) > MAX_NAME:
            raise ScheduleInvalid(
                f"the name {self.name[:120]!r} can't be used",
                remedy=f"Use up to {MAX_NAME} of a-z A-Z 0-9 . _ and -, and begin with a letter or digit.",
            )
        if not isinstance(self.when, Cron | Every | Calendar):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise self._wrong("when", "Give a Cron, an Every or a Calendar.")
        if self.overlap not in get_args(Overlap):
            raise self._wrong("overlap", f"Choose from {', '.join(get_args(Overlap))}.")
        if not 1 <= self.catch_up <= LONGEST_CATCH_UP:
            raise self._wrong("catch_up", "Use 1 second up to 366 days.")
        if not 0 <= self.jitter <= LONGEST_JITTER:
            raise self._wrong("jitter", "Use 0 seconds up to a day.")
        if not callable(self.input):
            self.encoded(datetime.now(UTC))

    def _wrong(self, field: str, remedy: str) -> ScheduleInvalid:
        return ScheduleInvalid(f"schedule {self.name!r}: {field}={getattr(self, field)!r}", remedy=remedy)

    def encoded(self, due: datetime) -> bytes:
        """Return the input of the saga that is due then; raises ScheduleInvalid."""
        try:
            return self.saga.input.encode(_made(self.input, due))
        except (Exception, SystemExit) as error:  # of the author's function
            raise ScheduleInvalid(
                f"schedule {self.name!r}: its input can't be made: {type(error).__name__}: {error}",
                remedy="Give what the saga takes, or a function of the due time that returns it.",
            ) from error

    def definition(self) -> str:
        """Return all but the input as JSON text: what is kept of it for people."""
        form = {
            "saga": self.saga.name,
            "when": self.when.form(),
            "overlap": self.overlap,
            "catch_up": self.catch_up,
            "jitter": self.jitter,
        }
        return json.dumps(form, sort_keys=True)

    def delayed(self, due: datetime) -> datetime:
        """Return when the saga of a due time is to begin: the same in any process."""
        if not self.jitter:
            return due
        digest = hashlib.sha256(f"{self.name}@{due.isoformat()}".encode()).digest()
        return due + timedelta(seconds=self.jitter * (int.from_bytes(digest[:8]) / 2**64))


def _made(given: Any, due: datetime) -> Any:
    return given(due) if callable(given) else given


def saga_id(name: str, due: datetime) -> str:
    """Return the id of the saga of a due time: one for each, however often it is sent."""
    return f"{name}@{due.astimezone(UTC).replace(tzinfo=None).isoformat('T')}Z"


def by_name(schedules: Iterable[Schedule[Any]], sagas: Iterable[str]) -> dict[str, Schedule[Any]]:
    """Return an App's schedules; raises ScheduleInvalid where they don't fit it."""
    known, found = frozenset(sagas), dict[str, Schedule[Any]]()
    for each in schedules:
        if each.name in found:
            raise ScheduleInvalid(f"schedule {each.name!r} is listed twice", remedy="Rename one of them.")
        if each.saga.name not in known:
            raise ScheduleInvalid(
                f"schedule {each.name!r} begins the saga {each.saga.name!r}, which the App hasn't",
                remedy="List the saga in the App's sagas.",
            )
        found[each.name] = each
    if len(found) > MAX_SCHEDULES:
        raise ScheduleInvalid(
            f"{len(found)} schedules are over {MAX_SCHEDULES}",
            remedy="Begin one saga by a schedule, and its work by it.",
        )
    return found
