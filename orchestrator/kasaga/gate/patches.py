"""On which branches of the patches of its code a saga stands, by a replay: when a patch can be retired."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from kasaga_wire.errors import KasagaError

from ..engine import lifecycle
from ..engine.codec import decode
from ..engine.driver import Guard, unguarded
from ..engine.replay import replay
from ..engine.run import Definitions, driver_of
from ..engine.state import fold
from ..store.base import FINAL_STATES, SagaFilter, SagaRow, SagaState, Store
from ..wording import counted, printable, sentence
from .histories import History

PAGE = 500

NAMED = 3
"""Sagas that are named of those on an old branch."""

_LIVE = tuple(state for state in SagaState if state not in FINAL_STATES)


@dataclass(frozen=True, slots=True)
class Stand:
    """Where one saga stands."""

    saga_id: str
    name: str
    version: int
    branches: dict[str, bool]
    """By patch that its code has asked for: whether it is on the new branch."""
    error: str = ""
    """Why that can't be told."""


def unended(store: Store, sagas: frozenset[tuple[str, int]], limit: int) -> Iterator[SagaRow]:
    """All sagas of these definitions that haven't ended, up to a limit. Looks through the whole table."""
    after: UUID | None = None
    found = 0
    while True:
        page = store.list_sagas(SagaFilter(states=_LIVE), after=after, limit=PAGE)
        for row in page:
            if (row.name, row.version) in sagas and found < limit:
                found += 1
                yield row
        if len(page) < PAGE or found >= limit:
            return
        after = page[-1].run_id


def stand(defs: Definitions, history: History, guard: Guard = unguarded) -> Stand:
    """Replay one saga, and say which branches it is on. One that is being undone runs no code any more."""
    about = (history.saga_id, history.name, history.version)
    try:
        state = fold(history.run_id, (decode(seq, body) for seq, body in history.rows))
        if state.final or state.phase in lifecycle.UNDOING or not state.begun_at:
            return Stand(*about, {})
        driver = driver_of(defs, state, defs.definition(state), guard)
        try:
            replay(driver, state, defs.schemas)
            return Stand(*about, dict(driver.patches))
        finally:
            driver.evict()
    except KasagaError as error:
        return Stand(*about, {}, f"{error.code}: {error.message}")


@dataclass(slots=True)
class Branches:
    """Many stands, counted by saga, version and patch."""

    sagas: int = 0
    counts: Counter[tuple[str, int, str, bool]] = field(default_factory=Counter[tuple[str, int, str, bool]])
    named: dict[tuple[str, int, str], list[str]] = field(
        default_factory=dict[tuple[str, int, str], list[str]]
    )
    untold: list[Stand] = field(default_factory=list[Stand])
    more: bool = False
    """There are sagas that weren't looked at."""

    def add(self, found: Stand) -> None:
        """Count one."""
        self.sagas += 1
        if found.error:
            self.untold.append(found)
        for patch, new in found.branches.items():
            self.counts[found.name, found.version, patch, new] += 1
            if not new:
                self.named.setdefault((found.name, found.version, patch), []).append(found.saga_id)

    @property
    def retired(self) -> bool:
        """Nobody is on an old branch, as far as can be told of all."""
        return not self.named and not self.untold and not self.more

    def _patches(self) -> Sequence[tuple[str, int, str]]:
        return sorted({(name, version, patch) for name, version, patch, _ in self.counts})

    def document(self) -> dict[str, Any]:
        """For programs. Keys are stable."""
        return {
            "ok": self.retired,
            "sagas": self.sagas,
            "more": self.more,
            "patches": [
                {
                    "name": name,
                    "version": version,
                    "patch": patch,
                    "old": self.counts[name, version, patch, False],
                    "new": self.counts[name, version, patch, True],
                    "on_old": self.named.get((name, version, patch), []),
                }
                for name, version, patch in self._patches()
            ],
            "untold": [{"saga_id": each.saga_id, "error": each.error} for each in self.untold],
        }

    def lines(self) -> Iterable[str]:
        """For people."""
        for name, version, patch in self._patches():
            old = self.named.get((name, version, patch), [])
            new = self.counts[name, version, patch, True]
            said = f"{len(old)} on the old branch, {new} on the new one"
            yield f"{name}/{version} patch {printable(patch)}: {said}" + (
                "" if old else ": it can be retired"
            )
            if old:
                rest = f", and {len(old) - NAMED} more" if len(old) > NAMED else ""
                yield f"    on the old branch: {', '.join(map(printable, old[:NAMED]))}{rest}"
        for each in self.untold[:NAMED]:
            yield f"{printable(each.saga_id)} can't be told: {printable(sentence(each.error))}"
        if len(self.untold) > NAMED:
            yield f"… and {len(self.untold) - NAMED} more that can't be told"
        yield f"{counted(self.sagas, 'live saga')} looked at" + (
            "; there are more: raise --running" if self.more else ""
        )
