"""A question for offsets that is on its way.

Station: `kafka.Admin` makes it, the orchestrator's source waits for it or looks whether it is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .errors import KafkaUnavailable
from .kafka_records import Place


class Future(Protocol):
    """What a client's request will have come to."""

    def done(self) -> bool:
        """Whether it has."""
        ...

    def result(self, timeout: float | None = None) -> Any:
        """Wait for it."""
        ...


class Asked:
    """One question for the offsets of some partitions."""

    def __init__(self, futures: Mapping[Place, Future], offset_of: Callable[[Future], int]) -> None:
        """`offset_of` waits for one of them. Raises KafkaUnavailable."""
        self._futures = futures
        self._offset_of = offset_of

    def answer(self) -> dict[Place, int] | None:
        """What a broker has said of the partitions that it knows; None while it hasn't.

        Raises KafkaUnavailable where it has said nothing of any, or not in time.
        """
        return self.wait() if all(future.done() for future in self._futures.values()) else None

    def wait(self) -> dict[Place, int]:
        """Wait for the answer, for as long as the question may take. Raises KafkaUnavailable."""
        found: dict[Place, int] = {}
        failed: KafkaUnavailable | None = None
        for place, future in self._futures.items():
            try:
                found[place] = self._offset_of(future)
            except KafkaUnavailable as error:
                failed = error
        if failed is not None and not found:
            raise failed
        return found
