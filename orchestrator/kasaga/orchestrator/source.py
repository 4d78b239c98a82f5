"""Where the loop reads: the shards' partitions of three topics, and the schemas' topic.

Partitions are assigned by hand at the offsets of the shard's row; those are the truth. What is
committed to Kafka is only for people and autoscalers to see the lag by.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from kasaga_wire.codec import Schemas
from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import KafkaFailure, KafkaUnavailable, KasagaError
from kasaga_wire.kafka import Asked, Consumer, EndOfPartition, PartitionError, Record
from kasaga_wire.kafka_pauses import Pauses
from kasaga_wire.kafka_records import Place
from kasaga_wire.kafka_watch import Watch, Which
from kasaga_wire.topics import Topics

from ..store.base import Offsets
from .clock import Clock
from .shards import End, Shard

log = logging.getLogger("kasaga.orchestrator")

PROBE_SECONDS = 2.0
COMMIT_SECONDS = 5.0
WATERMARK_TIMEOUT = 1.0
"""Seconds: the loop stands still meanwhile."""
ASK_AGAIN_SECONDS = 1.0
"""After a question that no broker answered."""


SINGLY_SECONDS = 10.0
"""After such a question about several partitions: for so long each is asked for by itself."""
ASK_INTERVAL = 0.01
"""Seconds between two questions for where replies end: one asks for all shards that want to know."""


class Asker(Protocol):
    """Asks brokers for offsets, without waiting for them."""

    def ask_offsets(  # noqa: D102
        self, places: Iterable[Place], *, first: bool = False, timeout: float
    ) -> Asked: ...


class _Questions:
    """The watch's; it waits for the answers: milliseconds, since the asker isn't the consumer's client."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def offsets(self, places: Sequence[Place], which: Which, timeout: float) -> Mapping[Place, int]:
        """Raises KafkaFailure. No group reads here."""
        if which == "group":
            return {}
        return self._asker.ask_offsets(places, first=which == "begin", timeout=timeout).wait()


class Truncated(NamedTuple):
    """A shard's partition of one topic has lost records: its reading goes on elsewhere."""

    shard: int
    topic: str
    """`sagas`, `replies` or `control`."""
    offset: int


