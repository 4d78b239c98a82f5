"""Schedules in memory: `scheduling.Scheduling` over the tables of `memory.MemoryStore`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from kasaga.store.memory_tables import MemoryShard, Tables
from kasaga.store.scheduling import MAX_WAITING, OPEN, RECENT, Firing, FiringState, ScheduleRow


class MemoryScheduling:
    """The part of `memory.MemoryStore` that keeps schedules."""

    _lock: threading.RLock
    _tables: Tables
    _shards: dict[int, MemoryShard]
    _clock: Callable[[], datetime]
    _fault: Callable[[str], None]

    def _holds(self, token: UUID) -> bool:
        return self._shards[0].token == token

    def declare_schedules(self, token: UUID, definitions: Mapping[str, str]) -> bool:
        """See `scheduling.Scheduling.declare_schedules`."""
        self._fault("declare_schedules")
        with self._lock:
            if not self._holds(token):
                return False
            rows = self._tables.schedules
            for row in rows.values():
                row.declared = row.name in definitions
            for name, text in definitions.items():
                if name in rows:
                    rows[name].definition = text
                else:
                    rows[name] = ScheduleRow(name, text, True, False, "", self._clock())
            return True

    def schedules(self, name: str = "") -> tuple[datetime, list[ScheduleRow]]:
        """See `scheduling.Scheduling.schedules`."""
        self._fault("schedules")
        with self._lock:
            found = [row for _, row in sorted(self._tables.schedules.items()) if name in ("", row.name)]
            return self._clock(), [replace(row, firings=_sorted(row)) for row in found]

    def plan_schedule(
        self, token: UUID, name: str, was: datetime, position: datetime, firings: Sequence[Firing]
    ) -> bool:
        """See `scheduling.Scheduling.plan_schedule`."""
        self._fault("plan_schedule")
        with self._lock:
            row = self._tables.schedules.get(name)
            if not self._holds(token) or row is None or row.position != was:
                return False
            row.position = position
            known = {each.due for each in row.firings}
            row.firings += [replace(each) for each in firings if each.due not in known]
            _prune(row)
        self._fault("plan_schedule.done")
        return True

    def move_firing(
        self, token: UUID, name: str, due: datetime, was: FiringState, to: FiringState, reason: str = ""
    ) -> bool:
        """See `scheduling.Scheduling.move_firing`."""
        self._fault("move_firing")
        with self._lock:
            row = self._tables.schedules.get(name)
            found = [each for each in row.firings if each.due == due and each.state is was] if row else []
            if not self._holds(token) or row is None or not found:
                return False
            found[0].state, found[0].reason, found[0].at = to, reason, self._clock()
            _prune(row)
        self._fault("move_firing.done")
        return True

    def pause_schedule(self, name: str, by: str, *, paused: bool) -> bool:
        """See `scheduling.Scheduling.pause_schedule`."""
        self._fault("pause_schedule")
        with self._lock:
            row = self._tables.schedules.get(name)
            if row is None:
                return False
            if row.paused and not paused:
                row.position = max(row.position, self._clock())
            row.paused, row.by = paused, by
            return True

    def ask_firings(self, name: str, firings: Sequence[Firing]) -> int:
        """See `scheduling.Scheduling.ask_firings`."""
        self._fault("ask_firings")
        with self._lock:
            row = self._tables.schedules.get(name)
            waiting = sum(each.state in OPEN for each in row.firings) if row is not None else 0
            if row is None or waiting + len(firings) > MAX_WAITING:
                return 0
            known, asked = {each.due: each for each in row.firings}, 0
            for firing in firings:
                there = known.get(firing.due)
                if there is None:
                    row.firings.append(replace(firing))
                elif there.state in OPEN or there.state is FiringState.SENT:
                    continue
                else:
                    row.firings[row.firings.index(there)] = replace(firing)
                asked += 1
            return asked


def _sorted(row: ScheduleRow) -> list[Firing]:
    return [replace(each) for each in sorted(row.firings, key=lambda each: each.due)]


def _prune(row: ScheduleRow) -> None:
    settled = sorted(
        (each for each in row.firings if each.state not in OPEN), key=lambda each: (each.at, each.due)
    )
    sent = [each for each in settled if each.state is FiringState.SENT]
    others = [each for each in settled if each.state is not FiringState.SENT]
    kept = sent[-RECENT:] + others[-RECENT:]
    row.firings = [each for each in row.firings if each.state in OPEN or each in kept]
