"""What an audit asks of the orchestrator's database besides `base.Store`: who ended when, and its own notes.

Station: made by the command line, read by `kasaga.audit.walk`. Postgres and its twin in memory, as the store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from . import rows
from .base import SagaRow
from .readers import Readers
from .session import Session
from .settings import StoreSettings
from .statements import read_statements

ROWS_A_SAGA = 20
"""Rows of history that are looked at for each saga that may be found: a page is bounded by what it reads."""

_SQL = read_statements("audit")


@dataclass(frozen=True, slots=True)
class Slice:
    """A stretch of time, its beginning not included, and between what bounds each shard is looked at."""

    since: datetime
    until: datetime
    shards: Mapping[int, tuple[datetime, datetime]]


class Ends(Protocol):
    """When sagas ended."""

    def bounds(self) -> Mapping[int, datetime]:
        """The time of the last commit of each shard that has had one."""
        ...

    def ended(self, within: Slice, *, limit: int) -> list[SagaRow] | None:
        """The sagas that ended then, without results; None: `limit` wouldn't do, ask for a shorter time."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


class PostgresEnds:
    """In the orchestrator's database, or a copy of it; over one connection, which can write nothing."""

    def __init__(self, settings: StoreSettings) -> None:
        """Connects at the first question."""
        self._readers = Readers(lambda: Session(settings, application="kasaga audit", people=True), 1)

    def bounds(self) -> Mapping[int, datetime]:
        """See `Ends.bounds`."""
        return dict(self._readers.query(_SQL["bounds"].bind()))

    def ended(self, within: Slice, *, limit: int) -> list[SagaRow] | None:
        """See `Ends.ended`."""
        numbers = sorted(within.shards)
        since = [within.shards[number][0] for number in numbers]
        until = [within.shards[number][1] for number in numbers]
        most = limit * ROWS_A_SAGA
        call = _SQL["ended"].bind(within.since, within.until, numbers, since, until, most + 1)
        found = self._readers.query(call)
        if found[0][0] > most:
            return None
        return [rows.saga_row(row[1:]) for row in found if row[1] is not None]

    def close(self) -> None:
        """See `Ends.close`."""
        self._readers.close()


Runs = list[tuple[int, UUID]]
"""Shards and run ids."""


class Book(Protocol):
    """How far the audits of one name have come."""

    def positions(self) -> Mapping[int, datetime]:
        """Up to when each shard was compared; empty before the first audit."""
        ...

    def keep(self, positions: Mapping[int, datetime]) -> None:
        """Note how far it is now. Never goes back."""
        ...

    def open(self, limit: int) -> Runs:
        """Sagas that something was wrong with."""
        ...

    def note(self, wrong: Runs, well: Runs) -> None:
        """Note sagas that something is wrong with, and those that are well, or purged."""
        ...

    def close(self) -> None:
        """Close connections."""
        ...


class PostgresBook:
    """In the orchestrator's database: whoever audits next, on whatever machine, goes on from there."""

    def __init__(self, settings: StoreSettings, name: str) -> None:
        """Connects at the first question."""
        self._session = Session(settings, application="kasaga audit", people=True)
        self._name = name

    def positions(self) -> Mapping[int, datetime]:
        """See `Book.positions`."""
        return dict(self._session.query(_SQL["positions"].bind(self._name)))

    def keep(self, positions: Mapping[int, datetime]) -> None:
        """See `Book.keep`."""
        if positions:
            shards, times = zip(*sorted(positions.items()), strict=True)
            self._session.run(_SQL["keep_positions"].bind(self._name, shards, times))

    def open(self, limit: int) -> Runs:
        """See `Book.open`."""
        return [
            (shard, run_id) for shard, run_id in self._session.query(_SQL["open"].bind(self._name, limit))
        ]

    def note(self, wrong: Runs, well: Runs) -> None:
        """See `Book.note`."""
        for statement, runs in (("add_open", wrong), ("close_open", well)):
            if runs:
                self._session.run(_SQL[statement].bind(self._name, *zip(*runs, strict=True)))

    def close(self) -> None:
        """See `Book.close`."""
        self._session.close()


class MemoryBook:
    """The same, in memory."""

    def __init__(self) -> None:
        self._positions: dict[int, datetime] = {}
        self._open: dict[tuple[int, UUID], None] = {}

    def positions(self) -> Mapping[int, datetime]:
        """See `Book.positions`."""
        return dict(self._positions)

    def keep(self, positions: Mapping[int, datetime]) -> None:
        """See `Book.keep`."""
        for shard, until in positions.items():
            self._positions[shard] = max(until, self._positions.get(shard, until))

    def open(self, limit: int) -> Runs:
        """See `Book.open`."""
        return sorted(self._open, key=lambda run: run[1])[:limit]

    def note(self, wrong: Runs, well: Runs) -> None:
        """See `Book.note`."""
        self._open |= dict.fromkeys(wrong)
        for run in well:
            self._open.pop(run, None)

    def close(self) -> None:
        """Nothing is open."""
