"""Reads one contract's commands from Kafka, in a thread of its own, as a member of the contract's group.

Station: the first on the way. Blocks in librdkafka without the interpreter's lock, and hands what came to the
event loop in one call; commits what the loop has finished. Takes nothing in while there is no room: it waits
a moment first, since a pause throws prefetched records away, and pauses then, so that the group sees it
alive.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import KafkaFailure
from kasaga_wire.kafka import EndOfPartition, GroupConsumer, Record
from kasaga_wire.kafka_pauses import Pauses
from kasaga_wire.kafka_watch import Watch

from .log import Throttle, logger
from .outage import delay
from .progress import Place, Progress, Room
from .settings import COMMIT_SECONDS, REVOKE_SECONDS

REPLACE_SECONDS = 1.0
"""The pause before a failed consumer is replaced; two processes of one static name take turns."""
MOST_AT_ONCE = 256
"""Records handed over in one call: some milliseconds of the loop's time."""
WAIT_SECONDS = 0.2
"""How long one wait for records lasts; only stopping and commits wait for its end."""
CHECK_SECONDS = 30.0
"""How long nothing may come before the group's coordinator is asked whether it is there."""
ANSWER_SECONDS = 5.0
"""How long it may take to answer."""
FIRST_PATIENCE = 2
MOST_PATIENCE = 32
"""After so many unanswered questions the consumer is replaced: one that has seen every broker go at once may
never look for them again. Doubled each time it was in vain: the brokers may simply be away."""
PAUSE_AFTER_SECONDS = 1.0
"""How long there may be no room before partitions are paused."""
LOOK_SECONDS = 2.0
"""How long a question about quiet partitions may take."""

Delivered = Sequence[tuple[Record, Progress]]


class Hub(Protocol):
    """The runtime, as a reader sees it. All of it may be called from the reader's thread."""

    def deliver(self, reader: Reader, records: Delivered) -> None:
        """Records came."""
        ...

    def quiesce(self, partitions: Sequence[Progress], finished: threading.Event) -> None:
        """Set the event once everything delivered from these partitions is finished."""
        ...

    def drop(self, partitions: Sequence[Progress]) -> None:
        """These partitions are gone: forget what isn't running yet."""
        ...

    def commits(self) -> None:
        """Offsets are about to be committed."""
        ...

    def stalled(self, reader: Reader) -> None:
        """A partition was assigned and not read."""
        ...

    def failed(self, error: BaseException) -> None:
        """The reader can't go on."""
        ...


class Reader(threading.Thread):
    """The consumer of one command topic, and its successors."""

    def __init__(self, topic: str, make_consumer: Callable[[], GroupConsumer], room: Room, hub: Hub) -> None:
        """`make_consumer` is called in the thread, and again when a consumer fails for good."""
        super().__init__(name=f"kasaga-reader-{topic}", daemon=True)
        self.topic = topic
        self.room = room
        self.hub = hub
        self.holding = threading.Event()
        self.ending = threading.Event()
        self.patience = FIRST_PATIENCE
        self.watch = Watch(time.monotonic, LOOK_SECONDS)
        """Outlives a consumer: the same stall is told once."""
        self._make = make_consumer
        self._throttle = Throttle()
        self._tries = 0

    def hold(self) -> None:
        """Read nothing more, but stay in the group."""
        self.holding.set()

    def end(self) -> None:
        """Commit, leave the group, end the thread."""
        self.ending.set()

    def run(self) -> None:
        """Read until the end; a consumer that fails for good is replaced."""
        try:
            while not self.ending.is_set():
                self._live()
        except BaseException as error:
            self.hub.failed(error)
            raise

    def _live(self) -> None:
        """One consumer's life."""
        try:
            life = _Life(self, self._make())
        except KafkaFailure as error:
            self._trouble(error)
            return
        while not self.ending.is_set() and life.failure is None:
            try:
                life.turn()
                self._tries = 0
            except KafkaFailure as error:
                self._trouble(error)
        if life.failure is None:
            life.end()
            return
        logger.error("the consumer of %s failed, a new one takes over: %s", self.topic, life.failure)
        life.abandon()
        self.patience = min(2 * self.patience, MOST_PATIENCE)
        self.ending.wait(REPLACE_SECONDS)

    def _trouble(self, error: KafkaFailure) -> None:
        if self._throttle.due(error.code):
            logger.warning("reading %s: %s", self.topic, error)
        self.ending.wait(delay(self._tries))
        self._tries += 1


