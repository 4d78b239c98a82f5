"""The network in front of the simulated Kafka: what is late, lost, doubled or cut off on the way.

Station: clients of one process each, with the faces of the real ones; below is `kasaga.testing.network`. A
record that is produced reaches its log some time later, if at all, and its acknowledgement comes after that.
Records of one producer for one partition keep their order, others don't.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from kasaga.testing import network
from kasaga.testing.network import Headers, OnAck, Place
from kasaga_wire.errors import DeliveryError, KafkaUnavailable
from kasaga_wire.kafka import EndOfPartition, PartitionError, Record
from kasaga_wire.kafka_watch import Which
from simulator.machine import NEVER, SECOND, Process, Signal

if TYPE_CHECKING:
    from simulator.world import World

MESSAGE_TIMEOUT = 5 * SECOND
"""After which a producer gives a record back that nobody took."""

Found = list[Record | EndOfPartition | PartitionError]


class Kafka(network.Kafka):
    """The brokers, and who waits for what comes."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda: int(world.clocks.true_time().timestamp() * 1000))
        self.world = world
        self.signals: dict[Place, Signal] = {}
        self.appended = self._tell
        self.cut: dict[str, int] = {}
        """By process: until when it reaches no broker."""
        self.down_until = 0
        self.lost: list[Record] = []
        """Acknowledged records that are gone, whatever for."""

    def _tell(self, record: Record) -> None:
        self.world.book.appended(record)
        signal = self.signals.get((record.topic, record.partition))
        if signal is not None:
            signal.fire()

    def signal(self, place: Place) -> Signal:
        return self.signals.setdefault(place, Signal())

    def silent(self, process: Process) -> bool:
        """Whether this process gets no answer."""
        now = self.world.machine.now
        return now < self.down_until or now < self.cut.get(process.name, 0)

    def silent_until(self, process: Process) -> int:
        return max(self.down_until, self.cut.get(process.name, 0))


