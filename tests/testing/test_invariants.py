"""Each built-in invariant can fail: with a bug planted in Kasaga, or on a result that was tampered with."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from kasaga.testing import Fault, Result, run
from kasaga.testing.invariants import check
from kasaga_participant.inbox import algorithm
from kasaga_participant.inbox.memory import MemoryInbox
from kasaga_participant.inbox.rows import NewRow, Rules, Work
from testing.bookings import SERVED, Airline, Bank, Hotel, Trip, trip

TRIP = Trip(id="t-1")


def undone() -> Result:
    result = run(trip, TRIP, faults=[Fault.refused(Airline.fly)], **SERVED)
    assert (result.state, result.violations) == ("COMPENSATED", [])
    return result


def test_an_inbox_without_a_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = algorithm._claims  # pyright: ignore[reportPrivateUsage]

    def no_tombstones(works: Iterable[Work], rules: Rules, now: float) -> tuple[NewRow, ...]:
        works = list(works)
        own = {work.id for work in works}
        return tuple(row for row in claims(works, rules, now) if row.id in own)

    monkeypatch.setattr(algorithm, "_claims", no_tombstones)
    result = run(trip, TRIP, faults=[Fault.late_command(Bank.charge)], **SERVED)
    assert "COMPENSATED, and bank.charge (step 2) stands" in result.violations
    assert "bank.charge (step 2) took effect" not in str(result.violations)


def test_a_participant_that_forgets_what_it_did(monkeypatch: pytest.MonkeyPatch) -> None:
    async def always(inbox: MemoryInbox, row: NewRow, mine: asyncio.Event) -> bool:
        inbox._claims[row.id] = mine  # pyright: ignore[reportPrivateUsage]
        return True

    monkeypatch.setattr(MemoryInbox, "claim", always)
    result = run(trip, TRIP, faults=[Fault.duplicated(Hotel.book)])
    assert "hotel.book (step 1) took effect 2 times" in result.violations


def test_undone_in_another_order_and_sent_again() -> None:
    result = undone()
    backwards = replace(result, records=list(reversed(result.records)))
    found = check(backwards, ())
    assert "its steps were undone in the order 1, 2" in found
    assert any("was sent again after its outcome was known" in text for text in found)


def test_a_step_that_was_never_undone() -> None:
    result = undone()
    result.folded.steps["1"].undo_how = ""
    assert check(result, ()) == ["hotel.book (step 1) is done, and was never undone"]
    result.folded.steps["1"].outcome = "unknown"
    assert "hotel.book (step 1) is unknown, and was never cleared" in check(result, ())


def test_completed_without_its_effects() -> None:
    result = run(trip, TRIP, **SERVED)
    nothing = replace(result, handled=())
    assert "COMPLETED, and bank.charge (step 2) doesn't stand" in check(nothing, ())
    result.folded.steps["2"].outcome = "refused"
    assert "COMPLETED, and bank.charge (step 2) stands, though it is refused" in check(result, ())


def test_stuck_in_silence() -> None:
    stuck = run(
        trip, TRIP, faults=[Fault.timeout_happened(Bank.charge), Fault.undo_fails(Bank.charge)], **SERVED
    )
    assert (stuck.state, stuck.violations) == ("STUCK", [])
    assert check(replace(stuck, remedy=""), ()) == ["it is STUCK without a reason and a remedy"]


def test_an_end_that_moves() -> None:
    moved = replace(undone(), moved=True)
    assert check(moved, ()) == ["what came late has changed its end to COMPENSATED"]
