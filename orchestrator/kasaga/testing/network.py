"""Kafka for one saga in one thread: logs in memory, and clients with the faces of the real ones.

Station: below `world.py`, which delivers what is produced to the participants. Nothing is lost, late or
twice here: that is for the faults (`faults.py`) to make.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

from kasaga_wire.errors import DeliveryError
from kasaga_wire.kafka import EndOfPartition, PartitionError, Record

Place = tuple[str, int]
Headers = Sequence[tuple[str, bytes | None]]
OnAck = Callable[[DeliveryError | None], None]


class Network:
    """All topics, each with one partition. `taken` is called with each record that participants get."""

    def __init__(self, now_ms: Callable[[], int], taken: Callable[[Record], None]) -> None:
        self._now_ms = now_ms
        self._taken = taken
        self.logs: dict[Place, list[Record]] = {}
        """What the orchestrator reads."""
        self.services: frozenset[str] = frozenset()
        """Topics that participants read."""

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        """Put a record at the end of a topic."""
        log = self.logs.setdefault((topic, partition), [])
        record = Record(topic, partition, len(log), key, value, list(headers), self._now_ms())
        log.append(record)
        if topic in self.services:
            self._taken(record)

    def count(self, topic: str) -> int:
        """How many partitions a topic has."""
        return 1


class Consumer:
    """`kasaga_wire.kafka.Consumer`: assigned by hand, told of ends."""

    fatal: str | None = None

    def __init__(self, network: Network) -> None:
        self._network = network
        self._next: dict[Place, int] = {}
        self._told: set[Place] = set()
        """Whose end was told."""
        self._paused: set[Place] = set()

    @property
    def behind(self) -> bool:
        """Whether there is something that wasn't read."""
        logs = self._network.logs
        return any(len(logs.get(place, ())) > at for place, at in self._next.items())

    def incremental_assign(self, positions: Mapping[Place, int]) -> None:
        """Begin to read."""
        self._next.update(positions)

    def incremental_unassign(self, places: Iterable[Place]) -> None:
        """Stop to read."""
        for place in places:
            self._next.pop(place, None)
            self._told.discard(place)
            self._paused.discard(place)

    def pause(self, places: Iterable[Place]) -> None:
        """Read them not for now."""
        self._paused |= set(places)

    def resume(self, places: Iterable[Place]) -> None:
        """Read them again."""
        self._paused -= set(places)

    def consume(self, max_records: int, timeout: float) -> list[Record | EndOfPartition | PartitionError]:
        """What is there; waits for nothing."""
        found: list[Record | EndOfPartition | PartitionError] = []
        for place, at in self._next.items():
            if place in self._paused:
                continue
            records = self._network.logs.get(place, ())[at : at + max_records - len(found)]
            if records:
                found += records
                self._next[place] = at + len(records)
                self._told.discard(place)
            elif place not in self._told:
                self._told.add(place)
                found.append(EndOfPartition(*place, at))
        return found

    def watermarks(self, topic: str, partition: int, timeout: float = 10.0) -> tuple[int, int]:
        """Where a partition begins and ends."""
        return 0, len(self._network.logs.get((topic, partition), ()))

    def known_end(self, topic: str, partition: int) -> int:
        """Where a partition ends."""
        return self.watermarks(topic, partition)[1]

    def commit(self, offsets: Mapping[Place, int], *, wait: bool = False) -> None:
        """Only people would look at it."""

    def close(self) -> None:
        """Read nothing more."""
        self._next.clear()


class Producer:
    """`kasaga_wire.kafka.Producer`: delivered at once, acknowledged by the next `poll`."""

    fatal: str | None = None

    def __init__(self, network: Network) -> None:
        self._network = network
        self._landed: deque[OnAck] = deque()

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: OnAck,
    ) -> None:
        """Deliver a record."""
        self._network.append(topic, partition, key, value, headers or ())
        self._landed.append(on_ack)

    def poll(self, timeout: float = 0.0) -> int:
        """Acknowledge what was delivered."""
        count = len(self._landed)
        for _ in range(count):
            self._landed.popleft()(None)
        return count

    def flush(self, timeout: float) -> int:
        """The same; nothing is left."""
        self.poll()
        return 0

    def close(self, timeout: float = 5.0) -> None:
        """Nothing is open."""

    def __len__(self) -> int:
        return len(self._landed)
