"""What every store does for retention: find what has ended, delete it, remember its id, forget that.

Station: `orchestrator.retention` calls it, from a thread of its own; any process may at any time. No
commit waits for it but one that takes a child back at this very moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol
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


@dataclass(slots=True)
class Shortened:
    """What was deleted of one slice of sagas that live on."""

    rows: int
    """Of history."""
    after: UUID | None
    """Where the next slice begins; None when all have been looked at."""


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

    def shorten(
        self,
        older_than: timedelta,
        names: Sequence[str] = (),
        *,
        others: bool = True,
        after: UUID | None = None,
        limit: int = 100,
    ) -> Shortened:
        """Delete runs that ended more than `older_than` ago, of sagas that have gone on as new ones.

        Of `limit` sagas in the order of their run ids, beginning behind `after`; `names` and `others` as of
        `finished`. What is left of a history begins with the record that began a run.
        """
        ...

    def forget(self, remember: timedelta, *, limit: int = 10_000) -> int:
        """Forget ids of sagas that were deleted more than `remember` ago, at most so many."""
        ...
