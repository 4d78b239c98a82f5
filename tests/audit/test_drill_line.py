"""Sending a drill's undos: what comes of each, how many are out, and what is done about silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

import pytest

from audit.wire import FakeLink, Reply, failure
from kasaga.audit.walk import Pace
from kasaga.drill.choose import Undo
from kasaga.drill.line import AT_ONCE, FAILS, LEFT_OUT, SILENT, UNANSWERED, WORKS, Line, Outcome
from kasaga.drill.tally import MAX_REASONS, Tally
from kasaga_wire.contracts import contract_of
from kasaga_wire.envelope import DRILL, CommandEnvelope
from kasaga_wire.errors import DecodeError, DeliveryError, KasagaError
from kasaga_wire.records import NULL_PAYLOAD
from kasaga_wire.topics import Topics
from testing.bookings import Hotel

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
UNDONE: Reply = ("undone", NULL_PAYLOAD)


def undo(number: int = 1, *, fault: KasagaError | None = None, participant: str = "hotel") -> Undo:
    return Undo(
        saga_id=f"s-{number}",
        saga="trip",
        version=1,
        participant=participant,
        type=f"{participant}.cancel",
        undoes=f"{participant}.book",
        command_id=f"run-{number}.1",
        sent=NOON,
        key=b"k",
        payload=b"payload",
        fault=fault,
    )


def line(
    answer: Callable[[CommandEnvelope, bytes], Iterable[Reply] | KasagaError],
    *,
    partitions: Callable[[str], int] = lambda topic: 4,
) -> tuple[Line, FakeLink]:
    link = FakeLink(answer)
    made = Line(link, Topics("shop", "drill."), partitions, Pace(1e9), 0.03)
    contract = contract_of(Hotel)
    made.open({contract.name: contract})
    return made, link


def kinds(outcomes: Iterable[Outcome]) -> list[str]:
    return [each.kind for each in outcomes]


def test_an_undo_goes_to_the_shadow_with_an_id_of_its_own() -> None:
    asked, link = line(lambda envelope, value: [UNDONE])
    assert kinds(asked.run([undo()])) == [WORKS]
    [sent] = link.sent
    envelope = CommandEnvelope.parse(sent.headers)
    assert (sent.topic, sent.value, envelope.kind) == ("drill.hotel.commands", b"payload", "undo")
    assert (envelope.saga_id, envelope.saga, envelope.type) == ("s-1", "trip", "hotel.cancel")
    assert not envelope.command_id.startswith("run-1")
    assert dict(sent.headers)[DRILL] == b"run-1.1"
    assert str(envelope.reply_to).startswith("drill.shop.answers/")
    assert {each.topic for each in link.published} == {"drill.shop.schemas"}


@pytest.mark.parametrize(
    ("said", "kind", "why"),
    [
        (("failed", failure("KeyError", "'x'")), FAILS, "KeyError: 'x'"),
        (("undecodable", failure("DecodeError", "cut off")), FAILS, "DecodeError: cut off"),
        (("conflict", b"garbage"), FAILS, "conflict"),
        (("refused", failure("NotDrilled", "alone")), LEFT_OUT, "NotDrilled: alone"),
        (("expired", failure("Forgotten", "late")), UNANSWERED, "Forgotten: late"),
        (UNDONE, WORKS, ""),
    ],
)
def test_what_becomes_of_an_undo(said: Reply, kind: str, why: str) -> None:
    asked, _ = line(lambda envelope, value: [said])
    assert [(each.kind, each.why) for each in asked.run([undo()])] == [(kind, why)]


def test_one_that_cannot_be_made_would_fail() -> None:
    asked, link = line(lambda envelope, value: [UNDONE])
    [outcome] = asked.run([undo(fault=DecodeError("no such field"))])
    assert (outcome.kind, "no such field" in outcome.why, link.sent) == (FAILS, True, [])


def test_few_are_out_at_a_time() -> None:
    waiting: list[CommandEnvelope] = []
    most = 0

    def answer(envelope: CommandEnvelope, value: bytes) -> list[Reply]:
        nonlocal most
        waiting.append(envelope)
        most = max(most, len(waiting))
        if len(waiting) == AT_ONCE:
            while waiting:
                link.reply(waiting.pop(), *UNDONE)
        return []

    asked, link = line(answer)
    assert kinds(asked.run(undo(number) for number in range(5 * AT_ONCE))) == [WORKS] * 5 * AT_ONCE
    assert most == AT_ONCE


def test_who_never_answers_is_asked_no_more_and_others_are() -> None:
    def answer(envelope: CommandEnvelope, value: bytes) -> list[Reply]:
        return [] if envelope.type.startswith("hotel") else [UNDONE]

    asked, link = line(answer)
    undos = [undo(number, participant="hotel") for number in range(50)]
    found = list(asked.run([*undos, undo(99, participant="bank")]))
    assert Counter(kinds(found)) == {UNANSWERED: 50, WORKS: 1}
    assert len(link.sent) <= SILENT + AT_ONCE + 1
    assert Counter(each.why for each in found)["it doesn't answer"] > 30


def test_who_is_not_in_drill_mode_is_named() -> None:
    asked, link = line(lambda envelope, value: [UNDONE], partitions=lambda topic: 0)
    [outcome] = asked.run([undo()])
    assert (outcome.kind, link.sent) == (UNANSWERED, [])
    assert "drill.hotel.commands: nobody serves it with KASAGA_DRILL=1" in outcome.why


def test_what_is_no_answer_to_us_is_passed_over() -> None:
    def answer(envelope: CommandEnvelope, value: bytes) -> list[Reply]:
        link.tell([], b"garbage")
        other = CommandEnvelope.parse(envelope.to_headers())
        other.command_id = "somebody.1~undo"
        link.reply(other, "failed", b"")
        return [UNDONE, ("failed", b""), UNDONE]  # the first counts

    asked, link = line(answer)
    assert kinds(asked.run([undo(1), undo(2)])) == [WORKS, WORKS]


def test_a_record_that_is_not_sent_is_not_answered() -> None:
    error = DeliveryError("MSG_SIZE_TOO_LARGE", "it is too large", permanent=True)
    asked, _ = line(lambda envelope, value: error)
    assert [(each.kind, each.why) for each in asked.run([undo()])] == [
        (UNANSWERED, "MSG_SIZE_TOO_LARGE: it is too large")
    ]


# --- the report


def test_the_report_counts_and_names_a_saga_for_each_reason() -> None:
    tally = Tally()
    for number, (kind, why) in enumerate([(WORKS, ""), (FAILS, "no"), (FAILS, "no"), (LEFT_OUT, "alone")]):
        tally.add(Outcome(undo(number), kind, why))
    assert list(tally.lines()) == [
        "hotel.cancel: 1 would work, 2 would fail, 1 left out",
        "    fails, 2 ×: no (saga s-1)",
        "    left out, 1 ×: alone (saga s-3)",
        "drill: 4 compensations, 1 would work",
    ]
    assert (tally.status, tally.document()["ok"]) == (1, False)
    tally = Tally()
    tally.add(Outcome(undo(), WORKS))
    assert tally.status == 0
    tally.add(Outcome(undo(), UNANSWERED, "no answer"))
    assert tally.status == 4


def test_reasons_are_bounded() -> None:
    tally = Tally()
    for number in range(1_000):
        tally.add(Outcome(undo(number), FAILS, f"row {number} " + "x" * 5_000))
    [compensation] = tally.document()["compensations"]
    assert len(compensation["reasons"]) == MAX_REASONS + 1
    assert sum(each["count"] for each in compensation["reasons"]) == 1_000
    assert max(len(each["why"]) for each in compensation["reasons"]) <= 300