class Source:
    """Of one process; the loop's thread alone uses it."""

    def __init__(
        self,
        consumer: Consumer,
        asker: Asker,
        topics: Topics,
        schemas: Schemas,
        clock: Clock,
        stalled: Callable[[], None] = lambda: None,
    ) -> None:
        """`stalled` is called for each partition that is found not to be read. Raises KafkaUnavailable."""
        self._consumer, self._asker = consumer, asker
        self._topics = topics
        self._schemas = schemas
        self._clock = clock
        self._inputs = (topics.sagas, topics.replies, topics.control)
        self._shards: set[int] = set()
        self._ends: dict[int, int] = {}
        self._positions: dict[int, int] = {}
        self._controls: dict[int, int] = {}
        self._backlogs: dict[int, int] = {}
        """By shard: the offset after the last control record that came before any end of them was seen."""
        self._caught_up: set[int] = set()
        """Shards whose control records' end was seen since they were assigned."""
        self._awaiting: set[int] = set()
        """Shards with sagas that wait for a signal until a time: there control records' ends count too."""
        self._gone: dict[tuple[str, int], int] = {}
        """Partitions that can't be read where they should be, with that offset."""
        self._truncated: list[Truncated] = []
        self._paused = False
        self._pauses = Pauses(consumer)
        self._watch = Watch(clock.seconds, WATERMARK_TIMEOUT)
        self._questions = _Questions(asker)
        self._stalled = stalled
        self._heard = self._probed = self._committed = clock.seconds()
        self._ask_at = 0.0
        """Until then no broker is asked anything: each question would stop the loop for its time-out."""
        self._to_commit: dict[tuple[str, int], int] = {}
        self._wanted: dict[int, None] = {}
        """Shards whose end is to be asked for, in the order in which they came."""
        self._not_before: dict[int, float] = {}
        """By shard: until then nobody is asked for its end, since nobody has answered."""
        self._singly_until = 0.0
        """Until then each shard is asked for by itself: a partition without a leader spoils a question."""
        self._question: Asked | None = None
        self._asked_of: set[int] = set()
        """Of the question that is on its way: the shards whose answer will be true."""
        self._asked_at, self._asked = 0, -ASK_INTERVAL
        self._told: dict[int, End] = {}
        self._begin({(topics.schemas, 0): self._low(topics.schemas, 0)})

    def _low(self, topic: str, partition: int) -> int:
        return self._consumer.watermarks(topic, partition, WATERMARK_TIMEOUT)[0]

    def _ask(self, topic: str, partition: int) -> tuple[int, int] | None:
        """Ask a broker for both ends of a partition; None where none answers, or none did a moment ago."""
        if self._clock.seconds() < self._ask_at:
            return None
        try:
            found = self._consumer.watermarks(topic, partition, WATERMARK_TIMEOUT)
        except KafkaFailure as error:
            self._without_answer(error)
            return None
        self._heard = self._clock.seconds()
        return found

    def assign(self, shard: int, offsets: Offsets, *, known: bool) -> Offsets:
        """Begin to read a shard at its offsets; at the start of the topics where none are `known`.

        Raises KafkaFailure; then nothing is read.
        """
        if not known:
            offsets = self._beginning(shard)
        at = (offsets.sagas, offsets.replies, offsets.control)
        self._begin({(topic, shard): offset for topic, offset in zip(self._inputs, at, strict=True)})
        self._shards.add(shard)
        self._forget_ends(shard)
        return offsets

    def _begin(self, positions: dict[Place, int]) -> None:
        """Read partitions. Nothing is paused before it has shown that it is read, starts neither."""
        self._consumer.incremental_assign(positions)
        self._pauses.began(positions)
        self._watch.began(positions)

    def _end(self, places: list[Place]) -> None:
        """Read them no more, and leave nothing paused behind: librdkafka would remember it."""
        self._pauses.going(places)
        self._watch.ended(places)
        self._consumer.incremental_unassign(places)

    def _beginning(self, shard: int) -> Offsets:
        """Ask where a shard's partitions begin, for a while: brokers learn of new topics bit by bit.

        Raises KafkaFailure.
        """
        places = [(topic, shard) for topic in self._inputs]
        end = self._clock.seconds() + WATERMARK_TIMEOUT
        while True:
            try:
                firsts = self._asker.ask_offsets(places, first=True, timeout=WATERMARK_TIMEOUT).wait()
                if len(firsts) == len(places):
                    return Offsets(*(firsts[place] for place in places))
            except KafkaUnavailable:
                if self._clock.seconds() > end:
                    raise
            if self._clock.seconds() > end:
                raise KafkaUnavailable(f"no broker leads all partitions of shard {shard}")
            self._clock.wait(threading.Event(), 0.02)

    def unassign(self, shard: int) -> None:
        """Stop to read a shard."""
        if shard in self._shards:
            self._shards.discard(shard)
            self._forget_ends(shard)
            for topic in self._inputs:
                self._gone.pop((topic, shard), None)
            self._truncated = [each for each in self._truncated if each.shard != shard]
            self._end([(topic, shard) for topic in self._inputs])

    def _forget_ends(self, shard: int) -> None:
        self._ends.pop(shard, None)
        self._positions.pop(shard, None)
        self._controls.pop(shard, None)
        self._backlogs.pop(shard, None)
        self._caught_up.discard(shard)
        self._awaiting.discard(shard)
        self._told.pop(shard, None)
        self._wanted.pop(shard, None)
        self._asked_of.discard(shard)

    def pause_starts(self, paused: bool) -> None:
        """Read no starts for now, or again."""
        if paused != self._paused and self._shards:
            self._paused = paused
            if paused:
                self._pauses.pause((self._topics.sagas, shard) for shard in self._shards)
            else:
                self._pauses.resume()
            log.info("starts paused" if paused else "starts resumed")

    def read(self, limit: int, timeout: float) -> list[Record]:
        """Return records, after at most `timeout` seconds; at once when there are any."""
        records: list[Record] = []
        came: dict[Place, int] = {}
        found = self._consume(limit, timeout)
        for message in found or ():
            if not isinstance(message, PartitionError):
                self._heard = self._clock.seconds()
            if isinstance(message, Record):
                came[message.topic, message.partition] = message.offset + 1
                if message.topic == self._topics.schemas:
                    self._learn(message)
                elif message.partition in self._shards:
                    if message.topic == self._topics.replies:
                        self._positions[message.partition] = message.offset + 1
                    elif message.topic == self._topics.control:
                        self._controls[message.partition] = message.offset + 1
                        if message.partition not in self._caught_up:
                            self._backlogs[message.partition] = message.offset + 1
                    records.append(message)
            elif isinstance(message, EndOfPartition):
                came[message.topic, message.partition] = message.offset
                self._all_read(message)
            else:
                self._complain(message)
        self._came(came)
        if self._gone:
            self._go_on()
        if found is not None and len(found) < limit:
            self._look()
        self._commit()
        return records

    def _consume(self, limit: int, timeout: float) -> list[Record | EndOfPartition | PartitionError] | None:
        """Return what has come; None where nobody can say."""
        try:
            return self._consumer.consume(limit, timeout)
        except KafkaUnavailable as error:
            if self._consumer.fatal:
                raise
            log.warning("kafka can't be read", extra={"error": str(error)})
            return None

    def _all_read(self, end: EndOfPartition) -> None:
        """Note where a partition ends."""
        if end.topic == self._topics.replies:
            self._ends[end.partition] = end.offset
        elif end.topic == self._topics.control:
            self._controls[end.partition] = end.offset
            self._caught_up.add(end.partition)

    def _came(self, positions: dict[Place, int]) -> None:
        """Note whose records or end has come."""
        if positions:
            self._watch.came(positions)
            self._pauses.shown(positions)
            if self._paused:
                self._pauses.pause(place for place in positions if place[0] == self._topics.sagas)

    def _look(self) -> None:
        """Read stalled partitions anew. Silent brokers aren't asked: each question would stop the loop."""
        now = self._clock.seconds()
        if not self._watch.due or now < self._ask_at or now - self._heard > 2 * PROBE_SECONDS:
            return
        try:
            stalls = self._watch.look(self._questions, self._pauses.paused | self._gone.keys())
        except KafkaFailure as error:
            self._without_answer(error)
            return
        for place, offset, end in stalls:
            topic, partition = place
            log.error(
                "a partition is not read: it is assigned anew",
                extra={"topic": topic, "partition": partition, "offset": offset, "end": end},
            )
            self._stalled()
            self._consumer.resume([place])  # whatever is known of it: librdkafka forgets no pause
            self._end([place])
            self._begin({place: offset})

    def note(self, shard: Shard) -> None:
        """Tell a shard how far its replies have been read."""
        shard.position = max(shard.position, self._positions.get(shard.number, 0))
        shard.end = max(shard.end, self._ends.get(shard.number, -1))
        shard.control = max(shard.control, self._controls.get(shard.number, 0))
        shard.backlog = self._backlogs.get(shard.number, 0)
        if shard.waits:
            self._awaiting.add(shard.number)
        else:
            self._awaiting.discard(shard.number)

    def committed(self, shard: int, offsets: Offsets) -> None:
        """Note what the store holds, to show it to Kafka now and then."""
        at = (offsets.sagas, offsets.replies, offsets.control)
        for topic, offset in zip(self._inputs, at, strict=True):
            self._to_commit[(topic, shard)] = offset

    def end_of(self, shard: int, since: int) -> End | None:
        """Return where a shard's replies end, as asked at `since` or later; None: `ask` will ask for it."""
        told = self._told.get(shard)
        if told is not None and told.asked_at >= since:
            return told
        self._wanted[shard] = None
        return None

    def hear(self) -> None:
        """Take in what a broker has answered by now."""
        if self._question is None:
            return
        try:
            found = self._question.answer()
        except KafkaFailure as error:
            self._unanswered(error)
            return
        if found is not None:
            self._question = None
            self._heard = self._clock.seconds()
            ends = {shard: found.get((self._topics.replies, shard)) for shard in self._asked_of}
            controls = {shard: found.get((self._topics.control, shard), 0) for shard in self._asked_of}
            self._told |= {
                shard: End(self._asked_at, end, controls[shard])
                for shard, end in ends.items()
                if end is not None
            }

    def ask(self, now: int) -> None:
        """Ask for the ends that are wanted, unless a question is on its way; waits for nothing."""
        seconds = self._clock.seconds()
        if not self._wanted or self._question is not None or seconds < self._asked + ASK_INTERVAL:
            return
        wanted = [shard for shard in self._wanted if self._not_before.get(shard, 0.0) <= seconds]
        if seconds < self._singly_until:
            wanted = wanted[:1]
        if not wanted:
            return
        self._asked_of = set(wanted)
        self._asked_at, self._asked = now, seconds
        for shard in wanted:
            del self._wanted[shard]
            self._not_before.pop(shard, None)
        try:
            places = [(self._topics.replies, shard) for shard in wanted]
            places += [(self._topics.control, shard) for shard in wanted if shard in self._awaiting]
            self._question = self._asker.ask_offsets(places, timeout=WATERMARK_TIMEOUT)
        except KafkaFailure as error:
            self._unanswered(error)

    def _unanswered(self, error: KafkaFailure) -> None:
        seconds, self._question = self._clock.seconds(), None
        self._not_before |= dict.fromkeys(self._asked_of, seconds + ASK_AGAIN_SECONDS)
        self._singly_until = seconds + SINGLY_SECONDS
        log.warning("kafka can't say where replies end", extra={"error": str(error)})

    def _without_answer(self, error: KafkaFailure) -> None:
        self._ask_at = self._clock.seconds() + ASK_AGAIN_SECONDS
        log.warning("kafka can't say where a partition ends", extra={"error": str(error)})

    def lag(self, shard: int, offsets: Offsets) -> dict[str, int]:
        """Return how many records wait behind a shard's offsets, as last heard; any thread may ask."""
        at = {"sagas": offsets.sagas, "replies": offsets.replies, "control": offsets.control}
        ends = [self._consumer.known_end(topic, shard) for topic in self._inputs]
        return {name: max(0, end - at[name]) for name, end in zip(at, ends, strict=True)}

    def silent_for(self) -> float:
        """Return for how many seconds no broker has been heard; any thread may ask."""
        return self._clock.seconds() - self._heard

    def silent_seconds(self) -> float:
        """Return for how long no broker has answered; asks one when it has been quiet."""
        now = self._clock.seconds()
        if now - self._heard > PROBE_SECONDS and now - self._probed > PROBE_SECONDS:
            self._probed = now
            self._ask(self._topics.schemas, 0)
        return self._clock.seconds() - self._heard

    @property
    def truncated(self) -> list[Truncated]:
        """Partitions that have lost records: take from the list what is dealt with."""
        return self._truncated

    def _learn(self, record: Record) -> None:
        if record.value is None:
            return
        try:
            self._schemas.add(record.value.decode())
        except (KasagaError, ValueError) as error:
            log.warning(
                "not a schema", extra={"topic": record.topic, "offset": record.offset, "error": str(error)}
            )

    def _complain(self, error: PartitionError) -> None:
        log.error(
            "partition error",
            extra={"topic": error.topic, "partition": error.partition, "error": error.message},
        )
        ours = error.topic in self._inputs and error.partition in self._shards
        if error.out_of_range and (ours or error.topic == self._topics.schemas):
            self._gone[error.topic, error.partition] = error.offset

    def _go_on(self) -> None:
        """Read on at the beginning of what can't be read where it should be.

        Also where the log ends before the offset: a topic that was made anew has records that nobody has
        read. What was read before is known again, and changes nothing.
        """
        for (topic, partition), offset in list(self._gone.items()):
            ends = self._ask(topic, partition)
            if ends is None:
                return
            at = ends[0]
            self._end([(topic, partition)])
            self._begin({(topic, partition): at})
            del self._gone[topic, partition]
            log.error(
                "records are lost: reading goes on at the first that is there",
                extra={"topic": topic, "partition": partition, "wanted": offset, "offset": at},
            )
            if topic == self._topics.schemas:
                continue
            if topic == self._topics.replies:
                self._forget_ends(partition)
            name = ("sagas", "replies", "control")[self._inputs.index(topic)]
            self._truncated.append(Truncated(partition, name, at))

    def _commit(self) -> None:
        now = self._clock.seconds()
        if self._to_commit and now - self._committed > COMMIT_SECONDS:
            self._committed = now
            offsets, self._to_commit = self._to_commit, {}
            crash_point("orchestrator.before_offsets")
            self._consumer.commit(offsets)
            crash_point("orchestrator.after_offsets")

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()


def move_past(topics: Topics, offsets: Offsets, record: Record) -> None:
    """Move the offsets that a batch writes past one of its records; one that was kept back moves nothing."""
    following = record.offset + 1
    if record.topic == topics.replies:
        offsets.replies = max(offsets.replies, following)
    elif record.topic == topics.sagas:
        offsets.sagas = max(offsets.sagas, following)
    else:
        offsets.control = max(offsets.control, following)
