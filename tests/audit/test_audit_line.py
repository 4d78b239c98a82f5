"""Asking participants over Kafka: answers, silence, garbage, releases that know no audits."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from audit.wire import FakeLink, Reply, failure
from kasaga.audit.by_kafka import KafkaInbox, Line
from kasaga.audit.inboxes import TooOld, Unanswered
from kasaga_wire.codec import Schemas
from kasaga_wire.envelope import AUDIT, CommandEnvelope
from kasaga_wire.errors import DeliveryError, KafkaUnavailable, KasagaError
from kasaga_wire.records import Audit, Audited, AuditedRow, audit_codec, audited_codec
from kasaga_wire.topics import Topics

Answer = Callable[[CommandEnvelope, bytes], Iterable[Reply] | KasagaError]


def told(*ids: str, more: bool = False, remembers: bool = True) -> Reply:
    rows = [AuditedRow(id=id_, type="stock.reserve", outcome="done") for id_ in ids]
    body = Audited(remembers=remembers, max_age=10.0, retention=100.0, rows=rows, more=more)
    return "done", audited_codec.encode(body)


def question(value: bytes) -> Audit:
    return audit_codec.decode(value, Schemas())


def line(answer: Answer, *, partitions: int = 4, seconds: float = 0.05) -> tuple[Line, FakeLink]:
    link = FakeLink(answer)
    return Line(link, Topics("shop", "test."), lambda topic: partitions, seconds=seconds), link


def test_a_question_has_the_headers_of_a_command_and_an_id_of_its_own() -> None:
    asked, link = line(lambda envelope, value: [told("a.1", "b.1~undo")])
    seen = KafkaInbox(asked, "stock").read(["a", "b"])
    assert set(seen.of("a")) == {"1"}
    assert set(seen.of("b")) == {"1~undo"}
    assert (seen.memory.remembers, seen.memory.horizon) == (True, 90.0)
    [sent] = link.sent
    envelope = CommandEnvelope.parse(sent.headers)
    assert (sent.topic, envelope.type, envelope.kind) == ("test.stock.commands", AUDIT, "command")
    assert str(envelope.reply_to).startswith("test.shop.answers/")
    assert envelope.deadline is not None
    assert question(sent.value or b"").runs == ["a", "b"]
    assert [each.key for each in link.published] == [str(audit_codec.schema.id).encode()]


def test_answers_are_read_page_by_page() -> None:
    pages = {"": told("a.1", "a.2", more=True), "a.2": told("a.3", more=True), "a.3": told("a.4")}
    asked, link = line(lambda envelope, value: [pages[question(value).after]])
    assert sorted(KafkaInbox(asked, "stock").read(["a"]).of("a")) == ["1", "2", "3", "4"]
    assert len({sent.partition for sent in link.sent}) == 3, "each goes to another partition"
    assert len(link.published) == 1


@pytest.mark.parametrize("page", [told(more=True), told("a.1", more=True)])
def test_a_participant_that_goes_round_in_circles_is_left(page: Reply) -> None:
    asked, _ = line(lambda envelope, value: [page])
    with pytest.raises(Unanswered, match="doesn't go on"):
        KafkaInbox(asked, "stock").read(["a"])


def test_a_release_that_knows_no_audits_is_asked_once() -> None:
    asked, link = line(lambda envelope, value: [("undecodable", failure("UnknownCommand"))])
    with pytest.raises(TooOld, match="KSG-651"):
        KafkaInbox(asked, "stock").read(["a"])
    assert len(link.sent) == 1


def test_silence_is_asked_again_at_another_partition_and_then_told() -> None:
    asked, link = line(lambda envelope, value: [])
    with pytest.raises(Unanswered, match=r"stock: no answer within 0\.05 s"):
        KafkaInbox(asked, "stock").read(["a"])
    assert len({sent.partition for sent in link.sent}) == 2


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ([("failed", failure("RuntimeError", "the inbox can't be read"))], "the inbox can't be read"),
        ([("expired", failure("Forgotten", "too late"))], "too late"),
        ([("failed", b"garbage")], "it answered failed, and why can't be read"),
        (DeliveryError("_MSG_TIMED_OUT", "the broker is away", permanent=False), "away"),
    ],
)
def test_what_may_pass_is_asked_again(first: Iterable[Reply] | KasagaError, said: str) -> None:
    answers = iter([first, [told("a.1")]])
    asked, _ = line(lambda envelope, value: next(answers))
    assert set(KafkaInbox(asked, "stock").read(["a"]).of("a")) == {"1"}
    asked, _ = line(lambda envelope, value: first)
    with pytest.raises(Unanswered, match=said):
        KafkaInbox(asked, "stock").read(["a"])


@pytest.mark.parametrize("payload", [b"", b"garbage", b"\x00\x00\x00\x00\x07ab", told()[1][:-2]])
def test_an_answer_that_is_garbage_is_no_answer(payload: bytes) -> None:
    asked, _ = line(lambda envelope, value: [("done", payload)])
    with pytest.raises(Unanswered, match="can't be read"):
        KafkaInbox(asked, "stock").read(["a"])


def test_what_others_are_told_is_not_ours() -> None:
    def answer(envelope: CommandEnvelope, value: bytes) -> list[Reply]:
        link.tell([], b"no headers")
        link.tell([("ce_specversion", b"1.0"), ("ce_type", b"kasaga.answer.completed")], b"an answer")
        other = CommandEnvelope.parse(envelope.to_headers())
        other.command_id = "somebody.1"
        link.reply(other, *told("z.1"))
        return [told("a.1"), told("a.2")]  # twice: the second is too late

    asked, link = line(answer)
    inbox = KafkaInbox(asked, "stock")
    for _ in range(2):
        assert set(inbox.read(["a"]).of("a")) == {"1"}


def test_a_topic_that_is_not_there_and_brokers_that_are_away() -> None:
    asked, link = line(lambda envelope, value: [told()], partitions=0)
    with pytest.raises(Unanswered, match=r"there is no topic test\.stock\.commands"):
        KafkaInbox(asked, "stock").read(["a"])
    assert link.sent == []

    def away(topic: str) -> int:
        raise KafkaUnavailable("no broker answers")

    with pytest.raises(Unanswered, match="no broker answers"):
        KafkaInbox(Line(link, Topics("shop"), away), "stock").read(["a"])
