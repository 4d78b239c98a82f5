"""Which partitions of a consumer are paused, and which may be.

Station: the orchestrator's source and the participants' readers pause through it, so that both keep one rule.

A pause or a resume makes librdkafka drop what operations of the partition are older and not done yet, and
one that has just been assigned is being started by another thread. So nothing is paused before it has shown
that it is being read; until then it brings little. And what is paused stays so when it is taken away and
comes back, unless it is resumed before.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Protocol

from .kafka_records import Place


class CanPause(Protocol):
    """What is needed of a consumer."""

    def pause(self, places: Iterable[Place]) -> None:
        """Fetch nothing from these for now."""
        ...

    def resume(self, places: Iterable[Place]) -> None:
        """Fetch from these again."""
        ...


class Pauses:
    """Of one consumer; only the thread that consumes may use it."""

    def __init__(self, consumer: CanPause) -> None:
        self._consumer = consumer
        self._fresh: set[Place] = set()
        """Assigned, and nothing has come of them yet."""
        self._shown: set[Place] = set()
        self._paused: set[Place] = set()

    @property
    def paused(self) -> Set[Place]:
        """What is paused at present."""
        return self._paused

    def began(self, places: Iterable[Place]) -> None:
        """They were assigned: what they have shown before counts no more."""
        self._fresh.update(places)
        self._shown -= self._fresh

    def shown(self, places: Iterable[Place]) -> None:
        """Something came of them since they were assigned: a record, or their end."""
        if self._fresh:
            new = self._fresh.intersection(places)
            self._fresh -= new
            self._shown |= new

    def going(self, places: Iterable[Place]) -> None:
        """They are about to be taken away; librdkafka would leave them paused, also when they come back."""
        gone = set(places)
        self._resume(self._paused & gone)
        self._fresh -= gone
        self._shown -= gone

    def pause(self, places: Iterable[Place] | None = None) -> None:
        """Pause those of them (None: of all) that may be and aren't yet."""
        new = (self._shown if places is None else self._shown.intersection(places)) - self._paused
        if new:
            self._paused |= new
            self._consumer.pause(sorted(new))

    def resume(self) -> None:
        """Resume all that is paused, and nothing else."""
        self._resume(self._paused)

    def _resume(self, places: Set[Place]) -> None:
        if places:
            self._consumer.resume(sorted(places))
            self._paused = self._paused - places
