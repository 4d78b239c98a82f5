"""The failure matrix of sagas that are right: every fault, every pair, and what the report says."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from kasaga import SagaContext, saga
from kasaga.testing import KINDS, Case, Fault, Report, Result, leaves_no_trace, matrix, run, simulate, world
from kasaga.testing.report import as_text
from kasaga.wording import Paint
from testing.bookings import (
    AIRLINE,
    SERVED,
    Airline,
    Bank,
    Booking,
    Books,
    Bus,
    HotelService,
    Trip,
    bank_app,
    instead,
    trip,
    writes,
)

TRIP = Trip(id="t-1")


@pytest.fixture(scope="module")
def report() -> Report:
    return matrix(trip, TRIP, **SERVED)


def test_every_fault_at_every_step_holds(report: Report) -> None:
    assert report.ok, report
    assert [str(row) for row in report.rows] == ["1 hotel.book", "2 bank.charge", "3 airline.fly"]
    assert all(report.cells[row, kind] is not None for row in report.rows for kind in KINDS)
    assert report.plain.value == Booking(number=1)


def test_how_each_fault_ends(report: Report) -> None:
    ends = {
        kind: {cell.state for row in report.rows if (cell := report.cells[row, kind]) is not None}
        for kind in KINDS
    }
    done = {"duplicated", "slow_reply", "crash_before_commit", "crash_after_commit", "restart", "paused"}
    stuck = {"undo_fails"}
    assert {kind for kind, states in ends.items() if states == {"COMPLETED"}} == done
    assert {kind for kind, states in ends.items() if states == {"STUCK"}} == stuck
    assert {kind for kind, states in ends.items() if states == {"COMPENSATED"}} == set(KINDS) - done - stuck


def test_pairs_meet_two_faults_each(report: Report) -> None:
    assert len(report.pairs) > 100
    assert all(len(result.struck) == 2 for result in report.pairs)
    assert report.omitted == 0
    both = {frozenset(fault.kind for fault in result.struck) for result in report.pairs}
    assert frozenset({"crash_after_commit", "refused"}) in both
    assert frozenset({"undo_fails", "timeout_happened"}) in both


def test_what_each_fault_does_is_what_it_says(report: Report) -> None:
    def cell(kind: str) -> Result:
        found = report.cells[report.rows[1], kind]
        assert found is not None
        return found

    def outcomes(kind: str) -> list[tuple[str, str]]:
        return [(each.kind, each.outcome) for each in cell(kind).handled if each.step == "2"]

    assert outcomes("refused") == [("command", "refused")]
    assert outcomes("failed") == [("command", "failed")] * 3 + [("undo", "nothing")]
    assert outcomes("timeout_happened") == [("command", "done")] * 3 + [("undo", "undone")]
    assert outcomes("timeout_not_happened") == [("undo", "nothing")]
    assert outcomes("late_command") == [("undo", "nothing")] + [("command", "refused")] * 3
    assert outcomes("crash_before_commit") == [("command", "died"), ("command", "done")]
    assert outcomes("duplicated") == [("command", "done")] * 2
    assert outcomes("undo_crashes")[-2:] == [("undo", "died"), ("undo", "undone")]
    assert outcomes("undo_duplicated")[-2:] == [("undo", "undone")] * 2
    died = [each for each in cell("crash_after_commit").handled if each.outcome == "died"]
    assert [each.stands for each in died] == [True]
    assert cell("restart").ran("bank.charge") == 1
    assert cell("cancelled").code == "KSG-257"
    stuck = cell("undo_fails")
    assert (stuck.code, bool(stuck.reason), bool(stuck.remedy)) == ("KSG-220", True, True)


def test_a_refusal_of_the_handler_itself() -> None:
    result = run(trip, Trip(id="t-1", price=1000), **SERVED)
    assert (result.state, result.ok) == ("COMPENSATED", True)
    assert "too poor" in result.reason
    assert [type_ for type_ in ("hotel.book", "hotel.cancel") if result.ran(type_)] == [
        "hotel.book",
        "hotel.cancel",
    ]


def test_a_handler_that_breaks_is_rolled_back() -> None:
    def broken(trip: Trip, tx: Any) -> Booking:
        tx.connection.seats.append(trip.id)
        raise KeyError("row")

    result = run(
        trip,
        TRIP,
        participants=[HotelService, bank_app()],
        fakes={**AIRLINE, Airline.fly: broken},
        data=Books,
        invariants=[leaves_no_trace],
    )
    assert (result.state, result.violations) == ("COMPENSATED", [])
    assert "airline.fly failed" in result.reason


def test_steps_that_only_a_failure_brings_have_their_rows() -> None:
    report = matrix(instead, TRIP, pairs=False)
    assert report.ok, report
    assert [str(row) for row in report.rows] == [
        "1 airline.fly",
        "2 hotel.book",
        "2 bus.ride (after 1 refused)",
        "3 hotel.book (after 1 refused)",
    ]
    bus = report.cells[report.rows[2], "refused"]
    assert bus is not None
    assert bus.faults == (Fault.refused("1"), Fault.refused("2"))
    assert bus.state == "COMPENSATED"


def test_steps_without_compensation_are_named() -> None:
    report = matrix(writes, TRIP, pairs=False)
    assert report.ok, report
    assert "left behind when a saga is undone: post.write" in str(report)
    timed_out = report.cells[report.rows[0], "timeout_happened"]
    assert timed_out is not None
    assert (timed_out.state, timed_out.code) == ("STUCK", "KSG-221")
    assert report.cells[report.rows[0], "undo_fails"] is None


def test_the_table_fits_its_terminal(report: Report) -> None:
    for width in (60, 80, 200):
        lines = as_text(report, width=width)
        table = [line for line in lines if line.startswith((" ", "1 ", "2 ", "3 "))]
        assert max(map(len, table)) <= width
        assert sum(line.count(" undone") + line.count(" done") for line in table) >= 42
    painted = "\n".join(as_text(report, width=200, paint=Paint(colours=True)))
    assert "\x1b[32mdone" in painted


def test_the_page_stands_alone(report: Report) -> None:
    page = report.html()
    assert page.startswith("<!doctype html>")
    assert not re.search(r"(src|href)=\"(?!#)|url\(|@import|<script|http", page)
    anchors = set(re.findall(r'id="([^"]+)"', page))
    links = set(re.findall(r'href="#([^"]+)"', page))
    assert len(links) == 3 * len(KINDS)
    assert links <= anchors
    assert "KSG-220" in page


def test_the_page_escapes_what_participants_say() -> None:
    def rude(trip: Trip) -> Booking:
        raise RuntimeError("<script>alert(1)</script>")

    report = matrix(instead, TRIP, fakes={Bus.ride: rude}, pairs=False)
    assert "&lt;script&gt;" in report.html()
    assert "<script" not in report.html()


def test_a_week_of_sleep_takes_no_time() -> None:
    @saga("patient")
    async def patient(ctx: SagaContext, asked: Trip) -> None:
        await ctx.sleep(7 * 24 * 3600)
        await ctx.use(Bank).charge(asked)

    result = run(patient, TRIP, faults=[Fault.slow_reply(Bank.charge)])
    assert result.state == "COMPLETED"
    assert result.took.total_seconds() > 7 * 24 * 3600
    assert result.turns < 50


def test_a_saga_that_never_ends_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world, "MOST_TURNS", 500)

    @saga("restless")
    async def restless(ctx: SagaContext, asked: Trip) -> None:
        while True:
            await ctx.sleep(3600)

    [violation] = run(restless, TRIP).violations
    assert "comes to no end: RUNNING" in violation


def add(one: int, other: int) -> int:
    return one + other


def test_functions_of_the_context_run() -> None:
    @saga("sums")
    async def sums(ctx: SagaContext, asked: Trip) -> Booking:
        await ctx.use(Bank).charge(asked)
        return Booking(number=await ctx.run(add, 1, 2))

    result = run(sums, TRIP, faults=[Fault.restart(Bank.charge)])
    assert result.value == Booking(number=3)


def test_in_an_event_loop() -> None:
    async def main() -> Result:
        return run(trip, TRIP, **SERVED)

    assert asyncio.run(main()).state == "COMPLETED"


def test_the_timeline_tells_the_story() -> None:
    result = run(trip, TRIP, faults=[Fault.timeout_happened(Bank.charge)], **SERVED)
    assert "bank.charge" in result.timeline
    assert "no answer" in result.timeline
    assert "COMPENSATED" in str(result)


def test_one_seed_is_one_run() -> None:
    case = Case(trip, TRIP, **SERVED)
    first, second = case.simulate(25, seed=11), case.simulate(25, seed=11)
    assert first.ok, first
    assert (first.states, first.faults) == (second.states, second.faults)
    assert first.faults.total() > 10
    assert str(first).startswith("trip: 25 runs with the seeds 11 to 35 in ")
    assert simulate(trip, TRIP, seeds=1, **SERVED).seed != simulate(trip, TRIP, seeds=1, **SERVED).seed
