"""Schedules in Postgres: `scheduling.Scheduling`, over a connection that the loop doesn't use."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from kasaga.store.scheduling import MAX_WAITING, RECENT, Cause, Firing, FiringState, ScheduleRow
from kasaga.store.session import Row, Session
from kasaga.store.statements import Call, read_statements

_SCHEDULE = read_statements("schedule")


class PostgresScheduling:
    """The part of `postgres.PostgresStore` that keeps schedules."""

    _scheduler: Session
    """Connects at the first call: who has no schedules has no such connection."""
    _scheduling: threading.Lock

    def _call(self, call: Call) -> list[Row]:
        with self._scheduling:
            return self._scheduler.query(call)

    def declare_schedules(self, token: UUID, definitions: Mapping[str, str]) -> bool:
        """See `scheduling.Scheduling.declare_schedules`."""
        names = sorted(definitions)
        texts = [definitions[name] for name in names]
        return bool(self._call(_SCHEDULE["declare_schedules"].bind(token, names, texts))[0][0])

    def schedules(self, name: str = "") -> tuple[datetime, list[ScheduleRow]]:
        """See `scheduling.Scheduling.schedules`."""
        now, found = datetime.now(UTC), dict[str, ScheduleRow]()
        for now, *row in self._call(_SCHEDULE["schedules"].bind(name)):  # noqa: B007 - the database's
            found[row[0]] = ScheduleRow(*row)
        for schedule, due, cause, state, at, saga_id, reason in self._call(_SCHEDULE["firings"].bind(name)):
            if schedule in found:
                firing = Firing(due, Cause(cause), FiringState(state), at, saga_id, reason)
                found[schedule].firings.append(firing)
        return now, list(found.values())

    def plan_schedule(
        self, token: UUID, name: str, was: datetime, position: datetime, firings: Sequence[Firing]
    ) -> bool:
        """See `scheduling.Scheduling.plan_schedule`."""
        asked = _SCHEDULE["plan_schedule"].bind(token, name, was, position, *_columns(firings))
        moved = bool(self._call(asked))
        if moved:
            self._call(_SCHEDULE["prune_firings"].bind(name, RECENT))
        return moved

    def move_firing(
        self, token: UUID, name: str, due: datetime, was: FiringState, to: FiringState, reason: str = ""
    ) -> bool:
        """See `scheduling.Scheduling.move_firing`."""
        asked = _SCHEDULE["move_firing"].bind(token, name, due, was.value, to.value, reason)
        moved = bool(self._call(asked))
        if moved:
            self._call(_SCHEDULE["prune_firings"].bind(name, RECENT))
        return moved

    def pause_schedule(self, name: str, by: str, *, paused: bool) -> bool:
        """See `scheduling.Scheduling.pause_schedule`."""
        return bool(self._call(_SCHEDULE["pause_schedule"].bind(name, by, paused)))

    def ask_firings(self, name: str, firings: Sequence[Firing]) -> int:
        """See `scheduling.Scheduling.ask_firings`."""
        return len(self._call(_SCHEDULE["ask_firings"].bind(name, MAX_WAITING, *_columns(firings))))


def _columns(firings: Sequence[Firing]) -> list[list[object]]:
    rows = [
        (each.due, each.cause.value, each.state.value, each.at, each.saga_id, each.reason) for each in firings
    ]
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(6)]
