"""Kafka: producing, consuming, topics. The only file that imports confluent_kafka.

Station: the relay and the participants produce here, the loop and the participants consume here. Connection
and authentication failures surface in `error_cb` and become log lines of `kasaga.kafka`, each kind once in
ten seconds.

No client here has a thread of ours: callbacks run inside `poll` and `consume`, in the caller's thread.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import admin as kafka_admin

from .errors import DeliveryError, KafkaFailure, KafkaUnavailable, SettingsError
from .kafka_asked import Asked, Future
from .kafka_errors import OUT_OF_RANGE, PERMANENT, ErrorLog, delivery_error, librdkafka_log, unavailable
from .kafka_lanes import NoRoom, OnAck, Waiting
from .kafka_producer import LanedProducer
from .kafka_records import EndOfPartition, PartitionError, Place, Record, record_of
from .kafka_watch import Which
from .settings import KafkaSettings
from .topics import TopicReport, TopicSpec, check_topic

__all__ = [
    "EARLIEST",
    "LATEST",
    "Admin",
    "Asked",
    "Consumer",
    "DeliveryError",
    "EndOfPartition",
    "GroupConsumer",
    "KafkaSettings",
    "PartitionError",
    "Producer",
    "Record",
    "TopicReport",
    "partition_for",
]

_admin: Any = kafka_admin  # its classes are imported there without being exported

EARLIEST: int = confluent_kafka.OFFSET_BEGINNING
LATEST: int = confluent_kafka.OFFSET_END

OnPlaces = Callable[[list[Place]], None]

_MAX_MESSAGES = "queue.buffering.max.messages"
MAX_MESSAGES = 100_000
"""Records that wait to be handed over, where the settings name no other number: librdkafka's own default."""

METADATA_SECONDS = 10.0
TOPIC_CREATION_SECONDS = 30.0
MAX_POLL_INTERVAL_MS = 5 * 60 * 1000  # who doesn't poll for so long is dead; a handler may take minutes
SESSION_TIMEOUT_MS = 6_000  # the broker's minimum
HEARTBEAT_MS = 2_000


def partition_for(key: bytes, count: int) -> int:
    """The partition that Java's default partitioner chooses for a key: toPositive(murmur2(key)) % count."""
    if not key:
        raise ValueError("an empty key has no partition: take the id from ce_subject")
    return confluent_kafka.murmur2(key, count)


def _error_of(exception: KafkaException) -> KafkaError:
    return cast(KafkaError, exception.args[0])


def _make(kind: Callable[..., Any], config: dict[str, object]) -> Any:
    try:
        return kind(config, logger=librdkafka_log)
    except KafkaException as error:
        raise SettingsError(
            _error_of(error).str(), remedy="see librdkafka's CONFIGURATION.md for the keys"
        ) from None


# --- producing


class _Client:
    """One producer of confluent_kafka."""

    def __init__(self, config: dict[str, object]) -> None:
        self._producer: Any = _make(confluent_kafka.Producer, config)
        self.poll: Callable[[float], int] = self._producer.poll
        self.flush: Callable[[float], int] = self._producer.flush
        self.purge: Callable[[], None] = self._producer.purge

    def __len__(self) -> int:
        return len(self._producer)

    def send(self, topic: str, partition: int, record: Waiting, on_ack: OnAck) -> DeliveryError | None:
        try:
            self._producer.produce(
                topic,
                record.value,
                record.key,
                partition,
                headers=record.headers,
                on_delivery=functools.partial(_acked, on_ack),
            )
        except BufferError:
            raise NoRoom from None
        except KafkaException as error:  # too large, or fatal: known before it is sent
            return delivery_error(_error_of(error))
        return None


class Producer(LanedProducer):
    """Idempotent, acks=all. What it does with records stands in `kafka_producer.py`."""

    def __init__(self, settings: KafkaSettings, *, options: Mapping[str, object] | None = None) -> None:
        """`options` are librdkafka's keys for this producer alone, such as `message.timeout.ms`."""
        errors = ErrorLog("producer")
        config = settings.config(enable_idempotence=True, linger_ms=0)
        config["error_cb"] = errors
        config.update(options or {})

        def make(*, linger_ms: float) -> _Client:
            return _Client({**config, "linger.ms": max(linger_ms, float(str(config["linger.ms"])))})

        super().__init__(make, errors, int(str(config.get(_MAX_MESSAGES, MAX_MESSAGES))))


def _acked(on_ack: OnAck, error: KafkaError | None, message: object) -> None:
    on_ack(None if error is None else delivery_error(error))


# --- consuming


