"""Reads the topics that the App's sagas listen to, and makes starts and signals of their records.

Station: a thread of each process, begun by it where a saga declares an Event. All processes of a namespace
are one consumer group, so each partition is read by one of them. `matching.py` says what comes of a record.

At least once: offsets are committed when Kafka has acknowledged what came of the records before them, and
what comes twice has the same ids. A batch is done with before the next is read; so nothing is in flight
when partitions move, and no more is read than is taken.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from kasaga_wire.crashpoints import crash_point
from kasaga_wire.errors import DeliveryError, KafkaFailure, KasagaError, QueueFull
from kasaga_wire.kafka import EndOfPartition, PartitionError, Record, partition_for
from kasaga_wire.kafka_lanes import OnAck
from kasaga_wire.kafka_records import Place
from kasaga_wire.kafka_watch import Watch, Which
from kasaga_wire.sealing import PLAIN, record_place

from . import about, answers
from .awaited_events import AwaitedEvents
from .intake import CONTROL, Dead
from .matching import Made, Matcher
from .rows import Addresses

log = logging.getLogger("kasaga.listener")

READ_SECONDS = 0.1
"""How long records are waited for before it is looked whether to end."""

BATCH = 100
"""Records that are read at once; each may have almost a megabyte."""

FLUSH_SECONDS = 5.0
"""For which acknowledgements are waited for before it is looked whether to end."""

RETRY_SECONDS = 1.0
"""Between tries while Kafka takes nothing, or gives nothing."""

ASK_SECONDS = 5.0
"""How long a broker may take to say where a partition begins, ends, or was read to."""

LOOK_SECONDS = 5.0
"""Between two looks whether all topics are there."""

END_SECONDS = 10.0
"""How long the thread may take to end."""

TOO_LARGE = frozenset({"MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_MSG", "INVALID_RECORD"})
"""Refusals of one record: with these it is a dead letter, with any other it is tried again."""

OPTIONS: Mapping[str, object] = {"auto.offset.reset": "error", "queued.max.messages.kbytes": 16_384}
"""Where it begins to read is decided here and committed at once; and it doesn't read far ahead."""


class Consumer(Protocol):
    """A member of the group."""

    @property
    def fatal(self) -> str | None: ...  # noqa: D102
    def subscribe(  # noqa: D102
        self, topics: Iterable[str], on_assign: Callable[[list[Place]], None] | None = None
    ) -> None: ...
    def consume(  # noqa: D102
        self, max_records: int, timeout: float
    ) -> Sequence[Record | EndOfPartition | PartitionError]: ...
    def offsets(  # noqa: D102
        self, places: Sequence[Place], which: Which, timeout: float
    ) -> dict[Place, int]: ...
    def seek(self, place: Place, offset: int) -> None: ...  # noqa: D102
    def commit(self, offsets: Mapping[Place, int], *, wait: bool = False) -> None: ...  # noqa: D102
    def assignment(self) -> set[Place]: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class Producer(Protocol):
    """What takes starts, signals and dead letters."""

    @property
    def fatal(self) -> str | None: ...  # noqa: D102
    def produce(  # noqa: D102
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]] | None,
        on_ack: OnAck,
    ) -> None: ...
    def poll(self, timeout: float = 0.0) -> int: ...  # noqa: D102
    def flush(self, timeout: float) -> int: ...  # noqa: D102
    def close(self, timeout: float = 5.0) -> None: ...  # noqa: D102


class Counts(Protocol):
    """What is counted."""

    def heard(self, topic: str, outcome: str) -> None:
        """A record was read; `outcome`: start, signal, awaited, kept, passed over, unusable."""
        ...

    def unheard(self, topics: Mapping[str, bool]) -> None:
        """Of each topic, whether it isn't there."""
        ...

    def dead_letter(self) -> None:
        """A record was set aside."""
        ...


class Clients(NamedTuple):
    """How its clients of Kafka are made, in its own thread."""

    consumer: Callable[[], Consumer]
    producer: Callable[[], Producer]
    present: Callable[[Iterable[str]], Mapping[str, int]]
    """The partitions of those topics that exist. Raises KafkaUnavailable."""


