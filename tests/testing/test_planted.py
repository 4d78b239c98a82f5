"""Bugs planted in sagas and participants, one at a time: the matrix finds each, and says where."""

from __future__ import annotations

from typing import Any

import pytest

from kasaga.testing import Case, Fakes, Fault, Result, leaves_no_trace, matrix, simulate
from kasaga_participant import Tx
from testing.bookings import (
    AIRLINE,
    Airline,
    Bank,
    Booking,
    Books,
    Hotel,
    HotelService,
    Trip,
    bank_app,
    chance,
    charge_card,
    double_refund,
    forgetful_refund,
    goes_on,
    safe_refund,
    trip,
    typo,
)

TRIP = Trip(id="t-1")


def kinds(failures: list[Result]) -> set[str]:
    return {fault.kind for result in failures for fault in result.faults}


def pays_for_flights(result: Result) -> None:
    if result.state == "COMPLETED":
        assert result.data.seats == [] or result.data.money < 100, "they fly for nothing"


def card_is_square(result: Result) -> None:
    if result.state == "COMPENSATED":
        assert result.data.card.taken == 0, f"{result.data.card.taken} on the card"


def test_a_saga_that_catches_time_outs_and_goes_on() -> None:
    report = matrix(
        goes_on, TRIP, participants=[bank_app()], fakes=AIRLINE, data=Books, invariants=[pays_for_flights]
    )
    assert not report.ok
    assert {"timeout_happened", "timeout_not_happened"} <= kinds(report.failures)
    assert report.plain.ok
    assert "they fly for nothing" in str(report)
    assert "✗ done" in str(report)


def test_a_compensation_that_forgets() -> None:
    fakes: Fakes = {Bank.charge: _charge, Bank.refund: forgetful_refund, **AIRLINE}
    report = matrix(
        trip, TRIP, participants=[HotelService], fakes=fakes, data=Books, invariants=[leaves_no_trace]
    )
    assert not report.ok
    assert "'money': 70" in str(report)
    refused = report.cells[report.rows[2], "refused"]
    assert refused is not None
    assert not refused.ok
    earlier = report.cells[report.rows[0], "refused"]
    assert earlier is not None
    assert earlier.ok


def _charge(trip: Trip, tx: Any) -> Booking:
    tx.connection.money -= trip.price
    return Booking(number=1)


@pytest.mark.parametrize(("refund", "ok"), [(double_refund, False), (safe_refund, True)])
def test_a_compensation_that_is_not_idempotent_outside_of_its_transaction(refund: Any, ok: bool) -> None:
    fakes: Fakes = {Bank.charge: charge_card, Bank.refund: refund, **AIRLINE}
    case = Case(trip, TRIP, participants=[HotelService], fakes=fakes, data=Books, invariants=[card_is_square])
    report = case.matrix()
    assert report.ok is ok, report
    assert {"undo_crashes"} == kinds(report.failures) & {"undo_crashes", "undo_duplicated"} or ok
    assert all(any(fault.kind == "undo_crashes" for fault in each.faults) for each in report.failures)


def test_code_that_differs_in_a_replay() -> None:
    report = matrix(chance, TRIP, pairs=False)
    wrong = [result for result in report.failures if "restart" in kinds([result])]
    assert wrong
    assert any("STUCK by its own code: KSG-202" in text for each in wrong for text in each.violations)


def test_a_way_out_that_breaks() -> None:
    report = matrix(typo, TRIP)
    assert kinds(report.failures) == {"refused"}
    [violation] = report.failures[0].violations
    assert violation.startswith("it is STUCK by its own code: KSG-207")
    assert "bookings.py" in violation


def test_a_compensation_that_always_fails() -> None:
    def broken(trip: Trip, charged: Booking | None) -> None:
        raise KeyError("charge")

    report = matrix(trip, TRIP, fakes={Bank.refund: broken}, pairs=False)
    refused = report.cells[report.rows[2], "refused"]
    assert refused is not None
    assert any("a compensation fails by itself" in text for text in refused.violations)


def test_a_participant_that_runs_twice_without_an_inbox() -> None:
    """What an inbox is for: the built-in invariant sees effects, whatever the contract says."""
    from typing import Protocol

    from kasaga import SagaContext, saga
    from kasaga_wire import command, participant

    @participant("mailer", inbox=False)
    class Mailer(Protocol):
        @command
        async def send(self, trip: Trip) -> None: ...

    @saga("mails")
    async def mails(ctx: SagaContext, asked: Trip) -> None:
        await ctx.use(Mailer).send(asked)

    report = matrix(mails, TRIP, pairs=False)
    assert {"duplicated", "crash_after_commit"} <= kinds(report.failures)
    assert "mailer.send (step 1) took effect 2 times" in str(report)


def test_a_simulation_makes_its_failures_small() -> None:
    fakes: Fakes = {Bank.charge: _charge, Bank.refund: forgetful_refund, **AIRLINE}
    found = simulate(
        trip,
        TRIP,
        seeds=60,
        seed=3,
        participants=[HotelService],
        fakes=fakes,
        data=Books,
        invariants=[leaves_no_trace],
    )
    assert found.failures
    assert all(len(failure.smallest.faults) <= 2 for failure in found.failures)
    assert f"seed {found.failures[0].seed}:" in str(found)
    again = Case(
        trip, TRIP, participants=[HotelService], fakes=fakes, data=Books, invariants=[leaves_no_trace]
    )
    assert not again.simulate(1, seed=found.failures[0].seed).ok
    assert not again.run(found.failures[0].smallest.faults).ok or found.failures[0].smallest.faults == ()


def test_invariants_that_break_or_say_false() -> None:
    def says_false(result: Result) -> bool:
        return False

    def breaks(result: Result) -> None:
        raise LookupError("no such row")

    case = Case(trip, TRIP, invariants=[says_false, breaks])
    assert case.run().violations == ["says_false doesn't hold", "breaks raises LookupError: no such row"]


def test_a_service_that_leaks_over_its_rollback() -> None:
    """A handler that writes to something else than its transaction's data isn't taken back."""
    noted: list[str] = []

    class Leaky(HotelService):
        def __init__(self, tx: Tx) -> None:
            super().__init__(tx)

        async def book(self, trip: Trip) -> Booking:
            noted.append(trip.id)
            return await super().book(trip)

    def noted_once(result: Result) -> bool:
        count = len(noted)
        noted.clear()
        return count == 1

    case = Case(
        trip, TRIP, participants=[Leaky, bank_app()], fakes=AIRLINE, data=Books, invariants=[noted_once]
    )
    assert case.run().ok
    assert not case.run([Fault.crash_before_commit(Hotel.book)]).ok
    assert case.run([Fault.crash_before_commit(Airline.fly)]).ok
