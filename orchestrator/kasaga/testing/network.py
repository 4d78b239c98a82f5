"""Kafka in memory, and clients of it with the faces of the real ones; what goes wrong is the caller's to say.

Station: the one simulated Kafka, below the users' failure matrix (`world.py`), the orchestrator's tests and
the simulator. A record is in its log when it was delivered; its sender learns of that by a later `poll`. A
process that dies in between has sent it without knowing, as with the real one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kasaga_wire.errors import DeliveryError, KafkaUnavailable
from kasaga_wire.kafka import EndOfPartition, PartitionError, Record

Place = tuple[str, int]
Headers = Sequence[tuple[str, bytes | None]]
OnAck = Callable[[DeliveryError | None], None]


@dataclass
class Log:
    """One partition."""

    first: int = 0
    records: list[Record] = field(default_factory=list[Record])

    @property
    def end(self) -> int:
        """The offset after the last record."""
        return self.first + len(self.records)


def _heard_by_nobody(record: Record) -> None:
    """Let it lie."""


class Kafka:
    """All topics of a world."""

    def __init__(self, now_ms: Callable[[], int] = lambda: 0) -> None:
        self.logs: dict[Place, Log] = {}
        self.counts: dict[str, int] = {}
        self.now_ms = now_ms
        """What records have for their time."""
        self.appended: Callable[[Record], None] = _heard_by_nobody
        """Told of each record that has reached its log."""
        self.down = False
        """No client gets an answer."""

    def create(self, topic: str, partitions: int) -> None:
        """Make an empty topic."""
        self.counts[topic] = partitions
        for partition in range(partitions):
            self.logs[topic, partition] = Log()

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> Record:
        """Put a record at the end of a partition. Raises KeyError where there is none."""
        log = self.logs[topic, partition]
        record = Record(topic, partition, log.end, key, value, list(headers), self.now_ms())
        log.records.append(record)
        self.appended(record)
        return record

    def truncate(self, topic: str, partition: int, first: int) -> None:
        """Forget everything before `first`, which may lie beyond the end: the topic was made anew."""
        log = self.logs[topic, partition]
        del log.records[: max(0, first - log.first)]
        log.first = first

    def remake(self, topic: str, partition: int) -> None:
        """Make a partition anew, empty."""
        self.logs[topic, partition] = Log()

    def all(self, topic: str) -> list[Record]:
        """Every record of a topic, partition by partition."""
        return [
            record for place, log in sorted(self.logs.items()) if place[0] == topic for record in log.records
        ]


class Asked:
    """`kasaga_wire.kafka.Asked`: answered at once, or by nobody."""

    def __init__(self, found: dict[Place, int] | None) -> None:
        self._found = found

    def answer(self) -> dict[Place, int] | None:
        """What was found. Raises KafkaUnavailable."""
        return self.wait()

    def wait(self) -> dict[Place, int]:
        """The same."""
        if self._found is None:
            raise KafkaUnavailable("asking for offsets")
        return self._found


class Consumer:
    """`kasaga_wire.kafka.Consumer`: assigned by hand, told of ends, never jumping."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._next: dict[Place, int] = {}
        self._told: set[Place] = set()
        """Whose end was told."""
        self._broken: set[Place] = set()
        """Whose offset is out of range, and that was told."""
        self._paused: set[Place] = set()
        """Also of what isn't assigned any more: librdkafka remembers it."""
        self._shown: set[Place] = set()
        """What something has come of since it was assigned."""
        self.deaf: set[Place] = set()
        """Assigned, and never fetched, until it is assigned anew."""
        self.cut_off = False
        self.fatal: str | None = None
        self.shown: dict[Place, int] = {}
        self.questions = 0
        self.take: Callable[[int], int] = lambda most: most
        """How many of so many records come at once."""

    @property
    def behind(self) -> bool:
        """Whether there is something that wasn't read."""
        logs = self._kafka.logs
        return any(logs[place].end > at for place, at in self._next.items() if place not in self._paused)

    @property
    def _silent(self) -> bool:
        return self.cut_off or self._kafka.down

    def incremental_assign(self, positions: Mapping[Place, int]) -> None:
        """Begin to read."""
        assert not positions.keys() & self._next.keys(), "assigned twice"
        self._next.update(positions)

    def incremental_unassign(self, places: Iterable[Place]) -> None:
        """Stop to read."""
        for place in places:
            del self._next[place]
            self._told.discard(place)
            self._broken.discard(place)
            self._shown.discard(place)
            self.deaf.discard(place)

    def pause(self, places: Iterable[Place]) -> None:
        """Read them not for now; one that hasn't shown that it is read might lose its start by that."""
        more = set(places)
        assert more <= self._shown, "paused before it was seen to be read"
        self._paused |= more

    def resume(self, places: Iterable[Place]) -> None:
        """Read them again."""
        self._paused -= set(places)

    def positions(self, topic: str) -> dict[int, int]:
        """Where each partition of a topic goes on to be read."""
        return {place[1]: at for place, at in self._next.items() if place[0] == topic}

    def assignment(self) -> set[Place]:
        """What is read."""
        return set(self._next)

    def consume(self, max_records: int, timeout: float) -> list[Record | EndOfPartition | PartitionError]:
        """What is there; waits for nothing."""
        found: list[Record | EndOfPartition | PartitionError] = []
        if self._silent:
            return found
        for place in list(self._next):
            if place not in self._paused | self.deaf and len(found) < max_records:
                came = self._read(place, max_records - len(found))
                if any(not isinstance(each, PartitionError) for each in came):
                    self._shown.add(place)
                found += came
        return found

    def _read(self, place: Place, most: int) -> list[Record | EndOfPartition | PartitionError]:
        log, at = self._kafka.logs[place], self._next[place]
        if not log.first <= at <= log.end:
            if place in self._broken:
                return []
            self._broken.add(place)
            name = "_AUTO_OFFSET_RESET"
            return [PartitionError(*place, at, name, "offset out of range", True, False)]
        if at == log.end:
            if place in self._told:
                return []
            self._told.add(place)
            return [EndOfPartition(*place, at)]
        start = at - log.first
        records = log.records[start : start + self.take(most)]
        if records:
            self._next[place] = records[-1].offset + 1
            self._told.discard(place)
        return list(records)

    def watermarks(self, topic: str, partition: int, timeout: float = 10.0) -> tuple[int, int]:
        """Where a partition begins and ends, asked of the broker. Raises KafkaUnavailable."""
        self.questions += 1
        if self._silent:
            raise KafkaUnavailable(f"watermarks of {topic}/{partition}")
        log = self._kafka.logs[topic, partition]
        return log.first, log.end

    def ask_offsets(self, places: Iterable[Place], *, first: bool = False, timeout: float) -> Asked:
        """Where partitions end, or begin, as of now; what `kasaga_wire.kafka.Admin` does."""
        self.questions += 1
        if self._silent:
            return Asked(None)
        logs = {place: self._kafka.logs[place] for place in places}
        return Asked({place: log.first if first else log.end for place, log in logs.items()})

    def commit(self, offsets: Mapping[Place, int], *, wait: bool = False) -> None:
        """Show how far everything is read."""
        self.shown.update(offsets)

    def known_end(self, topic: str, partition: int) -> int:
        """Where a partition ends, as last heard."""
        return self._kafka.logs[topic, partition].end

    def close(self) -> None:
        """Read nothing more."""
        self._next.clear()