class _Life:
    """One consumer, and what it was assigned. What a former one still says concerns nobody else."""

    def __init__(self, reader: Reader, consumer: GroupConsumer) -> None:
        self._reader = reader
        self._consumer = consumer
        self._topic = reader.topic
        self._progress: dict[Place, Progress] = {}
        self._committed: dict[Place, int] = {}
        self._pauses = Pauses(consumer)
        self._paused = False
        """Whether nothing is to be read; not everything need be paused."""
        self._stalled: str | None = None
        self._full_since: float | None = None
        self._commit_at = 0.0
        self._check_at = time.monotonic() + CHECK_SECONDS
        self._silences = 0
        consumer.subscribe([self._topic], self._on_assign, self._on_revoke, self._on_lost)

    @property
    def failure(self) -> str | None:
        """Why this consumer can't go on."""
        if self._silences >= self._reader.patience:
            return "the group's coordinator doesn't answer it"
        return self._stalled or self._consumer.fatal

    def turn(self) -> None:
        """Read once, or wait for room; commit when it is time. Raises KafkaFailure."""
        reader = self._reader
        room = 0 if reader.holding.is_set() else reader.room.wait(0 if self._paused else WAIT_SECONDS)
        if room:
            self._full_since = None
            self._pauses.resume()
            self._paused = False
            if self._read(min(room, MOST_AT_ONCE), WAIT_SECONDS):
                self._look()
        elif self._full_long_enough():
            self._pauses.pause()  # each time: others may have shown by now that they are read
            self._paused = True
            self._read(1, WAIT_SECONDS / 2)
        now = time.monotonic()
        if now >= self._commit_at:
            self._commit_at = now + COMMIT_SECONDS
            self._commit(wait=False)
        if now >= self._check_at and not reader.holding.is_set():
            self._heard(self._consumer.coordinator_answers(self._topic, ANSWER_SECONDS))

    def _heard(self, answers: bool) -> None:
        """The brokers gave a sign of life, or didn't when they were asked for one."""
        self._check_at = time.monotonic() + CHECK_SECONDS
        if answers:
            self._silences, self._reader.patience = 0, FIRST_PATIENCE
        else:
            self._silences += 1

    def _full_long_enough(self) -> bool:
        now = time.monotonic()
        if self._full_since is None:
            self._full_since = now
        return self._reader.holding.is_set() or now - self._full_since >= PAUSE_AFTER_SECONDS

    def _read(self, most: int, timeout: float) -> bool:
        """Read, and hand over what came; gives whether that was all there was. Raises KafkaFailure."""
        records: list[tuple[Record, Progress]] = []
        size = 0
        came: dict[Place, int] = {}
        holding = self._reader.holding.is_set()
        all_found = self._consumer.consume(most, timeout)
        for found in all_found:
            if isinstance(found, EndOfPartition):
                came[found.topic, found.partition] = found.offset
            if not isinstance(found, Record):
                continue  # errors of partitions are in the log already
            came[found.topic, found.partition] = found.offset + 1
            if holding:
                continue  # of a partition that can't be paused yet: whoever has it next reads it
            progress = self._progress.get((found.topic, found.partition))
            if progress is not None:
                records.append((found, progress))
                size += len(found.key or b"") + len(found.value or b"")
        if came:
            self._reader.watch.came(came)
            self._pauses.shown(came)
        if records:
            crash_point("participant.after_consume")
            self._heard(True)
            self._reader.room.take(len(records), size)
            self._reader.hub.deliver(self._reader, records)
        return len(all_found) < most

    def _look(self) -> None:
        """Give this consumer up if a partition is not read: another one begins with it anew."""
        reader = self._reader
        try:
            stalls = reader.watch.look(self._consumer, self._pauses.paused)
        except KafkaFailure as error:
            logger.debug("%s: can't see whether all is read: %s", self._topic, error)
            return
        for (topic, partition), offset, end in stalls:
            logger.error("%s: partition %d is not read at %d, and ends at %d", topic, partition, offset, end)
            reader.hub.stalled(reader)
            self._stalled = "a partition is not read"

    def _commit(self, *, wait: bool, only: Sequence[Place] | None = None) -> None:
        """Commit what moved. Raises KafkaFailure if `wait`."""
        moved: dict[Place, int] = {}
        for place in self._progress if only is None else only:
            progress = self._progress.get(place)
            position = None if progress is None else progress.position
            if position is not None and position != self._committed.get(place):
                moved[place] = position
        if moved:
            self._reader.hub.commits()
            crash_point("participant.after_ack_before_offset")
            self._consumer.commit(moved, wait=wait)
            self._committed.update(moved)

    def end(self) -> None:
        """Commit and leave the group."""
        try:
            self._commit(wait=True)
        except KafkaFailure as error:
            logger.warning("%s: %s", self._topic, error)
        self._consumer.close()

    def abandon(self) -> None:
        """Give everything up. A consumer that failed may never finish anything, so nothing is asked of it."""
        places = list(self._progress)
        if places:
            logger.warning("%s: gives up %s", self._topic, _numbers(places))
        self._forget(places)
        name = f"kasaga-abandoned-{self._topic}"
        threading.Thread(target=self._consumer.close, name=name, daemon=True).start()

    # --- the group's decisions; called inside of consume() and close()

    def _on_assign(self, places: list[Place]) -> None:
        for place in places:
            self._progress[place] = Progress(place)
            self._committed.pop(place, None)
        self._pauses.began(places)
        self._reader.watch.began(dict.fromkeys(places))
        if places:
            logger.info("%s: reads %s", self._topic, _numbers(places))

    def _on_revoke(self, places: list[Place]) -> None:
        going = [self._progress[place] for place in places if place in self._progress]
        if not going:
            return
        finished = threading.Event()
        self._reader.hub.quiesce(going, finished)
        if not finished.wait(REVOKE_SECONDS):
            logger.warning("%s: gives up %s with commands in hand", self._topic, _numbers(places))
        try:
            self._commit(wait=True, only=places)
        except KafkaFailure as error:
            logger.warning("%s: %s", self._topic, error)
        self._pauses.going(places)
        self._forget(places)

    def _on_lost(self, places: list[Place]) -> None:
        if places:
            logger.warning("%s: has lost %s", self._topic, _numbers(places))
        if self._progress:  # after `abandon` nothing is asked of it
            self._pauses.going(places)
        self._forget(places)

    def _forget(self, places: Sequence[Place]) -> None:
        gone = [self._progress.pop(place) for place in places if place in self._progress]
        self._reader.watch.ended(progress.place for progress in gone)
        for progress in gone:
            progress.active = False
            self._committed.pop(progress.place, None)
        self._reader.hub.drop(gone)


def _numbers(places: Sequence[Place]) -> str:
    return "partitions " + ", ".join(str(partition) for _, partition in sorted(places))