class Producer:
    """`kasaga_wire.kafka.Producer`."""

    def __init__(self, kafka: Kafka, process: Process) -> None:
        self._kafka, self._process, self._world = kafka, process, kafka.world
        self._busy: dict[Place, int] = {}
        self._acks: deque[tuple[OnAck, DeliveryError | None]] = deque()
        self._out = 0
        self.fatal: str | None = None

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers | None,
        on_ack: OnAck,
    ) -> None:
        world, place = self._world, (topic, partition)
        world.machine.check()
        name = world.tracer.produced(self._process, topic, partition, headers or ())
        world.book.produced(topic, headers or (), self._process.name)
        self._out += 1
        chance, where = world.chance, f"{self._process.name}/{topic}/{partition}"
        micros = chance.whole(chance.next(f"transit/{where}"), 200, 3_000)
        if chance.strikes("delay", where):
            micros += chance.whole(chance.next(f"delay/{where}"), SECOND // 10, 8 * SECOND)
        at = self._busy[place] = max(self._busy.get(place, 0) + 1, world.machine.now + micros)
        if chance.strikes("drop", where):
            error = DeliveryError("_MSG_TIMED_OUT", "dropped", permanent=False)
            world.machine.at(at + MESSAGE_TIMEOUT, lambda: self._answered(on_ack, error))
            return
        times = 2 if chance.strikes("duplicate", where) else 1

        def land() -> None:
            self._land(place, key, value, headers or (), on_ack, times, name, where)

        world.machine.at(at, land)

    def _land(
        self,
        place: Place,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
        on_ack: OnAck,
        times: int,
        name: str,
        where: str,
    ) -> None:
        world, process = self._world, self._process

        def again() -> None:
            self._land(place, key, value, headers, on_ack, times, name, where)

        if not process.alive:
            if world.chance.number(world.chance.next(f"landed after death/{where}")) < 0.5:
                return
        elif process.frozen_until > world.machine.now:
            if world.chance.number(world.chance.next(f"sent before the pause/{where}")) < 0.5:
                world.machine.at(process.frozen_until, again)
                return
        elif self._kafka.silent(process):
            world.machine.at(self._kafka.silent_until(process) + 1000, again)
            return
        if place not in self._kafka.logs:
            error = DeliveryError("UNKNOWN_TOPIC_OR_PART", place[0], permanent=True)
            world.machine.after(1000, lambda: self._answered(on_ack, error))
            return
        for _ in range(times):
            record = self._kafka.append(*place, key, value, headers)
            world.tracer.landed(process, record, name)
        lost = world.chance.strikes("ack_lost", where)
        answer = DeliveryError("_TRANSPORT", "the answer is lost", permanent=False) if lost else None
        micros = world.chance.whole(world.chance.next(f"ack/{where}"), 200, 4_000)
        world.machine.after(micros + (MESSAGE_TIMEOUT if lost else 0), lambda: self._answered(on_ack, answer))

    def _answered(self, on_ack: OnAck, error: DeliveryError | None) -> None:
        self._acks.append((on_ack, error))

    waits = False

    def hand_over(self) -> None: ...

    def poll(self, timeout: float = 0.0) -> int:
        self._world.machine.check()
        called = 0
        while self._acks:
            on_ack, error = self._acks.popleft()
            self._out -= 1
            called += 1
            on_ack(error)
        return called

    def flush(self, timeout: float) -> int:
        machine = self._world.machine
        until = machine.now + int(timeout * SECOND)
        self.poll()
        while self._out and machine.now < until and machine.current is not None:
            machine.sleep(2000)
            self.poll()
        return self._out

    def close(self, timeout: float = 5.0) -> None:
        self.flush(timeout)

    def __len__(self) -> int:
        return self._out


class Consumer(network.Consumer):
    """`kasaga_wire.kafka.Consumer`: waits, in simulated time, for what comes."""

    def __init__(self, kafka: Kafka, process: Process, busy_at: Callable[[], int]) -> None:
        """`busy_at`: when the process has something to do by itself."""
        super().__init__(kafka)
        self._broker, self._process, self._world = kafka, process, kafka.world
        self._busy_at = busy_at
        self._wake = Signal()

    def wake(self) -> None:
        self._wake.fire()

    @property
    def _silent(self) -> bool:
        return self._broker.silent(self._process)

    def consume(self, max_records: int, timeout: float) -> Found:
        world, task = self._world, self._world.machine.current
        world.machine.check()
        machine = world.machine
        machine.sleep(world.chance.whole(world.chance.next(f"read/{self._process.name}"), 100, 1500))
        found = super().consume(max_records, timeout)
        if not found and timeout > 0 and task is not None:
            signals = [self._broker.signal(place) for place in self._next if place not in self._paused]
            for signal in signals:
                signal.waiting.append(task)
            try:
                busy = max(self._busy_at(), machine.now)
                task.wait_for(self._wake, int(timeout * SECOND), idle_until=busy)
            finally:
                for signal in signals:
                    if task in signal.waiting:
                        signal.waiting.remove(task)
            found = super().consume(max_records, timeout)
        for each in found:
            if isinstance(each, Record):
                world.tracer.read(self._process, each)
        return found

    def watermarks(self, topic: str, partition: int, timeout: float = 10.0) -> tuple[int, int]:
        machine = self._world.machine
        if self._silent:
            machine.sleep(int(timeout * SECOND))
        else:
            machine.sleep(500)
        machine.check()
        return super().watermarks(topic, partition, timeout)

    def ask_offsets(self, places: Iterable[Place], *, first: bool = False, timeout: float) -> Asked:
        """The answer is from some moment between the question and its arrival; here from its beginning."""
        world, asked = self._world, super().ask_offsets(places, first=first, timeout=timeout)
        world.machine.check()
        micros = world.chance.whole(world.chance.next(f"ask/{self._process.name}"), 200, 5_000)
        silent = self._silent
        return Asked(world, asked, world.machine.now + (int(timeout * SECOND) if silent else micros))


class Asked(network.Asked):
    """A question that takes its time."""

    def __init__(self, world: World, asked: network.Asked, at: int) -> None:
        self._world, self._asked, self._at = world, asked, at

    def answer(self) -> dict[Place, int] | None:
        return None if self._world.machine.now < self._at else self._asked.answer()

    def wait(self) -> dict[Place, int]:
        machine = self._world.machine
        machine.sleep(max(self._at - machine.now, 0))
        machine.check()
        return self._asked.wait()


class Group:
    """A consumer group of one topic: who reads which partition, and how far it has come."""

    SESSION = 6 * SECOND

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._kafka, self.topic = kafka, topic
        self.members: list[Member] = []
        self.holder: dict[int, Member] = {}
        self.committed: dict[int, int] = {}

    def join(self, member: Member) -> None:
        self.members.append(member)
        self.changed()

    def leave(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
        self.holder = {number: each for number, each in self.holder.items() if each is not member}
        self.changed()

    def changed(self) -> None:
        for member in self.members:
            member.wake.fire()

    def share(self, member: Member) -> set[int]:
        """What is its part."""
        members = self.members
        mine = members.index(member)
        count = self._kafka.counts[self.topic]
        return {number for number in range(count) if number % len(members) == mine}

    def watch(self) -> None:
        """Take members out that haven't been heard for a session."""
        now = self._kafka.world.machine.now
        for member in list(self.members):
            if now - member.heard() > self.SESSION:
                member.expelled = True
                self.leave(member)


class Member:
    """`kasaga_wire.kafka.GroupConsumer`."""

    fatal: str | None = None

    def __init__(self, kafka: Kafka, process: Process, group: Group) -> None:
        self._kafka, self._process, self._group, self._world = kafka, process, group, kafka.world
        self._next: dict[Place, int] = {}
        self._paused: set[Place] = set()
        self._callbacks: tuple[Callable[[list[Place]], None], ...] = ()
        self.wake = Signal()
        self.expelled = False
        self._joined = False
        self._silent_since = 0
        self._dead_since = 0
        process.on_end.append(self._died)

    def _died(self) -> None:
        self._dead_since = self._dead_since or self._world.machine.now + 1

    def heard(self) -> int:
        """When its heartbeat was heard last: it is librdkafka's own thread that beats."""
        now = self._world.machine.now
        if self._dead_since:
            return self._dead_since
        frozen = self._process.frozen_until > now
        if not frozen and not self._kafka.silent(self._process):
            self._silent_since = now
        return self._silent_since

    def subscribe(
        self,
        topics: Iterable[str],
        on_assign: Callable[[list[Place]], None],
        on_revoke: Callable[[list[Place]], None],
        on_lost: Callable[[list[Place]], None],
    ) -> None:
        self._callbacks = (on_assign, on_revoke, on_lost)
        self._silent_since = self._world.machine.now
        self._group.join(self)
        self._joined = True

    def consume(self, max_records: int, timeout: float) -> Found:
        world, task = self._world, self._world.machine.current
        world.machine.check()
        assert task is not None, "readers have threads of their own"
        found = self._turn(max_records)
        if not found and timeout > 0:
            signals = [self._kafka.signal(place) for place in self._next if place not in self._paused]
            for signal in signals:
                signal.waiting.append(task)
            try:
                task.wait_for(self.wake, int(timeout * SECOND), idle_until=NEVER)
            finally:
                for signal in signals:
                    if task in signal.waiting:
                        signal.waiting.remove(task)
            world.machine.sleep(world.chance.whole(world.chance.next(f"read/{self._process.name}"), 100, 900))
            found = self._turn(max_records)
        for each in found:
            if isinstance(each, Record):
                world.tracer.read(self._process, each)
        return found

    def _turn(self, most: int) -> Found:
        if self._kafka.silent(self._process):
            return []
        self._group.watch()
        self._rebalance()
        found: Found = []
        for place, at in list(self._next.items()):
            if place in self._paused or len(found) >= most:
                continue
            log = self._kafka.logs[place]
            at = at if log.first <= at <= log.end else log.first
            records = log.records[at - log.first : at - log.first + most - len(found)]
            self._next[place] = at + len(records)
            found += records
        return found

    def _rebalance(self) -> None:
        on_assign, on_revoke, on_lost = self._callbacks
        if self.expelled:
            self.expelled = False
            on_lost(list(self._next))
            self._next.clear()
            self._group.join(self)
        group = self._group
        share = group.share(self)
        gone = [place for place in self._next if place[1] not in share]
        if gone:
            on_revoke(gone)
            for place in gone:
                self._next.pop(place, None)
                if group.holder.get(place[1]) is self:
                    del group.holder[place[1]]
            group.changed()
        new = [
            (group.topic, number)
            for number in sorted(share)
            if group.holder.get(number) is None and (group.topic, number) not in self._next
        ]
        for place in new:
            group.holder[place[1]] = self
            self._next[place] = group.committed.get(place[1], 0)
        if new:
            on_assign(new)

    def pause(self, places: Iterable[Place]) -> None:
        self._paused |= set(places)

    def resume(self, places: Iterable[Place]) -> None:
        self._paused -= set(places)

    def commit(self, offsets: Mapping[Place, int], *, wait: bool = False) -> None:
        self._world.machine.check()
        fenced = self.expelled or any(self._group.holder.get(place[1]) is not self for place in offsets)
        if self._kafka.silent(self._process) or fenced:
            if wait:
                raise KafkaUnavailable("committing offsets")
            return
        for place, offset in offsets.items():
            self._world.book.passed(place, self._group.committed.get(place[1], 0), offset)
            self._group.committed[place[1]] = offset
        self._world.tracer.offsets(self._process, self._group.topic, offsets)

    def offsets(self, places: Sequence[Place], which: Which, timeout: float) -> dict[Place, int]:
        self._world.machine.check()
        if self._kafka.silent(self._process):
            self._world.machine.sleep(int(timeout * SECOND))
            raise KafkaUnavailable("asking for offsets")
        if which == "group":
            committed = self._group.committed
            return {place: committed[place[1]] for place in places if place[1] in committed}
        logs = {place: self._kafka.logs[place] for place in places}
        return {place: log.first if which == "begin" else log.end for place, log in logs.items()}

    def coordinator_answers(self, topic: str, timeout: float) -> bool:
        if not self._kafka.silent(self._process):
            return True
        self._world.machine.sleep(int(timeout * SECOND))
        return False

    def close(self) -> None:
        if self._process.alive and self._next and not self.expelled:
            self._callbacks[1](list(self._next))
        self._next.clear()
        self._group.leave(self)
