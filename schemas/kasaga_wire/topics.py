"""The names and settings of the topics.

Station: imported by whoever produces, consumes or creates topics. Imports errors only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from .errors import TopicMismatch, TopicNameError, TopicRefused

MAX_TOPIC_CHARACTERS = 249  # Kafka's own limit
DEFAULT_SHARDS = 16  # each partition costs the broker CPU at linger 0: design.md, "Measured"
COMMAND_PARTITIONS = 4
EVENT_PARTITIONS = 4
ANSWER_PARTITIONS = 4

DRILL_PREFIX = "drill."
"""Behind a deployment's own prefix, where compensations are only rehearsed: a world of its own."""

_DAY_MS = 24 * 60 * 60 * 1000
RETENTION_MS = 7 * _DAY_MS  # inputs: must outlast the longest outage of whoever reads them
DEAD_LETTER_RETENTION_MS = 28 * _DAY_MS  # people are slower than machines

TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")
"""Anybody's, as Kafka takes them; ours have stricter names."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_PARTICIPANT = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as Kasaga wants it.

    `never_compact`: compaction would delete records that are still needed.
    """

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict[str, str])
    never_compact: bool = True


def check_name(what: str, name: str) -> str:
    """Return `name` if it can be (a part of) a topic's name, else raise TopicNameError."""
    if not _NAME.match(name) or len(name) > MAX_TOPIC_CHARACTERS:
        raise TopicNameError(
            f"{what} {name!r} can't be used in a topic's name",
            remedy="use a–z, 0–9, '.', '_' and '-', begin with a letter or a digit, 249 characters at most",
        )
    return name


@lru_cache(maxsize=1024)
def check_participant(name: str) -> str:
    """Return `name` if it can be a participant's name, else raise TopicNameError."""
    if not _PARTICIPANT.match(name) or name == "kasaga":
        raise TopicNameError(
            f"{name!r} can't be a participant's name",
            remedy="use a–z, 0–9, '_' and '-', begin with a letter, 63 characters at most, and not 'kasaga'",
        )
    return name


def _log(days_ms: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days_ms)}


class Topics:
    """The topics of one namespace.

    The prefix keeps environments apart that share a Kafka, so all names carry it.
    """

    __slots__ = ("answers", "control", "events", "namespace", "prefix", "replies", "sagas", "schemas")

    def __init__(self, namespace: str, prefix: str = "") -> None:
        """Check both names and compute the fixed topics."""
        self.namespace = check_name("the namespace", namespace)
        self.prefix = check_name("the prefix", prefix) if prefix else ""
        stem = f"{prefix}{namespace}"
        self.sagas = check_name("the topic", f"{stem}.sagas")
        self.replies = check_name("the topic", f"{stem}.replies")
        self.control = check_name("the topic", f"{stem}.control")
        self.events = check_name("the topic", f"{stem}.events")
        self.schemas = check_name("the topic", f"{stem}.schemas")
        self.answers = check_name("the topic", f"{stem}.answers")

    def commands(self, participant: str) -> str:
        """The topic that the participant reads."""
        return f"{self.prefix}{check_participant(participant)}.commands"

    def dead_letters(self, participant: str) -> str:
        """Where the participant puts what it can't answer."""
        return f"{self.prefix}{check_participant(participant)}.commands.dlq"

    @property
    def orchestrator_dead_letters(self) -> str:
        """Where the orchestrator puts records that belong to no saga."""
        return f"{self.prefix}{self.namespace}.dlq"

    def reply_allowed(self, topic: str) -> bool:
        """Whether a record may ask for its reply on `topic`: nobody must be made to write anywhere."""
        return topic == self.replies or topic == self.answers

    def orchestrator_specs(self, shards: int = DEFAULT_SHARDS) -> list[TopicSpec]:
        """The topics that the orchestrator needs before it starts."""
        log = _log(RETENTION_MS)
        return [
            TopicSpec(self.sagas, shards, log),
            TopicSpec(self.replies, shards, log),
            TopicSpec(self.control, shards, log),
            TopicSpec(self.events, EVENT_PARTITIONS, log),
            TopicSpec(self.answers, ANSWER_PARTITIONS, _log(_DAY_MS)),
            TopicSpec(self.schemas, 1, {"cleanup.policy": "compact"}, never_compact=False),
            TopicSpec(self.orchestrator_dead_letters, 1, _log(DEAD_LETTER_RETENTION_MS)),
        ]

    def participant_specs(self, participant: str, partitions: int = COMMAND_PARTITIONS) -> list[TopicSpec]:
        """The topics that one participant needs."""
        return [
            TopicSpec(self.commands(participant), partitions, _log(RETENTION_MS)),
            TopicSpec(self.dead_letters(participant), 1, _log(DEAD_LETTER_RETENTION_MS)),
        ]


def reply_topics(namespaces: Iterable[str], prefix: str = "") -> frozenset[str]:
    """Every topic a participant that serves these namespaces may reply to."""
    allowed: set[str] = set()
    for namespace in namespaces:
        topics = Topics(namespace, prefix)
        allowed |= {topics.replies, topics.answers}
    return frozenset(allowed)


@dataclass(frozen=True, slots=True)
class TopicReport:
    """A topic as it is. `warnings` are sentences for people: what it would not survive."""

    name: str
    created: bool
    partitions: int
    replication: int
    min_insync: int
    config: Mapping[str, str] = field(default_factory=dict[str, str])
    warnings: tuple[str, ...] = ()


_ALTER = "kafka-configs --alter --entity-type topics --entity-name {} --add-config cleanup.policy={}"


def check_topic(spec: TopicSpec, found: TopicReport, *, created: bool) -> TopicReport:
    """Raise TopicRefused or TopicMismatch, or say in the report what the topic would not survive."""
    policy = found.config.get("cleanup.policy", "delete")
    if spec.never_compact and "compact" in policy:
        raise TopicRefused(
            f"{spec.name} has cleanup.policy={policy}: compaction deletes records that are still needed",
            remedy=_ALTER.format(spec.name, "delete"),
        )
    if not spec.never_compact and spec.config.get("cleanup.policy") == "compact" and "compact" not in policy:
        raise TopicRefused(
            f"{spec.name} has cleanup.policy={policy}: after its retention nobody could read older payloads",
            remedy=_ALTER.format(spec.name, "compact"),
        )
    if found.partitions < spec.partitions:
        raise TopicMismatch(
            f"{spec.name} has {found.partitions} partitions, {spec.partitions} are needed",
            remedy="add partitions before anything is produced, or set the number it has",
        )
    warnings: list[str] = []
    if found.replication < 2 or found.min_insync < 2:
        warnings.append(
            f"{spec.name}: {found.replication} replicas, min.insync.replicas={found.min_insync}: "
            "the loss of one broker's disk loses records that were acknowledged"
        )
    wanted, kept = (int(config.get("retention.ms", "-1")) for config in (spec.config, found.config))
    if 0 <= kept < wanted and policy == "delete":
        warnings.append(f"{spec.name}: retention.ms={kept}: an outage that is longer loses records")
    return TopicReport(
        found.name,
        created,
        found.partitions,
        found.replication,
        found.min_insync,
        found.config,
        tuple(warnings),
    )
