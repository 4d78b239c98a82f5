"""Sagas in the archive: by id, or by when they began. Damaged objects are told of and passed over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

from kasaga_wire.codec import Schemas
from kasaga_wire.objects import Objects

from .errors import ArchiveUnreadable
from .sheet import Archived, day_of, joined, read, runs_of

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class Period(NamedTuple):
    """When a saga began; days are what is looked for, so a shorter one is quicker."""

    after: datetime = _FIRST
    before: datetime = _LAST

    def has(self, at: datetime) -> bool:
        """Whether that is in it."""
        return self.after <= at <= self.before


class Archive:
    """The archive of one namespace. `warn` is told of each object that can't be read."""

    def __init__(self, objects: Objects, namespace: str, warn: Callable[[str], None]) -> None:
        """Nothing is read yet."""
        self._objects, self._namespace, self._warn = objects, namespace, warn
        self.schemas = Schemas()
        """Of all objects read so far."""

    def days(self, period: Period) -> list[str]:
        """The days of which there is anything, the last one first. Raises ObjectsUnavailable."""
        first, last = day_of(period.after), day_of(period.before)
        return [day for day in reversed(self._objects.names(self._namespace)) if first <= day <= last]

    def objects(self, day: str, run_id: UUID | None = None) -> list[str]:
        """Names of a day's objects, the last one first; with a run, of those that may hold it."""
        found: list[str] = []
        for name in reversed(self._objects.names(f"{self._namespace}/{day}")):
            runs = runs_of(name)
            if runs is not None and (run_id is None or runs[0] <= run_id <= runs[1]):
                found.append(f"{self._namespace}/{day}/{name}")
        return found

    def read(self, name: str, *, saga_id: str = "") -> Iterator[Archived]:
        """What an object has. Raises ObjectsUnavailable; warns of what is damaged."""
        data = self._objects.read(name)
        if data is None:
            return  # taken away meanwhile
        try:
            yield from read(data, name, self.schemas, saga_id=saga_id)
        except ArchiveUnreadable as error:
            self._warn(str(error))

    def find(self, saga_id: str, period: Period, run_id: UUID | None = None) -> list[Archived]:
        """All runs with a saga's id, the newest first; with a run's id that one alone.

        Raises ObjectsUnavailable.
        """
        found: list[Archived] = []
        for day in self.days(period):
            for name in self.objects(day, run_id):
                found += self.read(name, saga_id=saga_id)
        return [each for each in joined(found) if run_id is None or each.row.run_id == run_id]

    def sagas(self, period: Period) -> Iterator[Archived]:
        """All that ended, each once, those that began last first. Raises ObjectsUnavailable."""
        for day in self.days(period):
            seen: set[UUID] = set()
            for name in self.objects(day):
                for each in reversed([each for each in self.read(name) if not each.earlier]):
                    if each.row.run_id not in seen and period.has(each.row.started_at):
                        seen.add(each.row.run_id)
                        yield each