class _Reader:
    """What both consumers share."""

    def __init__(self, kind: str, config: dict[str, object]) -> None:
        self._errors = ErrorLog(kind)
        config["error_cb"] = self._errors
        self._consumer: Any = _make(confluent_kafka.Consumer, config)
        self._closed = False

    @property
    def fatal(self) -> str | None:
        """Why this consumer can't go on."""
        return self._errors.fatal

    def consume(self, max_records: int, timeout: float) -> list[Record | EndOfPartition | PartitionError]:
        """What has come. Waits at most `timeout` seconds for the first and not at all for the others.

        So latency is low when idle and batches are large under load; the client's own `consume(n, timeout)`
        waits until it has n.
        """
        try:
            messages: list[Any] = self._consumer.consume(1, timeout)
            if messages and max_records > 1:
                messages += self._consumer.consume(max_records - 1, 0)
        except KafkaException as error:
            raise unavailable("reading", _error_of(error)) from None
        return [made for made in map(self._made, messages) if made is not None]

    def _made(self, message: Any) -> Record | EndOfPartition | PartitionError | None:
        error: KafkaError | None = message.error()
        if error is not None:
            return self._failed(message, error)
        return record_of(message)

    def _failed(self, message: Any, error: KafkaError) -> EndOfPartition | PartitionError | None:
        name = error.name()
        topic: str | None = message.topic()
        if name == "_PARTITION_EOF":
            return EndOfPartition(cast(str, topic), message.partition(), message.offset())
        self._errors.say(name, error.str(), fatal=error.fatal())
        if topic is None or message.partition() is None or message.partition() < 0:
            return None
        lost, permanent = name in OUT_OF_RANGE, name in PERMANENT
        offset = -1 if message.offset() is None else message.offset()
        return PartitionError(topic, message.partition(), offset, name, error.str(), lost, permanent)

    def pause(self, places: Iterable[Place]) -> None:
        """Fetch nothing from these for now. What was fetched already is dropped and fetched again later."""
        self._consumer.pause([TopicPartition(topic, partition) for topic, partition in places])

    def resume(self, places: Iterable[Place]) -> None:
        """Fetch from these again."""
        self._consumer.resume([TopicPartition(topic, partition) for topic, partition in places])

    def assignment(self) -> set[Place]:
        """What is read at present."""
        return {(each.topic, each.partition) for each in self._consumer.assignment()}

    def commit(self, offsets: Mapping[Place, int], *, wait: bool = False) -> None:
        """Commit next offsets. Without `wait` it is best effort: a failure becomes a log line."""
        if not offsets:
            return
        try:
            done: Any = self._consumer.commit(offsets=_positions(offsets), asynchronous=not wait)
        except KafkaException as error:
            if wait:
                raise unavailable("committing offsets", _error_of(error)) from None
            self._errors.say(_error_of(error).name(), f"offsets are not committed: {_error_of(error).str()}")
            return
        failed = [each.error for each in done or () if each.error is not None]
        if failed:
            raise unavailable("committing offsets", failed[0])

    def close(self) -> None:
        """Leave the group, if there is one, and free everything.

        Callbacks for what is revoked may run in it.
        """
        if not self._closed:
            self._closed = True
            self._consumer.close()

    def _committed(self, error: KafkaError | None, offsets: object) -> None:
        if error is not None:
            self._errors.say(error.name(), f"offsets are not committed: {error.str()}")


def _positions(offsets: Mapping[Place, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, partition, offset) for (topic, partition), offset in offsets.items()]


class Consumer(_Reader):
    """Partitions assigned by hand, at offsets that the caller keeps; a missing offset is an error, no jump.

    `group` only names where offsets are committed so that lag shows; there is no group protocol.
    """

    def __init__(
        self, settings: KafkaSettings, *, group: str, options: Mapping[str, object] | None = None
    ) -> None:
        """`options` are librdkafka's keys for this consumer alone."""
        config = settings.config(
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="error",
            enable_partition_eof=True,
            isolation_level="read_committed",
            fetch_wait_max_ms=100,
        )
        config["on_commit"] = self._committed
        config.update(options or {})
        super().__init__("consumer", config)

    def learn(self, topics: Iterable[str], timeout: float = METADATA_SECONDS) -> None:
        """Ask where these topics are, so that what is assigned later is read at once.

        Once something is read, the same question waits behind its fetches: for a third of a second (measured
        with librdkafka 2.16) nothing else is read. Raises KafkaUnavailable.
        """
        try:
            for topic in topics:
                self._consumer.list_topics(topic, timeout)
        except KafkaException as error:
            raise unavailable("looking for topics", _error_of(error)) from None

    def assign(self, positions: Mapping[Place, int]) -> None:
        """Read exactly these, from these offsets on (or EARLIEST, LATEST)."""
        self._change(self._consumer.assign, _positions(positions))

    def incremental_assign(self, positions: Mapping[Place, int]) -> None:
        """Read these too."""
        self._change(self._consumer.incremental_assign, _positions(positions))

    def incremental_unassign(self, places: Iterable[Place]) -> None:
        """Stop reading these."""
        self._change(self._consumer.incremental_unassign, [TopicPartition(t, p) for t, p in places])

    def _change(self, change: Callable[[list[TopicPartition]], None], places: list[TopicPartition]) -> None:
        try:
            change(places)
        except KafkaException as error:
            raise KafkaFailure(f"the assignment can't change: {_error_of(error).str()}") from None

    def watermarks(self, topic: str, partition: int, timeout: float = METADATA_SECONDS) -> tuple[int, int]:
        """The first offset there is and the one after the last, asked of the broker now."""
        try:
            return cast(
                "tuple[int, int]",
                self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout),
            )
        except KafkaException as error:
            raise unavailable(f"watermarks of {topic}/{partition}", _error_of(error)) from None

    def known_end(self, topic: str, partition: int) -> int:
        """The offset after the last record as last heard, or -1; asks no broker, in any thread."""
        if self._closed:
            return -1
        high: int = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)[1]
        return max(high, -1)