class Out(NamedTuple):
    """One record to be produced."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    of: Record
    """The record that it was made of."""
    what: str
    last: bool
    """Whether nothing is left to be done where Kafka refuses it: it is a dead letter already."""


class Listener:
    """One process's. `start` begins the thread, `close` ends it."""

    def __init__(
        self,
        matcher: Matcher,
        where: Addresses,
        clients: Clients,
        counts: Counts,
        awaited: AwaitedEvents,
        *,
        watch_thread: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`watch_thread` is called first in the thread, for who breaks off functions that don't end."""
        self._matcher, self._where, self._clients, self._counts = matcher, where, clients, counts
        self._awaited = awaited
        self._watch_thread, self._clock = watch_thread, clock
        self._watch = Watch(clock, ASK_SECONDS)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kasaga-listener", daemon=True)
        self._absent: set[str] = set()
        """Topics that this process has seen missing: once made, they are read from their beginning."""
        self._missing: frozenset[str] = frozenset()
        self._look_at = 0.0
        self._consumer: Consumer | None = None
        self._producer: Producer | None = None

    def start(self) -> None:
        """Begin to listen, in a thread of its own."""
        log.info("listening", extra={"topics": self._matcher.topics})
        self._thread.start()

    def end(self) -> None:
        """Ask it to end; returns at once."""
        self._stop.set()

    def close(self) -> None:
        """End it: what is read and not committed yet is read again by others."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(END_SECONDS)

    def _run(self) -> None:
        self._watch_thread()
        while not self._stop.is_set():
            try:
                self.turn()
            except KafkaFailure as error:
                log.warning("events can't be read at the moment", extra={"error": str(error)})
                self._stop.wait(RETRY_SECONDS)
            except Exception:
                log.exception("a bug: the listener begins anew")
                self._let_go()
                self._stop.wait(RETRY_SECONDS)
        self._let_go()

    def turn(self) -> None:
        """Read a batch, see to it, and commit. Raises KafkaFailure."""
        consumer = self._joined()
        try:
            self._look()
        except KafkaFailure as error:
            log.warning("it isn't known which topics are there", extra={"error": str(error)})
        self._awaited.tidy()
        found = consumer.consume(BATCH, READ_SECONDS)
        try:
            self._see_to(consumer, found)
        except BaseException:
            # The consumer is past what it has given: only another one reads it again.
            self._let_go()
            raise
        if consumer.fatal is not None:
            log.error("the listener's consumer has failed for good", extra={"error": consumer.fatal})
            self._let_go()

    def _see_to(self, consumer: Consumer, found: Sequence[Record | EndOfPartition | PartitionError]) -> None:
        batch = [each for each in found if isinstance(each, Record)]
        if batch:
            outs = self._made_of(batch)
            if outs is None or not self._deliver(outs):
                return  # asked to end: it is all read again
            crash_point("listener.after_produce")
            self._commit(consumer, batch)
            crash_point("listener.after_commit")
        came: dict[Place, int] = {}
        for each in found:
            if isinstance(each, PartitionError):
                self._lost(consumer, each)
            else:
                came[each.topic, each.partition] = each.offset + isinstance(each, Record)
        if came:
            self._watch.came(came)
        elif not found:
            self._watch_over(consumer)

    def _commit(self, consumer: Consumer, batch: Sequence[Record]) -> None:
        """What isn't committed is read again, by whoever has the partition then."""
        read = {(record.topic, record.partition): record.offset + 1 for record in batch}
        try:
            consumer.commit(read, wait=True)
        except KafkaFailure as error:
            log.warning("offsets of what sagas hear are not committed", extra={"error": str(error)})

    # --- the group

    def _joined(self) -> Consumer:
        """The consumer; a new one joins the group."""
        if self._consumer is None:
            self._look_at = 0.0
            self._look()
            consumer = self._clients.consumer()
            self._consumer = consumer
            consumer.subscribe(self._matcher.topics, lambda places: self._assigned(consumer, places))
        return self._consumer

    def _let_go(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            self._watch.ended(consumer.assignment())
            consumer.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close(0)

    def _assigned(self, consumer: Consumer, places: list[Place]) -> None:
        """Inside of `consume`, before the first record of these is fetched."""
        self._watch.began(dict.fromkeys(places))
        try:
            self._begin(consumer, places)
        except KafkaFailure as error:  # each of them is a PartitionError then, and is begun by that
            log.warning("nobody says where to begin", extra={"error": str(error)})

    def _begin(self, consumer: Consumer, places: Sequence[Place]) -> dict[Place, int]:
        """Commit where partitions are read from that the group has never read; gives all positions.

        It is written down before anything is read: who dies now has lost nothing that comes from now on.
        """
        known = _ask(consumer, places, "group")
        new = [place for place in places if place not in known]
        if not new:
            return known
        topics = sorted({topic for topic, _ in new})
        counted = self._clients.present(topics)
        whole = [(topic, number) for topic in topics for number in range(counted.get(topic, 0))]
        read = {topic for topic, _ in _ask(consumer, whole, "group")}
        # A partition that was added, a topic that was made meanwhile: what is in it came while we listened.
        first = {t for t in topics if t in read or t in self._absent or self._matcher.earliest(t)}
        begins = _ask(consumer, [place for place in new if place[0] in first], "begin")
        ends = _ask(consumer, [place for place in new if place[0] not in first], "end")
        begun = {**begins, **ends}
        if begun:
            consumer.commit(begun, wait=True)
            said = [f"{topic}/{number} at {offset}" for (topic, number), offset in sorted(begun.items())]
            log.info("listening to partitions for the first time", extra={"partitions": said})
        return {**known, **begun}

    def _lost(self, consumer: Consumer, error: PartitionError) -> None:
        """A partition can't be read from where it should be."""
        place = (error.topic, error.partition)
        if not error.out_of_range or place not in consumer.assignment():
            return
        at = self._begin(consumer, [place]).get(place)
        first = _ask(consumer, [place], "begin").get(place)
        end = _ask(consumer, [place], "end").get(place)
        if at is None or first is None or end is None:
            return
        if not first <= at <= end:
            extra = {"topic": place[0], "partition": place[1], "offset": at, "first": first, "end": end}
            log.error("records are gone before they were read: going on with the first there is", extra=extra)
            at = first
        consumer.seek(place, at)

    def _watch_over(self, consumer: Consumer) -> None:
        """Look whether what is assigned is read: else another consumer does it."""
        if not self._watch.due:
            return
        stalls = self._watch.look(consumer, ())
        if stalls:
            log.error("partitions are assigned and not read: beginning anew", extra={"stalls": str(stalls)})
            self._let_go()

    def _look(self) -> None:
        """Look now and then whether all topics are there; say what has changed."""
        if self._clock() < self._look_at:
            return
        present = self._clients.present(self._matcher.topics)
        self._look_at = self._clock() + LOOK_SECONDS
        missing = frozenset(topic for topic in self._matcher.topics if topic not in present)
        for topic in sorted(missing - self._missing):
            log.warning(
                "a topic that sagas listen to isn't there, or may not be read: it is read when it is",
                extra={"topic": topic},
            )
        for topic in sorted(self._missing - missing):
            log.info("a topic that sagas listen to is there now", extra={"topic": topic})
        self._missing = missing
        self._absent |= missing
        self._counts.unheard({topic: topic in missing for topic in self._matcher.topics})

    # --- records

    def _made_of(self, batch: Sequence[Record]) -> list[Out] | None:
        """What is to be produced for a batch, in its order; None when asked to end before that is known."""
        outs: list[Out] = []
        now = datetime.now(UTC)
        matched = [(record, self._matcher.match(record, now)) for record in batch]
        kept = [each for _, found in matched for _, each in found.kept]
        waiting = self._awaited.waiting(kept, self._stop)
        if waiting is None:
            return None
        for record, found in matched:
            outs += [self._out(record, made) for made in found.made]
            for route, each in found.kept:
                to = waiting.get(each.name, ())
                signals = [self._matcher.signal_of(route, each, saga_id, record, now) for saga_id in to]
                outs += [self._out(record, made) for made in signals]
                self._counts.heard(record.topic, "awaited" if signals else "kept")
            outs += [self._dead(record, unusable.error) for unusable in found.unusable]
            for made in found.made:
                self._counts.heard(record.topic, "signal" if made.route.signal else "start")
            for _ in found.unusable:
                self._counts.heard(record.topic, "unusable")
            if not found.made and not found.unusable and not found.kept:
                self._counts.heard(record.topic, "passed over")
        return outs

    def _out(self, record: Record, made: Made) -> Out:
        key = made.saga_id.encode()
        partition = partition_for(key, self._where.shards)
        sealer = self._where.sealer
        payload = (
            sealer.seal(record_place(made.headers), made.payload) if sealer is not PLAIN else made.payload
        )
        return Out(made.topic, partition, key, payload, made.headers, record, made.route.what, last=False)

    def _dead(self, record: Record, error: KasagaError) -> Out:
        """Set a record aside, as the loop does with those of its own topics."""
        extra = {
            **about.headers(record.headers),
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "error": str(error),
        }
        log.warning("dead letter", extra=extra)
        self._counts.dead_letter()
        at = time.time_ns() // 1000
        row = answers.dead_letter(Dead(CONTROL, record, error), 0, 0, at, self._where)
        return Out(row.topic, 0, row.key, row.payload, row.headers, record, "dead letter", last=True)

    def _deliver(self, outs: list[Out]) -> bool:
        """Produce all of it until Kafka has it; False when asked to end before.

        What was acknowledged isn't sent again; the rest goes in order, as often as it takes.
        """
        while outs:
            outs = self._produce(outs)
            if outs and self._stop.is_set():
                return False
            if outs:
                self._stop.wait(RETRY_SECONDS)
        return True

    def _produce(self, outs: list[Out]) -> list[Out]:
        """Try once; gives what is left, with a dead letter in the place of what is refused for good."""
        producer = self._sender()
        results: dict[int, DeliveryError | None] = {}
        for number, out in enumerate(outs):
            _hand_over(producer, out, functools.partial(results.__setitem__, number))
        until = self._clock() + FLUSH_SECONDS
        while producer.flush(READ_SECONDS) and self._clock() < until and not self._stop.is_set():
            pass
        left: list[Out] = []
        for number, out in enumerate(outs):
            error = results.get(number, _SILENT)
            if error is not None:
                left += self._again(out, error)
        if left:
            failed = [error for error in results.values() if error is not None]
            said = str(failed[0]) if failed else str(_SILENT)
            log.warning("Kafka doesn't take what sagas hear", extra={"records": len(left), "error": said})
            if len(results) < len(outs):  # another one, so that nothing old comes behind what is sent again
                producer.close(0)
                self._producer = None
        return left

    def _again(self, out: Out, error: DeliveryError) -> list[Out]:
        """What is sent next time for a record that wasn't acknowledged."""
        if error.name not in TOO_LARGE:
            return [out]
        if not out.last:
            return [self._dead(out.of, error)]
        log.error("a dead letter is refused: it is left out", extra={"error": str(error)})
        return []

    def _sender(self) -> Producer:
        producer = self._producer
        if producer is not None and producer.fatal is not None:
            log.error("the listener's producer has failed for good", extra={"error": producer.fatal})
            producer.close(0)
            producer = None
        if producer is None:
            producer = self._clients.producer()
            self._producer = producer
        return producer


def _ask(consumer: Consumer, places: Sequence[Place], which: Which) -> dict[Place, int]:
    """Librdkafka refuses a question about nothing."""
    return consumer.offsets(places, which, ASK_SECONDS) if places else {}


def _hand_over(producer: Producer, out: Out, on_ack: OnAck) -> None:
    """Wait for room, which acknowledgements make."""
    while True:
        try:
            producer.produce(out.topic, out.partition, out.key, out.value, out.headers, on_ack)
        except QueueFull:
            producer.poll(READ_SECONDS)
        else:
            return


_SILENT = DeliveryError("_TIMED_OUT", "not acknowledged in time", permanent=False)
