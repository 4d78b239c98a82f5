"""Late answers through the harness, and what sends them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from kasaga_participant import BadToken, CannotDefer, Deferred, GivenUp, Participant, SyncTx, Tx
from kasaga_participant.courier import Courier, Whose
from kasaga_participant.errors import ResultTooLarge
from kasaga_participant.inbox.late import LateReply
from kasaga_participant.sender import Outgoing
from kasaga_participant.testing import Harness, make_tx
from kasaga_wire.envelope import ReplyEnvelope
from kasaga_wire.records import NULL_PAYLOAD
from participant.services import Inventory, Order, Reservation

ORDER = Order(id="o-1")


class Desk:
    """A service that defers what it is asked for."""

    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.released: list[Reservation | None] = []
        self.app = Participant("desk", database_url=None)
        self.app.handle(Inventory.reserve)(self.reserve)
        self.app.handle(Inventory.release)(self.release)
        for name in ("count",):
            if hasattr(Inventory, name):
                self.app.handle(getattr(Inventory, name))(self.count)

    async def reserve(self, order: Order, tx: Tx) -> Reservation | Deferred:
        later = Deferred(tx, heartbeat=timedelta(seconds=30))
        self.tokens.append(later.token)
        return later

    def release(self, order: Order, reserved: Reservation | None, tx: SyncTx) -> None:
        self.released.append(reserved)

    def count(self, *_: Any) -> Any:
        raise AssertionError("nobody asks for it")


def play(scenario: Callable[[Harness, Desk], Coroutine[Any, Any, None]], **options: Any) -> None:
    async def main() -> None:
        desk = Desk()
        async with Harness(desk.app, **options) as harness:
            await scenario(harness, desk)

    asyncio.run(main())


def test_a_deferred_command_is_answered_by_its_token() -> None:
    async def scenario(harness: Harness, desk: Desk) -> None:
        first = await harness.send(Inventory.reserve, ORDER)
        again = await harness.send(Inventory.reserve, ORDER, id=first.id, attempt=2)
        assert (first.outcome, again.outcome, len(desk.tokens)) == ("deferred", "deferred", 1)
        assert (first.envelope.id, again.envelope.id) == (f"{first.id}.1.d0", f"{first.id}.2.d0")

        late = harness.late(Inventory.reserve)
        await late.heartbeat(desk.tokens[0], progress={"percent": 10})
        await late.complete(desk.tokens[0], Reservation(number=7))
        done = await harness.send(Inventory.reserve, ORDER, id=first.id, attempt=3)
        assert (done.outcome, done.result) == ("done", Reservation(number=7))
        with pytest.raises(BadToken):
            await late.complete("made up", Reservation(number=7))
        with pytest.raises(ResultTooLarge):
            await late.heartbeat(desk.tokens[0], progress="x" * 3_000)

    play(scenario)


def test_an_undo_of_it_has_no_result_and_ends_it() -> None:
    async def scenario(harness: Harness, desk: Desk) -> None:
        first = await harness.send(Inventory.reserve, ORDER)
        assert (await harness.undo(Inventory.release, first)).outcome == "undone"
        assert desk.released == [None]
        with pytest.raises(GivenUp):
            await harness.late(Inventory.reserve).complete(desk.tokens[0], Reservation(number=7))

    play(scenario)


def test_without_an_inbox_nothing_can_be_deferred() -> None:
    async def scenario(harness: Harness, desk: Desk) -> None:
        reply = await harness.send(Inventory.reserve, ORDER)
        assert reply.error is not None
        assert (reply.outcome, reply.error.code) == ("failed", CannotDefer.code)

    play(scenario, inbox=False)


def test_a_compensation_cant_be_deferred_and_a_token_stays_out_of_logs() -> None:
    with pytest.raises(CannotDefer):
        Deferred(make_tx(undoes="r.1"))
    later = Deferred(make_tx(id="r.1"))
    assert (repr(later), later.token.startswith("r.1.")) == ("Deferred(r.1)", True)
    same: object = later.instead_of(Reservation)
    assert same is later
    for wrong in (timedelta(milliseconds=999), timedelta(days=367)):
        with pytest.raises(ValueError, match="between a second and a year"):
            Deferred(make_tx(), heartbeat=wrong)


# --- the courier


REPLY = LateReply("r.1", "shop", 2, "shop.replies/3", "saga-1", None, None, "done", 0, None, 1)


class Late:
    def __init__(self, *replies: LateReply) -> None:
        self.due = list(replies)
        self.sent: list[int] = []
        self.away = False

    async def late_key(self) -> bytes | None:
        return b"key"

    async def take_late(self, whose: Whose, seconds: float, limit: int) -> list[LateReply]:
        if self.away:
            raise psycopg.OperationalError("away")
        return list(self.due)

    async def sent_late(self, seqs: Sequence[int]) -> None:
        if self.away:
            raise psycopg.OperationalError("away")
        self.sent += seqs
        self.due = [reply for reply in self.due if reply.seq not in seqs]


def test_a_late_answer_is_sent_until_it_is_acknowledged_and_forgotten_then() -> None:
    async def run() -> None:
        beat = LateReply("r.2", "shop", 1, "shop.replies/3", "saga-1", None, None, "deferred", 4, b"beat", 2)
        store, posted = Late(REPLY, beat), list[Outgoing]()
        courier = Courier(store, Whose(["shop"], ["shop.replies"]), posted.extend)
        assert await courier.turn()
        await courier.turn()
        assert len(posted) == 2, "what is on its way isn't sent again by the same process"

        done, progress = posted
        assert (done.topic, done.partition, done.key, done.value) == (
            "shop.replies",
            3,
            b"saga-1",
            NULL_PAYLOAD,
        )
        assert ReplyEnvelope.parse(done.headers).id == "r.1.2.r"
        assert ReplyEnvelope.parse(progress.headers).id == "r.2.1.d4"
        done.done()
        store.away = True
        with pytest.raises(psycopg.OperationalError):
            await courier.turn()
        store.away = False
        progress.done()
        await courier.turn()
        assert (sorted(store.sent), store.due) == ([1, 2], [])

    asyncio.run(run())


def test_an_answer_that_can_go_nowhere_is_given_up() -> None:
    async def run() -> None:
        nowhere = LateReply("r.1", "shop", 2, "nowhere", "saga-1", None, None, "done", 0, None, 1)
        store, posted = Late(nowhere), list[Outgoing]()
        courier = Courier(store, Whose(["shop"], ["shop.replies"]), posted.extend)
        await courier.turn()
        await courier.turn()
        assert (posted, store.sent) == ([], [1])

    asyncio.run(run())