class GroupConsumer(_Reader):
    """A member of a consumer group: classic protocol, cooperative-sticky, offsets committed by hand.

    A group's first offset is the beginning: a command that was sent before its participant existed is still
    a command.
    """

    def __init__(
        self, settings: KafkaSettings, *, group: str, options: Mapping[str, object] | None = None
    ) -> None:
        """`options` are librdkafka's keys for this consumer alone, such as `group.instance.id`."""
        config = settings.config(
            group_id=group,
            group_protocol="classic",
            partition_assignment_strategy="cooperative-sticky",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            enable_partition_eof=True,
            isolation_level="read_committed",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
            fetch_wait_max_ms=100,
        )
        config["on_commit"] = self._committed
        config.update(options or {})
        super().__init__("group consumer", config)

    def subscribe(
        self,
        topics: Iterable[str],
        on_assign: OnPlaces | None = None,
        on_revoke: OnPlaces | None = None,
        on_lost: OnPlaces | None = None,
    ) -> None:
        """Join.

        The callbacks run inside of `consume` and `close`. Lost: somebody else may work on them already.
        """

        def plain(callback: OnPlaces | None) -> Callable[[object, list[TopicPartition]], None]:
            def call(consumer: object, places: list[TopicPartition]) -> None:
                if callback is not None:
                    callback([(each.topic, each.partition) for each in places])

            return call

        self._consumer.subscribe(
            list(topics),
            on_assign=plain(on_assign),
            on_revoke=plain(on_revoke),
            on_lost=plain(on_lost if on_lost is not None else on_revoke),
        )

    def offsets(self, places: Sequence[Place], which: Which, timeout: float) -> dict[Place, int]:
        """Where partitions begin or end, or where the group reads on; of those that a broker knows of.

        Raises KafkaUnavailable where none answers.
        """
        ask = self._consumer.committed if which == "group" else self._consumer.offsets_for_times
        at = EARLIEST if which == "begin" else LATEST
        try:
            found = ask([TopicPartition(topic, partition, at) for topic, partition in places], timeout)
        except KafkaException as error:
            raise unavailable("asking for offsets", _error_of(error)) from None
        return {(e.topic, e.partition): e.offset for e in found if e.error is None and e.offset >= 0}

    def seek(self, place: Place, offset: int) -> None:
        """Read an assigned partition on from there. Raises KafkaUnavailable."""
        try:
            self._consumer.seek(*_positions({place: offset}))
        except KafkaException as error:
            raise unavailable(f"going to {offset} of {place[0]}", _error_of(error)) from None

    def coordinator_answers(self, topic: str, timeout: float) -> bool:
        """Whether the group's coordinator can be reached, asked for an offset. Waits `timeout` seconds."""
        try:
            self._consumer.committed([TopicPartition(topic, 0)], timeout)
        except KafkaException:
            return False
        return True


# --- topics


def _told(future: Future) -> int:
    try:
        return cast(int, future.result().offset)
    except KafkaException as error:
        raise unavailable("asking for offsets", _error_of(error)) from None


