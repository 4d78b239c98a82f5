"""Names and settings of topics."""

from __future__ import annotations

from typing import Any

import pytest

from kasaga_wire.errors import TopicMismatch, TopicNameError, TopicRefused
from kasaga_wire.topics import TopicReport, Topics, TopicSpec, check_topic, reply_topics


def test_the_topics_of_a_namespace() -> None:
    topics = Topics("shop")
    assert [topics.sagas, topics.replies, topics.control, topics.events, topics.schemas, topics.answers] == [
        "shop.sagas",
        "shop.replies",
        "shop.control",
        "shop.events",
        "shop.schemas",
        "shop.answers",
    ]
    assert topics.commands("inventory") == "inventory.commands"
    assert topics.dead_letters("inventory") == "inventory.commands.dlq"
    assert topics.orchestrator_dead_letters == "shop.dlq"


def test_a_prefix_is_on_all_of_them() -> None:
    topics = Topics("shop", "test.")
    specs = [*topics.orchestrator_specs(8), *topics.participant_specs("inventory")]
    assert len(specs) == 9
    assert all(spec.name.startswith("test.") for spec in specs)


def test_replies_go_to_topics_of_the_namespace_only() -> None:
    topics = Topics("shop", "test.")
    assert topics.reply_allowed("test.shop.replies")
    assert topics.reply_allowed("test.shop.answers")
    for wrong in ("shop.replies", "test.shop.sagas", "test.inventory.commands", "test.store.replies", ""):
        assert not topics.reply_allowed(wrong)
    assert reply_topics(["a", "b"], "p.") == {"p.a.replies", "p.a.answers", "p.b.replies", "p.b.answers"}


@pytest.mark.parametrize(
    "name", ["", "Shop", "shop!", ".shop", "-shop", "s hop", "shöp", "a" * 250, "a" * 245]
)
def test_a_name_that_kafka_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(TopicNameError, match="KSG-130"):
        Topics(name)


@pytest.mark.parametrize("prefix", ["Test", " ", "!"])
def test_a_prefix_that_kafka_would_not_take_is_refused(prefix: str) -> None:
    with pytest.raises(TopicNameError):
        Topics("shop", prefix)


@pytest.mark.parametrize("name", ["kasaga", "", "a.b", "A", "1a", "a" * 64])
def test_a_participants_name_is_checked(name: str) -> None:
    with pytest.raises(TopicNameError):
        Topics("shop").commands(name)


def test_inputs_have_one_partition_a_shard_and_are_never_compacted() -> None:
    topics = Topics("shop")
    specs = {spec.name: spec for spec in topics.orchestrator_specs(32)}
    for name in (topics.sagas, topics.replies, topics.control):
        assert specs[name].partitions == 32
        assert specs[name].never_compact
        assert specs[name].config["cleanup.policy"] == "delete"
    assert specs[topics.schemas].partitions == 1
    assert specs[topics.schemas].config["cleanup.policy"] == "compact"


def report(partitions: int = 4, replication: int = 3, insync: int = 2, **config: Any) -> TopicReport:
    return TopicReport(
        "t", False, partitions, replication, insync, {k.replace("_", "."): v for k, v in config.items()}
    )


LOG = TopicSpec("t", 4, {"cleanup.policy": "delete", "retention.ms": "1000"})
TABLE = TopicSpec("t", 1, {"cleanup.policy": "compact"}, never_compact=False)


@pytest.mark.parametrize("policy", ["compact", "compact,delete"])
def test_compaction_of_commands_is_refused(policy: str) -> None:
    with pytest.raises(TopicRefused, match="deletes records that are still needed") as caught:
        check_topic(LOG, report(cleanup_policy=policy), created=False)
    assert "--add-config cleanup.policy=delete" in caught.value.remedy


def test_schemas_must_be_compacted() -> None:
    with pytest.raises(TopicRefused, match="nobody could read older payloads"):
        check_topic(TABLE, report(cleanup_policy="delete"), created=False)
    assert check_topic(TABLE, report(cleanup_policy="compact"), created=False).warnings == ()


def test_too_few_partitions_are_refused_and_more_are_not() -> None:
    with pytest.raises(TopicMismatch, match="3 partitions, 4 are needed"):
        check_topic(LOG, report(3), created=False)
    assert check_topic(LOG, report(8), created=True).created


def test_what_a_topic_would_not_survive_is_said() -> None:
    assert check_topic(LOG, report(retention_ms="1000"), created=False).warnings == ()
    assert check_topic(LOG, report(retention_ms="-1"), created=False).warnings == ()
    (short,) = check_topic(LOG, report(retention_ms="999"), created=False).warnings
    assert "an outage that is longer loses records" in short
    (single,) = check_topic(LOG, report(replication=1, insync=1), created=False).warnings
    assert "1 replicas, min.insync.replicas=1" in single
