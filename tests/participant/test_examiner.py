"""Audits at a participant: what it tells of its inbox, and that it changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from kasaga_participant import Participant
from kasaga_participant.examiner import LATE_SECONDS, WAITING
from kasaga_participant.inbox.rows import ExaminedRow
from kasaga_participant.sender import Headers
from kasaga_participant.testing import Harness, MemoryInbox
from kasaga_wire.envelope import AUDIT, CommandEnvelope, ReplyEnvelope, ReplyTo
from kasaga_wire.records import (
    MAX_AUDIT_RUNS,
    Audit,
    Audited,
    Error,
    audit_codec,
    audited_codec,
    errors_codec,
)
from kasaga_wire.schema import Schemas
from participant.services import Inventory, Notes, Order, async_app

ORDER = Order(id="o-1")
REPLIES = ReplyTo("harness.replies", 0)


class Desk(Harness):
    """A harness that asks questions."""

    def __init__(self, app: Participant, **options: Any) -> None:
        super().__init__(app, **options)
        self.heard: list[tuple[str, bytes]] = []
        self.asked = 0

    def _produced(self, topic: str, value: bytes | None, headers: Headers) -> None:
        if topic == REPLIES.topic and (envelope := ReplyEnvelope.parse(headers)).command_id.startswith(
            "audit."
        ):
            self.heard.append((envelope.outcome, value or b""))
        super()._produced(topic, value, headers)

    async def ask(self, value: bytes | None, *, type_: str = AUDIT, **more: Any) -> tuple[str, bytes]:
        self.put(value, type_=type_, **more)
        await self.quiet()
        return self.heard.pop()

    def put(self, value: bytes | None, *, type_: str = AUDIT, **more: Any) -> None:
        self.asked += 1
        about: dict[str, Any] = {"reply_to": REPLIES, **more}
        envelope = CommandEnvelope(
            command_id=f"audit.{self.asked}",
            attempt=1,
            source="/kasaga/audit",
            type=type_,
            time=datetime.now(UTC),
            saga_id="audit",
            saga="kasaga.audit",
            **about,
        )
        self._accept("inventory.commands", b"audit", value, list(envelope.to_headers()))

    async def quiet(self) -> None:
        await self.feed("inventory", b"", [])  # a dead letter, answered behind everything else

    async def audited(self, *runs: str, after: str = "") -> Audited:
        outcome, value = await self.ask(audit_codec.encode(Audit(runs=list(runs), after=after)))
        assert outcome == "done"
        return audited_codec.decode(value, Schemas())


def error(value: bytes) -> Error:
    return errors_codec.decode(value, Schemas())


def play(scenario: Callable[[Desk], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        async with Desk(async_app(Notes()), **options) as desk:
            await scenario(desk)

    asyncio.run(main())


def rows(audited: Audited) -> list[tuple[str, str, str]]:
    return [(row.id, row.type, row.outcome) for row in audited.rows]


def test_it_tells_what_the_inbox_keeps_of_some_runs() -> None:
    async def scenario(desk: Desk) -> None:
        done = await desk.send(Inventory.reserve, ORDER, id="a.1")
        await desk.undo(Inventory.release, done)
        await desk.void(Inventory.reserve, id="b.1")
        await desk.send(Inventory.reserve, ORDER, id="a-1.1")  # `-` comes before `.`
        await desk.send(Inventory.reserve, ORDER, id="c.1")
        before = {id_: desk.inbox.row(id_) for id_ in ("a.1", "a.1~undo", "b.1", "b.1~void")}

        told = await desk.audited("b", "a", "a", "nobody")
        assert rows(told) == [
            ("a.1", "inventory.reserve", "done"),
            ("a.1~undo", "inventory.release", "undone"),
            ("b.1", "inventory.reserve", "void"),
            ("b.1~void", "kasaga.void", "voided"),
        ]
        assert (told.remembers, told.more) == (True, False)
        assert (told.max_age, told.retention) == (7 * 86_400, 14 * 86_400)
        assert told.rows[0].input is not None
        assert told.rows[0].result is not None
        assert told.rows[1].result is None
        assert rows(await desk.audited("a", "b", after="a.1~undo")) == rows(told)[2:]
        assert {id_: desk.inbox.row(id_) for id_ in before} == before
        assert desk.inbox.row("audit.1") is None

    play(scenario)


def test_more_than_one_answer_holds_is_told_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kasaga_participant.examiner.MAX_AUDIT_ROWS", 2)

    async def scenario(desk: Desk) -> None:
        for number in range(5):
            await desk.send(Inventory.reserve, ORDER, id=f"a.{number}")
        pages: list[list[str]] = []
        after, more = "", True
        while more:
            told = await desk.audited("a", after=after)
            pages.append([row.id for row in told.rows])
            after, more = told.rows[-1].id, told.more
        assert pages == [["a.0", "a.1"], ["a.2", "a.3"], ["a.4"]]

    play(scenario)


def test_without_an_inbox_it_says_that_it_knows_nothing() -> None:
    async def scenario(desk: Desk) -> None:
        await desk.send(Inventory.reserve, ORDER, id="a.1")
        told = await desk.audited("a")
        assert (told.remembers, told.rows) == (False, [])

    play(scenario, inbox=False)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\x00\x00\x00\x00\x00",
        b"garbage" * 1000,
        audit_codec.encode(Audit(runs=["a"]))[:-1],
        audit_codec.encode(Audit(runs=["a%"])),
        audit_codec.encode(Audit(runs=["../../etc"])),
        audit_codec.encode(Audit(runs=["a\x00"])),
        audit_codec.encode(Audit(runs=["a"] * (MAX_AUDIT_RUNS + 1))),
    ],
)
def test_garbage_is_answered_and_harms_nobody(value: bytes | None) -> None:
    async def scenario(desk: Desk) -> None:
        outcome, _ = await desk.ask(value)
        assert outcome == "undecodable"
        assert (await desk.send(Inventory.reserve, ORDER, id="a.1")).outcome == "done"
        assert rows(await desk.audited("a")) == [("a.1", "inventory.reserve", "done")]

    play(scenario)


def test_nobody_is_read_to_who_does_not_wait_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> list[ExaminedRow]:
        raise AssertionError("it was read")

    monkeypatch.setattr(MemoryInbox, "examine", never)

    async def scenario(desk: Desk) -> None:
        late = datetime.now(UTC) - timedelta(seconds=LATE_SECONDS + 1)
        outcome, value = await desk.ask(audit_codec.encode(Audit(runs=["a"])), deadline=late)
        assert (outcome, error(value).code) == ("expired", "KSG-421")

    play(scenario)


@pytest.mark.parametrize(
    "raised", [psycopg.OperationalError("no route to host 10.0.0.7, user inventory"), OSError("10.0.0.7")]
)
def test_an_inbox_that_is_away_is_told_without_its_address(
    monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    def away(_: object, runs: Sequence[str], after: str, limit: int) -> list[ExaminedRow]:
        raise raised

    monkeypatch.setattr(MemoryInbox, "examine", away)

    async def scenario(desk: Desk) -> None:
        outcome, value = await desk.ask(audit_codec.encode(Audit(runs=["a"])))
        assert outcome == "failed"
        assert "10.0.0.7" not in error(value).message

    play(scenario)


def test_a_clock_that_differs_costs_no_answer() -> None:
    async def scenario(desk: Desk) -> None:
        late = datetime.now(UTC) - timedelta(seconds=LATE_SECONDS / 2)
        assert (await desk.ask(audit_codec.encode(Audit(runs=["a"])), deadline=late))[0] == "done"

    play(scenario)


def test_too_many_at_once_are_turned_away() -> None:
    async def scenario(desk: Desk) -> None:
        for _ in range(WAITING + 5):
            desk.put(audit_codec.encode(Audit(runs=["a"])))
        await desk.quiet()
        outcomes = [outcome for outcome, _ in desk.heard]
        assert (outcomes.count("done"), outcomes.count("failed")) == (WAITING, 5)

    play(scenario)


def test_a_participant_of_an_older_release_says_so() -> None:
    """It takes an audit for a command that it doesn't have, as this one does with what is newer still."""

    async def scenario(desk: Desk) -> None:
        outcome, value = await desk.ask(audit_codec.encode(Audit(runs=["a"])), type_="kasaga.newer")
        assert (outcome, error(value).type) == ("undecodable", "UnknownCommand")
        assert desk.inbox.row("audit.1") is None
        assert len([each for each in desk.dead_letters if each.headers.get("ce_type") == "kasaga.newer"]) == 1

    play(scenario)


def test_an_answer_that_nobody_wants_or_that_may_not_go_there() -> None:
    async def scenario(desk: Desk) -> None:
        desk.put(audit_codec.encode(Audit(runs=["a"])), reply_to=None)
        desk.put(audit_codec.encode(Audit(runs=["a"])), reply_to=ReplyTo("elsewhere", 0))
        await desk.quiet()
        assert desk.heard == []
        codes = [each.headers["kasaga_dlq_code"] for each in desk.dead_letters]
        assert sorted(codes) == ["KSG-120", "KSG-424"]

    play(scenario)
