"""What every store does for retention: find what has ended, delete it, remember its id, forget that.

Station: `orchestrator.retention` calls it, from a thread of its own; any process may at any time. No
commit waits for it but one that takes a child back at this very moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple, Protocol
from uuid import UUID

if TYPE_CHECKING:
    from kasaga.store.base import HistoryRow, SagaRow


@dataclass(slots=True)
class Finished:
    """One slice of what has ended long enough ago."""

    rows: list[SagaRow]
    """With their search attributes."""
    after: UUID | None
    """Where the next slice begins; None when everything has been looked at."""


class EarlierRuns(NamedTuple):
    """Ended runs of a saga that has gone on as a new one: the rows of its history before `first`."""

    shard: int
    run_id: UUID
    first: int


@dataclass(slots=True)
class EndedRuns:
    """One slice of sagas that live on and whose earlier runs ended long enough ago."""

    runs: list[EarlierRuns]
    after: UUID | None
    """Where the next slice begins; None when all have been looked at."""


@dataclass(slots=True)
class ArchiveState:
    """How the archive that finished sagas go to is doing, as whoever deletes has noted it."""

    place: str
    """Its address."""
    sagas: int
    """Written so far, some perhaps twice."""
    objects: int
    size: int
    """Bytes of these objects."""
    archived_at: datetime | None
    """When the last object was written."""
    failing_since: datetime | None
    """None: the last write went well."""
    error: str


class Purging(Protocol):
    """A part of `base.Store`; its methods may be called by any thread."""

    def retain(self, periods: Mapping[str, float | None]) -> None:
        """Note for how many seconds finished sagas of these names are kept; None: they don't say any more.

        Infinity: for ever. Names that aren't among them stay as they are: what only another image knows.
        """
        ...

    def retained(self) -> dict[str, float]:
        """Return what `retain` has noted, by name."""
        ...

    def finished(
        self,
        older_than: timedelta,
        names: Sequence[str] = (),
        *,
        others: bool = True,
        after: UUID | None = None,
        limit: int = 1000,
    ) -> Finished:
        """Return sagas that ended more than `older_than` ago and are of these `names`.

        With `others` of all names but these. Looks at `limit` sagas in the order of their run ids,
        beginning behind `after`.
        """
        ...

    def standing(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, SagaRow]:
        """As `base.Store.find_runs`, for any thread."""
        ...

    def beginnings(self, runs: Sequence[tuple[int, UUID]]) -> dict[UUID, HistoryRow]:
        """Return the first row of each run's history."""
        ...

    def delete(self, sagas: Sequence[SagaRow]) -> int:
        """Delete these with all that belongs to them, in one transaction; returns how many it were.

        Left out are those that changed since they were read, or that are gone. The ids are remembered:
        `find` and `saga` still answer, with the summary alone.
        """
        ...

    def ended_runs(
        self,
        older_than: timedelta,
        names: Sequence[str] = (),
        *,
        others: bool = True,
        after: UUID | None = None,
        limit: int = 100,
    ) -> EndedRuns:
        """Return runs that ended more than `older_than` ago, of sagas that have gone on as new ones.

        Looks at `limit` such sagas in the order of their run ids, beginning behind `after`; `names` and
        `others` as of `finished`.
        """
        ...

    def cut(self, runs: EarlierRuns) -> int:
        """Delete these runs' rows of history, and return how many it were."""
        ...

    def kept(self, shard: int, run_id: UUID, *, before: int | None = None) -> list[HistoryRow]:
        """Return a history of all its runs as the tables have it: sealed bodies stay sealed.

        With `before`, the rows before that number.
        """
        ...

    def note_archived(self, place: str, *, sagas: int, size: int) -> None:
        """Note that an object of so many sagas and bytes has been written to the archive."""
        ...

    def note_archive_failed(self, place: str, error: str) -> None:
        """Note that the archive doesn't take anything, and so nothing is deleted."""
        ...

    def archive_state(self) -> ArchiveState | None:
        """Return what was noted; None where nothing ever was."""
        ...

    def forget(self, remember: timedelta, *, limit: int = 10_000) -> int:
        """Forget ids of sagas that were deleted more than `remember` ago, at most so many."""
        ...
