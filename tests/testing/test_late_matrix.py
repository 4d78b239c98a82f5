"""Sagas whose commands are answered later, through the whole failure matrix."""

from __future__ import annotations

from typing import Any, Protocol

import pytest
from pydantic import BaseModel

from kasaga import SagaContext, saga
from kasaga.testing import Fault, Later, leaves_no_trace, matrix, run, simulate
from kasaga_wire import command, compensation, participant


class Trip(BaseModel):
    id: str = "oslo"


class Approval(BaseModel):
    by: str


@participant("approvals")
class Approvals(Protocol):
    @command
    async def approve(self, trip: Trip) -> Approval: ...

    @compensation(approve)
    async def withdraw(self, trip: Trip, approval: Approval | None) -> None: ...


@participant("hotels")
class Hotels(Protocol):
    @command
    async def book(self, trip: Trip) -> Approval: ...

    @compensation(book)
    async def cancel(self, trip: Trip, booked: Approval | None) -> None: ...


@saga("travel")
async def travel(ctx: SagaContext, trip: Trip) -> str:
    await ctx.use(Hotels).book(trip)
    approval = await ctx.use(Approvals, timeout=5).approve(trip)
    return approval.by


class Books:
    def __init__(self) -> None:
        self.open: list[str] = []


def accept(trip: Trip, tx: Any) -> None:
    tx.connection.open.append(trip.id)


def withdraw(trip: Trip, approval: Approval | None, tx: Any) -> None:
    tx.connection.open.remove(trip.id)


def fakes(heartbeat: float | None, after: float = 120.0) -> Any:
    later = Later(lambda trip: Approval(by="anna"), after=after, heartbeat=heartbeat, act=accept)
    return {Approvals.approve: later, Approvals.withdraw: withdraw}


@pytest.mark.parametrize("heartbeat", [None, 20.0])
def test_a_late_answer_holds_whatever_goes_wrong(heartbeat: float | None) -> None:
    report = matrix(travel, Trip(), fakes=fakes(heartbeat), data=Books, invariants=[leaves_no_trace])
    assert report.ok, report
    assert (report.plain.state, report.plain.value) == ("COMPLETED", "anna")
    assert report.plain.took.total_seconds() >= 120


def test_one_that_comes_too_late_is_undone() -> None:
    result = run(travel, Trip(), fakes=fakes(None, after=5_000), data=Books, invariants=[leaves_no_trace])
    assert (result.ok, result.state, result.data.open) == (True, "COMPENSATED", [])


def test_by_chance() -> None:
    report = simulate(
        travel, Trip(), seeds=30, seed=1, fakes=fakes(20.0), data=Books, invariants=[leaves_no_trace]
    )
    assert report.ok, report


def test_a_restart_while_it_waits() -> None:
    result = run(travel, Trip(), fakes=fakes(20.0), data=Books, faults=[Fault.restart(Approvals.approve)])
    assert (result.ok, result.state) == (True, "COMPLETED")
