"""A participant's life through the public harness: all of it is real but the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

import pytest

from kasaga_participant import Participant, Refused, RetryableError, Tx
from kasaga_participant.errors import NoConnection, TransactionOver
from kasaga_participant.settings import MAX_REPLY_BYTES
from kasaga_participant.testing import Harness, make_sync_tx, make_tx
from kasaga_wire.contracts import contract_of
from kasaga_wire.envelope import CommandEnvelope, ReplyTo, rfc3339
from participant.services import Inventory, Notes, Order, Reservation, async_app, service_of, sync_app

ORDER = Order(id="o-1")
Scenario = Callable[[Harness, Notes], Coroutine[Any, Any, None]]


@pytest.fixture(params=["async", "sync"])
def play(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Runs a scenario with a harness over async handlers, and over plain functions."""

    def run(scenario: Scenario, **options: Any) -> None:
        notes = Notes()
        app = async_app(notes) if request.param == "async" else sync_app(notes)

        async def main() -> None:
            async with Harness(app, **options) as harness:
                await scenario(harness, notes)

        asyncio.run(main())

    return run


Play = Callable[..., None]


def test_a_command_is_done_once(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        first = await harness.send(Inventory.reserve, ORDER)
        again = await harness.send(Inventory.reserve, ORDER, id=first.id, attempt=2)

        assert (first.outcome, first.result) == ("done", Reservation(number=1))
        assert again.duplicate_of(first)
        assert (again.envelope.attempt, first.envelope.attempt) == (2, 1)
        assert notes.reserved == ["o-1"]
        assert notes.commands == [(first.id, 1, None, None)]

    play(scenario)


def test_a_refusal_is_final_and_a_failure_is_not(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        notes.behaviour = [RetryableError("busy", code="BUSY"), KeyError("bug"), Reservation(number=9)]
        refused = await harness.send(Inventory.reserve, Order(id="o", sku="rare"))
        failed = await harness.send(Inventory.reserve, ORDER)
        bug = await harness.send(Inventory.reserve, ORDER, id=failed.id, attempt=2)
        done = await harness.send(Inventory.reserve, ORDER, id=failed.id, attempt=3)

        assert refused.error is not None
        assert (refused.outcome, refused.error.code, refused.error.details) == (
            "refused",
            "SOLD_OUT",
            '{"left": 0}',
        )
        assert failed.error is not None
        assert bug.error is not None
        assert (failed.error.type, failed.error.code, failed.error.retryable) == (
            "RetryableError",
            "BUSY",
            True,
        )
        assert (bug.outcome, bug.error.type, bug.error.message) == ("failed", "KeyError", "'bug'")
        assert (done.outcome, done.result) == ("done", Reservation(number=9))

    play(scenario)


def test_an_undo_gets_the_stored_result_and_why(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        done = await harness.send(Inventory.reserve, ORDER)
        undone = await harness.undo(
            Inventory.release, done, knowledge="unknown", reason="no money", failed_step="payments.charge"
        )
        again = await harness.undo(Inventory.release, done, knowledge="unknown", attempt=2)

        assert [undone.outcome, again.outcome] == ["undone", "undone"]
        assert notes.released == [Reservation(number=1)]
        assert notes.commands[1] == (f"{done.id}~undo", 1, "no money", "payments.charge")

    play(scenario)


def test_the_fence(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        undone = await harness.undo_unsent(Inventory.release, ORDER, id="r.1")
        voided = await harness.void(Inventory.reserve, id="r.2")
        late = [await harness.send(Inventory.reserve, ORDER, id=id_) for id_ in ("r.1", "r.2")]
        executed = await harness.send(Inventory.reserve, ORDER, id="r.3")
        too_late = await harness.void(Inventory.reserve, id="r.3")

        assert [undone.outcome, voided.outcome, too_late.outcome] == ["nothing", "voided", "executed"]
        assert [each.outcome for each in late] == ["refused", "refused"]
        assert {each.error.type for each in late if each.error} == {"Voided"}
        assert executed.outcome == "done"
        assert notes.reserved == ["o-1"]

    play(scenario)


def test_beyond_the_horizon(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        done = await harness.send(Inventory.reserve, ORDER)
        lost = await harness.send(Inventory.reserve, Order(id="o-2"))
        harness.advance(timedelta(days=40))
        assert harness.inbox.purge() == 2
        carried = await harness.undo(Inventory.release, done)
        unknown = await harness.undo(Inventory.release, lost, knowledge="unknown")

        assert [carried.outcome, unknown.outcome] == ["undone", "undone"]
        assert notes.released == [Reservation(number=1), None]

    play(scenario)


def test_without_an_inbox(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        first = await harness.send(Inventory.reserve, ORDER)
        again = await harness.send(Inventory.reserve, ORDER, id=first.id)
        undone = await harness.undo(Inventory.release, first)
        void = await harness.void(Inventory.reserve, id=first.id)
        old = await harness.send(Inventory.reserve, ORDER, id="r.1", sent=first.envelope.time - DAYS)

        assert notes.reserved == ["o-1", "o-1"]  # nobody remembers
        assert [again.outcome, undone.outcome, void.outcome, old.outcome] == [
            "done",
            "undone",
            "expired",
            "expired",
        ]
        assert notes.released == [Reservation(number=1)]

    play(scenario, inbox=False)


DAYS = timedelta(days=8)


def test_plain_functions_run_in_threads() -> None:
    notes = Notes()

    async def main() -> None:
        async with Harness(sync_app(notes)) as harness:
            await asyncio.gather(*(harness.send(Inventory.reserve, ORDER) for _ in range(20)))

    asyncio.run(main())
    assert len(notes.reserved) == 20
    assert all(name.startswith("kasaga-handler") for name in notes.threads)


def test_many_at_once_with_some_that_refuse_and_some_that_fail(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        skus = ["book", "book", "rare", "book"] * 40
        replies = await asyncio.gather(
            *(harness.send(Inventory.reserve, Order(id=str(n), sku=sku)) for n, sku in enumerate(skus))
        )
        outcomes = [reply.outcome for reply in replies]

        assert outcomes == ["refused" if sku == "rare" else "done" for sku in skus]
        # Whoever raises rolls a batch back, but nobody runs more than twice for it.
        assert max(notes.reserved.count(str(n)) for n in range(len(skus))) <= 2

    play(scenario)


def test_duplicates_in_hand_share_one_run(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        replies = await asyncio.gather(
            *(harness.send(Inventory.reserve, ORDER, id="r.1", attempt=n) for n in range(1, 6))
        )
        assert len({reply.payload for reply in replies}) == 1
        assert [reply.envelope.attempt for reply in replies] == [1, 2, 3, 4, 5]
        assert notes.reserved == ["o-1"]

    play(scenario)


def test_a_failure_of_one_attempt_is_not_that_of_another_in_hand(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        notes.behaviour = [RetryableError("busy")]
        first, second = await asyncio.gather(
            *(harness.send(Inventory.reserve, ORDER, id="r.1", attempt=n) for n in (1, 2))
        )
        assert [first.outcome, second.outcome] == ["failed", "done"]

    play(scenario)


def test_an_undo_in_hand_with_its_command_comes_after_it(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        done, undone = await asyncio.gather(
            harness.send(Inventory.reserve, ORDER, id="r.1"),
            harness.undo_unsent(Inventory.release, ORDER, id="r.1"),
        )
        assert [done.outcome, undone.outcome] == ["done", "undone"]
        assert notes.released == [Reservation(number=1)]

    play(scenario)


def test_a_conflict_is_told(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        await harness.send(Inventory.reserve, ORDER, id="r.1")
        other = await harness.send(Inventory.reserve, Order(id="other"), id="r.1")
        counted = await harness.send(Inventory.count, ORDER, id="r.1")

        assert [other.outcome, counted.outcome] == ["conflict", "conflict"]
        assert other.error is not None
        assert other.error.type == "IdClash"

    play(scenario)


def test_records_that_are_no_commands_are_dead_letters(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        await harness.feed("inventory", b"what is this", [("x", b"y")])
        envelope = CommandEnvelope(
            command_id="r.1",
            attempt=1,
            source="/x",
            type="inventory.reserve",
            time=(await harness.send(Inventory.count, ORDER)).envelope.time,
            saga_id="s",
            saga="x",
            reply_to=ReplyTo("bank.secrets", 0),
        )
        await harness.feed("inventory", b"", envelope.to_headers())

        codes = [letter.headers["kasaga_dlq_code"] for letter in harness.dead_letters]
        assert codes == ["KSG-120", "KSG-424"]
        assert harness.dead_letters[0].value == b"what is this"
        assert notes.reserved == []

    play(scenario)


def test_nobody_needs_to_wait_for_a_reply(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        sent = (await harness.send(Inventory.count, ORDER)).envelope.time
        envelope = CommandEnvelope(
            command_id="r.1",
            attempt=1,
            source="/x",
            type="inventory.reserve",
            time=sent,
            saga_id="s",
            saga="x",
        )
        spec = contract_of(Inventory).commands["reserve"]
        await harness.feed("inventory", spec.input.encode(ORDER), envelope.to_headers())

        assert notes.reserved == ["o-1"]
        assert harness.dead_letters == []

    play(scenario)


def test_a_compensation_sent_as_a_command_is_unknown(play: Play) -> None:
    async def scenario(harness: Harness, notes: Notes) -> None:
        sent = (await harness.send(Inventory.count, ORDER)).envelope.time
        headers: list[tuple[str, bytes | None]] = [
            ("ce_specversion", b"1.0"),
            ("ce_id", b"r.1.1"),
            ("ce_source", b"/x"),
            ("ce_type", b"inventory.release"),
            ("ce_time", rfc3339(sent).encode()),
            ("ce_subject", b"s"),
            ("ce_kasagacommand", b"r.1"),
        ]
        await harness.feed("inventory", b"", headers)
        assert [letter.headers["kasaga_dlq_code"] for letter in harness.dead_letters] == ["KSG-423"]

    play(scenario)


def test_a_result_that_does_not_fit_fails_the_command() -> None:
    notes = Notes()
    app = Participant(database_url=None)
    app.serve(Inventory, service_of(notes))

    async def main() -> None:
        notes.behaviour = [Reservation.model_construct(number="no number")]
        async with Harness(app) as harness:
            wrong = await harness.send(Inventory.reserve, ORDER)
            right = await harness.send(Inventory.reserve, ORDER, id=wrong.id, attempt=2)
        assert wrong.error is not None
        assert (wrong.outcome, wrong.error.type) == ("failed", "EncodeError")
        assert right.outcome == "done"

    asyncio.run(main())
    assert MAX_REPLY_BYTES < 1_000_000


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), StopIteration(), TimeoutError()])
def test_whatever_a_handler_raises_is_only_its_own_failure(error: BaseException) -> None:
    notes = Notes()
    notes.behaviour = [error]

    async def main() -> None:
        async with Harness(async_app(notes)) as harness:
            failed = await harness.send(Inventory.reserve, ORDER)
            done = await harness.send(Inventory.reserve, ORDER)
        assert [failed.outcome, done.outcome] == ["failed", "done"]

    asyncio.run(main())


# --- Tx


def test_a_handler_can_be_tested_alone() -> None:
    notes = Notes()
    service = service_of(notes)(make_tx(id="r.7", attempt=2))

    reserved = asyncio.run(service.reserve(ORDER))

    assert reserved == Reservation(number=1)
    assert notes.commands == [("r.7", 2, None, None)]
    with pytest.raises(Refused):
        asyncio.run(service.reserve(Order(id="x", sku="rare")))


def test_a_tx_without_a_database_says_so() -> None:
    for tx in (make_tx(participant="inventory"), make_sync_tx(participant="inventory")):
        with pytest.raises(NoConnection, match="inventory runs without an inbox"):
            _ = tx.connection


def test_a_tx_is_over_when_the_handler_has_returned() -> None:
    kept: list[Tx] = []
    app = Participant(database_url=None)

    @app.handle(Inventory.reserve)
    async def reserve(order: Order, tx: Tx) -> Reservation:
        kept.append(tx)
        return Reservation(number=1)

    @app.handle(Inventory.release)
    async def release(order: Order, reserved: Reservation | None, tx: Tx) -> None: ...

    @app.handle(Inventory.count)
    async def count(order: Order, tx: Tx) -> int:
        return 1

    async def main() -> None:
        async with Harness(app) as harness:
            await harness.send(Inventory.reserve, ORDER)

    asyncio.run(main())
    with pytest.raises(TransactionOver):
        _ = kept[0].connection