class Admin:
    """Creates topics and checks those that are there."""

    def __init__(self, settings: KafkaSettings, *, options: Mapping[str, object] | None = None) -> None:
        """`options` are librdkafka's keys for this client alone."""
        config = settings.config()
        config["error_cb"] = ErrorLog("admin")
        config.update(options or {})
        self._client: Any = _make(_admin.AdminClient, config)

    def ensure_topics(
        self, specs: Sequence[TopicSpec], *, replication: int = -1, timeout: float = TOPIC_CREATION_SECONDS
    ) -> list[TopicReport]:
        """Create what is missing, check the rest. `replication` -1: the broker's default."""
        deadline = time.monotonic() + timeout
        missing = [spec for spec in specs if spec.name not in self._partitions()]
        new = [_admin.NewTopic(s.name, s.partitions, replication, config=dict(s.config)) for s in missing]
        for name, future in cast("dict[str, Future]", self._client.create_topics(new) if new else {}).items():
            _created(name, future, deadline)
        while lacking := sorted({spec.name for spec in specs} - self._partitions().keys()):
            if time.monotonic() > deadline:
                raise KafkaUnavailable(
                    f"{', '.join(lacking)}: created, but without leaders after {timeout:g} s"
                )
            time.sleep(0.02)
        made = {spec.name for spec in missing}
        found = self.describe([spec.name for spec in specs])
        return [check_topic(spec, found[spec.name], created=spec.name in made) for spec in specs]

    def describe(self, names: Sequence[str]) -> dict[str, TopicReport]:
        """Those of the topics that exist."""
        partitions = self._partitions()
        present = [name for name in names if name in partitions]
        resources = [_admin.ConfigResource(_admin.ResourceType.TOPIC, name) for name in present]
        reports: dict[str, TopicReport] = {}
        futures = cast("dict[Any, Future]", self._client.describe_configs(resources) if resources else {})
        for resource, future in futures.items():
            try:
                entries: dict[str, Any] = future.result(METADATA_SECONDS)
            except KafkaException as error:
                raise unavailable(f"settings of {resource.name}", _error_of(error)) from None
            config = {name: str(entry.value) for name, entry in entries.items() if entry.value is not None}
            count, replicas = partitions[resource.name]
            insync = int(config.get("min.insync.replicas", "1"))
            reports[resource.name] = TopicReport(resource.name, False, count, replicas, insync, config)
        return reports

    def partitions(self, names: Iterable[str], *, timeout: float = METADATA_SECONDS) -> dict[str, int]:
        """How many partitions each of the topics has that exist. Takes no other right than to see them."""
        found = self._partitions(timeout)
        return {name: found[name][0] for name in names if name in found}

    def _partitions(self, timeout: float = METADATA_SECONDS) -> dict[str, tuple[int, int]]:
        """Partitions and the fewest replicas, of each topic whose partitions all have a leader."""
        try:
            topics: dict[str, Any] = self._client.list_topics(timeout=timeout).topics
        except KafkaException as error:
            raise unavailable("listing topics", _error_of(error)) from None
        found: dict[str, tuple[int, int]] = {}
        for name, topic in topics.items():
            parts = list(topic.partitions.values())
            if topic.error is None and parts and all(part.leader >= 0 for part in parts):
                found[name] = (len(parts), min(len(part.replicas) for part in parts))
        return found

    def ask_offsets(self, places: Iterable[Place], *, first: bool = False, timeout: float) -> Asked:
        """Ask where partitions end, or begin; nobody waits. `timeout`: seconds until it is given up.

        Not a consumer's business: a broker answers the requests of a connection in order, so that a question
        waits there behind the fetch that is on its way, for `fetch.wait.max.ms` where nothing comes.
        Ends are those that a consumer of committed records comes to. Raises KafkaFailure.
        """
        spec = _admin.OffsetSpec.earliest() if first else _admin.OffsetSpec.latest()
        asked = {TopicPartition(*place): spec for place in places}
        try:
            futures: dict[Any, Future] = self._client.list_offsets(
                asked,
                isolation_level=confluent_kafka.IsolationLevel.READ_COMMITTED,
                request_timeout=timeout,
            )
        except KafkaException as error:
            raise KafkaFailure(f"offsets can't be asked for: {_error_of(error).str()}") from None
        return Asked({(each.topic, each.partition): future for each, future in futures.items()}, _told)

    def close(self) -> None:
        """Nothing waits in it."""
        self._client.poll(0)


def _created(name: str, future: Future, deadline: float) -> None:
    try:
        future.result(max(0.1, deadline - time.monotonic()))
    except TimeoutError:
        raise KafkaUnavailable(
            f"creating {name} got no answer in time", remedy="are the brokers up?"
        ) from None
    except KafkaException as error:
        reason = _error_of(error)
        if reason.name() == "TOPIC_ALREADY_EXISTS":  # somebody else was faster
            return
        raise KafkaFailure(
            f"the topic {name} can't be created: {reason.name()}: {reason.str()}",
            remedy="create it by hand with these settings, or allow this client to",
        ) from None