@dataclass
class _Flying:
    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    on_ack: OnAck


class Producer:
    """`kasaga_wire.kafka.Producer`. Records are delivered and acknowledged by `poll`, as many as may be."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._queue: deque[_Flying] = deque()
        self._landed: deque[OnAck] = deque()
        self.cut_off = False
        self.fatal: str | None = None
        self.deliver: Callable[[int], int] = lambda waiting: waiting
        """How many of the waiting records reach the log at this poll."""
        self.confirm: Callable[[int], int] = lambda landed: landed
        """How many of those in the log are acknowledged at this poll."""
        self.refuse: Callable[[str], DeliveryError | None] = lambda topic: None
        """What a topic's broker says instead of taking a record."""
        self.produced: list[Place] = []

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: OnAck,
    ) -> None:
        """Take a record."""
        self.produced.append((topic, partition))
        self._queue.append(_Flying(topic, partition, key, value, headers or (), on_ack))

    def hand_over(self) -> None:
        """Nothing: `poll` does it."""

    @property
    def waits(self) -> bool:
        """Whether records wait for those before them: none does."""
        return False

    def poll(self, timeout: float = 0.0) -> int:
        """Deliver and acknowledge, as many as may be."""
        if not (self.cut_off or self._kafka.down):
            self.land(self.deliver(len(self._queue)))
        called = self.confirm(len(self._landed))
        for _ in range(called):
            self._landed.popleft()(None)
        return called

    def land(self, count: int) -> None:
        """Let the first `count` records reach their logs, unknown to the sender as yet."""
        for _ in range(count):
            flying = self._queue.popleft()
            error = self.refuse(flying.topic)
            if error is None and (flying.topic, flying.partition) not in self._kafka.logs:
                error = DeliveryError("UNKNOWN_TOPIC_OR_PART", flying.topic, permanent=True)
            if error is not None:
                flying.on_ack(error)
                continue
            self._kafka.append(flying.topic, flying.partition, flying.key, flying.value, flying.headers)
            self._landed.append(flying.on_ack)

    @property
    def waiting(self) -> int:
        """Records that aren't in their logs yet."""
        return len(self._queue)

    def flush(self, timeout: float) -> int:
        """Deliver and acknowledge all that can be; gives how many are left."""
        if not (self.cut_off or self._kafka.down):
            self.land(len(self._queue))
        while self._landed:
            self._landed.popleft()(None)
        return len(self._queue)

    def close(self, timeout: float = 5.0) -> None:
        """The same; what is left comes back as failed."""
        if self.flush(timeout):
            queue, self._queue = self._queue, deque()
            for flying in queue:
                flying.on_ack(DeliveryError("_PURGE_QUEUE", "purged", permanent=False))

    def die(self, error: str) -> None:
        """Fail for good: what is on its way comes back as failed."""
        self.fatal = error
        queue, self._queue = self._queue, deque()
        for flying in queue:
            flying.on_ack(DeliveryError("_FATAL", error, permanent=False, fatal=True))

    def __len__(self) -> int:
        return len(self._queue) + len(self._landed)


class Partitions:
    """How many partitions a topic has."""

    def __init__(self, kafka: Kafka, *, create: bool = False) -> None:
        """`create`: a topic that isn't there is made, with one partition."""
        self._kafka = kafka
        self._create = create

    def count(self, topic: str) -> int:
        """Of one topic. Raises DeliveryError where there is none."""
        if self._create and topic not in self._kafka.counts:
            self._kafka.create(topic, 1)
        if topic not in self._kafka.counts:
            raise DeliveryError("UNKNOWN_TOPIC_OR_PART", f"there is no topic {topic}", permanent=True)
        return self._kafka.counts[topic]
