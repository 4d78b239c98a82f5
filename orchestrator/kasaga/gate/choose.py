"""Chooses sagas of a database: first those that haven't ended, then a sample of those that have.

Reads in pages that are small, found by keys, and bounded in number: a production database must not notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from ..store.base import FINAL_STATES, SagaFilter, SagaRow, SagaState, Store
from .histories import History

PAGE = 100
"""Sagas or open rows that one question looks at."""

LOOK_AT = 10_000
"""Finished sagas that are looked at, at most, to find a sample of each definition."""

AGES = tuple(timedelta(minutes=minutes) for minutes in (0, 10, 60, 360, 1440, 4320, 10_080, 20_160, 40_320))
"""Where the sample is taken: from now back to four weeks, denser towards now. Run ids are ordered by time."""

ATTENTION = (SagaState.STUCK, SagaState.PAUSED, SagaState.CANCELLING, SagaState.COMPENSATING)


@dataclass(frozen=True, slots=True)
class Choice:
    """How many sagas are chosen."""

    running: int
    """Sagas that haven't ended, at most."""
    sample: int
    """Finished sagas of each definition, at most."""
    definitions: frozenset[tuple[str, int]] | None = None
    """Names and versions of which finished sagas are wanted; None for all."""


def choose(store: Store, choice: Choice, now: datetime) -> Iterator[History]:
    """Read the histories of the sagas that a choice means, as they are needed."""
    seen: set[UUID] = set()
    for row in live(store, choice.running):
        seen.add(row.run_id)
        yield History.of(store, row)
    for row in finished(store, choice, now):
        if row.run_id not in seen:
            yield History.of(store, row)


def live(store: Store, limit: int) -> Iterator[SagaRow]:
    """Sagas that haven't ended: those that need attention, then those that have waited longest."""
    seen: set[UUID] = set()
    for row in _unended(store):
        if len(seen) >= limit:
            return
        if row.state not in FINAL_STATES and row.run_id not in seen:
            seen.add(row.run_id)
            yield row


def _unended(store: Store) -> Iterator[SagaRow]:
    after: UUID | None = None
    while True:
        page = store.list_sagas(SagaFilter(states=ATTENTION), after=after, limit=PAGE)
        yield from page
        if len(page) < PAGE:
            break
        after = page[-1].run_id
    cursors: dict[int, int] = {lease.shard: 0 for lease in store.shards()}
    while cursors:
        for shard in list(cursors):
            rows, following = store.waiting(shard, after=cursors[shard], limit=PAGE)
            yield from rows
            if following is None:
                del cursors[shard]
            else:
                cursors[shard] = following


def finished(store: Store, choice: Choice, now: datetime) -> Iterator[SagaRow]:
    """A sample of the sagas that have ended, of each definition and of different ages."""
    if not choice.sample:
        return
    taken: Counter[tuple[str, int]] = Counter()
    seen: set[UUID] = set()
    spare: list[SagaRow] = []
    share = -(-choice.sample // len(AGES))
    looked_at, after = 0, _cursors(now)
    for number in list(after):
        page = _page(store, after, number)
        looked_at += len(page)
        here: Counter[tuple[str, int]] = Counter()
        for row in _new(page, choice, seen):
            here[row.name, row.version] += 1
            if here[row.name, row.version] > share:
                spare.append(row)
            elif taken[row.name, row.version] < choice.sample:
                taken[row.name, row.version] += 1
                yield row
    while True:
        for row in spare:
            if taken[row.name, row.version] < choice.sample:
                taken[row.name, row.version] += 1
                yield row
        if not after or looked_at >= LOOK_AT or _is_full(choice, taken):
            return
        pages = [_page(store, after, number) for number in list(after)]
        looked_at += sum(len(page) for page in pages)
        spare = [row for page in pages for row in _new(page, choice, seen)]


def _cursors(now: datetime) -> dict[int, UUID | None]:
    ages = enumerate(AGES)
    return {number: UUID(int=_millis(now - age) << 80) if number else None for number, age in ages}


def _page(store: Store, after: dict[int, UUID | None], number: int) -> list[SagaRow]:
    """The next page behind one cursor; the cursor is moved, or taken away at the end."""
    page = store.list_sagas(SagaFilter(), after=after[number], limit=PAGE)
    if len(page) < PAGE:
        del after[number]
    else:
        after[number] = page[-1].run_id
    return page


def _new(page: list[SagaRow], choice: Choice, seen: set[UUID]) -> Iterator[SagaRow]:
    for row in page:
        wanted = choice.definitions is None or (row.name, row.version) in choice.definitions
        if wanted and row.state in FINAL_STATES and row.run_id not in seen:
            seen.add(row.run_id)
            yield row


def _is_full(choice: Choice, taken: Counter[tuple[str, int]]) -> bool:
    known = choice.definitions
    return known is not None and all(taken[definition] >= choice.sample for definition in known)


def _millis(at: datetime) -> int:
    return max(0, int(at.timestamp() * 1000))
