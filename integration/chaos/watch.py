"""Looks at the sagas all the time: what is open, and when a fault is got over. Called by `run.py`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg

from chaos.faults import Struck
from chaos.load import Load

LOOK_SECONDS = 0.2

COUNT = "SELECT state, count(*) FROM kasaga.saga GROUP BY state"
ENDED = ("COMPLETED", "COMPENSATED")
STUCK = "STUCK"


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment."""

    at: float
    started: int
    ended: int
    stuck: int

    @property
    def open(self) -> int:
        """Orders that came and whose sagas have not ended."""
        return self.started - self.ended


class Judge:
    """Tells of each fault when it was got over: when no more sagas are open than `calm`."""

    def __init__(self, struck: Sequence[Struck], calm: float) -> None:
        self._struck = struck
        self._calm = calm

    def look(self, sample: Sample) -> None:
        """Faults that are mended have been got over if all is calm; else newer ones meet them."""
        newest = max((each.struck for each in self._struck if each.struck is not None), default=0.0)
        for each in self._struck:
            if each.struck is None or each.mended is None or each.recovered is not None:
                continue
            if sample.at >= each.mended:
                each.met = each.met or newest > each.struck
                if sample.open <= self._calm:
                    each.recovered = sample.at


class Watcher(threading.Thread):
    """Samples what is open, and has each sample judged."""

    def __init__(
        self, database: str, load: Load, struck: Sequence[Struck], calm: float, now: Callable[[], float]
    ) -> None:
        super().__init__(name="watcher", daemon=True)
        self.samples: list[Sample] = []
        self.moved_at = 0.0
        """When a saga was last seen to end."""
        self._database = database
        self._load = load
        self._judge = Judge(struck, calm)
        self._now = now
        self._over = threading.Event()
        self._connection: psycopg.Connection | None = None

    def run(self) -> None:
        """Looks until it is told to stop."""
        while not self._over.wait(LOOK_SECONDS):
            try:
                self._look()
            except psycopg.Error:
                self._forget()
        self._forget()

    def stop(self) -> None:
        """Looks no more."""
        self._over.set()
        self.join()

    @property
    def last(self) -> Sample:
        """What was seen last."""
        return self.samples[-1] if self.samples else Sample(0.0, 0, 0, 0)

    def _look(self) -> None:
        if self._connection is None:
            self._connection = psycopg.connect(self._database, autocommit=True, connect_timeout=5)
        started, asked = len(self._load.orders), self._now()
        states = dict[str, int](self._connection.execute(COUNT).fetchall())
        ended = sum(states.get(state, 0) for state in ENDED)
        if ended != self.last.ended:
            self.moved_at = asked
        self.samples.append(sample := Sample(asked, started, ended, states.get(STUCK, 0)))
        self._judge.look(sample)

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
